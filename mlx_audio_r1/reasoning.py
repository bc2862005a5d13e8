"""Streamed text -> thinking and answer.

`<think>` and `</think>` are text that may arrive in any pieces, so a little is held back whenever it
could be the start of a tag. What comes out does not depend on how the stream was cut. A reply may lack
the opening tag (it stands in the prompt), lack the closing one, think nothing, or close twice.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

THINK_OPEN, THINK_CLOSE = "<think>", "</think>"
Kind = Literal["thinking", "answer"]


@dataclass(frozen=True)
class Piece:
    """A bit of the reply and which part of it it belongs to."""

    kind: Kind
    text: str


class ReasoningSplitter:
    """Feed text with `push`, end with `finish`; both yield pieces in order.

    The joined pieces of a kind carry no whitespace at either end. `<think>` counts only before any
    other word of its part; a stray `</think>` in the answer is dropped.
    """

    def __init__(self, thinking: bool = True):
        self.kind: Kind = "thinking" if thinking else "answer"
        self.closed = not thinking  # True once the reasoning is over
        self._held = ""  # may be the start of a tag
        self._blank = ""  # whitespace that waits for a word behind it
        self._started = False  # this part has a word already
        self._seen: set[Kind] = set()  # kinds that have words already

    def push(self, text: str) -> Iterator[Piece]:
        """The pieces this text completes."""
        self._held += text
        while (found := self._first_tag()) is not None:
            at, tag = found
            before, self._held = self._held[:at], self._held[at + len(tag) :]
            yield from self._emit(before)
            self._pass(tag)
        keep = _longest_tag_start(self._held)
        ready, self._held = self._held[: len(self._held) - keep], self._held[len(self._held) - keep :]
        yield from self._emit(ready)

    def finish(self) -> Iterator[Piece]:
        """What was held back; whitespace at the end is dropped."""
        rest, self._held = self._held, ""
        yield from self._emit(rest)

    def _first_tag(self) -> tuple[int, str] | None:
        at_close = self._held.find(THINK_CLOSE)
        at_open = self._held.find(THINK_OPEN)
        opens = at_open >= 0 and not self._started and not self._held[:at_open].strip()
        if opens and (at_close < 0 or at_open < at_close):
            return at_open, THINK_OPEN
        return (at_close, THINK_CLOSE) if at_close >= 0 else None

    def _pass(self, tag: str) -> None:
        kind: Kind = "thinking" if tag == THINK_OPEN else "answer"
        if kind != self.kind:
            self.kind, self._started, self._blank = kind, False, ""
        self.closed = kind == "answer"

    def _emit(self, text: str) -> Iterator[Piece]:
        text = self._blank + text
        if not self._started:
            text = text.lstrip()
        word = text.rstrip()
        self._blank = text[len(word) :]
        if word:
            joint = "\n" if not self._started and self.kind in self._seen else ""
            self._started = True
            self._seen.add(self.kind)
            yield Piece(self.kind, joint + word)


def split_reply(text: str, thinking: bool = True) -> tuple[str, str]:
    """A whole reply -> (thinking, answer)."""
    splitter = ReasoningSplitter(thinking)
    return join_pieces([*splitter.push(text), *splitter.finish()])


def join_pieces(pieces: Iterable[Piece]) -> tuple[str, str]:
    """Pieces -> (thinking, answer)."""
    texts: dict[Kind, str] = {"thinking": "", "answer": ""}
    for piece in pieces:
        texts[piece.kind] += piece.text
    return texts["thinking"], texts["answer"]


def _longest_tag_start(text: str) -> int:
    """Length of the longest end of `text` that begins a tag."""
    sizes = range(min(len(text), len(THINK_CLOSE) - 1), 0, -1)
    return next((n for n in sizes if any(t.startswith(text[-n:]) for t in (THINK_OPEN, THINK_CLOSE))), 0)
