"""A sampled reply with the question it answers: what the filters decide about."""

from __future__ import annotations

from dataclasses import dataclass

from mlx_audio_r1.tasks.item import Item
from mlx_audio_r1.train.examples import Example
from mlx_audio_r1.train.rollouts import Rollout


@dataclass(frozen=True, eq=False)
class Candidate:
    """item: what is asked and true. prompt: as the model was asked. rollout: what it sampled."""

    item: Item
    prompt: Example
    rollout: Rollout

    @property
    def key(self) -> tuple[str, int]:
        """(name of the prompt, number of the sample)"""
        return self.rollout.key

    @property
    def thinking(self) -> str:
        return self.rollout.thinking

    @property
    def answer(self) -> str:
        return self.rollout.answer
