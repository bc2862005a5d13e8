"""What training and scoring ask of a chunk of logits, in one pass over it: log-probability, entropy, logsumexp.

For C rows of V logits of `item` bytes, as loads and stores ask for them:

    plain    reads 4 C V or more, and writes C V in float32 for the softmax
    kernel   1 launch    reads C V item once, C targets and C logits of theirs; writes 5 C in float32
    gradient 1 launch    reads C V item once; writes C V item; 28 C V + 4 C of a row's seven numbers, which
                         a cache holds

The pass keeps, for the largest logit m so far, s = sum exp(x - m) and t = sum exp(x - m) (x - m), so that
logsumexp = m + log s and entropy = log s - t / s. m and log s are kept for the gradient, because their sum is
rounded more than they are. A logit of -inf is a token that is not there; one that is NaN makes its row NaN, so
that a model that has diverged is seen.
"""

from __future__ import annotations

import mlx.core as mx

from mlx_audio_r1.kernels.choice import Op, register
from mlx_audio_r1.kernels.source import kernel, row_threads

Statistics = tuple[mx.array, mx.array, mx.array]
Arrays = tuple[mx.array, ...]
DTYPES = (mx.float32, mx.float16, mx.bfloat16)
THREADS = 512


def token_statistics(logits: mx.array, targets: mx.array) -> Statistics:
    """logits (C, V), targets (C,) int32 or uint32 below V -> the target's log-probability, the entropy and
    the logsumexp, each (C,) in float32. All three have gradients to the logits."""
    return OP(logits, targets)


def reference(logits: mx.array, targets: mx.array) -> Statistics:
    x = logits.astype(mx.float32)
    log_sum = mx.logsumexp(x, axis=-1)
    log_probs = x - log_sum[:, None]
    there = mx.where(x == -mx.inf, 0.0, log_probs)
    entropy = -(mx.exp(log_probs) * there).sum(axis=-1)
    return mx.take_along_axis(log_probs, targets[:, None], axis=-1)[:, 0], entropy, log_sum


def fits(logits: mx.array, targets: mx.array) -> bool:
    return (
        logits.dtype in DTYPES
        and logits.ndim == 2
        and logits.size > 0
        and targets.dtype in (mx.int32, mx.uint32)
        and targets.shape == logits.shape[:1]
    )


def launch(logits: mx.array, targets: mx.array) -> Statistics:
    @mx.custom_function
    def forward(logits: mx.array) -> Arrays:
        return _forward(logits, targets)

    @forward.vjp
    def backward(logits: mx.array, cotangents: Arrays, outputs: Arrays) -> mx.array:
        return _backward(logits, targets, cotangents[:3], outputs)

    logprob, entropy, log_sum, _, _ = forward(logits)
    return logprob, entropy, log_sum


def _forward(logits: mx.array, targets: mx.array) -> Arrays:
    (rows, vocabulary), threads = logits.shape, row_threads(logits.shape[1], THREADS)
    names = ("logprob", "entropy", "log_sum", "top", "log_below")
    return tuple(
        kernel("token_statistics", ("logits", "targets"), names)(
            inputs=[logits, targets],
            template=[("VOCABULARY", vocabulary), ("THREADS", threads)],
            grid=(rows * threads, 1, 1),
            threadgroup=(threads, 1, 1),
            output_shapes=[(rows,)] * 5,
            output_dtypes=[mx.float32] * 5,
        )
    )


def _backward(logits: mx.array, targets: mx.array, cotangents: Arrays, outputs: Arrays) -> mx.array:
    """d_logprob (onehot - p) - d_entropy p (log p + entropy) + d_log_sum p."""
    rows, vocabulary = logits.shape
    _, entropy, _, top, log_below = outputs
    names = ("logits", "targets", "entropy", "top", "log_below", "d_logprob", "d_entropy", "d_log_sum")
    (d_logits,) = kernel("token_statistics_vjp", names, ("d_logits",))(
        inputs=[logits, targets, entropy, top, log_below, *cotangents],
        template=[("T", logits.dtype)],
        grid=(vocabulary, rows, 1),
        threadgroup=(min(256, vocabulary), 1, 1),
        output_shapes=[logits.shape],
        output_dtypes=[logits.dtype],
    )
    return d_logits


def traffic(logits: mx.array, targets: mx.array) -> int:
    """Of the values; the gradient is another launch."""
    return logits.nbytes + (4 + logits.itemsize + 20) * targets.size


OP = register(Op("token_statistics", reference, launch, fits, traffic))
