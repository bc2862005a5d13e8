"""Bias, rotary positions and the cache's layout in one launch, behind a concatenated QKV projection.

For R = B L positions of H + 2 G heads of D values of `item` bytes, as loads and stores ask for them:

    plain    5 launches of one token behind quantised weights: 3 biases, 2 rotations; of many, the copy of the
             transposed values too. Reads and writes each value 2 to 3 times
    kernel   1 launch    reads R (H + 2 G) D item, as much of the bias, and for each pair of values that turns
             the offset of its row and its frequency: 12 R (H + G) D / 2; writes R (H + 2 G) D item

The values are laid out (B, heads, L, D), as attention and the cache want them. They are not written into the
cache's own room, for MLX gives a kernel no way to: every output is a new buffer (`CustomKernel::eval_gpu` of
mlx/backend/metal/custom_kernel.cpp allocates each and takes none over from an input), every input is `const`,
and its buffer may be held by others, a prefix kept for the next question, say. What writes in place is
MLX's slice update, into a buffer that nobody else holds; so 2 launches stay, of a plain copy without transpose.

The surprise: D / 2 pairs (i, i + D / 2) turn, not neighbours. The angle of position p and pair i
is p * base^(-2 i / D) as in mx.fast.rope, but not in float32 alone: the powers come in a table with what their
rounding took from them, and so does the product, because far into a context that shows.
"""

from __future__ import annotations

from functools import lru_cache

import mlx.core as mx
import numpy as np

from mlx_audio_r1.kernels.choice import Op, register, with_gradient
from mlx_audio_r1.kernels.source import kernel

Triple = tuple[mx.array, mx.array, mx.array]
DTYPES = (mx.float32, mx.float16, mx.bfloat16)
THREADS = 128


def qkv_rope(
    qkv: mx.array, bias: mx.array, offset: mx.array, heads: int, kv_heads: int, base: float
) -> Triple:
    """qkv (B, L, (heads + 2 kv_heads) D), queries first, then keys, then values; bias of its last axis;
    offset (B,) int32, the position of each row's first. -> queries (B, heads, L, D), keys and values
    (B, kv_heads, L, D), of which queries and keys are turned. D is even."""
    return OP(qkv, bias, offset, heads=heads, kv_heads=kv_heads, base=base)


def reference(
    qkv: mx.array, bias: mx.array, offset: mx.array, *, heads: int, kv_heads: int, base: float
) -> Triple:
    batch, length, width = qkv.shape
    dims = width // (heads + 2 * kv_heads)
    x = (qkv + bias).reshape(batch, length, -1, dims).transpose(0, 2, 1, 3)
    queries, keys, values = mx.split(x, [heads, heads + kv_heads], axis=1)
    queries, keys = (
        mx.fast.rope(y, dims, traditional=False, base=base, scale=1.0, offset=offset) for y in (queries, keys)
    )
    return queries, keys, values


def fits(
    qkv: mx.array, bias: mx.array, offset: mx.array, *, heads: int, kv_heads: int, base: float
) -> bool:
    return (
        qkv.dtype in DTYPES
        and qkv.dtype == bias.dtype
        and qkv.ndim == 3
        and qkv.size > 0
        and bias.shape == qkv.shape[2:]
        and qkv.shape[2] % (2 * (heads + 2 * kv_heads)) == 0
        and offset.dtype == mx.int32
        and offset.shape == qkv.shape[:1]
        and base > 0
    )


@lru_cache(maxsize=16)
def _frequencies(dims: int, base: float) -> mx.array:
    """(2, D / 2) float32, the rounded and what is left of them; the same for every layer."""
    exact = float(base) ** (np.arange(0, -dims, -2) / dims)
    rounded = exact.astype(np.float32)
    return mx.array(np.stack([rounded, (exact - rounded).astype(np.float32)]))


def _launch(
    qkv: mx.array, bias: mx.array, offset: mx.array, *, heads: int, kv_heads: int, base: float
) -> Triple:
    batch, length, width = qkv.shape
    dims = width // (heads + 2 * kv_heads)
    names = ("qkv", "bias", "offset", "frequencies", "length")
    queries, keys, values = kernel("qkv_rope", names, ("queries", "keys", "values"))(
        inputs=[qkv, bias, offset, _frequencies(dims, base), length],
        template=[("T", qkv.dtype), ("DIMS", dims), ("HEADS", heads), ("KV_HEADS", kv_heads)],
        grid=(width // 2, batch * length, 1),
        threadgroup=(min(THREADS, width // 2), 1, 1),
        output_shapes=[(batch, n, length, dims) for n in (heads, kv_heads, kv_heads)],
        output_dtypes=[qkv.dtype] * 3,
    )
    return queries, keys, values


def traffic(
    qkv: mx.array, bias: mx.array, offset: mx.array, *, heads: int, kv_heads: int, base: float
) -> int:
    turned = qkv.size // (heads + 2 * kv_heads) * (heads + kv_heads)
    return 3 * qkv.nbytes + 12 * turned // 2


launch = with_gradient(_launch, reference)
OP = register(Op("qkv_rope", reference, launch, fits, traffic))
