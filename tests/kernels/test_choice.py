"""The switch, the fallback and the measurement, on small ops made here."""

from __future__ import annotations

import json
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import mlx.core as mx
import pytest

from mlx_audio_r1 import __version__
from mlx_audio_r1.errors import AudioR1Error
from mlx_audio_r1.kernels import choice
from mlx_audio_r1.kernels.choice import OPS, Op, configured, register
from mlx_audio_r1.kernels.trial import disagreement
from tests.kernels.grid import off_metal
from tests.metalsim.simulate import Simulation

X = mx.array([1.0, 2.0, 3.0])


@dataclass
class Sides:
    """Twice x, by two ways that count their calls and can be slow."""

    calls: list[str] = field(default_factory=list)
    slow: str = ""
    first: float = 0.0  # seconds of the very first call

    def side(self, name: str) -> Any:
        def run(x: mx.array, **_: float) -> mx.array:
            time.sleep(0 if self.calls else self.first)
            self.calls.append(name)
            if name == self.slow:
                time.sleep(0.002)
            return 2 * x

        return run


@pytest.fixture
def sides() -> Sides:
    return Sides()


@pytest.fixture
def double(sides: Sides) -> Iterator[Op]:
    op = register(Op("double", sides.side("reference"), sides.side("kernel"), lambda x, **_: x.size > 1,
                     lambda x: 2 * x.nbytes))
    yield op
    del OPS["double"]


def last(op: Op, sides: Sides, x: mx.array = X) -> str:
    assert mx.array_equal(op(x), 2 * x)
    return sides.calls[-1]


@pytest.mark.parametrize(("switch", "runs"), [
    ("off", "reference"), ("on", "kernel"), ("", "reference"), ("off,double=on", "kernel"),
    ("double=off,on", "reference"), ("on, double=off", "reference"),
])
def test_the_switch_is_for_all_ops_and_for_one(simulation: Simulation, double: Op, sides: Sides, switch: str,
                                               runs: str) -> None:
    with configured(switch):
        assert last(double, sides) == runs


def test_configure_stays(simulation: Simulation, double: Op, sides: Sides) -> None:
    with configured("off"):
        choice.configure("on")
        assert last(double, sides) == "kernel"
    assert last(double, sides) == "reference"


@pytest.mark.parametrize(("switch", "says"), [("fast", "'fast' is not a mode of"), ("none=on", "no op 'none'")])
def test_a_wrong_switch_is_refused(switch: str, says: str) -> None:
    with pytest.raises(AudioR1Error, match=says):
        choice.configure(switch)


@off_metal
def test_without_metal_or_where_it_does_not_fit_plain_operations_run(double: Op, sides: Sides) -> None:
    with configured("on"):
        assert last(double, sides) == "reference"


def test_what_does_not_fit_runs_plain_operations(simulation: Simulation, double: Op, sides: Sides) -> None:
    with configured("on"):
        assert last(double, sides, X[:1]) == "reference"


def test_a_broken_kernel_falls_back_with_one_warning(simulation: Simulation) -> None:
    def launch(x: mx.array) -> mx.array:
        built = mx.fast.metal_kernel(name="broken", input_names=["x"], output_names=["out"],
                                     source="out[thread_position_in_grid.x] = nonsense;")
        return built(inputs=[x], output_shapes=[x.shape], output_dtypes=[x.dtype], grid=(x.size, 1, 1),
                     threadgroup=(32, 1, 1))[0]

    op = register(Op("broken", lambda x: 2 * x, launch, lambda x: True, lambda x: 2 * x.nbytes))
    try:
        with configured("on") as state:
            with pytest.warns(RuntimeWarning, match="the kernel broken does not run on this device") as caught:
                assert mx.array_equal(op(X), 2 * X)
            assert len(caught) == 1
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                assert mx.array_equal(op(X), 2 * X)
                assert mx.array_equal(op(mx.zeros(100)), mx.zeros(100))
            assert "nonsense" in state.broken["broken"]
    finally:
        del OPS["broken"]


def test_a_real_kernel_broken_on_purpose_falls_back(simulation: Simulation) -> None:
    from mlx_audio_r1.kernels.add_rms_norm import add_rms_norm, reference
    from tests.metalsim import options

    x, weight = mx.ones((2, 6)), mx.ones(6)
    with configured("on"):
        add_rms_norm(x, x, weight)
        source = simulation.kernels["add_rms_norm"].source
    broken = options(lint=False, edits={source: source + "this is no Metal"})
    with configured("on"), broken, pytest.warns(RuntimeWarning, match="add_rms_norm"):
        for got, want in zip(add_rms_norm(x, x, weight), reference(x, x, weight, eps=1e-6), strict=True):
            assert mx.array_equal(got, want)


