"""A row of RL data -> Item: what its `solution` and `problem_type` say about how to check a reply.

    {"messages": [...], "solution": "B", "problem_type": "multiple choice", "options": ["A. drum", "B. bell"]}
    {"prompt": "...", "answer": "0.5 s", "type": "number", "tolerance": 0.05}

The surprise: options may be missing where the question ends in them ("Which? A. drum B. bell").
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from typing import Any

from mlx_audio_r1.errors import DataError
from mlx_audio_r1.prompt import Message
from mlx_audio_r1.tasks.boolean import POLAR, Boolean
from mlx_audio_r1.tasks.choice import Choice, choose
from mlx_audio_r1.tasks.item import Item, Turn
from mlx_audio_r1.tasks.label import Label
from mlx_audio_r1.tasks.number import TOLERANCE, Quantity, read_number
from mlx_audio_r1.tasks.options import LETTERS, read_options, without_letters
from mlx_audio_r1.tasks.plain import fold, plain
from mlx_audio_r1.tasks.units import unit_named
from mlx_audio_r1.tasks.wording import METRICS, Wording

SOLUTION, TYPE = ("solution", "answer"), ("problem_type", "type")
OPTIONS = ("options", "choices", "multi_choice")
GROUPS = ("task", "category", "sub-category", "sub_category", "difficulty", "dataset", "modality", "language")
NAMES = {  # spelling, lower case, with spaces -> kind
    **dict.fromkeys(("mcq", "multiple choice", "multi choice", "multichoice", "choice", "single choice",
                     "选择题"), "mcq"),
    **dict.fromkeys(("number", "numeric", "numerical", "math", "maths", "arithmetic", "count", "counting",
                     "regression", "数字", "数学"), "number"),
    **dict.fromkeys(("label", "classification", "class", "分类"), "label"),
    **dict.fromkeys(("boolean", "bool", "yes no", "true false", "yesno", "判断题"), "boolean"),
    **dict.fromkeys(("text", "exact", "exact match", "string", "填空题"), "exact"),
    **dict.fromkeys(("asr", "transcription", "wer", "ocr"), "wer"), "cer": "cer", "mer": "mer",
}  # fmt: skip


def item_from_row(columns: Mapping[str, Any], messages: Sequence[Message], where: str) -> Item:
    """The item of a row. columns: what stood beside the conversation; where: file:line, for errors.

    Raises DataError in one line: a type that nobody knows, a solution that is missing or does not fit.
    """
    columns = {key: value for key, value in columns.items() if value is not None}
    question = _question(messages)
    try:
        kind = _kind(columns, question)
        target, chance = _TARGETS[kind](columns, question)
    except _Wrong as wrong:
        raise DataError(f"{where}: {wrong}") from None
    return Item(
        uid=str(columns.get("uid", columns.get("id", where))),
        turns=tuple(Turn(m.role, tuple(m.parts)) for m in messages),
        target=target,
        bench=kind,
        chance=chance,
        groups={name: columns[name] for name in GROUPS if isinstance(columns.get(name), str | int | float)},
        extra=columns,
    )


class _Wrong(Exception):
    """Words that follow the place."""


def _question(messages: Sequence[Message]) -> str:
    """The words of the last turn."""
    return "\n".join(part for part in messages[-1].parts if isinstance(part, str)) if messages else ""


def _given(columns: Mapping[str, Any], names: Sequence[str]) -> Any:
    return next((columns[name] for name in names if name in columns), None)


def _solution(columns: Mapping[str, Any]) -> Any:
    solution = _given(columns, SOLUTION)
    if solution is None or (isinstance(solution, str) and not plain(solution)) or solution == []:
        raise _Wrong("no solution to check a reply against: give solution (or answer)")
    if isinstance(solution, float) and not math.isfinite(solution):
        raise _Wrong(f"solution {solution!r} is no number")
    if isinstance(solution, Mapping):
        raise _Wrong(f"solution {_shown(solution)}: expected text, a number or true or false")
    return solution


def _text(solution: Any) -> str:
    """A solution as text; of several the first."""
    return _text(solution[0]) if isinstance(solution, list) else str(solution)


def _kind(columns: Mapping[str, Any], question: str) -> str:
    named = _given(columns, TYPE)
    if named is None:
        return _guessed(columns, question)
    kind = NAMES.get(re.sub(r"[\s_/-]+", " ", str(named)).strip().lower())
    if kind is None:
        raise _Wrong(f"problem_type {_shown(named)}: known are mcq, number, label, boolean, text, asr")
    return kind


def _guessed(columns: Mapping[str, Any], question: str) -> str:
    """The kind of a row without one, where it can be nothing else."""
    solution = _solution(columns)
    if _given(columns, OPTIONS) is not None or (read_options(question) and len(str(solution)) == 1):
        return "mcq"
    if isinstance(solution, bool) or (isinstance(solution, str) and fold(solution) in POLAR):
        return "boolean"
    if isinstance(solution, int | float) or re.fullmatch(r"-?[\d,./]+", str(solution).strip()):
        return "number"
    raise _Wrong(f"no problem_type, and the solution {_shown(solution)} does not tell: give mcq, "
                 "number, label, boolean, text or asr")  # fmt: skip


# Each kind: (target, what a blind guess scores)


def _choice(columns: Mapping[str, Any], question: str) -> tuple[Choice, float]:
    options = _options(_given(columns, OPTIONS)) or read_options(question)
    if not 2 <= len(options) <= len(LETTERS):
        raise _Wrong(f"multiple choice with {len(options)} options: give 2 to 26 in options, or write them "
                     "into the question as A. B. C.")  # fmt: skip
    solution = _text(_solution(columns))
    chosen = choose(solution, options)
    if chosen.option is None or chosen.why not in ("option text", "letter", "letter and text"):
        raise _Wrong(f"solution {_shown(solution)} is none of the options ({', '.join(options)[:120]}): "
                     "give a letter or an option's text")  # fmt: skip
    gold = tuple(i for i, option in enumerate(options) if choose(option, options).option == chosen.option)
    return Choice(options, gold), len(gold) / len(options)


def _options(value: Any) -> tuple[str, ...]:
    """A list, an object {"A": ...}, or one of them as JSON text; without letters."""
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            raise _Wrong(f"options {_shown(value)} are text, expected a list") from None
    if isinstance(value, Mapping):
        if [str(key).upper() for key in value] != list(LETTERS[: len(value)]):
            raise _Wrong(f"options {_shown(value)}: expected the keys A, B, C in order")
        value = list(value.values())
    if value is None:
        return ()
    if not isinstance(value, list | tuple) or not all(isinstance(o, str | int | float) for o in value):
        raise _Wrong(f"options {_shown(value)}: expected a list of texts")
    options = without_letters([str(option).strip() for option in value])
    if not all(plain(option) for option in options):
        raise _Wrong("an option is empty")
    return options


def _number(columns: Mapping[str, Any], _: str) -> tuple[Quantity, float]:
    solution = _text(_solution(columns))
    reading = read_number(solution)
    if isinstance(reading, str):
        raise _Wrong(f"solution {_shown(solution)} is no number ({reading})")
    unit = columns.get("unit") or (reading.unit.name if reading.unit else None)
    if unit is not None and unit_named(str(unit)) is None:
        raise _Wrong(f"unit {_shown(unit)} is not known: leave it out, units in a reply are then ignored")
    tolerance, relative = _tolerance(columns.get("tolerance"))
    return Quantity(reading.value, unit and str(unit), tolerance, relative), 0.0


def _tolerance(value: Any) -> tuple[Fraction, Fraction]:
    """(absolute, share) of 0.05 or "5%"."""
    if value is None:
        return TOLERANCE, Fraction(0)
    text = str(value).strip()
    try:
        number = Fraction(text.removesuffix("%").strip())
    except (ValueError, ZeroDivisionError):
        raise _Wrong(f'tolerance {_shown(value)}: expected a number, or a share like "5%"') from None
    if number < 0:
        raise _Wrong(f"tolerance {_shown(value)} is negative")
    return (TOLERANCE, number / 100) if text.endswith("%") else (number, Fraction(0))


def _label(columns: Mapping[str, Any], _: str) -> tuple[Label, float]:
    """`labels`: the whole set, a list or {label: [synonyms]}; `synonyms`: of the right label."""
    gold, given = _text(_solution(columns)).strip(), columns.get("labels", ())
    if not isinstance(given, list | tuple | Mapping):
        raise _Wrong(f"labels {_shown(given)}: expected a list, or an object of lists of synonyms")
    synonyms = {str(k): tuple(map(str, v)) for k, v in given.items()} if isinstance(given, Mapping) else {}
    if own := columns.get("synonyms"):
        synonyms[gold] = (*synonyms.get(gold, ()), *([own] if isinstance(own, str) else map(str, own)))
    labels = tuple(str(label) for label in given)
    if labels and gold not in labels:
        raise _Wrong(f"solution {_shown(gold)} is none of the labels ({', '.join(labels)[:120]})")
    return Label(gold, labels, synonyms), 1 / len(labels) if labels else 0.0


def _boolean(columns: Mapping[str, Any], _: str) -> tuple[Boolean, float]:
    solution = _text(_solution(columns))
    truth = POLAR.get(fold(solution), {"1": True, "0": False}.get(solution.strip()))
    if truth is None:
        raise _Wrong(f"solution {_shown(solution)} is neither yes nor no")
    return Boolean(truth), 0.5


def _wording(metric: str) -> Callable[[Mapping[str, Any], str], tuple[Wording, float]]:
    def made(columns: Mapping[str, Any], _: str) -> tuple[Wording, float]:
        solution = _solution(columns)
        references = tuple(map(str, solution)) if isinstance(solution, list) else (str(solution),)
        return Wording(references, metric), 0.0

    return made


def _shown(value: Any) -> str:
    return repr(value)[:60]


_TARGETS: dict[str, Callable[[Mapping[str, Any], str], tuple[Any, float]]] = {
    "mcq": _choice, "number": _number, "label": _label, "boolean": _boolean,
    **{metric: _wording(metric) for metric in METRICS},
}  # fmt: skip
