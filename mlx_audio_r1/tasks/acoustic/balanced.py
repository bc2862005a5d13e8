"""Held-out items of every task with the answers balanced: what `eval run acoustic-world` and nano's table ask.

Clips from seeds that no training clip has, speakers that none has, half of the questions with options. The
surprise: clips are made in turn and each is asked whatever is still wanted, so one clip serves several tasks.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass

from mlx_audio_r1.tasks.acoustic import questions as q
from mlx_audio_r1.tasks.acoustic import speech
from mlx_audio_r1.tasks.acoustic.world import KINDS, Clip, make_clip

FIRST_SEED = 700_000_000  # far from the seeds of training
MOST_CLIPS_PER_ITEM = 12  # give up on a rare answer after that many clips an item


@dataclass(frozen=True)
class Drawn:
    """A clip and a question about it."""

    clip: Clip
    question: q.Question


def draw_items(per_task: int, seed: int = 0, held_out_words: bool = False) -> list[Drawn]:
    """About `per_task` items of every task with the answers balanced, the same for the same seed."""
    taken: dict[str, Counter[str]] = defaultdict(Counter)
    items: list[Drawn] = []
    for number in range(per_task * len(q.TASKS) * MOST_CLIPS_PER_ITEM):
        open_tasks = [t for t in q.TASKS if taken[t].total() < per_task]
        if not open_tasks:
            break
        kind = list(KINDS)[number % len(KINDS)]
        clip = _clip(FIRST_SEED + 1_000_003 * seed + number, kind)
        if clip is None:
            continue
        for task in set(open_tasks) & set(q.fitting_tasks(clip.truth)):
            choice = taken[task].total() % 2 == 1
            question = q.make_question(clip.truth, number, task, held_out_words, choice)
            if taken[task][question.gold] < _quota(task, per_task):
                taken[task][question.gold] += 1
                items.append(Drawn(clip, question))
    return sorted(items, key=lambda item: list(q.TASKS).index(item.question.task))


def _clip(seed: int, kind: str) -> Clip | None:
    """The clip, or None for a kind this machine cannot make (speech without espeak-ng)."""
    if kind == "speech" and not speech.available():
        return None
    return make_clip(seed, kind, held_out=True)


def _quota(task: str, per_task: int) -> int:
    answers = len(q.TASKS[task].answers)
    return -(-per_task // answers) if answers else max(1, per_task // 4)