def test_made_up_inputs_that_memory_does_not_hold_are_no_crash(simulation: Simulation, double: Op,
                                                               sides: Sides) -> None:
    def made_up(*_: mx.array) -> list[mx.array]:
        raise RuntimeError("[metal::malloc] Attempting to allocate too much")

    op = replace(double, made_up=made_up)
    with configured("on"), pytest.warns(RuntimeWarning, match="Attempting to allocate"):
        assert last(op, sides) == "reference"


@pytest.mark.parametrize(("wrong", "says"), [
    (lambda x: 2 * x + 0.01, "off by 0.01"), (lambda x: x / (x - x), "off by inf"),
    (lambda x: (x - x) / (x - x), "off by inf"), (lambda x: (2 * x).astype(mx.float16), "is mlx.core.float16"),
    (lambda x: (2 * x)[1:], r"\(2,\), not .*\(3,\)"),
])
def test_a_kernel_with_other_numbers_falls_back_with_one_warning(simulation: Simulation, wrong: Any,
                                                                 says: str) -> None:
    op = register(Op("wrong", lambda x: 2 * x, wrong, lambda x: True, lambda x: 2 * x.nbytes))
    try:
        with configured("on") as state:
            with pytest.warns(RuntimeWarning, match=f"wrong gives other numbers .* {says}") as caught:
                assert mx.array_equal(op(X), 2 * X) and mx.array_equal(op(X[1:]), 2 * X[1:])
            assert len(caught) == 1 and list(state.broken) == ["wrong"]
    finally:
        del OPS["wrong"]


@pytest.mark.parametrize(("dtype", "off", "right"), [
    (mx.float32, 1e-4, True), (mx.float32, 1e-2, False), (mx.bfloat16, 0.05, True), (mx.bfloat16, 0.5, False),
])
def test_roundings_of_the_dtype_are_no_disagreement(dtype: mx.Dtype, off: float, right: bool) -> None:
    plain = mx.array([-1.0, mx.inf, 1.0]).astype(dtype)
    assert (disagreement([plain + off], [plain]) is None) is right


def test_a_rough_reference_is_not_what_a_kernel_is_compared_with(simulation: Simulation, double: Op) -> None:
    rough = replace(double, reference=lambda x, **_: 2.4 * x)
    with configured("on"), pytest.warns(RuntimeWarning, match="other numbers"):
        rough(X)
    with configured("on"):
        assert mx.array_equal(replace(rough, measure=double.reference)(X), 2 * X)


def test_noughts_are_no_small_numbers() -> None:
    small = mx.full(4, 1e-4)
    assert disagreement([small * 0], [small]) and not disagreement([small], [small])


def test_the_time_to_compile_is_kept(simulation: Simulation, double: Op, sides: Sides) -> None:
    sides.first = 0.02
    with configured("on") as state:
        double(X)
    assert 15 < state.compile_ms["double"] < 200  # a sleep of 20 ms, on a busy machine


@pytest.mark.parametrize(("slow", "winner"), [("reference", "kernel"), ("kernel", "reference")])
def test_auto_takes_the_faster_and_keeps_it(simulation: Simulation, double: Op, sides: Sides, tmp_path: Path,
                                            slow: str, winner: str) -> None:
    sides.slow, file = slow, tmp_path / "cache" / "kernels.json"
    with configured("auto", file):
        assert last(double, sides) == winner
        measured = len(sides.calls)
        assert last(double, sides) == winner
        assert len(sides.calls) == measured + 1
    [(key, row)] = json.loads(file.read_text())["winners"].items()
    assert f"mlx-{mx.__version__} audio-r1-{__version__} double float32[4]" in key
    assert row["kernel"] is (winner == "kernel")
    assert (row["ratio"] > 1) is row["kernel"]
    assert list(file.parent.iterdir()) == [file]
    sides.calls.clear()
    sides.slow = winner  # another process: it reads, and does not measure
    with configured("auto", file):
        assert last(double, sides) == winner
        assert len(sides.calls) <= 5  # those of the trial


@pytest.mark.parametrize("damage", ["", "{", "[]", '{"a": 1}', "\xff", '{"winners": [], "verified": 1}',
                                    '{"winners": {"": {"kernel": "yes", "ratio": 1.0}}}'])
