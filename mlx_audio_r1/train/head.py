"""The head over hidden states, a chunk at a time: log-probabilities and no logits.

The surprise: one implementation serves frozen, tied, trained, quantised and adapted heads, because the head is
only called and differentiated, never opened. Behind it either plain operations or the kernel `token_statistics`
turn logits into log-probabilities, as the switch of the kernels says.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import mlx.core as mx
import mlx.nn as nn

from mlx_audio_r1.kernels import token_statistics
from mlx_audio_r1.models.step_audio_r1 import Model
from mlx_audio_r1.train.recompute import after, explicit, keys

Arrays = tuple[mx.array, ...]
Pieces = list[tuple[slice, Callable[..., mx.array]]]  # rows of h, and the head as a function of them and values


@dataclass(frozen=True)
class Head:
    """module: what holds the weights. apply: (C, hidden_size) -> (C, V) logits."""

    module: nn.Module
    apply: Callable[[mx.array], mx.array]

    @classmethod
    def of(cls, model: Model) -> Head:
        language_model = model.language_model
        if language_model.args.tie_word_embeddings:
            return cls(language_model.model.embed_tokens, language_model.model.embed_tokens.as_linear)
        return cls(language_model.lm_head, language_model.lm_head)


def head_logprobs(
    head: Head, h: mx.array, targets: mx.array, chunk: int, *, entropy: bool = True, ahead: bool = False
) -> Arrays:
    """Hidden states (M, hidden_size), targets (M,) -> log-probabilities (M,), and entropies where wanted.

    Gradients reach h and the trainable parameters of the head. Logits are in the model's dtype, everything
    behind them in float32. `ahead`: the gradient will be asked for, so where it can it is prepared at once,
    which saves a third of the head's products.
    """
    if not h.shape[0]:
        return (mx.zeros((0,)),) * (1 + entropy)
    spans = [slice(start, start + chunk) for start in range(0, h.shape[0], chunk)]
    made = [explicit(head.module, head.apply, key) for key in keys(head.module, len(spans))]
    values, pieces = made[0][0], [(span, call) for span, (_, call) in zip(spans, made, strict=True)]
    if ahead and not entropy and not values:
        return _prepared(pieces, h, targets)[:1]
    return _recomputed(pieces, h, values, targets, entropy)


def _prepared(pieces: Pieces, h: mx.array, targets: mx.array) -> Arrays:
    """A token's log-probability has one gradient with respect to its hidden state, whatever the loss makes of
    it: both are computed while the logits are there, and the backward pass scales."""

    @mx.custom_function
    def forward(h: mx.array) -> Arrays:
        done: list[Arrays] = []
        for span, call in pieces:
            part = after(h[span], *done[-1:])
            logits = call(part)
            (logp,) = _of_logits(logits, targets[span], entropy=False)
            d_logits = _to_logits(logits, targets[span], [mx.ones_like(logp)], [logp])
            done.append((logp, mx.vjp(call, [part], [d_logits])[1][0]))
        return tuple(map(mx.concatenate, zip(*done, strict=True)))

    @forward.vjp
    def backward(h: mx.array, cotangents: Arrays, kept: Arrays) -> mx.array:
        return (cotangents[0][:, None] * kept[1]).astype(h.dtype)

    return forward(h)


def _recomputed(
    pieces: Pieces, h: mx.array, values: list[mx.array], targets: mx.array, entropy: bool
) -> Arrays:
    """The backward pass makes the logits again."""

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
    side = _kernel_of if _STATISTICS.runs(logits, targets) else _plain_of
    return side(logits, targets, entropy)


def _to_logits(
    logits: mx.array, targets: mx.array, cotangents: list[mx.array], kept: list[mx.array]
) -> mx.array:
    """(C, V) gradient of the logits: d_logp (onehot - p) - d_entropy p (log p + entropy)."""
    side = _kernel_to if _STATISTICS.runs(logits, targets) else _plain_to
    return side(logits, targets, cotangents, kept)


def _kernel_of(logits: mx.array, targets: mx.array, entropy: bool) -> Arrays:
    return token_statistics.launch(logits, targets)[: 1 + entropy]


def _kernel_to(
    logits: mx.array, targets: mx.array, cotangents: list[mx.array], kept: list[mx.array]
) -> mx.array:
    """Its own statistics again: what is kept of them is rounded more than its gradient likes."""
    def values(x: mx.array) -> Arrays:
        return token_statistics.launch(x, targets)[: len(kept)]

    return mx.vjp(values, [logits], cotangents)[1][0]


def _plain_of(logits: mx.array, targets: mx.array, entropy: bool) -> Arrays:
    logits = logits.astype(mx.float32)
    log_sum = mx.logsumexp(logits, axis=-1)
    logp = mx.take_along_axis(logits, targets[:, None], axis=-1)[:, 0] - log_sum
    if not entropy:
        return (logp,)
    return logp, log_sum - mx.einsum("cv,cv->c", mx.softmax(logits, axis=-1), logits)


def _plain_to(
    logits: mx.array, targets: mx.array, cotangents: list[mx.array], kept: list[mx.array]
) -> mx.array:
    """What the targets get follows from their kept log-probabilities, so that the array is written in place."""
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


def _both(of: Callable[..., Arrays], to: Callable[..., mx.array]) -> Callable[..., Arrays]:
    """Values and gradient of one side: what is tried and measured before it is used."""
    def side(logits: mx.array, targets: mx.array) -> Arrays:
        kept = of(logits, targets, True)
        return *kept, to(logits, targets, [mx.ones_like(x) for x in kept], list(kept))

    return side


_STATISTICS = replace(
    token_statistics.OP, reference=_both(_plain_of, _plain_to), launch=_both(_kernel_of, _kernel_to)
)
