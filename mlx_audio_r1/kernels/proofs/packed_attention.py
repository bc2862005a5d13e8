"""Attention within packed clips, ragged and with hidden rows, in float64."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import mlx.core as mx
import numpy as np

from mlx_audio_r1.kernels.clips import Clips
from mlx_audio_r1.kernels.packed_attention import OP
from mlx_audio_r1.kernels.proof import DTYPES, Array, Case, Proof, exact, grid, named, noise, short


def ragged(size: int, count: int) -> tuple[int, ...]:
    """So many clips of at most so many rows, the first of all of them."""
    return tuple(max(1, length) for length in (size, size // 3, 1, size // 2 + 1, size - 1)[:count])


def packed(clips: Clips, dtype: mx.Dtype, heads: int = 1, dims: int = 32, name: str = "") -> Case:
    arrays = tuple(noise((clips.rows, heads, dims), dtype, seed) for seed in (1, 2, 3))
    return Case(name, arrays, {"clips": clips, "scale": dims**-0.5})


def case(size: int, batch: int, dtype: mx.Dtype) -> Case:
    """Every second clip hides a row where it has two."""
    lengths = ragged(size, batch)
    visible = tuple(length - (i % 2 and length > 1) for i, length in enumerate(lengths))
    dims = 32 if size < 1000 else 8  # long ones take a simulator seconds
    return packed(Clips(lengths, visible), dtype, dims=dims, name=named(size, batch, dtype))


def cases() -> Iterator[Case]:
    yield from grid(case)
    for dtype in DTYPES:
        for dims in (8, 16, 64, 80, 96, 128):
            clips = Clips.of([40, 33, 2], hidden=1)
            yield packed(clips, dtype, 3, dims, f"3 heads of {dims} {short(dtype)}")
    yield strided()
    yield from shapes()


def strided() -> Case:
    clips = Clips.of([9, 4, 20])
    q, k = noise((3, 33, 16), mx.float32, 1).swapaxes(0, 1), noise((66, 3, 16), mx.float32, 2)[::2]
    return Case("slices and transposes", (q, k, noise((40, 3, 16), mx.float32, 3)[5:38]),
                {"clips": clips, "scale": 0.25})


def shapes() -> Iterator[Case]:
    for name, seconds in (("3 s", [3]), ("25 s", [25]), ("4 of 25 s", [25] * 4), ("1 to 9 s", range(1, 10, 2))):
        yield packed(Clips.of(rows_of(seconds)), mx.bfloat16, 20, 64, name)


def rows_of(seconds: Sequence[int]) -> list[int]:
    """Behind the convolutions: 1,251 for 25 s."""
    return [50 * n + 1 for n in seconds]


def reference64(
    queries: mx.array, keys: mx.array, values: mx.array, *, clips: Clips, scale: float
) -> tuple[Array]:
    q, k, v = map(exact, (queries, keys, values))
    out = np.zeros_like(q)
    for start, length, seen in zip(clips.starts, clips.lengths, clips.visible, strict=False):
        own, shown = slice(start, start + length), slice(start, start + seen)
        for head in range(q.shape[1]):
            scores = q[own, head] @ k[shown, head].T * scale
            weights = np.exp(scores - scores.max(-1, keepdims=True))
            out[own, head] = weights @ v[shown, head] / weights.sum(-1, keepdims=True)
    return (out,)


PROOF = Proof(OP, cases, shapes, reference64, gradient=(0, 1, 2))
