"""`audio-r1 kernels`: what it says of kernels that are right, wrong, or do not compile, and where no Metal is.

Where it needs a GPU it runs in the simulator, on a few cases."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mlx.core as mx
import pytest
from click.testing import CliRunner, Result

from mlx_audio_r1.cli.kernels_table import bench_head, bench_line
from mlx_audio_r1.cli.main import cli
from mlx_audio_r1.kernels import found, proof
from mlx_audio_r1.kernels.bench import Row
from mlx_audio_r1.kernels.choice import configured
from mlx_audio_r1.kernels.proof import Case, Proof, proofs
from mlx_audio_r1.kernels.trial import tried
from mlx_audio_r1.kernels.verify import MOST_FAILURES, verify
from tests.helpers import run
from tests.kernels.grid import off_metal
from tests.metalsim import options
from tests.metalsim.simulate import Simulation

NAMES = tuple(proofs())


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A cache folder of one's own, and nothing left of the switch that the command sets."""
    monkeypatch.setenv("AUDIO_R1_CACHE", str(tmp_path))
    monkeypatch.delenv("AUDIO_R1_KERNELS", raising=False)
    with configured(""):
        yield tmp_path


def command(*arguments: str) -> Result:
    return CliRunner().invoke(cli, ["kernels", *arguments])


def few(of: Proof, number: int) -> list[Case]:
    """Of a size that every list has; the same ones everywhere, because compiling takes longest."""
    return [case for case in of.cases() if case.name.startswith(("33x5", "33 frames"))][:number]


def edited(simulation: Simulation, kernel: str, old: str, new: str, **more: Any) -> Any:
    """The simulator with one text of a kernel in place of another."""
    source = simulation.kernels[kernel].source
    assert old in source
    return options(edits={source: source.replace(old, new)}, **more)


@pytest.mark.parametrize("name", NAMES)
def test_an_op_holds_on_a_few_of_its_cases(simulation: Simulation, name: str) -> None:
    cases = few(proofs()[name], 2)
    result = verify(proofs()[name], cases)
    assert result.failures == [] and result.passed and result.cases == len(cases) == 2
    assert result.worst is not None and result.worst.share <= 1
    assert result.gradients == (2 if proofs()[name].gradient else 0)
    assert simulation.launches and not [f for launch in simulation.launches for f in launch.findings]


@pytest.mark.parametrize("name", sorted({*NAMES} - {"sample"}))  # whose span depends on the numbers
def test_an_op_s_bytes_are_those_that_are_counted(simulation: Simulation, name: str) -> None:
    """But for scalars (no other buffer of these cases has 4 bytes), strides and padding, which none counts."""
    op = proofs()[name].op
    [case] = few(proofs()[name], 1)
    mx.eval(op.launch(*case.arrays, **case.options))
    counted = sum(t.read + t.written for launch in simulation.launches for buffer, t in launch.traffic.items()
                  if t.size > 4 and not buffer.endswith(("_strides", "padding")))
    assert counted == op.bytes(*case.arrays, **case.options)


@pytest.mark.long
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("name", NAMES)
def test_an_op_holds_on_all_its_cases_but_the_largest(simulation: Simulation, name: str) -> None:
    of = proofs()[name]
    result = verify(of, (case for case in of.cases() if sum(x.size for x in case.arrays) < 20_000))
    assert result.failures == [] and result.cases > 50


@pytest.mark.parametrize("name", NAMES)
def test_cases_have_names_of_their_own_and_fit(name: str) -> None:
    of = proofs()[name]
    cases, shapes = list(of.cases()), list(of.shapes())
    assert of.op.name == name and shapes
    assert len({case.name for case in cases}) == len(cases)
    assert len({case.name for case in shapes}) == len(shapes)
    for case in [*few(of, 3), *shapes]:
        assert of.op.fits(*case.arrays, **case.options), case.name
        assert of.op.bytes(*case.arrays, **case.options) > 0


@pytest.mark.parametrize("name", NAMES)
def test_made_up_inputs_agree_between_kernel_and_plain_operations(simulation: Simulation, name: str) -> None:
    for case in few(proofs()[name], 2):
        trial = tried(proofs()[name].op, case.arrays, case.options)
        assert trial.why is None and trial.compile_ms is not None, case.name


def test_verify_says_right_and_keeps_it(simulation: Simulation, home: Path) -> None:
    done = command("--verify", "--op", "add_rms_norm", "--case", "33x5-float32", "--case", "33x5-float16")
    assert done.exit_code == 0 and done.stderr == ""
    assert done.stdout.startswith("add_rms_norm") and " right " in done.stdout and "2 cases" in done.stdout
    assert not list(home.iterdir())  # two cases are no proof
    asked = json.loads(command("--verify", "--op", "add_rms_norm", "--case", "33x5-float32", "--json").stdout)
    assert asked["place"] == found.place() and asked["ops"][0]["passed"] is True
    worst = asked["ops"][0]["worst"]
    assert worst["what"].startswith("output") and 0 <= worst["error"] <= worst["bound"] < 1e-5


