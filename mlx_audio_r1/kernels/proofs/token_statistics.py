"""Log-probability, entropy and logsumexp in float64, and their gradient."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import mlx.core as mx
import numpy as np

from mlx_audio_r1.kernels.proof import Array, Case, Proof, exact, grid, named, noise
from mlx_audio_r1.kernels.token_statistics import OP


def case(size: int, batch: int, dtype: mx.Dtype) -> Case:
    targets = mx.arange(batch).astype(mx.int32) * 7 % size
    return Case(named(size, batch, dtype), (noise((batch, size), dtype, 1, scale=3.0), targets))


def cases() -> Iterator[Case]:
    yield from grid(case)
    strided = noise((50, 9), mx.float32, 1).T[1:6], mx.arange(10, dtype=mx.uint32)[::2]
    yield Case("slices and transposes", strided)
    yield shape(8)


def shapes() -> Iterator[Case]:
    yield shape(8)
    yield shape(256)


def shape(rows: int) -> Case:
    return Case(f"{rows} tokens", case(158_720, rows, mx.bfloat16).arrays)


def reference64(logits: mx.array, targets: mx.array) -> tuple[Array, ...]:
    x = exact(logits)
    top = x.max(-1, keepdims=True)
    log_sum = np.log(np.exp(x - top).sum(-1)) + top[:, 0]
    log_p = x - log_sum[:, None]
    entropy = -(np.exp(log_p) * np.where(np.isinf(x), 0, log_p)).sum(-1)
    return log_p[np.arange(len(x)), np.asarray(targets)], entropy, log_sum


def gradient64(logits: mx.array, targets: mx.array, *,
               cotangents: Sequence[mx.array]) -> list[tuple[Array, float]]:
    """Of the logits, and the largest sum of the sizes of its terms."""
    _, entropy, log_sum = reference64(logits, targets)
    d_logp, d_entropy, d_sum = (exact(c)[:, None] for c in cotangents)
    log_p = exact(logits) - log_sum[:, None]
    surprise = log_p + entropy[:, None]
    onehot = np.arange(logits.shape[1]) == np.asarray(targets)[:, None]
    sizes = abs(d_sum) + abs(d_logp) + abs(d_entropy * surprise)
    terms = np.exp(log_p) * sizes + onehot * abs(d_logp)
    return [(np.exp(log_p) * (d_sum - d_logp - d_entropy * surprise) + onehot * d_logp, float(terms.max()))]


PROOF = Proof(OP, cases, shapes, reference64, gradient=(0,), exact_gradient=gradient64)
