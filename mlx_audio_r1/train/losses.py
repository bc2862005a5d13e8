"""Losses over tokens.

The surprise: nothing here is a mean of sequence means. `sft_loss` and `dpo_loss` give sums and what to divide
them by, so that a trainer divides once, over all micro-batches and ranks; a long reply weighs as much as its
tokens.
"""

from __future__ import annotations

import mlx.core as mx
import mlx.nn as nn

from mlx_audio_r1.errors import TrainingError
from mlx_audio_r1.models.step_audio_r1 import Model
from mlx_audio_r1.train.batch import Batch
from mlx_audio_r1.train.forward import DEFAULT, ForwardOptions
from mlx_audio_r1.train.logprobs import sequence_logprobs, token_logprobs

Loss = tuple[mx.array, mx.array, dict[str, mx.array]]  # total, what to divide it by, sums for the log
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


def sft_loss(model: Model, batch: Batch, options: ForwardOptions = DEFAULT) -> Loss:
    """Weighted sum of the learnt tokens' negative log-probabilities in nats, and the sum of their weights."""
    logp, _ = token_logprobs(model, batch, options, entropy=False)
    return -(logp * batch.weights).sum(), batch.weights.sum(), {}


def dpo_loss(
    model: Model,
    batch: Batch,
    options: ForwardOptions = DEFAULT,
    beta: float = 0.1,
    label_smoothing: float = 0.0,
) -> Loss:
    """Direct preference optimisation (arXiv 2305.18290, equation 7) summed over pairs, and their number.

    `batch.extra["reference"]` (n,) holds the log-probabilities of all replies under the reference. With
    `label_smoothing` that share of the preferences counts as the wrong way round (conservative DPO, as in TRL).
    """
    logp, _ = token_logprobs(model, batch, options, entropy=False)
    rewards = beta * (sequence_logprobs(logp, batch) - _reference(batch))
    chosen, rejected = rewards[0::2], rewards[1::2]
    margin = chosen - rejected
    losses = -(1 - label_smoothing) * nn.log_sigmoid(margin) - label_smoothing * nn.log_sigmoid(-margin)
    sums = {"margin": margin, "accuracy": margin > 0, "chosen_reward": chosen, "rejected_reward": rejected}
    total, count = losses.sum(), mx.array(float(margin.size))
    return total, count, {name: values.astype(mx.float32).sum() for name, values in sums.items()}


def _reference(batch: Batch) -> mx.array:
    reference = batch.extra.get("reference")
    if reference is None or reference.shape != (batch.examples,) or batch.examples % 2:
        where = batch.names[0] if batch.names else "a batch of no examples"
        raise TrainingError(f"{where}: DPO takes pairs and the reference's log-probability of every reply")
    return reference
