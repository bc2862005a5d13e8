"""Texts of neighbouring windows -> one text, and how many words it has.

Words are runs of letters and digits; a Chinese or Japanese character is a word of its own. Two windows
that heard the same seconds are joined at the longest run of words their ends share; where it is too
short to be the same speech nothing is taken out, so that words may come twice but none are lost.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from difflib import SequenceMatcher

SHORTEST_RUN = 2  # words that must agree before anything is taken for the same
EDGE_WORDS = 2  # words that a cut may have spoiled, beside the run
WORDS_PER_SECOND = 6.0  # no more are expected in an overlap: where to look for the run
_WIDE = r"\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
_WORD = re.compile(rf"[{_WIDE}]|[^\W{_WIDE}]+(?:['\u2019][^\W{_WIDE}]+)*")
_NO_SPACE = re.compile(rf"[{_WIDE}\u3000-\u303f\uff00-\uffef]")


def count_words(text: str) -> int:
    """Words of a text."""
    return sum(1 for _ in _WORD.finditer(text))


def join(texts: Sequence[str], overlaps: Sequence[float]) -> list[str]:
    """Each window's own part of the text: what the window before has already said is taken off, and
    the end of a window that the next one heard better.

    overlaps[i]: seconds at the start of window i that window i - 1 heard too.
    """
    parts = [text.strip() for text in texts]
    for i in range(1, len(parts)):
        if overlaps[i] > 0:
            parts[i - 1], parts[i] = _without_repeat(parts[i - 1], parts[i], overlaps[i])
    return parts


def glue(parts: Sequence[str]) -> str:
    """Parts in one line of text, with a space where the script wants one."""
    text = ""
    for part in (part.strip() for part in parts):
        tight = not text or not part or _NO_SPACE.match(text[-1]) or _NO_SPACE.match(part[0])
        text += part if tight else f" {part}"
    return text


def _without_repeat(left: str, right: str, seconds: float) -> tuple[str, str]:
    reach = int(seconds * WORDS_PER_SECOND) + 10
    tail, head = list(_WORD.finditer(left))[-reach:], list(_WORD.finditer(right))[:reach]
    run = SequenceMatcher(
        None, [w[0].casefold() for w in tail], [w[0].casefold() for w in head], autojunk=False
    ).find_longest_match()
    differing = len(tail) - run.a - run.size + run.b  # words that only one of the two would keep
    least = max(1, min(SHORTEST_RUN, len(tail), len(head)))
    if run.size < least or differing > run.size + EDGE_WORDS:
        return left, right  # a chance likeness: better said twice than lost
    end_left, end_right = tail[run.a + run.size - 1].end(), head[run.b + run.size - 1].end()
    return left[:end_left] + _closing(right[end_right:]), _rest(right[end_right:])


def _closing(text: str) -> str:
    """Punctuation right behind a word."""
    found = re.match(r"[^\w\s]*", text)
    return found[0] if found else ""


def _rest(text: str) -> str:
    return text[len(_closing(text)) :].strip()
