"""The log-probabilities of the learnt tokens: what every loss is made of.

The logits of a batch are the largest array of a training step (6.5 GB for 10,240 tokens of 158,720 words in
float32), so only the learnt positions get any, and those a chunk at a time (`head`). The surprise: a model that
is set to train (`model.train()`) gets its gradient prepared with them; results do not depend on it.
"""

from __future__ import annotations

import mlx.core as mx

from mlx_audio_r1.models.step_audio_r1 import Model
from mlx_audio_r1.train.batch import Batch
from mlx_audio_r1.train.forward import DEFAULT, ForwardOptions, hidden_states
from mlx_audio_r1.train.head import Head, head_logprobs


def token_logprobs(
    model: Model, batch: Batch, options: ForwardOptions = DEFAULT, *, entropy: bool = True
) -> tuple[mx.array, mx.array | None]:
    """log p(target | what stands before it), and the entropy of that prediction, of every learnt token.

    Both are (M,) float32, in nats, and differentiable. Where nobody asks for the entropy a third of the head's
    time is saved.
    """
    h = hidden_states(model, batch, options)
    learnt = h.reshape(-1, h.shape[-1])[batch.positions]
    head, ahead = Head.of(model), bool(model.training)
    found = head_logprobs(head, learnt, batch.targets, options.head_chunk, entropy=entropy, ahead=ahead)
    return found[0], found[1] if entropy else None


def sequence_logprobs(logp: mx.array, batch: Batch) -> mx.array:
    """(n,) weighted sums of (M,) log-probabilities over the tokens of each example."""
    own = batch.owners == mx.arange(batch.examples)[:, None]
    return mx.where(own, logp * batch.weights, 0.0).sum(axis=1)
