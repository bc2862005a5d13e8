"""Log-probability, entropy and logsumexp of rows of logits, and their gradients, against float64."""

from __future__ import annotations

from typing import Any

import mlx.core as mx
import numpy as np
import pytest

from mlx_audio_r1.kernels import token_statistics as op
from mlx_audio_r1.kernels.proofs.token_statistics import case, gradient64, reference64
from tests.kernels.grid import DTYPES, ORDERS, assert_as_good, cases, exact, noise
from tests.metalsim import mutation_test, options
from tests.metalsim.simulate import Simulation


def arrays(batch: int, size: int, dtype: mx.Dtype) -> tuple[mx.array, ...]:
    return case(size, batch, dtype).arrays


def gradient(logits: mx.array, targets: mx.array, cotangents: list[mx.array]) -> tuple[np.ndarray, float]:
    [found] = gradient64(logits, targets, cotangents=cotangents)
    return found


def pulled(side: Any, logits: mx.array, targets: mx.array, cotangents: list[mx.array]) -> mx.array:
    return mx.vjp(lambda x: side(x, targets), [logits], cotangents)[1][0]


@pytest.mark.parametrize(("size", "batch", "dtype"), cases())
def test_as_good_as_plain_operations(simulation: Simulation, size: int, batch: int, dtype: mx.Dtype) -> None:
    logits, targets = arrays(batch, size, dtype)
    cotangents = [noise((batch,), mx.float32, seed) for seed in (4, 5, 6)]
    plain, want = op.reference(logits, targets), reference64(logits, targets)
    d_plain, d_want = pulled(op.reference, logits, targets, cotangents), gradient(logits, targets, cotangents)
    for order in ORDERS:
        with options(**order):
            got = op.launch(logits, targets)
            d_got = pulled(op.launch, logits, targets, cotangents)
        for triple in zip(got, plain, want, strict=True):
            assert_as_good(*triple)
        assert_as_good(d_got, d_plain, *d_want)
        assert not [f for launch in simulation.launches for f in launch.findings]


@pytest.mark.parametrize(("rows", "size"), [(3, 7), (2, 700)])
def test_bytes_are_those_of_the_docstring(simulation: Simulation, rows: int, size: int) -> None:
    logits, targets = arrays(rows, size, mx.bfloat16)
    pulled(op.launch, logits, targets, [mx.ones(rows)] * 3)
    forward, backward = simulation.launches
    assert forward.traffic["logits"].read == rows * size * 2 + rows * 2
    assert forward.traffic["targets"].read == rows * 4
    assert sum(t.written for t in forward.traffic.values()) == 5 * rows * 4
    assert backward.traffic["logits"].read == backward.traffic["d_logits"].written == rows * size * 2
    read = sum(t.read for name, t in backward.traffic.items() if name not in ("logits", "d_logits"))
    assert read == 28 * rows * size + 4 * rows


def test_a_vocabulary_of_158720(simulation: Simulation) -> None:
    logits, targets = arrays(1, 158_720, mx.bfloat16)
    for got, want in zip(op.launch(logits, targets), reference64(logits, targets), strict=True):
        assert abs(float(got[0]) - want[0]) < 1e-5 * max(1, abs(want[0]))


def test_slices_and_transposes(simulation: Simulation) -> None:
    logits, targets = noise((50, 9), mx.float32, 1).T[1:6], mx.arange(10, dtype=mx.uint32)[::2]
    for triple in zip(op.launch(logits, targets), op.reference(logits, targets), reference64(logits, targets),
                      strict=True):
        assert_as_good(*triple)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_tokens_that_are_not_there_and_large_logits(simulation: Simulation, dtype: mx.Dtype) -> None:
    logits = mx.concatenate([mx.full((2, 40), -mx.inf), 500 * noise((2, 30), mx.float32, 1),
                             mx.full((2, 40), -mx.inf)], axis=1).astype(dtype)
    targets = mx.array([45, 69], mx.int32)
    for got, want in zip(op.launch(logits, targets), reference64(logits, targets), strict=True):
        assert np.allclose(exact(got), want, rtol=1e-5, atol=1e-4)
    cotangents = [mx.array([1.0, -2.0]), mx.array([0.5, 1.0]), mx.array([0.0, 3.0])]
    got, want = (pulled(side, logits, targets, cotangents) for side in (op.launch, op.reference))
    assert mx.allclose(got, want, atol=1e-3, rtol=1e-2)
    assert mx.all(got[:, :40] == 0)


def test_what_does_not_fit() -> None:
    logits, targets = arrays(2, 8, mx.float32)
    assert op.fits(logits, targets)
    assert not op.fits(logits[0], targets)
    assert not op.fits(logits, targets[:1])
    assert not op.fits(logits, targets.astype(mx.int64))
    assert not op.fits(logits[:0], targets[:0])


def test_off_metal_the_reference_runs() -> None:
    given = arrays(2, 33, mx.float32)
    for got, want in zip(op.token_statistics(*given), op.reference(*given), strict=True):
        assert mx.array_equal(got, want)


EQUIVALENT = [
    "== 0 to == 1: if (thread_index_in_simdgroup == 0) {",  # after simd_sum all lanes hold the sums
    "== 0 to == 1: if (thread_index_in_threadgroup == 0) {",  # any thread can put them together
    "> to >=: if (value > sums.m) {",  # sums around their own largest are themselves
]


@pytest.mark.long
def test_every_break_of_it_is_noticed() -> None:
    logits, _ = arrays(2, 700, mx.float32)
    targets = mx.argmax(logits, axis=1)  # where p is not nothing
    logits[:, 3] = -mx.inf
    logits[1] = 60 * logits[1]  # so far apart that exp overflows around anything but the largest
    cotangents = [mx.array([1.0, -2.0]), mx.array([0.5, 1.0]), mx.array([0.3, 3.0])]

    def run() -> list[mx.array]:
        return [*op.launch(logits, targets), pulled(op.launch, logits, targets, cotangents)]

    want = [*op.reference(logits, targets), pulled(op.reference, logits, targets, cotangents)]
    report = mutation_test(run, want, tolerance=1e-4)
    assert report.killed > 20
    assert report.unexplained(EQUIVALENT) == []


@pytest.mark.parametrize("size", [1, 2, 31, 700])
def test_a_row_with_what_is_no_number_is_none(simulation: Simulation, size: int) -> None:
    """A model that has diverged must be seen. No token at all is none either, and its logsumexp -inf."""
    logits, targets = noise((3, size), mx.float32, 1), mx.zeros(3, mx.int32)
    logits[0, size // 2], logits[1] = np.nan, -mx.inf
    for side in (op.launch, op.reference):
        logprob, entropy, log_sum = side(logits, targets)
        d_logits = pulled(side, logits, targets, [mx.ones(3)] * 3)
        assert mx.isnan(logprob).tolist() == mx.isnan(entropy).tolist() == [True, True, False]
        assert mx.isnan(log_sum[0]) and log_sum[1] == -mx.inf
        assert mx.all(mx.isnan(d_logits[0])) and not mx.any(mx.isnan(d_logits[2]))
