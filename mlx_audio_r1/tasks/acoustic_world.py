"""The synthetic world as an endless task: clips of known truth, balanced answers, three difficulties.

    item = world_item(seed=7, task="compare", difficulty="hard")
    item.sounds[0].source    # the clip, (samples,) float32 at 16 kHz
    item.chance              # 0.333: what a blind guess scores

The answer is drawn first, every one as likely as the others, then a clip that has it. How hard a clip is
follows from its truth: the background, and how close together lies what is to be told apart. The
surprise: where nothing can be close ("silence", "clean") a clip is as hard as any.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from fractions import Fraction
from itertools import pairwise

import numpy as np

from mlx_audio_r1.config import SAMPLE_RATE
from mlx_audio_r1.prompt import AudioPart
from mlx_audio_r1.tasks.acoustic import speech
from mlx_audio_r1.tasks.acoustic.questions import TASKS, Question, make_question
from mlx_audio_r1.tasks.acoustic.world import Clip, Event, Truth, make_clip
from mlx_audio_r1.tasks.boolean import Boolean
from mlx_audio_r1.tasks.choice import Choice
from mlx_audio_r1.tasks.item import Item, Turn
from mlx_audio_r1.tasks.label import Label
from mlx_audio_r1.tasks.number import Quantity
from mlx_audio_r1.tasks.wording import Wording

Rng = np.random.Generator
DIFFICULTIES = ("easy", "medium", "hard")
MOST_DRAWS = 2_000  # clips looked at for one item; the rarest wanted one comes every 60th time
BACKGROUND = {40: 0.0, 25: 0.4, 15: 0.6, 10: 0.8, 5: 1.0}  # dB of the floor below the sounds -> difficulty
KINDS = {  # task -> kinds of clip that it can be asked about
    "source": ("single", "repeat"), "contour": ("single",), "loudness": ("single", "noise"),
    "register": ("single", "repeat"), "compare": ("pair",), "longer": ("pair",), "louder": ("pair",),
    "count": ("repeat",), "first": ("sequence",), "last": ("sequence",), "order": ("sequence",),
    "before": ("sequence",), "noisy": ("single", "pair", "repeat"), "voice": ("speech",),
}  # fmt: skip
ANSWER_KINDS = {  # task -> answer -> kinds, where the answer decides it
    "main": {"speech": ("speech",), "music": ("music",), "noise": ("noise",), "silence": ("silence",),
             "tone": ("single",), "bell": ("single",), "plucked string": ("single",), "click": ("repeat",),
             "drum": ("repeat",)},
    "speech": {"yes": ("speech", "sequence"), "no": ("single", "repeat", "sequence", "music")},
}  # fmt: skip
SYNONYMS = {  # task -> answer -> other words for it
    "contour": {"rising": ("rises", "ascending", "upward", "goes up"), "falling": ("falls", "descending",
                "downward", "goes down"), "steady": ("stays", "constant", "stable", "flat"),
                "wobbling": ("wobbles", "vibrato", "swinging")},
    "loudness": {"growing": ("grows", "louder", "crescendo", "increasing"), "fading": ("fades", "softer",
                 "quieter", "decrescendo", "decreasing"), "steady": ("stays", "constant", "even")},
    "compare": {"higher": ("above",), "lower": ("below",), "same": ("equal", "identical")},
    "voice": {"male": ("man",), "female": ("woman",)},
    "longer": {"first": ("1st",), "second": ("2nd",)}, "louder": {"first": ("1st",), "second": ("2nd",)},
}  # fmt: skip


def world_tasks() -> tuple[str, ...]:
    """The tasks that can be asked here: without espeak-ng nobody speaks."""
    return tuple(t for t in TASKS if speech.available() or t not in ("voice", "speech"))


def answers_of(task: str) -> tuple[str, ...]:
    """All answers of a task, equally likely; () for a list of sounds."""
    return tuple(a for a in TASKS[task].answers if a != "speech" or speech.available())


def world_item(
    seed: int,
    task: str | None = None,
    difficulty: str | None = None,
    *,
    choice: bool = True,
    held_out: bool = False,
    text_first: bool = False,
) -> Item:
    """The item of this seed; the same on every machine with the same NumPy (and espeak-ng, for voices).

    task and difficulty: one of `world_tasks()` and DIFFICULTIES, any where None. `choice`: with options,
    where the task has a list of answers. Raises ValueError for a task or difficulty that is not there.
    """
    tasks = world_tasks()
    if task not in (None, *tasks) or difficulty not in (None, *DIFFICULTIES):
        raise ValueError(f"no task {task!r} of difficulty {difficulty!r}: {', '.join(tasks)}; "
                         f"{', '.join(DIFFICULTIES)}")  # fmt: skip
    rng = np.random.default_rng([seed, 1 + list(TASKS).index(task) if task else 0, _level(difficulty)])
    task = task or str(rng.choice(tasks))
    clip, question = _drawn(rng, task, difficulty, choice and bool(answers_of(task)), held_out)
    sound, words = AudioPart(clip.waveform, SAMPLE_RATE), question.text
    hard = difficulty_of(task, clip.truth)
    return Item(
        uid=f"acoustic-world/{task}/{difficulty or 'any'}/{seed}",
        turns=(Turn("user", (words, sound) if text_first else (sound, words)),),
        target=target_of(question),
        bench="acoustic-world",
        chance=question.chance,
        groups={"task": task, "difficulty": difficulty or named(hard), "kind": clip.truth.kind,
                "form": "choice" if question.options else "free", "floor_db": clip.truth.floor_db},
        ref={"thinking": question.reasoning, "answer": question.answer},
        extra={"seconds": clip.truth.seconds, "hardness": hard},
    )  # fmt: skip


def difficulty_of(task: str, truth: Truth) -> float | None:
    """0 to 1: the worse of the background and the closeness; None where a clip is as hard as any other."""
    closeness = CLOSENESS.get(task, _nothing)(truth)
    covered = task == "noisy" or any(e.source == "noise" for e in truth.events)  # by the sound itself
    background = None if covered or truth.floor_db is None else BACKGROUND[truth.floor_db]
    parts = [part for part in (background, closeness) if part is not None]
    return max(parts) if parts else None


def named(hard: float | None) -> str:
    """The name of a difficulty: each has a third of the range."""
    return "any" if hard is None else DIFFICULTIES[min(int(hard * 3), 2)]


def _level(difficulty: str | None) -> int:
    return 1 + DIFFICULTIES.index(difficulty) if difficulty else 0


def _drawn(rng: Rng, task: str, difficulty: str | None, choice: bool, held_out: bool) -> tuple[Clip, Question]:
    """A clip of the wanted difficulty whose answer was drawn before, and the question."""
    answers = answers_of(task)
    wanted = str(rng.choice(answers)) if answers else None
    kinds = ANSWER_KINDS[task][str(wanted)] if task in ANSWER_KINDS else KINDS[task]
    for _ in range(MOST_DRAWS):
        clip = make_clip(rng, str(rng.choice(kinds)), held_out)
        if difficulty and named(difficulty_of(task, clip.truth)) not in (difficulty, "any"):
            continue
        try:
            question = make_question(clip.truth, rng, task, held_out, choice)
        except ValueError:  # this clip says nothing about the task
            continue
        if wanted in (None, question.gold):
            return clip, question
    raise ValueError(f"no {difficulty} clip for {task} with the answer {wanted!r} in {MOST_DRAWS}")


def target_of(question: Question) -> Choice | Quantity | Boolean | Wording | Label:
    """What a reply to a question is compared with."""
    task = question.task
    if question.options:
        return Choice(question.options, (question.options.index(question.gold),))
    if task == "count":
        return Quantity(Fraction(question.gold))
    if TASKS[task].answers == ("yes", "no"):
        return Boolean(question.gold == "yes")
    if not TASKS[task].answers:
        return Wording((question.gold,))
    return Label(question.gold, TASKS[task].answers, SYNONYMS.get(task, {}))


# How close together lies what is to be told apart: 0 far, 1 as close as the world goes


def _nothing(_: Truth) -> None:
    return None


def _share(value: float, easy: float, hard: float) -> float:
    """Where `value` lies between what is easy (0) and what is hard (1)."""
    return min(max((value - easy) / (hard - easy), 0.0), 1.0)


def _octaves(one: float | None, other: float | None) -> float:
    return abs(math.log2((one or 1.0) / (other or 1.0)))


def _interval(truth: Truth) -> float | None:
    """Two pitches; equal ones have nothing to be close to."""
    apart = _octaves(*(e.hz for e in truth.events[:2]))
    return _share(apart, 1.2, 0.25) if apart > 0.1 else None


def _glide(truth: Truth) -> float | None:
    """How far a glide goes; how short a steady or a wobbling tone is."""
    event = truth.events[0]
    if event.contour in ("rising", "falling"):
        return _share(_octaves(event.hz, event.end_hz), 1.5, 0.4)
    return _shortness(event)


def _ramp(truth: Truth) -> float | None:
    event = truth.events[0]
    return _share(abs(event.ramp_db), 20, 10) if event.ramp_db else _shortness(event)


def _shortness(event: Event) -> float:
    return _share(event.end - event.start, 2.5, 0.6)


def _lasting(truth: Truth) -> float | None:
    """A short tone is hard to name; the short sounds of a row are short by nature."""
    return _shortness(truth.events[0]) if truth.kind == "single" else None


def _step(truth: Truth) -> float:
    """dB between the two of a pair."""
    return _share(abs(truth.events[0].level_db - truth.events[1].level_db), 16, 8)


def _lengths(truth: Truth) -> float:
    """How much longer the longer one is."""
    one, other = (e.end - e.start for e in truth.events[:2])
    return _share(max(one, other) / min(one, other), 2.5, 1.3)


def _edge(truth: Truth) -> float:
    """Octaves to the border of the next register."""
    return _share(min(_octaves(truth.events[0].hz, border) for border in (304.0, 811.0)), 0.7, 0.15)


def _crowd(truth: Truth) -> float | None:
    """The shortest time between two beginnings; one sound by itself has none."""
    gaps = _gaps(truth)
    return _share(min(gaps), 0.5, 0.3) if gaps else None


def _list(truth: Truth) -> float:
    """Three sounds are harder to keep in order than two, and a close succession than a slow one."""
    return 0.4 * (len(truth.events) > 2) + 0.6 * _share(min(_gaps(truth)), 1.5, 0.6)


def _gaps(truth: Truth) -> list[float]:
    """s between the beginnings of neighbours."""
    starts = [e.start for e in truth.events]
    return [late - early for early, late in pairwise(starts)]


def _voice(truth: Truth) -> float | None:
    """Octaves from the pitch between a man's and a woman's."""
    said = next(e for e in truth.events if e.source == "speech")
    return _share(_octaves(said.hz, 155.0), 0.6, 0.1)


def _noise(truth: Truth) -> float | None:
    """Noise far below the sounds is hard to notice; none at all is no harder or easier."""
    return {15: 1.0, 10: 0.5, 5: 0.0}.get(truth.floor_db or 40)


CLOSENESS: Mapping[str, Callable[[Truth], float | None]] = {
    "compare": _interval, "contour": _glide, "loudness": _ramp, "louder": _step, "longer": _lengths,
    "register": _edge, "count": _crowd, "first": _list, "last": _list,
    "order": _list, "before": _list, "voice": _voice, "noisy": _noise,
    "source": _lasting,
}  # fmt: skip
