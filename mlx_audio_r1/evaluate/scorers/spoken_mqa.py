"""Spoken-MQA's own rule: one number out of a reply, compared as a text.

Behind the last trigger ("The answer is", "####") the first number counts, without one the last; a trigger that
stands twice leaves only the first paragraph. The surprise: of the arithmetic splits the reference is compared
as it is written, so "0.60" is never met, while a number written as 10^20 in digits turns into 100.0.
Needs of an item: extra["answer"], the row's `answer.text` (a text, or a list of texts and perhaps a number),
and split or groups["split"]. The official script evaluates a reference as Python; here a number or a ratio.
Source: AudioLLMs/AudioBench spoken_mqa.py and math_utils, which has its rules from MAmmoTH.
"""

from __future__ import annotations

import math
import re
from typing import Any

from mlx_audio_r1.evaluate.scorers.rows import raw_answer
from mlx_audio_r1.evaluate.scoring import RuleScorer, Score
from mlx_audio_r1.tasks.item import Item

ARITHMETIC = ("short_digit", "long_digit")  # splits whose references are compared as they are
TRIGGERS = ("The answer is:", "The answer is", "the answer is", "####")
EMPTY = "empty"  # stands for no answer, and for no reference
MOST = 100  # characters of an answer
SHARE = 0.04  # by which a number with decimals may be off
_NUMBER = re.compile(r"-?\d+/?\.?\d*")
_RATIO = re.compile(r"\s*(-?(?:0+|[1-9][0-9]*))\s*/\s*(0+|[1-9][0-9]*|[0-9]*\.[0-9]+)\s*")


def rule(reply: str, item: Item) -> Score:
    """Is the number of the reply the reference?"""
    said = answer_of(reply)
    right = matches(said, *references(item))
    parsed = None if said == EMPTY else said
    return Score(float(right), parsed, "number" if parsed else "no number")


def answer_of(reply: str) -> str:
    """The number that counts, as a text; EMPTY where there is none."""
    text = reply.strip("\n")
    if any(text.count(trigger) > 1 for trigger in TRIGGERS):
        text = text.split("\n\n")[0]
    pieces = re.split("|".join(TRIGGERS), text)
    piece = pieces[-1].strip("\n").rstrip(".").rstrip("/").strip(" ").replace(",", "")
    numbers = [tidy(found) for found in _NUMBER.findall(piece)]
    chosen = (numbers[0] if len(pieces) > 1 else numbers[-1]) if numbers else ""
    return (chosen.rstrip(".").rstrip("/") or EMPTY)[:MOST]


def references(item: Item) -> list[Any]:
    """What the answer is compared with: a text, and perhaps a number behind it."""
    raw = raw_answer(item)
    if str(item.groups.get("split", item.split)) in ARITHMETIC:
        return [raw or EMPTY] if isinstance(raw, str) or not raw else list(raw)
    return [_reference(text) for text in raw] or [EMPTY]  # of a text each character, as there


def matches(said: str, reference: str, number: Any = None, *more: Any) -> bool:
    """Equal as texts, or near the number where there is one; a second text is never met."""
    if said.lower() == re.sub(r"\\text\{(.*?)\}*$", r"\1", str(reference)).lower():
        return True
    return isinstance(number, int | float) and _near(said, number)


def tidy(text: str) -> str:
    """A number without the zeros behind its decimals: "3.50" is "3.5". What is none stays as it is."""
    value = _value(text)
    if value is None:
        return text
    shown = str(value).rstrip("0")  # of 1e+20 too, whose zero belongs to the exponent
    return str(int(shown.rstrip("."))) if shown.endswith(".") else str(float(shown))


def _value(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        pass
    ratio = _RATIO.fullmatch(text)
    try:
        over, under = (int(ratio[1]), ratio[2]) if ratio else (0, "0")
        return over / (float(under) if "." in under else int(under))
    except (ZeroDivisionError, OverflowError, ValueError):
        return None


def _reference(text: str) -> str:
    if "####" in text:
        text = tidy(text.split("#### ")[-1].replace(",", ""))
    return tidy(text)


def _near(said: str, number: float) -> bool:
    """A whole number after rounding, half to even; one with decimals within SHARE. An exponent, as of 1e-05,
    is read as Euler's number there, and so is near nothing."""
    value = None if "e" in said else _value(said)
    if value is None or not math.isfinite(value):
        return False
    if isinstance(number, int):
        return round(value) == number
    room = abs(number) * SHARE
    return number - room <= value <= number + room  # as there: the difference would round otherwise


OFFICIAL = RuleScorer("spokenmqa.official", "official rule", rule)
