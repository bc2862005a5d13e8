"""Attention for training: causal, and within one example where a row holds several.

Two ways that give the same: `plain` is MLX's own, which keeps scores of T x T for the gradient;
`blockwise` keeps its output and one number a query, and computes scores again, a block of queries at a
time. The surprise: padding is an example of its own, so that every query sees a key and no row can
become NaN; its output is zero.
"""

from __future__ import annotations

from dataclasses import dataclass

import mlx.core as mx

from mlx_audio_r1.train.recompute import after

SCORES = 2**19  # of one head that a block computes at once: 2 MB in float32
BLOCKS = (64, 512)  # least and most queries of a block
UNSEEN = -1e30  # score of a key that is not seen


@dataclass(frozen=True)
class TrainingAttention:
    """What `models.attention.Attention` is given in place of a cache: it attends, and keeps nothing."""

    samples: mx.array  # (B, T) int32: the example of each token, -1 where padded
    blockwise: bool
    offset: int = 0

    def attend(self, q: mx.array, k: mx.array, v: mx.array, scale: float, _: object) -> mx.array:
        """q (B, H, T, D), k and v (B, G, T, D) -> (B, H, T, D)."""
        way = blockwise if self.blockwise else plain
        return way(q, k, v, scale, self.samples)


def plain(q: mx.array, k: mx.array, v: mx.array, scale: float, samples: mx.array) -> mx.array:
    """MLX's attention under one mask (B, 1, T, T)."""
    mask = _seen(samples, 0, samples.shape[1])
    output = mx.fast.scaled_dot_product_attention(q, k, v, scale=scale, mask=mask)
    return _without_padding(output, samples)


def blockwise(
    q: mx.array, k: mx.array, v: mx.array, scale: float, samples: mx.array, block: int | None = None
) -> mx.array:
    """The same without an array of T x T: FlashAttention-2 (arXiv 2307.08691, section 3.1) in MLX's own
    operations, over blocks of queries. Scores and sums are float32, products in the dtype of q.
    """
    T = q.shape[2]
    block = block or block_size(T)
    spans = [(start, min(T, start + block)) for start in range(0, T, block)]

    @mx.custom_function
    def attend(q: mx.array, k: mx.array, v: mx.array) -> tuple[mx.array, mx.array]:
        done: list[tuple[mx.array, mx.array]] = []
        for span in spans:
            tile = _Tile(after(q, *done[-1:]), k, scale, samples, span)
            done.append(tile.forward(v))
        outputs, logs = zip(*done, strict=True)
        return mx.concatenate(outputs, axis=2), mx.concatenate(logs, axis=2)

    @attend.vjp
    def backward(primals: tuple[mx.array, ...], cotangents: tuple[mx.array, ...],
                 kept: tuple[mx.array, ...]) -> tuple[mx.array, ...]:
        q, k, v = primals
        d_q: list[mx.array] = []
        d_k, d_v = mx.zeros(k.shape, mx.float32), mx.zeros(v.shape, mx.float32)
        for span in spans:
            tile = _Tile(after(q, (d_k, d_v, *d_q[-1:])), k, scale, samples, span)
            part, for_k, for_v = tile.backward(v, cotangents[0], *kept)
            d_q.append(part)
            d_k[:, :, : tile.end] += for_k
            d_v[:, :, : tile.end] += for_v
        return mx.concatenate(d_q, axis=2), d_k.astype(k.dtype), d_v.astype(v.dtype)

    return _without_padding(attend(q, k, v)[0], samples)


def block_size(T: int) -> int:
    """Queries of a block: as many as keep a head's scores at SCORES, whatever T is."""
    least, most = BLOCKS
    return max(least, min(most, SCORES // T))


class _Tile:
    """The scores of one block of queries with every key before its end.

    Grouped queries are folded into rows, (B, H, t, D) -> (B, G, H / G * t, D), so that keys and values
    are never repeated.
    """

    def __init__(self, q: mx.array, k: mx.array, scale: float, samples: mx.array, span: tuple[int, int]):
        self.start, self.end = span
        self.scale, self.groups = scale, k.shape[1]
        self.q, self.k = self.fold(q) * scale, k[:, :, : self.end]
        scores = (self.q @ self.k.swapaxes(-1, -2)).astype(mx.float32)
        by_head = scores.reshape(q.shape[0], q.shape[1], self.end - self.start, self.end)
        self.scores = mx.where(_seen(samples, *span), by_head, UNSEEN).reshape(scores.shape)

    def fold(self, x: mx.array) -> mx.array:
        """The block's rows of x (B, H, T, .)."""
        part = x[:, :, self.start : self.end]
        return part.reshape(part.shape[0], self.groups, -1, part.shape[-1])

    def unfold(self, x: mx.array) -> mx.array:
        return x.reshape(x.shape[0], -1, self.end - self.start, x.shape[-1])

    def forward(self, v: mx.array) -> tuple[mx.array, mx.array]:
        """Output, and the log of the sum of exponentials, which is all that the backward pass needs."""
        weights = mx.softmax(self.scores, axis=-1).astype(v.dtype)
        log = mx.logsumexp(self.scores, axis=-1, keepdims=True)
        return self.unfold(weights @ v[:, :, : self.end]), self.unfold(log)

    def backward(self, v: mx.array, d_output: mx.array, output: mx.array, log: mx.array
                 ) -> tuple[mx.array, mx.array, mx.array]:
        """Gradients: of the block's queries, and its share in those of the keys and values before its end."""
        weights = mx.exp(self.scores - self.fold(log))
        d_out = self.fold(d_output)
        shift = (d_out.astype(mx.float32) * self.fold(output)).sum(axis=-1, keepdims=True)
        d_weights = (d_out @ v[:, :, : self.end].swapaxes(-1, -2)).astype(mx.float32)
        d_scores = (weights * (d_weights - shift)).astype(d_out.dtype)
        d_v = weights.astype(d_out.dtype).swapaxes(-1, -2) @ d_out
        d_k = d_scores.swapaxes(-1, -2) @ self.q
        return self.unfold(d_scores @ self.k) * self.scale, d_k, d_v


def _seen(samples: mx.array, start: int, end: int) -> mx.array:
    """(B, 1, end - start, end) bool: which keys before `end` the queries from `start` on see."""
    causal = mx.arange(start, end)[:, None] >= mx.arange(end)
    return (causal & (samples[:, start:end, None] == samples[:, None, :end]))[:, None]


def _without_padding(output: mx.array, samples: mx.array) -> mx.array:
    return mx.where((samples >= 0)[:, None, :, None], output, mx.zeros((), output.dtype))
