"""The log-probabilities of the learnt tokens: what every loss is made of.

The logits of a batch are the largest array of a training step (6.5 GB for 10,240 tokens of 158,720 words
in float32), so only the learnt positions get any, a chunk at a time, and the backward pass makes them
again. The surprise: one implementation serves frozen, trained, tied, quantised and adapted heads, because
the head is only called and differentiated, never opened.
"""

from __future__ import annotations

from collections.abc import Callable

import mlx.core as mx
import mlx.nn as nn

from mlx_audio_r1.models.step_audio_r1 import Model
from mlx_audio_r1.train.batch import Batch
from mlx_audio_r1.train.forward import DEFAULT, ForwardOptions, hidden_states
from mlx_audio_r1.train.recompute import after, explicit, keys

Arrays = tuple[mx.array, ...]


def token_logprobs(
    model: Model, batch: Batch, options: ForwardOptions = DEFAULT, *, entropy: bool = True
) -> tuple[mx.array, mx.array | None]:
    """log p(target | what stands before it), and the entropy of that prediction, of every learnt token.

    Both are (M,) float32, in nats, and differentiable. Without `entropy` there is none, which saves a third
    of the head's time on a CPU.
    """
    h = hidden_states(model, batch, options)
    learnt = h.reshape(-1, h.shape[-1])[batch.positions]
    module, head = head_of(model)
    found = head_logprobs(module, head, learnt, batch.targets, options.head_chunk, entropy)
    return found[0], found[1] if entropy else None


def sequence_logprobs(logp: mx.array, batch: Batch) -> mx.array:
    """(n,) weighted sums of (M,) log-probabilities over the tokens of each example."""
    own = batch.owners == mx.arange(batch.examples)[:, None]
    return mx.where(own, logp * batch.weights, 0.0).sum(axis=1)


def head_of(model: Model) -> tuple[nn.Module, Callable[[mx.array], mx.array]]:
    """The module that holds the head's weights, and the head."""
    language_model = model.language_model
    if language_model.args.tie_word_embeddings:
        return language_model.model.embed_tokens, language_model.model.embed_tokens.as_linear
    return language_model.lm_head, language_model.lm_head


def head_logprobs(
    module: nn.Module,
    head: Callable[[mx.array], mx.array],
    h: mx.array,
    targets: mx.array,
    chunk: int,
    entropy: bool,
) -> Arrays:
    """Hidden states (M, hidden_size), targets (M,) -> log-probabilities (M,), and entropies where wanted.

    Gradients reach h and the trainable parameters of `module`. Logits are in the model's dtype, everything
    behind them in float32.
    """
    if not h.shape[0]:
        return (mx.zeros((0,)),) * (1 + entropy)
    spans = [slice(start, start + chunk) for start in range(0, h.shape[0], chunk)]
    made = [explicit(module, head, key) for key in keys(module, len(spans))]
    values, pieces = made[0][0], [(span, call) for span, (_, call) in zip(spans, made, strict=True)]

    @mx.custom_function
    def forward(inputs: list[mx.array]) -> Arrays:
        h, *values = inputs
        done: list[Arrays] = []
        for span, call in pieces:
            part = after(h[span], *done[-1:])
            done.append(_of_logits(call(part, *values), targets[span], entropy))
        return tuple(map(mx.concatenate, zip(*done, strict=True)))

    @forward.vjp
    def backward(inputs: list[mx.array], cotangents: Arrays, kept: Arrays) -> list[mx.array]:
        h, *values = inputs
        d_h: list[mx.array] = []
        d_values = [mx.zeros(value.shape, mx.float32) for value in values]
        for span, call in pieces:
            part = after(h[span], (*d_h[-1:], *d_values))
            d_logits = _to_logits(
                call(part, *values), targets[span], [d[span] for d in cotangents], [x[span] for x in kept]
            )
            d_part, *shares = mx.vjp(call, [part, *values], [d_logits])[1]
            d_h.append(d_part)
            d_values = [total + share for total, share in zip(d_values, shares, strict=True)]
        return [mx.concatenate(d_h), *(d.astype(v.dtype) for d, v in zip(d_values, values, strict=True))]

    return forward([h, *values])


def _of_logits(logits: mx.array, targets: mx.array, entropy: bool) -> Arrays:
    """(C, V) logits and (C,) targets -> (C,) log-probabilities, and (C,) entropies where wanted."""
    logits = logits.astype(mx.float32)
    log_sum = mx.logsumexp(logits, axis=-1)
    logp = mx.take_along_axis(logits, targets[:, None], axis=-1)[:, 0] - log_sum
    if not entropy:
        return (logp,)
    return logp, log_sum - mx.einsum("cv,cv->c", mx.softmax(logits, axis=-1), logits)


def _to_logits(
    logits: mx.array, targets: mx.array, cotangents: list[mx.array], kept: list[mx.array]
) -> mx.array:
    """(C, V) gradient of the logits: d_logp (onehot - p) - d_entropy p (log p + entropy).

    What the targets get follows from their kept log-probabilities, so that the array is written in place.
    """
    x = logits.astype(mx.float32)
    d_logp, logp = cotangents[0], kept[0]
    slope, slope_there = -d_logp[:, None], -d_logp
    if len(kept) > 1:
        d_entropy, entropy = cotangents[1], kept[1]
        level = mx.logsumexp(x, axis=-1) - entropy
        slope = (d_entropy * level - d_logp)[:, None] - d_entropy[:, None] * x
        slope_there = -d_logp - d_entropy * (logp + entropy)
    there = d_logp + mx.exp(logp) * slope_there
    d_logits = mx.put_along_axis(mx.softmax(x, axis=-1) * slope, targets[:, None], there[:, None], axis=-1)
    return d_logits.astype(logits.dtype)
