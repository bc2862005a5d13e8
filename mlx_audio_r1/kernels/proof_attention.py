"""Attention in numpy's float64, over keys and values that are unpacked here and not by MLX."""

from __future__ import annotations

from collections.abc import Sequence

import mlx.core as mx
import numpy as np

from mlx_audio_r1.kernels.attention_segments import Form, Store, is_exact
from mlx_audio_r1.kernels.proof import Array, exact, noise


def packed(x: mx.array, form: Form) -> Store:
    """Quantised, or as it is where the form has no bits."""
    return x if form.bits is None else tuple(mx.quantize(x, group_size=form.group_size, bits=form.bits))


def random_store(shape: tuple[int, ...], dtype: mx.Dtype, form: Form, seed: int) -> Store:
    return packed(noise(shape, dtype, seed), form)


def values64(store: Store, form: Form) -> Array:
    """(rows, kv_heads, T, D)."""
    if is_exact(store):
        return exact(store)
    words, scales, biases = np.array(store[0]), exact(store[1]), exact(store[2])
    shifts = np.arange(0, 32, form.bits, dtype=np.uint32)
    codes = (words[..., None] >> shifts) & np.uint32(2**(form.bits or 0) - 1)
    codes = codes.reshape(*words.shape[:-1], -1).astype(np.float64)
    return codes * scales.repeat(form.group_size, -1) + biases.repeat(form.group_size, -1)


def attention64(queries: mx.array, stores: Sequence[tuple[Store, Store]], scale: float, form: Form,
                padding: Sequence[int] | None = None) -> tuple[Array, Array]:
    """Output and logsumexp. The last of the stores is each row's own, those before it are shared."""
    q = exact(queries)
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
