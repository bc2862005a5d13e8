"""How much of a text repeats itself: whole sentences, and runs of words."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

RUN = 6  # words, or Chinese characters, of a run
FEWEST_RUNS = 12  # of a text in which runs are counted
_WORD = re.compile(r"[\u3400-\u9fff]|[\w'.-]+")


def words_of(text: str) -> list[str]:
    """English words and numbers, and Chinese characters, in one case."""
    return [word.strip(".-'").lower() for word in _WORD.findall(text) if word.strip(".-'")]


def repeated_sentences(sentences: Sequence[str]) -> float:
    """The share of sentences that were there before, 0 to 1; a repetition of words is one of sense here."""
    counted = Counter(" ".join(words_of(sentence)) for sentence in sentences)
    return (len(sentences) - len(counted)) / len(sentences) if sentences else 0.0


def repeated_runs(text: str) -> float:
    """The share of runs of RUN words that were there before, 0 to 1; 0 for a short text."""
    words = words_of(text)
    runs = [tuple(words[i : i + RUN]) for i in range(len(words) - RUN + 1)]
    return (len(runs) - len(set(runs))) / len(runs) if len(runs) >= FEWEST_RUNS else 0.0
