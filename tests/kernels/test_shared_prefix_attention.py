"""Decode attention over a shared prefix and each row's own tokens: against float64, in the simulator."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import mlx.core as mx
import pytest

from mlx_audio_r1.kernels import shared_prefix_attention as op
from mlx_audio_r1.kernels.attention_segments import Affine, Store, why_unsupported
from mlx_audio_r1.kernels.choice import configured
from mlx_audio_r1.models.shared_prefix import KVFormat, Segment, shared_attention
from tests.kernels.attention import DTYPES, attention64, bound, error, mask, normal, packed
from tests.kernels.grid import off_metal
from tests.metalsim import ORDERS, options
from tests.metalsim.simulate import Simulation

FORM = KVFormat(bits=8, group_size=64)
LSE_ERROR = 4e-6
QUANTISED, EXACT, MERGE = "attention_segment_quantised", "attention_segment_exact", "merge_segments"


@pytest.fixture(autouse=True)
def seeded() -> None:
    mx.random.seed(0)


def store(rows: int, kv_heads: int, tokens: int, dims: int, dtype: mx.Dtype, form: KVFormat | None) -> Store:
    x = normal(rows, kv_heads, tokens, dims, dtype=dtype)
    return x if form is None else packed(x, Affine(form.bits or 8, form.group_size))


def case(prefixes: Sequence[int], own: int, dtype: mx.Dtype = mx.float32, form: KVFormat | None = FORM, *,
         rows: int = 2, length: int = 1, heads: tuple[int, int] = (5, 1), dims: int = 128) -> tuple[Any, ...]:
    """The arguments of shared_prefix_attention but for padding."""
    def pair(rows: int, tokens: int) -> tuple[Store, Store]:
        return tuple(store(rows, heads[1], tokens, dims, dtype, form) for _ in range(2))

    segments = [pair(1, n) for n in prefixes]
    queries = normal(rows, heads[0], length, dims, dtype=dtype)
    return queries, segments, pair(rows, own), dims**-0.5, form or FORM


def run(side: Any, queries: mx.array, segments: Any, own: Any, scale: float, form: KVFormat,
        padding: mx.array | None = None) -> Any:
    """One side of the op, or its gate, with the arguments of shared_prefix_attention."""
    arrays, kinds = op.flat([*segments, own])
    skipped = [] if padding is None else [padding]
    return side(queries, *arrays, *skipped, scale=scale, kinds=kinds, bits=form.bits,
                group_size=form.group_size)


def launched(*arguments: Any) -> tuple[mx.array, mx.array]:
    return run(op.launch, *arguments)


def plain(arguments: tuple[Any, ...], padding: Sequence[int] | None) -> mx.array:
    """The batch engine's attention, in the queries' dtype."""
    queries, segments, own, scale, form = arguments
    first = own[0] if isinstance(own[0], mx.array) else own[0][0]
    seen = mask(first.shape[2], queries.shape[2], padding or [0] * len(queries))
    return shared_attention(queries, [Segment(*s) for s in segments], *own, scale, seen, form)


def holds(arguments: tuple[Any, ...], padding: Sequence[int] | None = None) -> None:
    queries, segments, own, scale, form = arguments
    expected, expected_lse = attention64(queries, [*segments, own], scale, form, padding)
    output, lse = launched(*arguments, None if padding is None else mx.array(padding))
    assert output.dtype == queries.dtype and lse.dtype == mx.float32
    assert error(output, expected) <= bound(plain(arguments, padding), expected)
    assert error(lse, expected_lse) <= LSE_ERROR


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("prefix", "own"), [(1, 1), (2, 7), (7, 2), (31, 33), (33, 1), (64, 31)])
def test_key_lengths(simulation: Simulation, prefix: int, own: int, dtype: mx.Dtype) -> None:
    holds(case([prefix], own, dtype))
    assert [launch.kernel for launch in simulation.launches] == [QUANTISED, QUANTISED, MERGE]
    assert all(launch.findings == [] for launch in simulation.launches)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("prefix", "own"), [(1, 2), (33, 7), (64, 70)])
def test_exact_keys_and_values(simulation: Simulation, prefix: int, own: int, dtype: mx.Dtype) -> None:
    holds(case([prefix], own, dtype, None))
    assert [launch.kernel for launch in simulation.launches] == [EXACT, EXACT, MERGE]
    assert all(launch.findings == [] for launch in simulation.launches)


@pytest.mark.long
@pytest.mark.timeout(900)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("prefix", "own", "form"), [
    (1500, 64, FORM), (4099, 33, KVFormat(4, 32)), (1500, 64, None)])
def test_long_prefixes_of_the_model_s_heads(
    simulation: Simulation, prefix: int, own: int, form: KVFormat | None, dtype: mx.Dtype
) -> None:
    holds(case([prefix], own, dtype, form, rows=3, heads=(40, 8)), [0, 20, 5])
    assert len(simulation.launches) == 3


@pytest.mark.parametrize("form", [FORM, None], ids=("8 bits", "exact"))
@pytest.mark.parametrize("rows", [1, 2, 5])
@pytest.mark.parametrize("length", [1, 2, 8])
def test_ragged_batches_and_query_lengths(
    simulation: Simulation, rows: int, length: int, form: KVFormat | None
) -> None:
    holds(case([12], 10, form=form, rows=rows, length=length), [0, 9, 3, 10, 1][:rows])
    assert simulation.last.findings == []


@pytest.mark.parametrize("prefixes", [[], [5, 3], [2, 70, 1]], ids=str)
def test_any_number_of_segments(simulation: Simulation, prefixes: list[int]) -> None:
    holds(case(prefixes, 6, mx.float16, heads=(6, 2)), [4, 0])
    assert len(simulation.launches) == len(prefixes) + 2


def test_a_prefix_of_one_kind_and_own_keys_of_the_other(simulation: Simulation) -> None:
    quantised, exact = case([40], 9, mx.float16), case([40], 9, mx.float16, None)
    for first, second in ((quantised, exact), (exact, quantised)):
        holds((first[0], first[1], second[2], *first[3:]))


@pytest.mark.parametrize("bits", [4, 8])
def test_the_heads_of_the_embedded_model(simulation: Simulation, bits: int) -> None:
    holds(case([33], 17, mx.float16, KVFormat(bits, 32), heads=(6, 2), dims=32, rows=5), [0, 1, 2, 16, 5])


def test_what_is_no_number_is_seen(simulation: Simulation) -> None:
    """And where it is only a score of -inf, the key is as none."""
    queries, (prefix,), own, scale, form = case([3], 5, form=None, rows=2)
    queries = mx.where(mx.arange(2)[:, None, None, None] == 1, mx.nan, mx.abs(queries))
    keys = mx.where(mx.arange(3)[:, None] == 0, -mx.inf, prefix[0])
    given = queries, [(keys, prefix[1])], own, scale, form
    for got, want in zip(launched(*given), run(op.reference, *given), strict=True):
        assert mx.isnan(got[1]).all() and mx.isnan(want[1]).all()
        assert mx.allclose(got[0], want[0], atol=1e-5)


def test_views_into_rooms(simulation: Simulation) -> None:
    queries, segments, own, scale, form = case([40], 64, mx.float16, None, heads=(4, 2))

    def views(pair: tuple[Store, Store], begin: int, end: int) -> tuple[Store, Store]:
        return tuple(x[:, :, begin:end] for x in pair)

    queries = mx.contiguous(queries.swapaxes(1, 2)).swapaxes(1, 2)
    holds((queries, [views(segments[0], 3, 34)], views(own, 0, 7), scale, form), [2, 0])


@pytest.mark.parametrize(("rows", "readings"), [(8, 1), (9, 2)])
def test_logical_bytes(simulation: Simulation, rows: int, readings: int) -> None:
    """40 query rows share one reading of the prefix: 8 replies of 5 heads each."""
    prefix, own, padding = 70, 6, [5] * rows
    arguments = case([prefix], own, mx.float16, rows=rows, heads=(5, 1))
    launched(*arguments, mx.array(padding))
    first, second, merged = (launch.traffic for launch in simulation.launches)
    stores = ("k", "k_scales", "k_biases", "v", "v_scales", "v_biases")
    assert sum(first[name].read for name in stores) == prefix * 272 * readings
    assert sum(second[name].read for name in stores) == rows * 272
    assert first["queries"].read == 2 * arguments[0].nbytes
    assert second["queries"].read == arguments[0].nbytes
    for part, read, splits in ((first, "one", 2), (second, "two", 1)):
        assert part["parts"].written == merged[read].read == splits * rows * 5 * 128 * 4
        assert part["lse"].written == merged[f"{read}_lse"].read == splits * rows * 5 * 4


@pytest.mark.parametrize("item", [2, 4])
def test_logical_bytes_of_exact_keys(simulation: Simulation, item: int) -> None:
    dtype = mx.float16 if item == 2 else mx.float32
    launched(*case([9], 3, dtype, None, rows=5, length=1))
    first, second, _ = (launch.traffic for launch in simulation.launches)
    assert first["k"].read == first["v"].read == 9 * 128 * item
    assert second["k"].read == second["v"].read == 5 * 3 * 128 * item


def test_the_order_of_lanes_and_groups_changes_no_bit(simulation: Simulation) -> None:
    arguments, results = case([70], 9, mx.bfloat16, rows=9), []
    for order in ORDERS:
        with options(order=order, seed=5):
            results.append(launched(*arguments, mx.array([3] * 9)))
    for output, lse in results[1:]:
        assert mx.array_equal(output, results[0][0]) and mx.array_equal(lse, results[0][1])


def test_limits_of_threads_and_threadgroup_memory(simulation: Simulation) -> None:
    with options(max_threads=256, threadgroup_bytes=8192):
        holds(case([9], 9, mx.float32, None, rows=9, length=8))
    assert [launch.kernel for launch in simulation.launches] == [EXACT, EXACT, MERGE]


@off_metal
def test_off_metal_the_reference_runs() -> None:
    arguments = case([33, 2], 8, mx.float16, length=2)
    padding = mx.array([0, 5])
    with configured("on"):
        got = op.shared_prefix_attention(*arguments, padding)
    expected = run(op.reference, *arguments, padding)
    assert mx.array_equal(got[0], expected[0]) and mx.array_equal(got[1], expected[1])
    queries, segments, own, scale, form = arguments
    exact, exact_lse = attention64(queries, [*segments, own], scale, form, [0, 5])
    assert error(expected[0], exact) <= bound(plain(arguments, [0, 5]), exact)
    assert error(expected[1], exact_lse) <= LSE_ERROR


def test_the_switch_chooses(simulation: Simulation) -> None:
    arguments, padding = case([20], 4, mx.float16), mx.array([3, 0])
    for switch, side in (("on", op.launch), ("off", op.reference)):
        expected = run(side, *arguments, padding)
        simulation.launches.clear()
        with configured(switch):
            got = op.shared_prefix_attention(*arguments, padding)
        assert bool(simulation.launches) == (switch == "on")
        assert all(mx.array_equal(g, e) for g, e in zip(got, expected, strict=True))


def test_padding_of_other_rows_is_not_taken(simulation: Simulation) -> None:
    arguments = case([2], 3)
    assert run(op.fits, *arguments, mx.array([1, 0]))
    assert not run(op.fits, *arguments, mx.array([1]))


def test_what_the_kernel_does_not_take(simulation: Simulation) -> None:
    queries, segments, own, scale, form = case([5], 3)
    assert run(op.fits, queries, segments, own, scale, form)
    assert not run(op.fits, queries, [own], own, scale, form)
    assert not run(op.fits, queries, segments, segments[0], scale, form)
    assert not run(op.fits, *case([5], 3, length=4))
    assert "2 rows of shared keys" in (why_unsupported(queries, *own, form, own=False) or "")
    with configured("on"):
        output, _ = op.shared_prefix_attention(*case([5], 12, length=9))
    assert simulation.launches == [] and output.shape == (2, 5, 9, 128)
