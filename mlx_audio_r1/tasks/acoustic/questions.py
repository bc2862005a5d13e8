"""Questions about a clip of known truth, with reasoning that reads the evidence off the sound.

    question = make_question(clip.truth, seed=3)
    question.text         # with the options where it has some, exactly as the model is asked
    question.reasoning    # "1 drum at 0.3; 2 at 0.8. That makes 2."
    question.answer       # "B. 2", or "2" for a free question
    score(question, "B")  # 1.0

Every answer of a task is as likely as the others only where the caller balances them; `chance` is what
a blind guess scores then.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from mlx_audio_r1.tasks.acoustic.findings import FINDERS, Finding
from mlx_audio_r1.tasks.acoustic.notes import describe, evidence
from mlx_audio_r1.tasks.acoustic.wording import HEARS, HELD_OUT_WAYS, NOT_A_SOUND_QUESTION, OFF_TOPIC, WAYS
from mlx_audio_r1.tasks.acoustic.world import Truth

Rng = np.random.Generator

INSTRUCTION = (
    "\nPlease choose the answer from the following options, do not provide any additional explanations "
    "or content: \n"
)
LETTERS = "ABCDEFGH"
MOST_OPTIONS = 4
CHOICE_SHARE = 0.35  # of the questions that can have options


@dataclass(frozen=True)
class Question:
    """`gold` is the answer without its letter; `chance` is the score of a blind guess, 0-1; `note` is
    what the reasoning begins with."""

    task: str
    text: str
    reasoning: str
    answer: str
    gold: str
    options: tuple[str, ...] = ()
    chance: float = 0.0
    note: str = ""


@dataclass(frozen=True)
class Task:
    """Ways to ask, the last two never in training; the answers; what is true of a clip."""

    ways: tuple[str, ...]
    answers: tuple[str, ...]
    find: Callable[[Truth, Rng], Finding | None]


TASKS = {name: Task(WAYS[name], *found) for name, found in FINDERS.items()}
_RARE = {"speech": 0.35, "main": 0.7, "noisy": 1.2, "count": 1.3, "compare": 1.3}  # weight beside 1


def make_question(
    truth: Truth,
    seed: int | Rng,
    task: str | None = None,
    held_out: bool = False,
    choice: bool | None = None,
) -> Question:
    """A question this clip can answer. `held_out` asks in words that no training question has;
    `choice` forces options or forbids them. Raises ValueError where `task` does not fit the clip."""
    rng = np.random.default_rng(seed)
    names = [task] if task else _shuffled_tasks(rng, truth)
    for name in names:
        finding = TASKS[name].find(truth, rng)
        if finding:
            return _ask(rng, name, truth, finding, held_out, choice)
    raise ValueError(f"task {task!r} does not fit a clip of kind {truth.kind!r}")


def fitting_tasks(truth: Truth) -> tuple[str, ...]:
    """The tasks that can be asked about a clip."""
    return tuple(n for n, t in TASKS.items() if t.find(truth, np.random.default_rng(0)))


def make_caption(truth: Truth) -> Question:
    """No question at all: describe what sounds."""
    return Question("caption", "", evidence(truth), describe(truth), describe(truth))


def make_off_topic(seed: int | Rng) -> Question:
    """A question that has nothing to do with sound: say what can be heard."""
    text = str(np.random.default_rng(seed).choice(OFF_TOPIC))
    return Question("off topic", text, NOT_A_SOUND_QUESTION, HEARS, HEARS)


def score(question: Question, reply: str) -> float:
    """1.0 where the answer is right: the letter, the option, or the words of a free answer."""
    given = _plain(reply)
    if not question.options:
        return float(given == _plain(question.gold))
    letter = LETTERS[question.options.index(question.gold)]
    match = re.match(r"^([a-h])(?:[.):\s]|$)", given)
    if match:
        return float(match.group(1).upper() == letter)
    return float(given == _plain(question.gold))


def _shuffled_tasks(rng: Rng, truth: Truth) -> list[str]:
    """All tasks in random order, the frequent ones later."""
    weights = np.array([_RARE.get(n, 1.0) for n in TASKS])
    if any(e.source == "speech" for e in truth.events):
        weights[list(TASKS).index("speech")] = 1.0
        weights[list(TASKS).index("voice")] = 2.0
    return [str(n) for n in rng.choice(list(TASKS), len(TASKS), replace=False, p=weights / weights.sum())]


def _ask(rng: Rng, name: str, truth: Truth, finding: Finding, held_out: bool, choice: bool | None) -> Question:
    task = TASKS[name]
    ways = task.ways[-HELD_OUT_WAYS:] if held_out else task.ways[:-HELD_OUT_WAYS]
    text = str(rng.choice(ways)).format(*finding.words)
    note, gold = evidence(truth), finding.answer
    reasoning = f"{note} {finding.conclusion}".strip()
    chance = 1 / len(task.answers) if task.answers else 0.0
    question = Question(name, text, reasoning, gold, gold, (), chance, note)
    if choice is None:
        choice = bool(rng.random() < CHOICE_SHARE)
    return with_options(question, _options(rng, task.answers, gold)) if choice and task.answers else question


def with_options(question: Question, options: Sequence[str]) -> Question:
    """A free question, asked with these options; its answer must be among them."""
    listed = "".join(f"{letter}. {option}\n" for letter, option in zip(LETTERS, options, strict=False))
    letter = LETTERS[options.index(question.gold)]
    return replace(
        question,
        text=question.text + INSTRUCTION + listed,
        reasoning=f"{question.reasoning} {option_named(question.gold, options)}".strip(),
        answer=f"{letter}. {question.gold}",
        options=tuple(options),
        chance=1 / len(options),
    )


def option_named(word: str, options: Sequence[str]) -> str:
    """The end of a reasoning: a letter is easier found once the word is said."""
    return f"So {word}: {LETTERS[options.index(word)]}."


def _options(rng: Rng, answers: tuple[str, ...], gold: str) -> tuple[str, ...]:
    """The right answer among up to three others, shuffled."""
    others = [a for a in answers if a != gold]
    drawn = [str(a) for a in rng.permutation(others)[: MOST_OPTIONS - 1]]
    return tuple(str(a) for a in rng.permutation([*drawn, gold]))


def _plain(reply: str) -> str:
    return reply.strip().rstrip(".").strip().lower()
