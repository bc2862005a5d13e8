"""Does an answer deny that there is a sound, or that one can hear it? Rules in English and Chinese; an error
rate: 1 is a denial. "I hear nothing" is none where nothing is to be heard, nor anywhere else."""

from __future__ import annotations

from mlx_audio_r1.evaluate.scoring import RuleScorer, Score
from mlx_audio_r1.tasks.denials import denies_hearing
from mlx_audio_r1.tasks.item import Item


def rule(reply: str, item: Item) -> Score:
    """1 for a denial, whose words are what was parsed."""
    found = denies_hearing(reply)
    if found:
        return Score(1.0, found.group(), "denies hearing")
    return Score(0.0, "hears" if reply.strip() else None, "no denial")


DENIAL = RuleScorer("self.denial", "denials of hearing", rule, error=True)
