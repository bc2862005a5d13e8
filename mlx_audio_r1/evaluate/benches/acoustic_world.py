"""acoustic-world: built in and made on the spot, with known truth; what nano's table measures.

    audio-r1 eval import acoustic-world -o world/ --n 16

N items of every task, from clips, seeds and speakers that no training clip has, answers balanced, half with
options. The surprise: a machine without espeak-ng has no voices, and then there is a task less.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from mlx_audio_r1.errors import EvaluationError
from mlx_audio_r1.evaluate.bench import AUDIO, TEXT, Bench, Embedded, Profile, Question
from mlx_audio_r1.evaluate.profiles import OTHER_CHOICES
from mlx_audio_r1.tasks.acoustic.balanced import Drawn, draw_items
from mlx_audio_r1.tasks.acoustic.questions import INSTRUCTION
from mlx_audio_r1.tasks.acoustic_world import difficulty_of, named, target_of
from mlx_audio_r1.tasks.world_rows import wav_bytes

SETTINGS = {"temperature": 0.0, "max_tokens": 8_192}


def make(per_task: int, seed: int) -> Iterator[Question]:
    """About `per_task` questions of every task, the same for the same seed."""
    numbers: Counter[str] = Counter()
    for drawn in draw_items(per_task, seed):
        yield _question(drawn, numbers[drawn.question.task], seed)
        numbers[drawn.question.task] += 1


def read(path: Path) -> Iterator[Question]:
    """Nothing is read."""
    raise EvaluationError(f"{path}: acoustic-world is built in; give it no path")


def _question(drawn: Drawn, number: int, seed: int) -> Question:
    asked, truth = drawn.question, drawn.clip.truth
    return Question(
        id=f"{asked.task}-{number}",
        text=asked.text.partition(INSTRUCTION)[0],
        sounds=(Embedded(wav_bytes(drawn.clip.waveform)),),
        target=target_of(asked),
        groups={
            "task": asked.task,
            "form": "choice" if asked.options else "free",
            "difficulty": named(difficulty_of(asked.task, truth)),
            "kind": truth.kind,
        },
        split=f"seed-{seed}",
        chance=asked.chance,
        ref={"thinking": asked.reasoning, "answer": asked.answer},
    )


BENCH = Bench(
    name="acoustic-world",
    title="acoustic-world, built in",
    read=read,
    make=make,
    profiles=(
        Profile("acoustic-world", order=(AUDIO, TEXT), settings=SETTINGS),
        *OTHER_CHOICES,
    ),
    scorers=("world",),
    license="Apache-2.0",
    group_by=("task", "form", "difficulty"),
    source="nothing: it is made on the spot",
)
