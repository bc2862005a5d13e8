"""MMAU-Pro's instructions: does the form of a reply obey? A rule for each kind of instruction.

The surprises, official: an instruction of an unknown kind is never obeyed; keywords are looked for inside other
words too; a title is anything in double angle brackets, wherever it stands. Sentences are counted by nltk there
and by their marks here, so a count of sentences can differ.
Needs of an item: extra["task_identifier"], extra["kwargs"], ref["question"].
Source: sonalkum/MMAUPro evaluate_mmau_pro_comprehensive.py.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from mlx_audio_r1.evaluate.scoring import RuleScorer, Score
from mlx_audio_r1.tasks.item import Item

Told = Mapping[str, Any]  # what the instruction asks for: N, keywords, ...
Count = Callable[[str], int]
MOST = 999  # where a range names no upper end
_SENTENCE_END = re.compile(r"(?<=[.!?])[\"')]*\s+|(?<=[。！？])")  # noqa: RUF001


def rule(reply: str, item: Item) -> Score:
    """Is the instruction obeyed?"""
    kind, told = str(item.extra.get("task_identifier") or ""), item.extra.get("kwargs") or {}
    told = {"question": str(item.ref.get("question") or ""), **{k: v for k, v in told.items() if v is not None}}
    if kind not in RULES:
        return Score(0.0, None, f"unknown instruction {kind!r}")
    return Score(float(RULES[kind](reply, told)), reply.strip() or None, kind)


def words(text: str) -> int:
    return len(text.split())


def sentences(text: str) -> int:
    return sum(bool(piece.strip()) for piece in _SENTENCE_END.split(text))


def paragraphs(text: str) -> int:
    """Between three asterisks."""
    return sum(bool(part.strip()) for part in text.split("***"))


def capitals(text: str) -> int:
    return sum(word.isupper() for word in text.split())


def bullets(text: str) -> int:
    return len(re.findall(r"(?:^|\n)\s*\*\s+", text))


def highlights(text: str) -> int:
    return len(re.findall(r"\*([^*]+)\*", text))


def placeholders(text: str) -> int:
    return len(re.findall(r"\[[^\]]+\]", text))


def _exactly(count: Count) -> Callable[[str, Told], bool]:
    return lambda reply, told: count(reply) == told.get("N", 0)


def _at_least(count: Count) -> Callable[[str, Told], bool]:
    return lambda reply, told: count(reply) >= told.get("N", 0)


def _at_most(count: Count) -> Callable[[str, Told], bool]:
    return lambda reply, told: count(reply) <= told.get("N", 0)


def _between(count: Count) -> Callable[[str, Told], bool]:
    return lambda reply, told: told.get("N1", 0) <= count(reply) <= told.get("N2", MOST)


def _said(reply: str, told: Told, name: str) -> list[bool]:
    """Of each of the listed words, whether it is in the reply."""
    return [word.lower() in reply.lower() for word in str(told.get(name, "")).split(", ")]


def _how_often(reply: str, told: Told) -> bool:
    found = re.findall(rf"\b{re.escape(str(told.get('keyword', '')).lower())}\b", reply.lower())
    return len(found) == told.get("N", 0)


def _sections(reply: str, told: Told) -> bool:
    parts = re.split(rf"\s*{re.escape(str(told.get('section_splitter', '')))}\s*", reply.strip())
    return sum(bool(part.strip()) for part in parts) == told.get("N", 0)


def _letters(text: Any, also: str = "") -> str:
    return re.sub(f"[^a-zA-Z{also}]", "", str(text)).lower()


def _starts(reply: str, told: Told) -> bool:
    return _letters(reply, " ").startswith(_letters(told.get("start_phrase", ""), " "))


def _ends(reply: str, told: Told) -> bool:
    return _letters(reply, " ").endswith(_letters(told.get("end_phrase", ""), " "))


def _twice(reply: str, told: Told) -> bool:
    parts = [part.lower().strip() for part in reply.split("******")]
    return len(parts) == 2 and parts[0] != parts[1]


RULES: dict[str, Callable[[str, Told], bool]] = {
    "Include Keywords": lambda reply, told: all(_said(reply, told, "keywords")),
    "Forbidden Words": lambda reply, told: not any(_said(reply, told, "forbidden_words")),
    "Keyword Frequency": _how_often,
    "Number Paragraphs": _exactly(paragraphs),
    "Number Words (at least)": _at_least(words),
    "Number Words (at most)": _at_most(words),
    "Number Words (range)": _between(words),
    "Number Sentences (at least)": _at_least(sentences),
    "Number Sentences (at most)": _at_most(sentences),
    "Number Sentences (range)": _between(sentences),
    "Postscript": lambda reply, told: _letters(told.get("postscript_marker", "")) in _letters(reply),
    "Number Placeholder": _at_least(placeholders),
    "Number Bullets": _exactly(bullets),
    "Title": lambda reply, told: re.search(r"<<[^>]+>>", reply) is not None,
    "Minimum Number Highlighted Section": _at_least(highlights),
    "Multiple Sections": _sections,
    "Repeat Prompt": lambda reply, told: reply.strip().lower().startswith(told["question"].strip().lower()),
    "Two Responses": _twice,
    "All Uppercase": lambda reply, told: reply.isupper(),
    "All Lowercase": lambda reply, told: reply.islower(),
    "All-capital Words (at least)": _at_least(capitals),
    "All-capital Words (at most)": _at_most(capitals),
    "All-capital Words (range)": _between(capitals),
    "Start Checker": _starts,
    "End Checker": _ends,
    "Quotation": lambda reply, told: reply.strip().startswith('"') and reply.strip().endswith('"'),
    "No Commas": lambda reply, told: "," not in reply,
}
FOLLOWED = RuleScorer("mmaupro.instructions", "official rules", rule)
