"""A reasoning taken apart: sentences, what it concludes, what it takes back. Pure text, English and Chinese."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property

from mlx_audio_r1.tasks.item import Item
from mlx_audio_r1.tasks.plain import plain

_SENTENCE = re.compile(  # a point behind "B" ends one only before a capital: "B. bell"
    r"(?<!\b[A-Z])[.!?]+(?=\s|$)|(?<=\b[A-Z])\.(?=\s+[A-Z])|[!?](?=[\u3400-\u9fff])|[。\n]+"
)
_CONCLUDES = re.compile(
    r"^(?:so|thus|therefore|hence|in conclusion|overall|consequently)\b"
    r"|[,;] ?(?:so|thus|therefore|hence)\b|\b(?:answer|conclusion)s?\b"
    r"|所以|因此|因而|可见|综上|总之|由此|答案|结论|故而|说明",
    re.IGNORECASE,
)
TAKEN_BACK = re.compile(
    r"\b(?:wait|actually|correction|correcting|on second thought|no, |hmm|let me re|listening again|I was wrong"
    r"|mistaken)|不对|等等|等一下|其实|更正|重新|再听|纠正",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Chain:
    """A reasoning and the answer behind it. truncated: the reply did not end by itself; closed: the reasoning
    did."""

    thinking: str
    answer: str
    item: Item
    closed: bool = True
    truncated: bool = False

    @cached_property
    def text(self) -> str:
        """The reasoning, plain."""
        return plain(self.thinking)

    @cached_property
    def sentences(self) -> list[str]:
        """In order, without the marks that end them."""
        return [s for part in _SENTENCE.split(self.text) if (s := part.strip())]

    @property
    def last(self) -> str:
        return self.sentences[-1] if self.sentences else ""

    @cached_property
    def conclusions(self) -> list[str]:
        """Sentences that conclude something and were not taken back by one behind them, in order."""
        found: list[str] = []
        for sentence in self.sentences:
            if TAKEN_BACK.search(sentence):
                found = []
            if concludes(sentence):
                found.append(sentence)
        return found


def concludes(sentence: str) -> bool:
    """Does a sentence say that it draws a conclusion?"""
    return bool(_CONCLUDES.search(sentence))
