"""An answer that no rule can tell right from wrong: a judge must.

The surprise: as a task for learning it is worth nothing, so its verdict without a judge is 0.
"""

from __future__ import annotations

from dataclasses import dataclass

from mlx_audio_r1.tasks.item import Item, Verdict


@dataclass(frozen=True)
class Judged:
    """references: answers that are right, where any are known. rubric: what a good answer does, one a line
    or one a criterion; a scorer says how it is used."""

    references: tuple[str, ...] = ()
    rubric: tuple[str, ...] = ()


def verify_judged(answer: str, item: Item) -> Verdict:
    return Verdict(0.0, answer.strip() or None, "needs a judge")
