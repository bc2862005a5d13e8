"""Losses over tokens.

The surprise: the mean is over all supervised tokens of the batch together, not a mean of sequence
means, so a long reply weighs as much as its tokens.
"""

from __future__ import annotations

import mlx.core as mx
import mlx.nn as nn

IGNORE = -1  # target of a position that is not trained on


def token_cross_entropy(logits: mx.array, targets: mx.array) -> mx.array:
    """(..., V) logits and (...) targets -> scalar sum over the targets that are not IGNORE, in nats."""
    chosen = mx.maximum(targets, 0)
    losses = nn.losses.cross_entropy(logits.astype(mx.float32), chosen)
    return mx.where(targets == IGNORE, 0.0, losses).sum()


def supervised_tokens(targets: mx.array) -> mx.array:
    """How many targets are not IGNORE, at least 1: what a summed loss is divided by."""
    return mx.maximum((targets != IGNORE).sum(), 1)


def mean_token_loss(logits: mx.array, targets: mx.array) -> mx.array:
    """Mean cross-entropy of the supervised tokens, in nats."""
    return token_cross_entropy(logits, targets) / supervised_tokens(targets)