@pytest.mark.long
@pytest.mark.timeout(1200)
def test_an_op_verified_whole_is_auto_from_then_on(simulation: Simulation, home: Path) -> None:
    assert command("--op", "log_mel", "--json").stdout.count('"mode": "off"') == 1
    assert command("--verify", "--op", "log_mel").exit_code == 0
    [row] = json.loads(command("--op", "log_mel", "--json").stdout)["ops"]
    assert row["mode"] == "auto" and row["verified"] is True


def test_verify_names_the_case_of_a_wrong_number(simulation: Simulation, home: Path) -> None:
    arguments = ("--verify", "--op", "add_rms_norm", "--case", "33x5-float32", "--case", "33x5-float16")
    assert command(*arguments).exit_code == 0
    with edited(simulation, "add_rms_norm", "+ eps", "+ 2.0f * eps + 0.01f"):
        done = command(*arguments)
    assert done.exit_code == 1
    assert "add_rms_norm" in done.stdout and "WRONG" in done.stdout and "2 cases" in done.stdout
    assert "  33x5-float32: output 1 is off by 0.0" in done.stdout and "33x5-float16" in done.stdout


def test_an_endless_error_is_json_too(simulation: Simulation, home: Path) -> None:
    arguments = ("--verify", "--op", "add_rms_norm", "--case", "33x5-float32", "--json")
    command(*arguments)
    with edited(simulation, "add_rms_norm", "+ eps", "* 0.0f - eps"):  # the root of less than nothing
        done = command(*arguments)
    [op] = json.loads(done.stdout)["ops"]
    assert op["worst"]["error"] is None and op["passed"] is False and op["failures"][0]["runs"] is True


def test_verify_says_what_does_not_compile(simulation: Simulation, home: Path) -> None:
    arguments = ("--verify", "--op", "qkv_rope", "--op", "sample", "--case", "33x5-float32")
    assert command(*arguments).exit_code == 0
    with edited(simulation, "qkv_rope", ";", "; nonsense();", lint=False):
        done = command(*arguments)
    assert done.exit_code == 1
    lines = done.stdout.splitlines()
    assert lines[0].startswith("qkv_rope") and "WRONG" in lines[0] and "nothing compared" in lines[0]
    assert lines[1].startswith("  33x5-float32: ") and "nonsense" in lines[1]
    assert lines[2].startswith("sample") and "right" in lines[2]


def test_a_kernel_that_is_wrong_everywhere_is_given_up(simulation: Simulation) -> None:
    of = proofs()["qkv_rope"]
    verify(of, few(of, 1))
    with edited(simulation, "qkv_rope", ";", "; nonsense();", lint=False):
        result = verify(of)
    assert len(result.failures) == result.cases == MOST_FAILURES


def test_a_wrong_gradient_is_found(simulation: Simulation) -> None:
    of = proofs()["token_statistics"]
    cases = few(of, 2)
    assert verify(of, cases).passed
    with edited(simulation, "token_statistics_vjp", "d_entropy[", "d_logprob["):
        result = verify(of, cases)
    assert {failure.why.split(" is off")[0] for failure in result.failures} == {"gradient 0"}


@pytest.mark.parametrize(("error", "bound", "holds"), [(0.0, 0.0, True), (1.0, 1.0, True), (1.1, 1.0, False),
                                                       (float("inf"), 1.0, False), (1e-9, 0.0, False)])
def test_a_verdict(error: float, bound: float, holds: bool) -> None:
    assert (proof.Verdict("", error, bound).share <= 1) is holds


def test_errors_of_what_is_not_finite() -> None:
    want = proof.exact(mx.array([1.0, -mx.inf]))
    assert proof.error(mx.array([1.5, -mx.inf]), want) == 0.5
    for wrong in ([1.0, mx.inf], [1.0, 1.0], [mx.nan, -mx.inf], [1.0], [mx.inf, -mx.inf]):
        assert proof.error(mx.array(wrong), want) == float("inf")


def test_a_proof_that_passed_makes_auto_the_default(simulation: Simulation, home: Path) -> None:
    from mlx_audio_r1.cli.startup import switch_kernels
    from mlx_audio_r1.kernels.choice import OPS, current
    from mlx_audio_r1.kernels.listing import record

    switch_kernels()
    assert current().mode("sample") == "off" and OPS["sample"].is_off
    record("sample", True)
    record("qkv_rope", False)
    switch_kernels()
    assert current().mode("sample") == "auto" and current().mode("qkv_rope") == "off"
    assert not OPS["sample"].is_off and OPS["qkv_rope"].is_off
    record("sample", False)
    switch_kernels()
    assert current().mode("sample") == "off"


