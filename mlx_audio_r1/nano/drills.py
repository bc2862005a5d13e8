"""Exercises without a sound: find a word among the options, compare numbers, draw the answer from a note.

A decoder this small learns to look up a letter or to compare two numbers only where that is most of what it
is asked; behind a real sound most of a reasoning is the note. So the options are written as in real
questions, the reasoning says what real reasoning says last, and the words are drawn from far more than the
answers of the tasks.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

import numpy as np

from mlx_audio_r1.tasks.acoustic import questions as q
from mlx_audio_r1.tasks.acoustic.findings import length_relation, pitch_relation, register, time_relation
from mlx_audio_r1.tasks.acoustic.speech import SENTENCES
from mlx_audio_r1.tasks.acoustic.world import PITCHES, SOURCES, Truth

Rng = np.random.Generator

TELLING = (
    "It is {0}.", "The answer is {0}.", "I hear {0}.", "Choose {0}.", "{0}", "Which option says {0}?",
    "So {0}.", "That makes {0}.", "Find {0}.", "It sounds like {0}.", "Somebody said {0}. What was it?",
    "What is the letter of {0}?", "The word is {0}. Which option is right?", "Say {0} again.",
)  # fmt: skip
SAME_SHARE = 0.3  # of the pitches: equal to the one before
NOT_IN_THE_NOTE = frozenset({"noisy"})
WORDS = tuple(sorted({word for sentence in SENTENCES for word in sentence.split()}))
ANSWERS = tuple(task.answers for task in q.TASKS.values() if task.answers)


def make_drill(rng: Rng) -> q.Question:
    """Say words, their letters, or both."""
    words = _words(rng)
    return _DRILLS[int(rng.choice(len(_DRILLS), p=_DRILL_SHARES))](rng, words)


def _one(rng: Rng, words: list[str]) -> q.Question:
    """As a real question ends: the word, its letter."""
    gold = str(rng.choice(words))
    text = str(rng.choice(TELLING)).format(gold)
    return q.with_options(q.Question("drill", text, "", gold, gold), words)


def _all(rng: Rng, words: list[str]) -> q.Question:
    """The letters of all options in another order: many look-ups for the tokens of one."""
    asked = [str(word) for word in rng.permutation(words)]
    told = " ".join(q.option_named(word, words) for word in asked[:-1])
    question = q.Question("drill", f"Find {', '.join(asked)}.", told, asked[-1], asked[-1])
    return q.with_options(question, words)


def _again(rng: Rng, words: list[str]) -> q.Question:
    """Say what was said."""
    text = ", ".join(words)
    return q.Question("drill", f"Say again: {text}.", f"So {text}.", text, text)


def make_comparison(rng: Rng) -> q.Question:
    """Numbers and what real reasoning would say of each and the one before it."""
    name, compare = _COMPARISONS[int(rng.integers(len(_COMPARISONS)))]
    told, numbers, answer = compare(rng, int(rng.integers(3, 6)))
    return q.Question("drill", f"Compare the {name}: {', '.join(numbers)}.", " ".join(told), answer, answer)


def _pitches(rng: Rng, count: int) -> tuple[list[str], list[str], str]:
    values = [int(rng.choice(PITCHES))]
    while len(values) < count:
        values.append(values[-1] if rng.random() < SAME_SHARE else int(rng.choice(PITCHES)))
    told = [pitch_relation(one, other) for one, other in pairwise(values)]
    return [text for _, text in told], [str(value) for value in values], told[-1][0]


def _lengths(rng: Rng, count: int) -> tuple[list[str], list[str], str]:
    values = rng.choice(np.arange(2, 17), count, replace=False) / 10
    told = [length_relation(float(one), float(other)) for one, other in pairwise(values)]
    return [text for _, text in told], [f"{value:.1f} s" for value in values], told[-1][0]


def _registers(rng: Rng, count: int) -> tuple[list[str], list[str], str]:
    named = [hz for hz in PITCHES if register(hz)]
    values = [int(hz) for hz in rng.choice(named, count)]
    told = [f"{hz} Hz is {register(hz)}." for hz in values]
    return told, [f"{hz} Hz" for hz in values], str(register(values[-1]))


def _times(rng: Rng, count: int) -> tuple[list[str], list[str], str]:
    starts = rng.choice(np.arange(60), count, replace=False) / 10
    named = list(zip(rng.choice(SOURCES, count, replace=False).tolist(), starts.tolist(), strict=True))
    told = [time_relation(one, other) for one, other in pairwise(named)]
    return [text for _, text in told], [f"{source} {start:.1f}" for source, start in named], told[-1][0]


def make_conclusion(truth: Truth, rng: Rng, choice: bool) -> q.Question:
    """A real question about a clip, for those who are given the note."""
    task = str(rng.choice([t for t in q.fitting_tasks(truth) if t not in NOT_IN_THE_NOTE]))
    return q.make_question(truth, rng, task, choice=choice)


def _words(rng: Rng) -> list[str]:
    """Two to four different words or phrases of one sort, in any order."""
    pool = _POOLS[int(rng.choice(len(_POOLS), p=_POOL_SHARES))](rng)
    count = min(int(rng.integers(2, 5)), len(pool))
    return [str(word) for word in rng.choice(pool, count, replace=False)]


def _answers(rng: Rng) -> Sequence[str]:
    return ANSWERS[int(rng.integers(len(ANSWERS)))]


def _any_answers(_: Rng) -> Sequence[str]:
    return tuple(dict.fromkeys(answer for answers in ANSWERS for answer in answers))


def _orders(rng: Rng) -> Sequence[str]:
    """Lists of sounds as "bell, drum"; some share their beginning."""
    names = rng.choice(SOURCES, 3, replace=False)
    return [f"{a}, {b}" for a in names for b in names if a != b]


def _pairs(rng: Rng) -> Sequence[str]:
    """Phrases of two words; some share their beginning or their end."""
    chosen = rng.choice(WORDS, 3, replace=False)
    return [f"{a} {b}" for a in chosen for b in chosen if a != b]


def _numbers(rng: Rng) -> Sequence[str]:
    unit = str(rng.choice([" Hz", " s", "", " dB"]))
    return [f"{n}{unit}" for n in (PITCHES if unit == " Hz" else range(1, 30))]


_POOLS: tuple[Callable[[Rng], Sequence[str]], ...] = (
    _answers, _any_answers, lambda _: WORDS, _pairs, _orders, _numbers,
)  # fmt: skip
_POOL_SHARES = (0.3, 0.15, 0.25, 0.1, 0.1, 0.1)
_COMPARISONS = (("pitches", _pitches), ("lengths", _lengths), ("registers", _registers),
                ("times", _times))  # fmt: skip
_DRILLS = (_one, _all, _again)
_DRILL_SHARES = (0.45, 0.35, 0.2)
