"""Pairs of words that cannot both be true of one thing, and which thing a sentence says one of."""

# ruff: noqa: RUF001  (full-width marks are meant)
from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from mlx_audio_r1.tasks.names import denied

PAIRS = (  # one side, the other; English, Chinese
    ("higher, 更高, 较高", "lower, 更低, 较低"),
    ("louder, 更响, 更大声", "softer, quieter, 更轻, 更小声"),
    ("faster, 更快", "slower, 更慢"),
    ("longer, 更长", "shorter, 更短"),
    ("rising, ascending, 上升, 升高", "falling, descending, 下降, 降低"),
    ("growing, increasing, 渐强, 变大", "fading, decreasing, 渐弱, 变小"),
    ("male, a man, 男性, 男声", "female, a woman, 女性, 女声"),
    ("happy, joyful, 高兴, 开心, 快乐", "sad, sorrowful, 悲伤, 难过, 伤心"),
    ("major, 大调", "minor, 小调"),
    ("clean, 干净", "noisy, 嘈杂"),
)
_LEADING = re.compile(
    r"^(?:so|thus|therefore|hence|in conclusion|overall|consequently|and|but|then|the answer is"
    r"|所以|因此|可见|综上|总之|由此|[,，:\s])+",
    re.IGNORECASE,
)
_LINK = re.compile(
    r"\s*\b(?:is|was|are|sounds?|seems?|gets?|becomes?|goes|must be|the|an?)$|(?:听起来|变得|是|更|在|的)+$",
    re.IGNORECASE,
)
_CLAUSES = re.compile(r"[,;，；]| and | but |而且|并且|而|但")
_ANYTHING = (  # subjects that mean what is heard
    "", "it", "this", "that", "the sound", "the answer", "the pitch", "它", "这", "声音", "答案", "音高",
)  # fmt: skip


def _pattern(words: str) -> re.Pattern[str]:
    ways = [rf"\b{w}\b" if w.isascii() else w for w in words.split(", ")]
    return re.compile("|".join(ways), re.IGNORECASE)


_PATTERNS = [(_pattern(one), _pattern(other)) for one, other in PAIRS]


def opposed(sentences: Sequence[str]) -> tuple[str, str] | None:
    """Two clauses that say opposite things of one subject, or None."""
    claims = {claim: clause for sentence in sentences for clause, claim in _claims(sentence)}
    for (pair, side, subject), clause in claims.items():
        for (other_pair, other_side, other_subject), other in claims.items():
            if pair == other_pair and side < other_side and _same(subject, other_subject):
                return clause, other
    return None


def _claims(sentence: str) -> Iterator[tuple[str, tuple[int, int, str]]]:
    """(clause, (pair, side, subject)) of each word of a pair that is said and not denied."""
    for clause in _CLAUSES.split(sentence):
        for pair, sides in enumerate(_PATTERNS):
            for side, pattern in enumerate(sides):
                for word in pattern.finditer(clause):
                    if not denied(clause, word.start(), word.end()):
                        yield clause.strip(), (pair, side, _subject(clause[: word.start()]))


def _subject(before: str) -> str:
    """What stands before the word, without "so" and "is"."""
    rest = _LEADING.sub("", before).strip().lower()
    while (shorter := _LINK.sub("", rest).strip()) != rest:
        rest = shorter
    return rest


def _same(one: str, other: str) -> bool:
    return one == other or (one in _ANYTHING and other in _ANYTHING)
