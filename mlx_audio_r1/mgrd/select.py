"""Which questions a round asks: those that cannot be answered without listening.

The paper (section 4.2) selects perception-heavy questions and does not say how. Here: a question has a sound;
with `perception: words` its text must speak of sound (the lexicon), with `silence` the model itself, given
silence in the place of the sound, must fail to guess the answer. Questions without a sound are for RL alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from mlx_audio_r1.errors import TrainingError
from mlx_audio_r1.tasks.lexicon import grounding
from mlx_audio_r1.train.row_forms import Row

PERCEPTION = ("any", "words", "silence")


@dataclass(frozen=True)
class Selection:
    """questions, text_questions: at most so many a round, drawn anew for each; None: all. silent_samples:
    replies without the sound; most_silent: the share of them that may be right."""

    questions: int | None = None
    text_questions: int | None = None
    perception: str = "any"
    silent_samples: int = 4
    most_silent: float = 0.5

    def __post_init__(self) -> None:
        if self.perception not in PERCEPTION:
            raise TrainingError(f"select: perception {self.perception!r} is none of {', '.join(PERCEPTION)}")
        if self.silent_samples < 1 or not 0 <= self.most_silent <= 1:
            raise TrainingError("select: silent_samples from 1 up, most_silent a share from 0 to 1")


@dataclass(frozen=True)
class Chosen:
    """A question's fate, and why."""

    where: str
    chosen: bool
    why: str


def draw(rows: Sequence[Row], selection: Selection, seed: int, round: int) -> tuple[list[Row], list[Row]]:
    """(with sound, without) of a round, at most so many as are wanted, in the order of the file."""
    sounding = [row for row in rows if row.sounds]
    silent = [row for row in rows if not row.sounds]
    counts = selection.questions, selection.text_questions
    return _some(sounding, counts[0], seed, round), _some(silent, counts[1], seed, round)


def by_words(row: Row) -> Chosen:
    """Does the question speak of sound?"""
    terms = grounding(row.history[-1].text).terms
    return Chosen(row.name, terms > 0, f"{terms} acoustic terms in the question")


def by_silence(row: Row, correct: Sequence[float], selection: Selection) -> Chosen:
    """Do guesses without the sound fail often enough? correct: of each reply to silence, 0 to 1."""
    share = float(np.mean(correct))
    return Chosen(row.name, share <= selection.most_silent, f"{share:.0%} right without the sound")


def fates(
    rows: Sequence[Row], selection: Selection, silent: Mapping[str, Sequence[float]] | None = None
) -> list[Chosen]:
    """What becomes of the questions with a sound. silent: name -> correct of each reply to silence."""
    if selection.perception == "words":
        return [by_words(row) for row in rows]
    if selection.perception == "silence":
        return [by_silence(row, (silent or {})[row.name], selection) for row in rows]
    return [Chosen(row.name, True, "has a sound") for row in rows]


def _some(rows: Sequence[Row], count: int | None, seed: int, round: int) -> list[Row]:
    if count is None or count >= len(rows):
        return list(rows)
    drawn = np.random.default_rng([abs(seed), round]).permutation(len(rows))[:count]
    return [rows[i] for i in sorted(drawn.tolist())]
