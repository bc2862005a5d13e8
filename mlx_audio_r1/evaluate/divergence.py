"""How far a checkpoint's next-token distributions are from a reference's, along the reference's reasoning.

    KL = sum_i p_i (log p_i - log q_i)      p: the reference, q: the other; nats a token

Both are teacher-forced over the same ids, so nothing is decoded and what one reasoning happens to say does not
matter. The surprise: a reference is kept as its TOP likeliest tokens and one bucket for the rest, so that no
two checkpoints are in memory at once; over this coarser alphabet the divergence is a lower bound, and exact for
a vocabulary that is no larger.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import mlx.core as mx
import numpy as np

from mlx_audio_r1.evaluate.logprobs import Case, over_logits
from mlx_audio_r1.files import write_arrays
from mlx_audio_r1.prompt import Message
from mlx_audio_r1.session import AudioR1

TOP = 4_096  # tokens of a distribution that are kept: 32 KB
PLACES = 64  # of a reasoning that are looked at, at even distances
LEAST = -60.0  # log of a rest that float32 has rounded away


@dataclass(frozen=True, eq=False)
class Reference:
    """places (T,): of the reply. ids, logp (T, K): of the likeliest tokens there, in no order."""

    places: np.ndarray
    ids: np.ndarray
    logp: np.ndarray

    def save(self, path: Path) -> None:
        """Raises DiskError."""
        write_arrays(path, {name: mx.array(array) for name, array in vars(self).items()})

    @classmethod
    def load(cls, path: Path) -> Reference:
        return cls(**{name: np.array(array) for name, array in mx.load(str(path)).items()})


@dataclass(frozen=True)
class Divergence:
    """Of one reply: mean KL in nats a token, the share of places where both prefer the same token, places."""

    kl: float
    agreement: float
    tokens: int


def spread_places(tokens: int, most: int = PLACES) -> list[int]:
    """At even distances, the first token among them."""
    return sorted({int(i) for i in np.linspace(0, tokens - 1, min(tokens, most))}) if tokens > 0 else []


def reference_of(r1: AudioR1, case: Case) -> Reference:
    """The distributions of a checkpoint at the case's places."""
    top = min(TOP, r1.config.text.vocab_size)
    [found] = over_logits(r1, [case], lambda logits, _: _likeliest(logits, top))
    ids, logp = found[:, :top].astype(np.int32), found[:, top:].astype(np.float32)
    return Reference(np.array(case.places, np.int32), ids, logp)


def divergence(r1: AudioR1, case: Case, reference: Reference) -> Divergence:
    """Of a checkpoint from the reference, at the reference's places."""
    at = iter(range(len(reference.places)))

    def read(logits: mx.array, _: mx.array) -> np.ndarray:
        rows = [next(at) for _ in range(logits.shape[0])]
        return _compared(logits, reference.ids[rows], reference.logp[rows])

    [found] = over_logits(r1, [case], read)
    return Divergence(float(found[:, 0].mean()), float(found[:, 1].mean()), len(found))


def _likeliest(logits: mx.array, top: int) -> np.ndarray:
    """(C, V) -> (C, 2 top): ids, then their log-probabilities."""
    logp = logits - mx.logsumexp(logits, axis=-1, keepdims=True)
    values = np.array(logp, np.float64)
    whole = top >= values.shape[1]
    ids = np.argsort(-values) if whole else np.argpartition(-values, top - 1)[:, :top]
    return np.concatenate([ids, np.take_along_axis(values, ids, axis=1)], axis=1)


def _compared(logits: mx.array, ids: np.ndarray, logp: np.ndarray) -> np.ndarray:
    """(C, V) of the other, (C, K) of the reference -> (C, 2): KL, and is the likeliest token the same?"""
    q = np.array(logits - mx.logsumexp(logits, axis=-1, keepdims=True), np.float64)
    p, known = logp.astype(np.float64), np.take_along_axis(q, ids, axis=1)
    kl = (np.exp(p) * (p - known)).sum(1) + _rest(p, known, whole=ids.shape[1] >= q.shape[1])
    best = np.take_along_axis(ids, p.argmax(1)[:, None], axis=1)[:, 0]
    return np.stack([kl, (best == q.argmax(1)).astype(float)], axis=1)


def _rest(p: np.ndarray, q: np.ndarray, whole: bool) -> np.ndarray:
    """The part of all tokens that were not kept."""
    if whole:
        return np.zeros(len(p))
    left = [np.maximum(1 - np.exp(x).sum(1), 0) for x in (p, q)]
    logs = [np.log(np.maximum(x, np.exp(LEAST))) for x in left]
    return left[0] * (logs[0] - logs[1])


def case_of(messages: Sequence[Message], ids: Sequence[int], thinking_tokens: int) -> Case:
    """A reply's reasoning, looked at in PLACES places."""
    return Case(messages, ids[:thinking_tokens], places=spread_places(thinking_tokens))
