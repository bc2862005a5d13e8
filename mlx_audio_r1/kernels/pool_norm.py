"""The encoder's tail in one launch for all clips: average of neighbouring rows, then LayerNorm.

An odd last row of a clip is dropped, so the pairs of a clip do not depend on the clips before it, and nothing
is padded. The gain in time is too small to matter (this runs once a clip, behind 32 blocks); with the packed
attention it lets clips of any lengths go through the encoder together.

For P pairs of rows of D values of `item` bytes, as loads and stores ask for them:

    plain    2 launches a clip or more   reads 2 P D + P D + 2 P D (weight and bias), writes 2 P D
    kernel   1 launch                    reads 2 P D + 2 P D (weight and bias), writes P D; 4 bytes for the
             number of a pair's first row in each of t threads, t = D up to 256, in whole simdgroups

The average is rounded to the dtype before it is normed, as the plain operations do; the norm is in float32, the
variance around the mean. A threadgroup holds a row in registers: hence MAX_WIDTH.
"""

from __future__ import annotations

from typing import Any

import mlx.core as mx
import numpy as np

from mlx_audio_r1.kernels.choice import Op, register, with_gradient
from mlx_audio_r1.kernels.clips import Clips
from mlx_audio_r1.kernels.source import kernel, row_threads

DTYPES = (mx.float32, mx.float16, mx.bfloat16)
THREADS, MAX_WIDTH = 256, 8192


def pool_norm(x: mx.array, weight: mx.array, bias: mx.array, clips: Clips, eps: float = 1e-5) -> mx.array:
    """x (R, D), the rows of all clips; weight and bias (D,), one dtype -> (the sum of the clips' n // 2, D)."""
    return OP(x, weight, bias, clips=clips, eps=eps)


def reference(x: mx.array, weight: mx.array, bias: mx.array, *, clips: Clips, eps: float) -> mx.array:
    pooled = [pool_by_two(rows) for rows in clips.split(x)]
    return mx.fast.layer_norm(mx.concatenate(pooled) if pooled else x, weight, bias, eps)


def pool_by_two(x: mx.array) -> mx.array:
    """(..., L, D) -> (..., L // 2, D): mean of neighbouring rows; an odd last one is dropped."""
    *batch, length, width = x.shape
    return x[..., : length - length % 2, :].reshape(*batch, length // 2, 2, width).mean(axis=-2)


def fits(x: mx.array, weight: mx.array, bias: mx.array, *, clips: Clips, eps: float) -> bool:
    return (
        x.dtype in DTYPES
        and x.dtype == weight.dtype == bias.dtype
        and x.ndim == 2
        and x.shape[0] == clips.rows
        and weight.shape == bias.shape == x.shape[1:]
        and 0 < x.shape[1] <= MAX_WIDTH
        and len(pairs(clips)) > 0
    )


def pairs(clips: Clips) -> np.ndarray:
    """(P,) int32: the first row of every pair."""
    spans = zip(clips.starts, clips.lengths, strict=False)
    firsts = [np.arange(start, start + length - 1, 2, dtype=np.int32) for start, length in spans]
    return np.concatenate(firsts or [np.zeros(0, np.int32)])


def _launch(x: mx.array, weight: mx.array, bias: mx.array, *, clips: Clips, eps: float) -> mx.array:
    width, firsts = x.shape[1], mx.array(pairs(clips))
    threads = row_threads(width, THREADS)
    return kernel("pool_norm", ("x", "weight", "bias", "firsts", "eps"), ("out",))(
        inputs=[x, weight, bias, firsts, float(eps)],
        template=[("T", x.dtype), ("WIDTH", width), ("THREADS", threads)],
        grid=(firsts.size * threads, 1, 1),
        threadgroup=(threads, 1, 1),
        output_shapes=[(firsts.size, width)],
        output_dtypes=[x.dtype],
    )[0]


def traffic(x: mx.array, weight: mx.array, bias: mx.array, *, clips: Clips, **_: Any) -> int:
    count, width = len(pairs(clips)), x.shape[1]
    return count * (5 * width * x.itemsize + 4 * row_threads(width, THREADS))


launch = with_gradient(_launch, reference)
OP = register(Op("pool_norm", reference, launch, fits, traffic))
