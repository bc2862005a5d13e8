"""Grounding by evidence: how much likelier the true sound makes a reasoning than a control does (measure G4).

    gain(t) = log p(token t | sound, before) - log p(token t | control, before)      in nats

Two teacher-forced passes over the candidates as they were sampled, nothing is decoded. A chain that could have
been written without listening gains nothing, however acoustic its words are. The surprise: a token that is
certain either way counts too, so means are small even where every number was heard.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from mlx_audio_r1.mgrd.candidate import Candidate
from mlx_audio_r1.mgrd.controls import Silence, control_features
from mlx_audio_r1.session import AudioR1
from mlx_audio_r1.tasks.evidence import GROUNDED_NATS, Evidence, summed_up
from mlx_audio_r1.tasks.token_kinds import token_kinds
from mlx_audio_r1.train.experience import Experience
from mlx_audio_r1.train.features import Features
from mlx_audio_r1.train.rollout_batch import with_logprobs
from mlx_audio_r1.train.sounds import SoundChunk

__all__ = ["GROUNDED_NATS", "MAX_TOKENS", "Evidence", "Silence", "evidence_of", "summed_up", "token_gains"]
MAX_TOKENS = 16_384  # of a micro-batch, padding included
REAL = "logp_real"


def evidence_of(
    r1: AudioR1,
    candidates: Sequence[Candidate],
    features: Features,
    *,
    control: str = "silence",
    pool: Iterable[SoundChunk] | None = None,
    seed: int = 0,
    max_tokens: int = MAX_TOKENS,
) -> list[Evidence | None]:
    """The evidence of each candidate, in their order; None for one without a sound.

    control: of `controls.CONTROLS`. pool: the clips that `other` draws from; those of the candidates where
    None. max_tokens: of a micro-batch. Raises TrainingError for an unknown control, or a pool of one clip.
    """
    heard = [c for c in candidates if c.prompt.sounds]
    pool = [chunk for c in heard for chunk in c.prompt.sounds] if pool is None else pool
    instead = control_features(control, r1.model, features, pool, seed)
    gains = token_gains(r1, heard, features, instead, max_tokens)
    found = {id(c): summed_up(gain, token_kinds(r1.tokenizer, c.rollout.ids))
             for c, gain in zip(heard, gains, strict=True)}  # fmt: skip
    return [found.get(id(c)) for c in candidates]


def token_gains(
    r1: AudioR1, candidates: Sequence[Candidate], features: Features, instead: Features, max_tokens: int
) -> list[np.ndarray]:
    """(T,) of each candidate: what every token of its reply gains by the true sound, in nats."""
    asked = [Experience(c.prompt, c.rollout, {}) for c in candidates]
    real = with_logprobs(r1.model, asked, features, max_tokens, REAL)
    control = with_logprobs(r1.model, asked, instead, max_tokens, REAL)
    return [a.tokens[REAL] - b.tokens[REAL] for a, b in zip(real, control, strict=True)]
