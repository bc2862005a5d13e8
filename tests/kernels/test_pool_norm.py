"""Average of neighbouring rows and LayerNorm of packed clips, against float64 and the plain operations."""

from __future__ import annotations

from typing import Any

import mlx.core as mx
import pytest

from mlx_audio_r1.kernels import pool_norm as op
from mlx_audio_r1.kernels.clips import Clips
from mlx_audio_r1.kernels.proof import Case
from mlx_audio_r1.kernels.proofs.pool_norm import EPS, case, pooled, reference64, strided
from tests.kernels.grid import DTYPES, ORDERS, assert_as_good, cases, noise
from tests.metalsim import mutation_test, options
from tests.metalsim.simulate import Simulation


def assert_good(given: Case) -> None:
    plain, (want,) = op.reference(*given.arrays, **given.options), reference64(*given.arrays, **given.options)
    assert_as_good(op.launch(*given.arrays, **given.options), plain, want)


@pytest.mark.parametrize(("size", "batch", "dtype"), cases())
def test_as_good_as_plain_operations(simulation: Simulation, size: int, batch: int, dtype: mx.Dtype) -> None:
    for order in ORDERS:
        with options(max_threads=256, threadgroup_bytes=16384, **order):
            assert_good(case(size, batch, dtype))
        assert simulation.last.findings == []


@pytest.mark.parametrize(("width", "threads"), [(7, 32), (300, 256)])
def test_bytes_are_those_of_the_docstring(simulation: Simulation, width: int, threads: int) -> None:
    given = pooled([7, 1, 2], width, mx.float16)
    op.launch(*given.arrays, **given.options)
    traffic, pairs = simulation.last.traffic, 3 + 0 + 1
    assert traffic["x"].read == 2 * pairs * width * 2
    assert traffic["weight"].read == traffic["bias"].read == traffic["out"].written == pairs * width * 2
    assert traffic["firsts"].read == pairs * threads * 4
    assert op.OP.bytes(*given.arrays, **given.options) == pairs * (5 * width * 2 + 4 * threads)
    assert simulation.count("pool_norm") == 1


def test_a_clip_does_not_depend_on_its_neighbours(simulation: Simulation) -> None:
    """To the bit, behind odd clips and even ones."""
    weight, bias = noise((40,), mx.float32, 2), noise((40,), mx.float32, 3)
    rows = [noise((n, 40), mx.float32, n) for n in (5, 1, 8, 3)]
    alone = [op.launch(x, weight, bias, clips=Clips.of([len(x)]), eps=EPS) for x in rows if len(x) > 1]
    clips = Clips.of([len(x) for x in rows])
    assert mx.array_equal(op.launch(mx.concatenate(rows), weight, bias, clips=clips, eps=EPS),
                          mx.concatenate(alone))


def test_far_from_nought_the_variance_holds(simulation: Simulation) -> None:
    """Mean of squares less square of mean would be nothing but rounding here."""
    x = 1000 + noise((4, 64), mx.float32, 1)
    given = Case("", (x, mx.ones(64), mx.zeros(64)), {"clips": Clips.of([4]), "eps": EPS})
    assert_good(given)


def test_slices_and_transposes(simulation: Simulation) -> None:
    assert_good(strided())


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_gradients_are_the_reference_s(simulation: Simulation, dtype: mx.Dtype) -> None:
    given = pooled([7, 2, 1], 33, dtype)

    def gradients(side: Any) -> list[mx.array]:
        def loss(*arrays: mx.array) -> mx.array:
            return mx.sin(side(*arrays, **given.options).astype(mx.float32)).sum()

        return mx.grad(loss, argnums=(0, 1, 2))(*given.arrays)

    for got, want in zip(gradients(op.launch), gradients(op.reference), strict=True):
        # The forward values, and so the cotangents, differ by a rounding of the dtype.
        assert mx.allclose(got, want, rtol=2e-2 if dtype != mx.float32 else 1e-5, atol=2e-2)


def test_what_does_not_fit() -> None:
    x, weight, bias = pooled([7, 2], 8, mx.float32).arrays

    def fits(*arrays: mx.array, lengths: tuple[int, ...] = (7, 2)) -> bool:
        return op.fits(*arrays, clips=Clips.of(lengths), eps=EPS)

    assert fits(x, weight, bias)
    assert not fits(x, weight[:4], bias)
    assert not fits(x, weight, bias.astype(mx.float16))
    assert not fits(x, weight, bias, lengths=(7, 3))
    assert not fits(x[:2], weight, bias, lengths=(1, 1))  # no pair
    wide = mx.zeros((2, op.MAX_WIDTH + 1))
    assert not fits(wide, wide[0], wide[0], lengths=(2,))


def test_off_metal_the_reference_runs() -> None:
    x, weight, bias = pooled([7, 1, 2], 8, mx.float32).arrays
    got = op.pool_norm(x, weight, bias, Clips.of([7, 1, 2]), EPS)
    pairs = mx.stack([x[0] + x[1], x[2] + x[3], x[4] + x[5], x[8] + x[9]]) / 2
    assert mx.array_equal(got, mx.fast.layer_norm(pairs, weight, bias, EPS))
    assert op.pool_norm(x[:1], weight, bias, Clips.of([1])).shape == (0, 8)
    assert op.pool_norm(x[:0], weight, bias, Clips.of([])).shape == (0, 8)


EQUIVALENT = [
    "== 0 to == 1: if (lane == 0) {",  # after simd_sum all lanes hold the sum
    "< to <=: for (int k = 0; k < EACH; k++) {",  # of the first and the last, where the width guards
]


@pytest.mark.long
def test_every_break_of_it_is_noticed() -> None:
    """Around 3, so that a value too many counts in the variance."""
    case = pooled([5, 1, 4], 300, mx.float32)
    (x, *rest), given = case.arrays, case.options
    want = op.reference(x + 3, *rest, **given)
    report = mutation_test(lambda: [op._launch(x + 3, *rest, **given)], [want], tolerance=1e-4)
    assert report.killed > 20
    assert report.unexplained(EQUIVALENT) == []
