"""Experiences -> the arrays of a training step.

What was sampled is put behind its prompt id by id; nothing is tokenised again. Every token of a reply is
learnt, the stop token too, none of the prompt. The surprise: a batch lists learnt tokens reply by reply,
so whatever is known of them is simply laid end to end.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import mlx.core as mx
import numpy as np

from mlx_audio_r1.models.step_audio_r1 import Model
from mlx_audio_r1.train.batch import Batch
from mlx_audio_r1.train.batches import collate
from mlx_audio_r1.train.examples import Example
from mlx_audio_r1.train.experience import Experience
from mlx_audio_r1.train.features import Features
from mlx_audio_r1.train.forward import DEFAULT, ForwardOptions
from mlx_audio_r1.train.logprobs import token_logprobs

PAD_TO = 32
WEIGHTS = "weights"  # of an experience's tokens, where they are not 1


def completed(experience: Experience) -> Example:
    """The prompt with the reply behind it, every token of which is learnt and weighs 1."""
    prompt, rollout = experience.prompt, experience.rollout
    ids = np.concatenate([prompt.ids, np.array(rollout.ids, np.int32)])
    weights = np.concatenate([np.zeros(len(prompt), np.float32), np.ones(len(rollout), np.float32)])
    return replace(prompt, ids=ids, weights=weights)


def rollout_batch(
    experiences: Sequence[Experience], features: Features | None = None, *, pad_to: int = PAD_TO
) -> Batch:
    """One row each. `extra` gets logp_rollout and every array of the experiences' tokens, (M,) float32."""
    batch = collate([completed(e) for e in experiences], features, pad_to=pad_to)
    names = set.intersection(*(set(e.tokens) for e in experiences)) - {WEIGHTS}
    arrays = {name: [e.tokens[name] for e in experiences] for name in sorted(names)}
    arrays["logp_rollout"] = [np.array(e.rollout.logprobs) for e in experiences]
    size = batch.positions.size
    extra = {name: _laid_out(parts, size) for name, parts in arrays.items()}
    labels = tuple(f"{e.rollout.prompt} sample {e.rollout.sample}" for e in experiences)
    weights = batch.weights
    if any(WEIGHTS in e.tokens for e in experiences):
        own = [e.tokens.get(WEIGHTS, np.ones(len(e.rollout))) for e in experiences]
        weights = weights * _laid_out(own, size)
    return replace(batch, names=labels, weights=weights, extra={**batch.extra, **extra})


def _laid_out(parts: Sequence[np.ndarray], size: int) -> mx.array:
    flat = np.concatenate(parts).astype(np.float32)
    return mx.array(np.pad(flat, (0, size - len(flat))))


def by_reply(values: mx.array, experiences: Sequence[Experience]) -> list[np.ndarray]:
    """(M,) of their batch -> (T,) of each reply, float64."""
    ends = np.cumsum([len(e.rollout) for e in experiences])
    flat = np.array(values.astype(mx.float32), np.float64)[: ends[-1]]
    return np.split(flat, ends[:-1])


def micro_batches(
    lengths: Sequence[int], max_tokens: int, *, pad_to: int = PAD_TO, rank: int = 0, world: int = 1
) -> list[list[int]]:
    """Numbers of the experiences of each micro-batch of this rank: neighbours in length, as many as fit.

    lengths: len of each. max_tokens: of a micro-batch with its padding; one that is longer is alone.
    """
    order = sorted(range(len(lengths)), key=lambda i: (lengths[i], i))
    batches: list[list[int]] = []
    for i in order:
        width = -(-lengths[i] // pad_to) * pad_to
        if not batches or (len(batches[-1]) + 1) * width > max_tokens:
            batches.append([])
        batches[-1].append(i)
    return batches[rank::world]


def known_by(
    measure: Callable[[Batch], mx.array],
    experiences: Sequence[Experience],
    features: Features | None,
    max_tokens: int,
) -> list[np.ndarray]:
    """What `measure` says of every token, (T,) for each experience, in their order."""
    found: list[np.ndarray] = [np.zeros(0)] * len(experiences)
    for numbers in micro_batches([len(e) for e in experiences], max_tokens):
        members = [experiences[i] for i in numbers]
        values = measure(rollout_batch(members, features))
        mx.eval(values)
        for i, own in zip(numbers, by_reply(values, members), strict=True):
            found[i] = own
    return found


def with_logprobs(
    model: Model,
    experiences: Sequence[Experience],
    features: Features | None,
    max_tokens: int,
    name: str = "logp_old",
    options: ForwardOptions = DEFAULT,
) -> list[Experience]:
    """The experiences with log-probabilities under the model as it is, as `name`.

    logp_old: before the first of several updates. logp_reference: within `adapters.disabled`, or, where the
    policy began with an adapter, `wearing` that one.
    """
    training = model.training
    model.eval()
    try:
        found = known_by(lambda batch: token_logprobs(model, batch, options, entropy=False)[0],
                         experiences, features, max_tokens)  # fmt: skip
    finally:
        model.train(training)
    return [e.with_tokens(**{name: own}) for e, own in zip(experiences, found, strict=True)]
