"""Average of neighbouring rows and LayerNorm, of packed clips, in float64."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import mlx.core as mx
import numpy as np

from mlx_audio_r1.kernels.clips import Clips
from mlx_audio_r1.kernels.pool_norm import OP
from mlx_audio_r1.kernels.proof import Array, Case, Proof, exact, grid, named, noise
from mlx_audio_r1.kernels.proofs.packed_attention import rows_of

EPS = 1e-5
LENGTHS = (7, 2, 1, 4, 9)


def pooled(lengths: Sequence[int], width: int, dtype: mx.Dtype, name: str = "") -> Case:
    clips = Clips.of(lengths)
    arrays = noise((clips.rows, width), dtype, 1), noise((width,), dtype, 2), noise((width,), dtype, 3)
    return Case(name, arrays, {"clips": clips, "eps": EPS})


def case(width: int, batch: int, dtype: mx.Dtype) -> Case:
    return pooled(LENGTHS[:batch], width, dtype, named(width, batch, dtype))


def cases() -> Iterator[Case]:
    yield from grid(case)
    yield strided()
    yield from shapes()


def strided() -> Case:
    x, weight = noise((6, 66), mx.float32, 1).T[::2], noise((12,), mx.float32, 2)[::2]
    arrays = x, weight, noise((40,), mx.float32, 3)[7:13]
    return Case("slices and transposes", arrays, {"clips": Clips.of([20, 3, 10]), "eps": EPS})


def shapes() -> Iterator[Case]:
    for name, seconds in (("25 s", [25]), ("4 of 25 s", [25] * 4)):
        yield pooled(rows_of(seconds), 1280, mx.bfloat16, name)


def reference64(
    x: mx.array, weight: mx.array, bias: mx.array, *, clips: Clips, eps: float
) -> tuple[Array]:
    """The norm is of the average that is rounded to the dtype."""
    pairs = np.concatenate([rows[: len(rows) // 2 * 2].reshape(-1, 2, rows.shape[1])
                            for rows in map(exact, clips.split(x))])
    average = exact(mx.array(pairs.mean(1).astype(np.float32)).astype(x.dtype))
    off = average - average.mean(-1, keepdims=True)
    return (off / np.sqrt((off**2).mean(-1, keepdims=True) + eps) * exact(weight) + exact(bias),)


PROOF = Proof(OP, cases, shapes, reference64, gradient=(0, 1, 2))
