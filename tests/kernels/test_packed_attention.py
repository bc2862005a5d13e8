"""Attention within packed clips: against float64, against MLX's own, and beside other neighbours."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import mlx.core as mx
import pytest

from mlx_audio_r1.kernels import packed_attention as op
from mlx_audio_r1.kernels.choice import configured
from mlx_audio_r1.kernels.clips import Clips
from mlx_audio_r1.kernels.proof import Case
from mlx_audio_r1.kernels.proofs.packed_attention import case, packed, reference64, strided
from tests.kernels.grid import DTYPES, ORDERS, assert_as_good, cases, noise
from tests.metalsim import mutation_test, options
from tests.metalsim.simulate import Simulation

RAGGED = Clips.of([40, 33, 2], hidden=1)


def launched(given: Case) -> mx.array:
    return op.launch(*given.arrays, **given.options)


def assert_good(given: Case) -> None:
    plain, (want,) = op.reference(*given.arrays, **given.options), reference64(*given.arrays, **given.options)
    assert_as_good(launched(given), plain, want)


@pytest.mark.timeout(900)
@pytest.mark.parametrize(("size", "batch", "dtype"), cases(short={(7, 2), (33, 5), (64, 1)}))
def test_as_good_as_plain_operations(simulation: Simulation, size: int, batch: int, dtype: mx.Dtype) -> None:
    given = case(size, batch, dtype)
    for order in ORDERS if size < 4000 else ORDERS[:1]:  # 4,099 rows take half a minute
        with options(**order):
            assert_good(given)
        assert simulation.last.findings == []


@pytest.mark.parametrize("dims", [8, 16, 64, 80, 88, 96, 128])
def test_head_sizes_stay_within_the_room_of_a_threadgroup(simulation: Simulation, dims: int) -> None:
    with options(max_threads=256, threadgroup_bytes=16384):
        assert_good(packed(RAGGED, mx.float32, 3, dims))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_a_clip_does_not_depend_on_its_neighbours(simulation: Simulation, dtype: mx.Dtype) -> None:
    """To the bit, wherever it lies."""
    lengths = [5, 33, 64, 2]
    arrays = [[noise((n, 2, 16), dtype, 10 * i + j) for i, n in enumerate(lengths)] for j in range(3)]
    alone = [op.launch(*one, clips=Clips.of([n], 1), scale=0.25)
             for n, one in zip(lengths, zip(*arrays, strict=True), strict=True)]
    for order in ([0, 1, 2, 3], [3, 2, 1, 0], [2, 1, 2]):
        clips = Clips.of([lengths[i] for i in order], 1)
        together = op.launch(*(mx.concatenate([a[i] for i in order]) for a in arrays), clips=clips, scale=0.25)
        for i, got in zip(order, clips.split(together), strict=True):
            assert mx.array_equal(got, alone[i])


def test_a_hidden_row_is_attended_to_by_none(simulation: Simulation) -> None:
    q, k, v = (noise((12, 2, 8), mx.float32, seed) for seed in (1, 2, 3))
    options = {"clips": Clips((7, 5), (6, 3)), "scale": 0.35}
    before = op.launch(q, k, v, **options)
    for row in (6, 10, 11):
        k[row], v[row] = 100.0, mx.nan
    assert mx.array_equal(op.launch(q, k, v, **options), before)


@pytest.mark.parametrize(("dims", "tiles", "read"), [
    (64, 3, 2 * 33 + 1 * 9), (128, 4, 3 * 33 + 1 * 9),  # of 34 rows that see 33, and of 10 that see 9
])
def test_bytes_are_those_of_the_docstring(simulation: Simulation, dims: int, tiles: int, read: int) -> None:
    given = packed(Clips.of([34, 10], hidden=1), mx.float16, 3, dims)
    launched(given)
    traffic, row = simulation.last.traffic, 3 * dims * 2
    assert traffic["queries"].read == traffic["out"].written == 44 * row
    assert traffic["keys"].read == traffic["values"].read == read * row
    assert traffic["tiles"].read == 16 * 4 * op.tile_rows(dims) * tiles * 3
    used = sum(traffic[name].read for name in ("queries", "keys", "values", "tiles")) + traffic["out"].written
    assert op.OP.bytes(*given.arrays, **given.options) == used
    assert simulation.count("packed_attention") == 1


def test_slices_and_transposes(simulation: Simulation) -> None:
    assert_good(strided())


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_gradients_are_the_reference_s(simulation: Simulation, dtype: mx.Dtype) -> None:
    given = packed(Clips.of([9, 3], hidden=1), dtype, 2, 8)

    def gradients(side: Any) -> list[mx.array]:
        def loss(*arrays: mx.array) -> mx.array:
            return mx.sin(side(*arrays, **given.options).astype(mx.float32)).sum()

        return mx.grad(loss, argnums=(0, 1, 2))(*given.arrays)

    for got, want in zip(gradients(op.launch), gradients(op.reference), strict=True):
        # The forward values, and so the cotangents, differ by a rounding of the dtype.
        assert mx.allclose(got, want, rtol=2e-2 if dtype != mx.float32 else 1e-5, atol=1e-2)


def test_what_does_not_fit() -> None:
    q, k, v = packed(Clips.of([9, 3]), mx.float32, 2, 8).arrays

    def fits(*arrays: mx.array, clips: Clips | None = None) -> bool:
        return op.fits(*arrays, clips=clips or Clips.of([9, 3]), scale=1.0)

    assert fits(q, k, v)
    assert not fits(q, k[:6], v)
    assert not fits(q, k.astype(mx.float16), v)
    assert not fits(*(x.astype(mx.int32) for x in (q, k, v)))
    assert not fits(q, k, v, clips=Clips.of([9, 4]))
    assert not fits(q, k, v, clips=Clips.of([11, 1], hidden=1))  # a clip without a visible row
    assert not fits(q[:0], k[:0], v[:0], clips=Clips.of([]))
    assert not fits(*(x[..., :7] for x in (q, k, v)))
    assert not fits(*(mx.zeros((12, 1, 136)) for _ in range(3)))


def test_off_metal_the_reference_runs_clip_by_clip() -> None:
    q, k, v = packed(RAGGED, mx.float32, 2, 8).arrays
    got = op.packed_attention(q, k, v, RAGGED, 0.35)
    parts = zip(*map(RAGGED.split, (q, k, v)), RAGGED.visible, RAGGED.split(got), strict=True)
    for one_q, one_k, one_v, seen, part in parts:
        q4, k4, v4 = (x[None].transpose(0, 2, 1, 3) for x in (one_q, one_k[:seen], one_v[:seen]))
        alone = mx.fast.scaled_dot_product_attention(q4, k4, v4, scale=0.35)
        assert mx.allclose(part, alone[0].transpose(1, 0, 2), atol=1e-6)  # a mask for a slice: roundings of 1
    assert op.packed_attention(q[:0], k[:0], v[:0], Clips.of([]), 0.35).shape == (0, 2, 8)


def test_lengths_that_are_near_share_a_trial(simulation: Simulation) -> None:
    """Or every mix of lengths would be tried, and measured, anew."""
    q, k, v = packed(Clips.of([22]), mx.float32, 2, 8).arrays
    counts = []
    with configured("on"):
        for lengths in ([9, 13], [10, 12], [4, 7, 11], [8, 5, 9]):
            op.packed_attention(q, k, v, Clips.of(lengths), 0.35)
            counts.append(simulation.count("packed_attention"))
    tried = counts[0] - 1
    assert [b - a for a, b in pairwise(counts)] == [1, tried + 1, 1] and tried > 0


def test_tiles_begin_with_their_clip() -> None:
    assert Clips.of([5, 2], hidden=1).tiles(2).tolist() == [
        [0, 5, 0, 4], [2, 5, 0, 4], [4, 5, 0, 4], [5, 7, 5, 6]]
    assert Clips.of([]).tiles(2).shape == (0, 4)


EQUIVALENT = [
    "< to <=: for (int t = key_begin; t < key_end; t += TILE) {",  # a tile without keys adds nothing
    "< to <=: for (int j = 0; j < PER_LANE; j++) {",  # of the two, where the count guards
]


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_every_break_of_it_is_noticed() -> None:
    """With scores so far apart, and a clip's so far below nought, that exp goes wrong around a wrong top."""
    case = packed(Clips.of([70, 3, 32], hidden=1), mx.float32, 2, 40)
    (q, k, v), given = case.arrays, case.options
    k[5], q[70:73], k[70:73] = 100 * k[5], 1.0, -30.0
    want = op.reference(q, k, v, **given)
    report = mutation_test(lambda: [op._launch(q, k, v, **given)], [want], tolerance=1e-4)
    assert report.killed > 60
    assert report.unexplained(EQUIVALENT) == []
