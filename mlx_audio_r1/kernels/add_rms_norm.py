"""Residual add and RMSNorm in one launch: what stands between the parts of every decoder layer, twice.

For R rows of D values of `item` bytes, as loads and stores ask for them:

    plain    2 launches   reads 3 R D + R D (weight), writes 2 R D        5 R D and the weight
    kernel   1 launch     reads 2 R D + R D (weight), writes 2 R D        4 R D and the weight

The sum is rounded to the dtype before it is normed, as the plain operations do; the norm is in float32.
A threadgroup works on a row and holds it in registers: hence the limit of MAX_WIDTH.
"""

from __future__ import annotations

from typing import Any

import mlx.core as mx

from mlx_audio_r1.kernels.choice import Op, register, with_gradient
from mlx_audio_r1.kernels.source import kernel, row_threads

Pair = tuple[mx.array, mx.array]
DTYPES = (mx.float32, mx.float16, mx.bfloat16)
THREADS, MAX_WIDTH = 256, 8192


def add_rms_norm(x: mx.array, residual: mx.array, weight: mx.array, eps: float = 1e-6) -> Pair:
    """x and residual (..., D), weight (D,), one dtype -> their sum, and the sum RMS-normed and weighted."""
    return OP(x, residual, weight, eps=eps)


def reference(x: mx.array, residual: mx.array, weight: mx.array, *, eps: float) -> Pair:
    total = x + residual
    return total, mx.fast.rms_norm(total, weight, eps)


def fits(x: mx.array, residual: mx.array, weight: mx.array, **_: Any) -> bool:
    return (
        x.dtype in DTYPES
        and x.dtype == residual.dtype == weight.dtype
        and x.shape == residual.shape
        and weight.shape == x.shape[-1:]
        and x.size > 0
        and x.ndim > 0
        and x.shape[-1] <= MAX_WIDTH
    )


def _launch(x: mx.array, residual: mx.array, weight: mx.array, *, eps: float) -> Pair:
    width, threads = x.shape[-1], row_threads(x.shape[-1], THREADS)
    total, normed = kernel("add_rms_norm", ("x", "residual", "weight", "eps"), ("total", "normed"))(
        inputs=[x, residual, weight, float(eps)],
        template=[("T", x.dtype), ("WIDTH", width), ("THREADS", threads)],
        grid=(x.size // width * threads, 1, 1),
        threadgroup=(threads, 1, 1),
        output_shapes=[x.shape, x.shape],
        output_dtypes=[x.dtype, x.dtype],
    )
    return total, normed


def traffic(x: mx.array, residual: mx.array, weight: mx.array, **_: Any) -> int:
    return 5 * x.nbytes


launch = with_gradient(_launch, reference)
OP = register(Op("add_rms_norm", reference, launch, fits, traffic))
