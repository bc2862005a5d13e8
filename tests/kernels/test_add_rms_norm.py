"""Residual add and RMSNorm, against float64 and against the plain operations."""

from __future__ import annotations

import mlx.core as mx
import numpy as np
import pytest

from mlx_audio_r1.kernels import add_rms_norm as op
from mlx_audio_r1.kernels.proofs.add_rms_norm import EPS, case, reference64
from tests.kernels.grid import DTYPES, ORDERS, assert_as_good, cases, noise
from tests.metalsim import mutation_test, options
from tests.metalsim.simulate import Simulation


def arrays(batch: int, size: int, dtype: mx.Dtype) -> tuple[mx.array, ...]:
    return case(size, batch, dtype).arrays


def normed(total: mx.array, weight: mx.array) -> np.ndarray:
    return reference64(total, mx.zeros_like(total), weight, eps=EPS)[1]


@pytest.mark.parametrize(("size", "batch", "dtype"), cases())
def test_as_good_as_plain_operations(simulation: Simulation, size: int, batch: int, dtype: mx.Dtype) -> None:
    x, residual, weight = arrays(batch, size, dtype)
    plain = op.reference(x, residual, weight, eps=EPS)
    for order in ORDERS:
        with options(**order):
            total, got = op.launch(x, residual, weight, eps=EPS)
        assert mx.array_equal(total, plain[0])
        assert_as_good(got, plain[1], normed(total, weight))
        assert simulation.last.findings == []


@pytest.mark.parametrize("size", [7, 300])
def test_bytes_are_those_of_the_docstring(simulation: Simulation, size: int) -> None:
    x, residual, weight = arrays(3, size, mx.float16)
    op.launch(x, residual, weight, eps=EPS)
    traffic = simulation.last.traffic
    assert traffic["x"].read == traffic["residual"].read == 3 * size * 2
    assert traffic["weight"].read == 3 * size * 2
    assert traffic["total"].written == traffic["normed"].written == 3 * size * 2
    assert traffic["total"].read == traffic["normed"].read == 0
    assert simulation.count("add_rms_norm") == 1


def test_slices_and_transposes(simulation: Simulation) -> None:
    x = noise((40, 2, 6), mx.float32, 1).transpose(1, 2, 0)
    weight = noise((44,), mx.float32, 3)[2:42]
    residual = noise((2, 6, 80), mx.float32, 2)[:, :, ::2]
    total, got = op.launch(x, residual, weight, eps=EPS)
    assert mx.array_equal(total, x + residual)
    assert_as_good(got, op.reference(x, residual, weight, eps=EPS)[1], normed(total, weight))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_gradients_are_the_reference_s(simulation: Simulation, dtype: mx.Dtype) -> None:
    given = arrays(2, 33, dtype)

    def loss(side):
        def value(*arrays: mx.array) -> mx.array:
            total, out = side(*arrays, eps=EPS)
            return (total * total).sum() + mx.sin(out.astype(mx.float32)).sum()

        return mx.grad(value, argnums=(0, 1, 2))(*given)

    for got, want in zip(loss(op.launch), loss(op.reference), strict=True):
        assert mx.allclose(got, want, rtol=2e-2 if dtype != mx.float32 else 1e-5, atol=1e-2)


def test_what_does_not_fit() -> None:
    x, residual, weight = arrays(2, 8, mx.float32)
    assert op.fits(x, residual, weight)
    assert not op.fits(x, residual[:1], weight)
    assert not op.fits(x, residual.astype(mx.float16), weight)
    assert not op.fits(x.astype(mx.int32), residual.astype(mx.int32), weight.astype(mx.int32))
    assert not op.fits(x[:0], residual[:0], weight)
    assert not op.fits(x[0, 0], x[0, 0], x[0, 0])
    wide = mx.zeros((1, op.MAX_WIDTH + 1))
    assert not op.fits(wide, wide, wide[0])


def test_off_metal_the_reference_runs() -> None:
    given = arrays(2, 33, mx.float32)
    for got, want in zip(op.add_rms_norm(*given, eps=EPS), op.reference(*given, eps=EPS), strict=True):
        assert mx.array_equal(got, want)


@pytest.mark.long
def test_every_break_of_it_is_noticed() -> None:
    given = arrays(2, 300, mx.float32)
    report = mutation_test(lambda: op._launch(*given, eps=EPS), op.reference(*given, eps=EPS), tolerance=1e-4)
    assert report.killed > 10
    assert report.unexplained(EQUIVALENT) == []


EQUIVALENT = [
    "== 0 to == 1: if (thread_index_in_simdgroup == 0) {",  # after simd_sum all lanes hold the sum
    "< to <=: for (int k = 0; k < EACH; k++) {",  # the last of the two, where the width guards
]
