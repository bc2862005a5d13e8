"""Decode attention over a quantised cache: against float64, in the simulator."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import mlx.core as mx
import numpy as np
import pytest

from mlx_audio_r1.kernels import quantised_attention as op
from mlx_audio_r1.kernels.attention_segments import Affine, Parts, merge, splits_of, why_unsupported
from mlx_audio_r1.kernels.choice import configured
from tests.kernels.attention import DTYPES, Store, attention64, bound, error, exact, normal, packed, plain
from tests.kernels.grid import off_metal
from tests.metalsim import ORDERS, options
from tests.metalsim.simulate import Simulation

FORMS = (Affine(8, 64), Affine(4, 64), Affine(8, 32), Affine(4, 32))
LSE_ERROR = 4e-6  # of sums in float32, of scores of some units
SEGMENT, MERGE = "attention_segment_quantised", "merge_segments"


@pytest.fixture(autouse=True)
def seeded() -> None:
    mx.random.seed(0)


def case(tokens: int, dtype: mx.Dtype = mx.float32, form: Affine = FORMS[0], *, rows: int = 1, length: int = 1,
         heads: tuple[int, int] = (5, 1), dims: int = 128) -> tuple[mx.array, Store, Store, float, Affine]:
    """The arguments of quantised_attention but for padding."""
    keys, values = (packed(normal(rows, heads[1], tokens, dims, dtype=dtype), form) for _ in range(2))
    return normal(rows, heads[0], length, dims, dtype=dtype), keys, values, dims**-0.5, form


def run(side: Any, queries: mx.array, keys: Store, values: Store, scale: float, form: Affine,
        padding: mx.array | None = None) -> tuple[mx.array, mx.array]:
    """One side of the op, the kernel or the plain operations, with the arguments of quantised_attention."""
    arrays = queries, *keys, *values, *([] if padding is None else [padding])
    return side(*arrays, scale=scale, bits=form.bits, group_size=form.group_size)


def launched(*arguments: Any) -> tuple[mx.array, mx.array]:
    return run(op.launch, *arguments)


def holds(arguments: tuple[Any, ...], padding: Sequence[int] | None = None) -> None:
    """Output and logsumexp are as good as they must be."""
    queries, keys, values, scale, form = arguments
    expected, expected_lse = attention64(queries, [(keys, values)], scale, form, padding)
    output, lse = launched(*arguments, None if padding is None else mx.array(padding, mx.int32))
    assert output.dtype == queries.dtype and lse.dtype == mx.float32
    assert error(output, expected) <= bound(plain(*arguments, padding), expected)
    assert error(lse, expected_lse) <= LSE_ERROR


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("tokens", [1, 2, 7, 31, 33, 64])
def test_key_lengths(simulation: Simulation, tokens: int, dtype: mx.Dtype) -> None:
    holds(case(tokens, dtype))
    assert [launch.kernel for launch in simulation.launches] == [SEGMENT]
    assert simulation.last.findings == []


@pytest.mark.long
@pytest.mark.timeout(900)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("tokens", "form"), [(1500, FORMS[0]), (4099, FORMS[1])])
def test_long_caches_of_the_model_s_heads(
    simulation: Simulation, tokens: int, form: Affine, dtype: mx.Dtype
) -> None:
    holds(case(tokens, dtype, form, heads=(40, 8)))
    assert [launch.kernel for launch in simulation.launches] == [SEGMENT, MERGE]


@pytest.mark.long
@pytest.mark.timeout(900)
@pytest.mark.parametrize("rows", [2, 5])
def test_long_ragged_batches(simulation: Simulation, rows: int) -> None:
    holds(case(1500, mx.bfloat16, FORMS[3], rows=rows, length=8, heads=(10, 2)), [0, 1300, 77, 1, 1490][:rows])


@pytest.mark.parametrize("dtype", DTYPES[1:], ids=str)
@pytest.mark.parametrize("form", [*FORMS, Affine(8, 128), Affine(4, 128), Affine(2, 32)], ids=str)
def test_layouts(simulation: Simulation, form: Affine, dtype: mx.Dtype) -> None:
    holds(case(70, dtype, form, heads=(10, 2)))
    assert [launch.kernel for launch in simulation.launches] == [SEGMENT, MERGE]
    assert all(launch.findings == [] for launch in simulation.launches)


@pytest.mark.parametrize("form", FORMS[2:], ids=str)
@pytest.mark.parametrize("tokens", [3, 129])
def test_the_heads_of_the_embedded_model(simulation: Simulation, tokens: int, form: Affine) -> None:
    holds(case(tokens, mx.float16, form, rows=2, length=3, heads=(6, 2), dims=32), [0, 0])
    assert simulation.last.findings == []


@pytest.mark.parametrize("dims", [64, 96, 256])
def test_other_heads(simulation: Simulation, dims: int) -> None:
    holds(case(9, form=FORMS[2], heads=(3, 3), dims=dims, length=2))


@pytest.mark.parametrize("rows", [1, 2, 5])
@pytest.mark.parametrize("length", [1, 2, 5, 8])
def test_ragged_batches_and_query_lengths(simulation: Simulation, rows: int, length: int) -> None:
    padding = [0, 3, 25 - length, 25, 1][:rows]  # some positions of the fourth row see nothing, if length > 1
    arguments = case(26, heads=(5, 1), rows=rows, length=length)
    holds(arguments, padding) if max(padding) < 25 else holds_where_something_is_seen(arguments, padding)
    assert simulation.last.findings == []


def holds_where_something_is_seen(arguments: tuple[Any, ...], padding: Sequence[int]) -> None:
    queries, keys, values, scale, form = arguments
    expected, expected_lse = attention64(queries, [(keys, values)], scale, form, padding)
    output, lse = launched(*arguments, mx.array(padding))
    seen = np.isfinite(expected_lse)
    assert np.array_equal(np.isfinite(np.array(lse)), seen)
    assert np.abs(exact(output) - expected).max() <= 2e-6
    assert np.abs(exact(lse)[seen] - expected_lse[seen]).max() <= LSE_ERROR


def test_a_row_that_sees_nothing_is_nought(simulation: Simulation) -> None:
    arguments = case(80, rows=2, length=2)
    padding = mx.array([80, 79])
    for side in (op.launch, op.reference):
        output, lse = run(side, *arguments, padding)
        assert mx.all(output[0] == 0) and mx.all(output[1, :, 0] == 0) and mx.all(output[1, :, 1] != 0)
        assert mx.all(lse[0] == -mx.inf) and mx.all(mx.isfinite(lse[1, :, 1]))


def test_a_cache_is_a_view_into_its_room(simulation: Simulation) -> None:
    """Every input strided: nothing is copied to be contiguous, and the bytes are those of the view."""
    queries, keys, values, scale, form = case(256, mx.float16, rows=5, heads=(4, 4), length=3)
    queries = queries.reshape(5, 3, 4, 128).swapaxes(1, 2)[::2]  # as the projection gives them

    def view(store: Store) -> Store:
        return tuple(x[::2, 1:3, 30:63] for x in store)

    arguments = queries[:, 1:3], view(keys), view(values), scale, form
    holds(arguments, [2, 0, 7])
    read = simulation.last.traffic
    assert read["k"].read == read["v"].read == (31 + 33 + 26) * 2 * 128
    assert read["k_scales"].read == read["v_biases"].read == (31 + 33 + 26) * 2 * 2 * 2
    output, _ = launched(*arguments, mx.array([9, 2, 9, 0, 9, 7])[1::2])
    whole = tuple(tuple(mx.contiguous(x) for x in store) for store in (view(keys), view(values)))
    same, _ = launched(mx.contiguous(queries[:, 1:3]), *whole, scale, form, mx.array([2, 0, 7]))
    assert mx.array_equal(output, same)


def test_stores_in_the_layout_of_another_axis_order(simulation: Simulation) -> None:
    queries, keys, values, scale, form = case(40, heads=(2, 2))

    def turned(store: Store) -> Store:
        return tuple(mx.contiguous(x.swapaxes(2, 3)).swapaxes(2, 3) for x in store)

    holds((queries, turned(keys), turned(values), scale, form))


@pytest.mark.parametrize("changes", [{"misalign": 1}, {"contract": "fast"}], ids=str)
def test_other_circumstances(simulation: Simulation, changes: dict[str, Any]) -> None:
    with options(**changes):
        holds(case(70, mx.bfloat16, heads=(2, 1)))


def test_the_order_of_lanes_and_groups_changes_no_bit(simulation: Simulation) -> None:
    arguments, results = case(150, mx.float16, FORMS[1], rows=2, length=2, heads=(10, 2)), []
    for order in ORDERS:
        with options(order=order, seed=3):
            results.append(launched(*arguments, mx.array([0, 70])))
    assert simulation.count(SEGMENT) == simulation.count(MERGE) == 3
    for output, lse in results[1:]:
        assert mx.array_equal(output, results[0][0]) and mx.array_equal(lse, results[0][1])


@pytest.mark.parametrize(("form", "bytes_of_a_token"), [(FORMS[0], 2176 // 8), (FORMS[1], 1152 // 8)], ids=str)
def test_logical_bytes(simulation: Simulation, form: Affine, bytes_of_a_token: int) -> None:
    """Keys and values once for all 5 heads and 8 positions, padding not at all; parts written and read once."""
    tokens, padding, rows, kv_heads = 130, [0, 100], 2, 2
    arguments = case(tokens, mx.float16, form, rows=rows, length=8, heads=(10, kv_heads))
    launched(*arguments, mx.array(padding))
    segment, merged = (launch.traffic for launch in simulation.launches)
    stores = ("k", "k_scales", "k_biases", "v", "v_scales", "v_biases")
    shown = sum(tokens - p for p in padding)
    assert sum(segment[name].read for name in stores) == shown * kv_heads * bytes_of_a_token
    splits = splits_of(tokens, rows * kv_heads)[0]
    assert splits == 3
    assert segment["queries"].read == splits * arguments[0].nbytes
    part_rows = splits * rows * 10 * 8
    assert segment["parts"].written == merged["one"].read == part_rows * 128 * 4
    assert segment["lse"].written == merged["one_lse"].read == part_rows * 4
    assert merged["two"].read == merged["two_lse"].read == 0
    assert merged["out"].written == arguments[0].nbytes


def test_limits_of_threads_and_threadgroup_memory(simulation: Simulation) -> None:
    with options(max_threads=256, threadgroup_bytes=8192):
        for length, dims in ((8, 128), (8, 32), (1, 256)):
            holds(case(9, form=FORMS[2], length=length, dims=dims))
            assert simulation.last.threadgroup_bytes == 8192


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("splits", [(1, 0), (33, 0), (2, 1), (31, 70)])
def test_the_merge_of_parts(simulation: Simulation, splits: tuple[int, int], dtype: mx.Dtype) -> None:
    """More parts than a simdgroup has lanes, empty ones, and logsumexps far apart."""
    parts = [Parts(normal(1, 3, 2, n, 64), normal(1, 3, 2, n) * 50) for n in splits if n]
    parts[0].lse[:, :2, :, -1] = -mx.inf  # heads 0 and 1 of a single part see nothing
    parts[0].output[:, :2, :, -1] = 0
    output, lse = merge(parts, dtype)
    lses = np.concatenate([exact(p.lse) for p in parts], 3)
    outputs = np.concatenate([exact(p.output) for p in parts], 3)
    with np.errstate(divide="ignore"):
        expected_lse = np.logaddexp.reduce(lses, axis=-1)
    weights = np.exp(lses - np.where(np.isfinite(expected_lse), expected_lse, 0)[..., None])
    expected = (weights[..., None] * outputs).sum(3)
    tolerance = {mx.float32: 2e-5, mx.float16: 2e-3, mx.bfloat16: 2e-2}[dtype]
    assert error(output, expected) <= tolerance
    seen = np.isfinite(expected_lse)
    assert np.array_equal(np.isfinite(np.array(lse)), seen)
    assert np.abs(exact(lse)[seen] - expected_lse[seen]).max() <= 2e-5
    assert all(launch.findings == [] for launch in simulation.launches)


@off_metal
def test_off_metal_the_reference_runs() -> None:
    arguments = case(33, mx.float16, FORMS[3], rows=2, length=2, heads=(6, 2), dims=32)
    with configured("on"):
        got, expected = op.quantised_attention(*arguments), run(op.reference, *arguments)
    assert mx.array_equal(got[0], expected[0]) and mx.array_equal(got[1], expected[1])
    exact, exact_lse = attention64(arguments[0], [arguments[1:3]], *arguments[3:])
    assert error(expected[0], exact) <= bound(plain(*arguments), exact)
    assert error(expected[1], exact_lse) <= LSE_ERROR


@pytest.mark.parametrize(("changes", "reason"), [
    ({}, None),
    ({"length": 9}, "9 query positions"),
    ({"tokens": 2, "length": 3}, "3 query positions, and 2 keys"),
    ({"heads": (5, 2)}, "5 heads over 2"),
    ({"dims": 288, "form": FORMS[2]}, "heads of 288"),
    ({"dims": 96, "form": FORMS[2]}, None),
    ({"form": Affine(3, 64)}, "3 bits"),
    ({"form": Affine(8, 128)}, None),
    ({"rows": 0}, "nothing"),
])
def test_what_the_kernel_does_not_take(changes: dict[str, Any], reason: str | None) -> None:
    queries, keys, values, _, form = case(**{"tokens": 20, **changes})
    got = why_unsupported(queries, keys, values, form, own=True)
    assert run(op.fits, queries, keys, values, 1.0, form) == (reason is None)
    assert got is None if reason is None else reason in (got or "")


def test_types_and_rows_the_kernel_does_not_take() -> None:
    queries, keys, values, _, form = case(20, rows=2)
    assert "int32" in (why_unsupported(queries.astype(mx.int32), keys, values, form, own=True) or "")
    assert "2 rows of own keys for 1" in (why_unsupported(queries[:1], keys, values, form, own=True) or "")
    assert "two kinds" in (why_unsupported(queries, keys, values[0], form, own=True) or "")
    short = tuple(x[:, :, 1:] for x in values)
    assert "two kinds" in (why_unsupported(queries, keys, short, form, own=True) or "")


def test_the_switch_chooses(simulation: Simulation) -> None:
    arguments, padding = case(20, mx.float16, rows=2), mx.array([3, 0])
    kernel, plain = (run(side, *arguments, padding) for side in (op.launch, op.reference))
    for switch, expected in (("on", kernel), ("off", plain), ("off,quantised_attention=on", kernel)):
        with configured(switch):
            simulation.launches.clear()
            for got, wanted in zip(op.quantised_attention(*arguments, padding), expected, strict=True):
                assert mx.array_equal(got, wanted)
        assert bool(simulation.launches) == (expected is kernel)


def test_what_the_kernel_does_not_take_the_reference_does(simulation: Simulation) -> None:
    with configured("on"):
        output, _ = op.quantised_attention(*case(20, length=9))
    assert simulation.launches == [] and output.shape == (1, 5, 9, 128)
