"""Sampling with top-p, min-p and top-k, without sorting the vocabulary, in one launch.

What mlx-lm's samplers do in this order is: keep the tokens whose more likely ones weigh less than top_p at
temperature 1; of these keep those at least min_p times as likely as the likeliest; of these keep the top_k
likeliest; draw one at the temperature. All three keep what is above a threshold, and a threshold is found four
bits at a time, in eight passes: of 16 candidates, the lowest above which the weight is still small enough.

Bytes a row of V log-probabilities of `item` bytes, as loads ask for them, from a cache after the first pass:

    plain    a sort of V, about 20 launches, for each of top-p and top-k
    kernel   1 launch    V item * (2 + 9 [top_p] + 9 [top_k]), and V item / 16 at most of the span that is drawn
             from; reads 4 (the uniform number) and writes 4 (the token)

The surprise: the draw is an inverse: `uniform` picks the token, in the order of their numbers, so that the same
numbers give the same tokens with and without the kernel. Of tokens equal to the last of the top_k, those with
the lower numbers are kept; mlx-lm keeps any. Thresholds are taken in float32, mlx-lm takes that of min_p in the
dtype of the log-probabilities.
"""

from __future__ import annotations

import math

import mlx.core as mx

from mlx_audio_r1.kernels.choice import Op, current, register
from mlx_audio_r1.kernels.source import kernel, row_threads

DTYPES = (mx.float32, mx.float16, mx.bfloat16)
THREADS = 512
MAX_VOCABULARY = 1 << 24  # counts are exact in float32 below
LEAST_TOP_P = 2.0**-100  # less is 0 in float32, and would keep nothing
MOST_INVERSE = 2.0**100  # more is infinite in float32, and infinity times the likeliest's 0 is no number


def sample(
    logprobs: mx.array,
    uniform: mx.array,
    temperature: float = 1.0,
    top_p: float = 1.0,
    min_p: float = 0.0,
    top_k: int = 0,
) -> mx.array:
    """logprobs (B, V), up to a constant a row; uniform (B,) float32 in [0, 1) -> tokens (B,) uint32.

    temperature > 0. top_p of 0 or 1, min_p of 0, and top_k of 0, V or more keep everything. A token of -inf or
    NaN is not there; where there is none, or one of +inf, the token is 0.
    """
    return OP(
        logprobs, uniform, temperature=float(temperature), top_p=float(top_p) if 0 < top_p < 1 else 1.0,
        min_p=float(min_p), top_k=top_k if 0 < top_k < logprobs.shape[-1] else 0,
    )  # fmt: skip


def in_use() -> bool:
    """Whether tokens are to be drawn here, on any device: a seed gives the same with kernel and without."""
    return current().mode(OP.name) != "off"


def kept(logprobs: mx.array, top_p: float, min_p: float, top_k: int) -> mx.array:
    """(B, V) bool: the tokens that can be drawn, in plain operations. x is float32."""
    x = _present(logprobs)
    top = x.max(axis=-1, keepdims=True)
    keep = x > -mx.inf
    order = mx.argsort(-x, axis=-1)  # stable: of equals, the lower number first
    if 0 < top_p < 1:
        ranked = mx.take_along_axis(x, order, axis=-1)
        weight = mx.exp(ranked - top)
        before = mx.cumsum(weight, axis=-1, inclusive=False)
        enough = before < max(top_p, LEAST_TOP_P) * weight.sum(axis=-1, keepdims=True)
        keep = keep & (x >= mx.where(enough, ranked, mx.inf).min(axis=-1, keepdims=True))
    if min_p > 0:
        keep = keep & (x >= top + math.log(min_p))
    if 0 < top_k < x.shape[-1]:
        keep = keep & (mx.argsort(order, axis=-1) < top_k)
    return keep


def reference(
    logprobs: mx.array, uniform: mx.array, *, temperature: float, top_p: float, min_p: float, top_k: int
) -> mx.array:
    x = _present(logprobs)
    weight = mx.exp((x - x.max(axis=-1, keepdims=True)) * _inverse(temperature))
    weight = mx.where(kept(logprobs, top_p, min_p, top_k), weight, 0.0)
    reached = mx.cumsum(weight, axis=-1)
    drawn = reached > uniform[:, None] * reached[:, -1:]
    return mx.argmax(drawn & (weight > 0), axis=-1)


def _present(logprobs: mx.array) -> mx.array:
    x = logprobs.astype(mx.float32)
    return mx.where(x > -mx.inf, x, -mx.inf)


def _inverse(temperature: float) -> float:
    return min(1 / temperature, MOST_INVERSE)


def fits(logprobs: mx.array, uniform: mx.array, *, temperature: float, **_: float) -> bool:
    return (
        logprobs.dtype in DTYPES
        and logprobs.ndim == 2
        and logprobs.size > 0
        and logprobs.shape[1] < MAX_VOCABULARY
        and uniform.dtype == mx.float32
        and uniform.shape == logprobs.shape[:1]
        and temperature > 0
    )


def launch(
    logprobs: mx.array, uniform: mx.array, *, temperature: float, top_p: float, min_p: float, top_k: int
) -> mx.array:
    rows, vocabulary = logprobs.shape
    threads = row_threads(vocabulary, THREADS)
    names = ("logprobs", "numbers", "inverse_temperature", "top_p", "log_min_p", "top_k")
    return kernel("sample", names, ("token",))(
        inputs=[logprobs, uniform, _inverse(temperature), max(float(top_p), LEAST_TOP_P),
                math.log(min_p) if min_p > 0 else -math.inf, float(top_k)],
        template=[("VOCABULARY", vocabulary), ("THREADS", threads), ("TOP_P", 0 < top_p < 1),
                  ("TOP_K", 0 < top_k < vocabulary)],
        grid=(rows * threads, 1, 1),
        threadgroup=(threads, 1, 1),
        output_shapes=[(rows,)],
        output_dtypes=[mx.uint32],
    )[0]


def traffic(logprobs: mx.array, uniform: mx.array, *, top_p: float, top_k: int, **_: float) -> int:
    """Without the span that is drawn from, of at most a sixteenth of a pass."""
    passes = 2 + 9 * (0 < top_p < 1) + 9 * (0 < top_k < logprobs.shape[1])
    return passes * logprobs.nbytes + 8 * uniform.size


def made_up(logprobs: mx.array, uniform: mx.array, **_: float) -> list[mx.array]:
    """Eight like tokens, the others never drawn; no number so near a border that rounding could move it."""
    rows, vocabulary = logprobs.shape
    likely = mx.arange(vocabulary) % -(-vocabulary // 8) == 0
    row = mx.where(likely, 0.0, -1000.0).astype(logprobs.dtype)
    return [mx.contiguous(mx.broadcast_to(row, logprobs.shape)), (mx.arange(rows) % 8 + 0.5) / 8]


OP = register(Op("sample", reference, launch, fits, traffic, made_up))
