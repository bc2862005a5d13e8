"""QKV bias and rotary positions in float64."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import mlx.core as mx
import numpy as np

from mlx_audio_r1.kernels.proof import Array, Case, Proof, exact, grid, named, noise
from mlx_audio_r1.kernels.qkv_rope import OP

OPTIONS: dict[str, Any] = {"heads": 3, "kv_heads": 1, "base": 1e6}
MODEL: dict[str, Any] = {"heads": 40, "kv_heads": 8, "base": 1e6}


def case(length: int, batch: int, dtype: mx.Dtype, dims: int = 8, options: dict[str, Any] = OPTIONS) -> Case:
    width = (options["heads"] + 2 * options["kv_heads"]) * dims
    offset = (mx.arange(batch) * 17 % 5).astype(mx.int32)
    arrays = noise((batch, length, width), dtype, 1), noise((width,), dtype, 2), offset
    return Case(named(length, batch, dtype), arrays, options)


def cases() -> Iterator[Case]:
    yield from grid(case)
    qkv = noise((4, 40, 6), mx.float32, 1).transpose(2, 0, 1)[::2]
    arrays = qkv, noise((80,), mx.float32, 2)[::2], mx.arange(7, dtype=mx.int32)[1:4]
    yield Case("slices and transposes", arrays, OPTIONS)
    yield from shapes()


def shapes() -> Iterator[Case]:
    for name, length, batch in (("one token", 1, 1), ("8 rows", 1, 8), ("1,000 tokens", 1000, 1)):
        yield Case(name, case(length, batch, mx.bfloat16, 128, MODEL).arrays, MODEL)


def reference64(
    qkv: mx.array, bias: mx.array, offset: mx.array, *, heads: int, kv_heads: int, base: float
) -> tuple[Array, ...]:
    """Of the sum that is rounded to the dtype, as the projection's output is."""
    x = exact(qkv + bias)
    batch, length, width = x.shape
    dims = width // (heads + 2 * kv_heads)
    x = x.reshape(batch, length, -1, dims).transpose(0, 2, 1, 3)
    position = np.asarray(offset)[:, None] + np.arange(length)
    angle = position[..., None] * base ** (-2 * np.arange(dims // 2) / dims)
    c, s = np.cos(angle)[:, None], np.sin(angle)[:, None]
    a, b = np.split(x, 2, axis=-1)
    turned = np.concatenate([a * c - b * s, a * s + b * c], axis=-1)
    return turned[:, :heads], turned[:, heads : heads + kv_heads], x[:, heads + kv_heads :]


PROOF = Proof(OP, cases, shapes, reference64, gradient=(0, 1))
