"""What the tests of the attention kernels share: stores, a reference in numpy's float64, and plain MLX."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import mlx.core as mx
import numpy as np
from mlx_lm.models.base import quantized_scaled_dot_product_attention

from mlx_audio_r1.kernels.attention_segments import Affine, Store

DTYPES = (mx.float32, mx.float16, mx.bfloat16)
Array = np.ndarray[Any, Any]


def normal(*shape: int, dtype: mx.Dtype = mx.float32) -> mx.array:
    return mx.random.normal(shape).astype(dtype)


def packed(x: mx.array, form: Affine) -> Store:
    return tuple(mx.quantize(x, group_size=form.group_size, bits=form.bits))


def exact64(x: mx.array) -> Array:
    return np.array(x.astype(mx.float32), np.float64)


def values64(store: Store, form: Affine) -> Array:
    """A store's values (rows, kv_heads, T, D) in float64, unpacked here and not by MLX."""
    if isinstance(store, mx.array):
        return exact64(store)
    words, scales, biases = np.array(store[0]), exact64(store[1]), exact64(store[2])
    shifts = np.arange(0, 32, form.bits, dtype=np.uint32)
    codes = (words[..., None] >> shifts) & np.uint32(2**form.bits - 1)
    codes = codes.reshape(*words.shape[:-1], -1).astype(np.float64)
    return codes * scales.repeat(form.group_size, -1) + biases.repeat(form.group_size, -1)


def attention64(queries: mx.array, stores: Sequence[tuple[Store, Store]], scale: float, form: Affine,
                padding: Sequence[int] | None = None) -> tuple[Array, Array]:
    """Output and logsumexp in float64. The last of the stores is each row's own, those before it are shared."""
    q = exact64(queries)
    B, H, L, D = q.shape
    output, lse = np.zeros((B, H, L, D)), np.full((B, H, L), -np.inf)
    pairs = [(values64(k, form), values64(v, form)) for k, v in stores]
    for b in range(B):
        for h in range(H):
            head = h * pairs[0][0].shape[1] // H
            k, v = (np.concatenate([p[i][b if p is pairs[-1] else 0, head] for p in pairs]) for i in (0, 1))
            before = sum(p[0].shape[2] for p in pairs[:-1])
            shown = np.ones(len(k), bool)
            shown[before : before + (padding[b] if padding else 0)] = False
            for position in range(L):
                seen = shown & (np.arange(len(k)) <= len(k) - L + position)
                if seen.any():
                    scores = k[seen] @ q[b, h, position] * scale
                    weights = np.exp(scores - scores.max())
                    output[b, h, position] = weights @ v[seen] / weights.sum()
                    lse[b, h, position] = scores.max() + np.log(weights.sum())
    return output, lse


def mask(tokens: int, length: int, padding: Sequence[int] | None) -> mx.array:
    """(B or 1, 1, L, T): what each position sees."""
    column = mx.arange(tokens)
    causal = column <= mx.arange(tokens - length, tokens)[:, None]
    return causal & (column >= mx.array(padding or [0])[:, None, None, None])


def plain(queries: mx.array, keys: Store, values: Store, scale: float, form: Affine,
          padding: Sequence[int] | None = None) -> mx.array:
    """mlx-lm's attention over a quantised cache, in the queries' dtype."""
    seen = mask(keys[0].shape[2], queries.shape[2], padding)
    return quantized_scaled_dot_product_attention(
        queries * 1, keys, values, scale, seen, form.group_size, form.bits)  # which scales its queries in place


def error(got: mx.array, expected: Array) -> float:
    return float(np.abs(exact64(got) - expected).max())


def bound(plain_result: mx.array, expected: Array) -> float:
    """What is allowed: twice the error of the plain operations in this dtype."""
    return 2 * error(plain_result, expected)
