"""What judges write -> a mark, a verdict, an object; None where it cannot be read, and nothing is guessed.

Read is what stands behind a judge's own reasoning, if it gives one. The surprise: a reply that gives two
verdicts ("not CORRECT but INCORRECT") is not read as either.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from mlx_audio_r1.evaluate.scoring import Score
from mlx_audio_r1.reasoning import THINK_CLOSE
from mlx_audio_r1.tasks.item import Item

UNREADABLE = "unreadable"  # of counts: judge's replies that could not be read
# As three benchmarks ask gpt-4o-mini.
MINI_PARAMS = {
    "max_tokens": 1024, "temperature": 0.5, "top_p": 0.95, "frequency_penalty": 0, "presence_penalty": 0,
}  # fmt: skip
_FENCED = re.compile(r"```[a-zA-Z]*\s*\n(.*?)```", re.DOTALL)
_NUMBER = re.compile(r"\s*[-+]?\d+(?:\.\d+)?\s*")


def said(text: str) -> str:
    """A judge's reply without its reasoning."""
    return text.rpartition(THINK_CLOSE)[2].strip()


def object_in(text: str) -> Mapping[str, Any] | None:
    """The JSON object of a reply: all of it, in a fence, or from the first brace on."""
    text = said(text)
    fence = _FENCED.search(text)
    for candidate in (text, fence.group(1) if fence else "", text[text.find("{") :] if "{" in text else ""):
        try:
            found, _ = json.JSONDecoder(strict=False).raw_decode(candidate.strip())
        except (ValueError, RecursionError):
            continue
        if isinstance(found, dict):
            return found
    return None


def number_in(value: Any, low: float, high: float) -> float | None:
    """A number of JSON, or a text that is one, between the two."""
    if isinstance(value, str) and _NUMBER.fullmatch(value):
        value = float(value)
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if is_number and low <= value <= high else None


def one_of(text: str, verdicts: Sequence[str]) -> str | None:
    """The one of these words that a reply gives, in whatever case; None where it gives none or several."""
    words = set(re.findall(r"[A-Z]+", said(text).upper()))
    found = [verdict for verdict in verdicts if verdict in words]
    return found[0] if len(found) == 1 else None


def no_score(count: int = 1) -> Score:
    """Of a reply whose judge cannot be read: worth nothing, and counted."""
    return Score(0.0, None, "the judge's reply cannot be read", unread(count))


def unread(count: int) -> dict[str, int]:
    """The counts of a score for which so many replies could not be read."""
    return {UNREADABLE: count} if count else {}


def asked(item: Item) -> str:
    """The question as text, whether it was written or spoken; "" where nobody wrote it down."""
    return str(item.ref.get("transcript") or item.ref.get("question") or "")