def test_the_list(simulation: Simulation, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = home / "kernels.json"
    shape = "bfloat16[1,8192] eps=between-0-and-1"
    file.write_text(json.dumps({
        "winners": {f"{found.place()} add_rms_norm {shape}": {"kernel": True, "ratio": 1.25},
                    f"another-place add_rms_norm {shape}": {"kernel": False, "ratio": 0.5}},
        "verified": {found.place(): {"add_rms_norm": True}}}))
    done = command("--op", "add_rms_norm", "--op", "qkv_rope")
    assert done.exit_code == 0 and len(done.stderr.splitlines()) == 1 and "--verify" in done.stderr
    _, _, *lines = done.stdout.splitlines()
    assert lines[0].split()[:3] == ["add_rms_norm", "auto", "yes"] and lines[0].endswith("runs")
    assert lines[1].split(maxsplit=2) == ["kernel", "1.25x", shape]
    assert lines[2].split()[:2] == ["qkv_rope", "off"] and "not yet" in lines[2] and len(lines) == 3
    monkeypatch.setenv("AUDIO_R1_KERNELS", "add_rms_norm=on")
    with edited(simulation, "add_rms_norm", ";", "; nonsense();", lint=False):
        rows = json.loads(command("--op", "add_rms_norm", "--json").stdout)["ops"]
    assert rows[0]["mode"] == "on" and rows[0]["state"] == "does not compile" and "nonsense" in rows[0]["why"]
    with edited(simulation, "add_rms_norm", "+ eps", "+ 30.0f"):
        assert "wrong numbers: output 1 is off by" in command("--op", "add_rms_norm").stdout


def test_the_bench(simulation: Simulation, home: Path) -> None:
    arguments = ("--bench", "--op", "add_rms_norm", "--case", "one token")
    head, columns, line = command(*arguments).stdout.splitlines()
    assert "unknown" in head and "GB/s" in columns and line.startswith("add_rms_norm") and "unknown" in line
    shown = json.loads(command(*arguments, "--json").stdout)
    [row] = shown["shapes"]
    assert shown["bandwidth"] is row["share_of_bandwidth"] is None and row["bytes"] == 5 * 5120 * 2
    assert row["ratio"] == row["plain"] / row["kernel"]
    assert row["gigabytes_a_second"] == row["bytes"] / row["kernel"] / 1e9
    assert command("--bench", "--case", "nothing").exit_code == 2


def test_the_share_of_the_bandwidth() -> None:
    row = Row("op", "shape", plain=2e-3, kernel=1e-3, bytes=200_000_000)
    assert row.ratio == 2 and row.gigabytes_a_second == pytest.approx(200)
    assert row.share(None) is None and row.share(400) == pytest.approx(0.5)
    assert bench_line(row, 400).split() == ["op", "shape", "2000", "us", "1000", "us", "2.00x", "200.0", "50%"]
    assert "unknown" in next(bench_head(None)) and "400 GB/s" in next(bench_head(400.0))


@off_metal
@pytest.mark.parametrize("asked", ["--verify", "--bench"])
def test_without_metal_one_line_says_how_kernels_are_proven(asked: str) -> None:
    done = run("kernels", asked)
    assert done.returncode == 1 and done.stdout == b""
    [line] = done.stderr.decode().splitlines()
    assert "no Metal" in line and "simulator" in line and "pytest tests/kernels" in line


@pytest.mark.parametrize(("switch", "says"), [("fast", "'fast' is not a mode of kernels; use"),
                                              ("nothing=on", "there is no op 'nothing'; there are")])
def test_a_wrong_switch_is_one_line(switch: str, says: str) -> None:
    for arguments in (("kernels",), ("ask", "no-such.wav")):
        done = run(*arguments, env={"AUDIO_R1_KERNELS": switch})
        [line] = done.stderr.decode().splitlines()
        assert done.returncode == 1 and line.startswith(f"Error: AUDIO_R1_KERNELS: {says}")


@pytest.mark.parametrize(("arguments", "says"), [
    (["--verify", "--bench"], "Either"), (["--case", "x"], "--verify"), (["--op", "none"], "none"),
])
def test_wrong_use(arguments: list[str], says: str) -> None:
    done = command(*arguments)
    assert done.exit_code == 2 and says in done.stderr


def test_a_case_that_is_not_there(simulation: Simulation, home: Path) -> None:
    done = command("--verify", "--case", "9x9-float8")
    assert done.exit_code == 2 and "9x9-float8" in done.stderr
