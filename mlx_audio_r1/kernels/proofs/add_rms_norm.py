"""Residual add and RMSNorm in float64."""

from __future__ import annotations

from collections.abc import Iterator

import mlx.core as mx
import numpy as np

from mlx_audio_r1.kernels.add_rms_norm import OP
from mlx_audio_r1.kernels.proof import Array, Case, Proof, exact, grid, named, noise

EPS = 1e-6


def case(size: int, batch: int, dtype: mx.Dtype) -> Case:
    arrays = noise((batch, size), dtype, 1), noise((batch, size), dtype, 2), noise((size,), dtype, 3)
    return Case(named(size, batch, dtype), arrays, {"eps": EPS})


def cases() -> Iterator[Case]:
    yield from grid(case)
    strided = noise((40, 2, 6), mx.float32, 1).transpose(1, 2, 0), noise((2, 6, 80), mx.float32, 2)[:, :, ::2]
    yield Case("slices and transposes", (*strided, noise((44,), mx.float32, 3)[2:42]), {"eps": EPS})
    yield from shapes()


def shapes() -> Iterator[Case]:
    for name, rows in (("one token", 1), ("8 rows", 8), ("1,000 tokens", 1000)):
        yield Case(name, case(5120, rows, mx.bfloat16).arrays, {"eps": EPS})


def reference64(x: mx.array, residual: mx.array, weight: mx.array, *, eps: float) -> tuple[Array, Array]:
    """The norm is of the sum that is rounded to the dtype."""
    total = exact(x + residual)
    normed = total / np.sqrt((total**2).mean(-1, keepdims=True) + eps) * exact(weight)
    return exact(x) + exact(residual), normed


PROOF = Proof(OP, cases, shapes, reference64, gradient=(0, 1, 2))