def test_a_damaged_file_is_measured_again(simulation: Simulation, double: Op, sides: Sides, tmp_path: Path,
                                          damage: str) -> None:
    file = tmp_path / "kernels.json"
    file.write_bytes(damage.encode("latin-1"))
    sides.slow = "reference"
    with configured("auto", file):
        assert last(double, sides) == "kernel"
    assert [row["kernel"] for row in json.loads(file.read_text())["winners"].values()] == [True]


def test_winners_of_another_process_stay(simulation: Simulation, double: Op, tmp_path: Path) -> None:
    file = tmp_path / "kernels.json"
    with configured("auto", file):
        file.write_text('{"winners": {"other": {"kernel": true, "ratio": 2.0}},'
                        ' "verified": {"other": {"x": true}}}')
        double(X)
    kept = json.loads(file.read_text())
    assert len(kept["winners"]) == 2 and kept["verified"] == {"other": {"x": True}}


def test_a_folder_that_cannot_be_written_costs_nothing_else(simulation: Simulation, double: Op, sides: Sides,
                                                            tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with configured("auto", tmp_path / "file" / "kernels.json") as state:
        assert last(double, sides) in ("kernel", "reference")
        assert len(state.found.winners) == 1
    assert (tmp_path / "file").read_text() == ""


def test_sizes_share_a_measurement_up_to_the_next_power_of_two(simulation: Simulation, double: Op) -> None:
    with configured("auto") as state:
        for size in (5, 6, 8, 9, 16):
            double(mx.ones(size))
        assert len(state.found.winners) == 2
        double(mx.ones(5, mx.float16))
        assert len(state.found.winners) == 3


def test_a_cache_that_grows_is_not_measured_at_every_token(simulation: Simulation, double: Op,
                                                           sides: Sides) -> None:
    with configured("auto") as state:
        for tokens in range(200, 520):
            double(mx.ones((1, 8, tokens, 4)))
        assert len(state.found.winners) == 3 and len(state.decided) == 3
        assert len(sides.calls) < 320 + 3 * 60
        for _ in range(2):
            choice._chosen(double, (X,), {})
        assert state.asked.keys() >= {("double", (mx.float32, (3,)))}


def test_options_that_are_not_compiled_in_share_a_measurement(simulation: Simulation, double: Op) -> None:
    with configured("auto") as state:
        for given in ({"top_p": 0.9, "top_k": 50}, {"top_p": 0.8, "top_k": 40}, {"top_p": 0.1, "top_k": 64}):
            double(X, **given)
        assert [key.split(" ", 3)[3] for key in state.found.winners] == [
            "double float32[4] top_k=64 top_p=between-0-and-1"]
        double(X, top_p=1.0, top_k=50)
        assert len(state.found.winners) == 2


def test_what_is_remembered_of_arguments_has_an_end(simulation: Simulation, double: Op,
                                                    monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choice, "MOST_ASKED", 10)
    with configured("on") as state:
        for size in range(2, 40):
            double(mx.ones(size))
        assert len(state.asked) <= 10


@pytest.mark.parametrize("mode", ["on", "auto"])
def test_the_first_call_may_be_in_a_function_being_compiled_or_differentiated(
    monkeypatch: pytest.MonkeyPatch, double: Op, mode: str
) -> None:
    monkeypatch.setattr(mx.metal, "is_available", lambda: True)
    with configured(mode) as state:
        assert mx.array_equal(mx.compile(lambda x: double(x) + 1)(X), 2 * X + 1)
        assert len(state.decided) == 1
    with configured(mode):
        assert mx.grad(lambda x: double(x).sum())(X).tolist() == [2.0, 2.0, 2.0]


def test_every_op_has_its_metal_and_its_reference() -> None:
    for name, op in OPS.items():
        assert op.name == name and callable(op.reference) and callable(op.launch) and callable(op.fits)


def test_no_memory_to_measure_in_leaves_the_plain_operations(simulation: Simulation, tmp_path: Path) -> None:
    calls = 0

    def launch(x: mx.array) -> mx.array:
        nonlocal calls
        calls += 1
        if calls > 3:  # the trial is over, the measuring has begun
            raise RuntimeError("[metal::malloc] Attempting to allocate more than there is")
        return 2 * x

    op = register(Op("large", lambda x: 2 * x, launch, lambda x: True, lambda x: 2 * x.nbytes))
    try:
        with configured("auto", tmp_path / "kernels.json"):
            assert mx.array_equal(op(X), 2 * X) and mx.array_equal(op(X), 2 * X)
            assert calls == 4
        assert not (tmp_path / "kernels.json").exists()
    finally:
        del OPS["large"]
