"""Which tokens of a reply reason, which answer, and which of those that reason name something heard.

Told by the text: the reply is decoded token by token, so every token knows its characters. The surprise: a
character of several tokens belongs to all of them, and a token that only begins one belongs to it too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mlx_audio_r1.reasoning import THINK_CLOSE
from mlx_audio_r1.tasks.lexicon import acoustic_places
from mlx_audio_r1.tokenizer import Tokenizer

Span = tuple[int, int]  # [start, end) in characters


@dataclass(frozen=True, eq=False)
class TokenKinds:
    """Masks (T,) over the ids of a reply. acoustic: a part of thinking. Tags and the end are of no kind."""

    thinking: np.ndarray
    acoustic: np.ndarray
    answer: np.ndarray


def token_kinds(tokenizer: Tokenizer, ids: Sequence[int]) -> TokenKinds:
    """The kinds of the tokens behind a prompt that ends in `<think>\\n`."""
    text, spans = spelled(tokenizer, [i for i in ids if i not in tokenizer.stop_ids])
    first, last = text.find(THINK_CLOSE), text.rfind(THINK_CLOSE)
    first = first if first >= 0 else len(text)
    behind = last + len(THINK_CLOSE) if last >= 0 else len(text)
    thinking = np.array([end <= first for _, end in spans], bool)
    answer = np.array([start >= behind for start, _ in spans], bool)
    named = np.zeros(len(text), bool)  # characters of acoustic terms
    for start, end in acoustic_places(text[:first]):
        named[start:end] = True
    acoustic = np.array([named[start:end].any() for start, end in spans], bool) & thinking
    masks = (np.zeros(len(ids), bool) for _ in range(3))
    written = np.array([i not in tokenizer.stop_ids for i in ids])
    return TokenKinds(*(_placed(mask, written, own)
                        for mask, own in zip(masks, (thinking, acoustic, answer), strict=True)))  # fmt: skip


def spelled(tokenizer: Tokenizer, ids: Sequence[int]) -> tuple[str, list[Span]]:
    """The text of the ids, and the characters of each."""
    stream, text = tokenizer.stream(), ""
    spans: list[Span] = []
    waiting = 0  # tokens whose character is not complete yet
    for token in ids:
        piece = stream.push(token)
        waiting += 1
        if piece:
            spans += [(len(text), len(text) + len(piece))] * waiting
            text, waiting = text + piece, 0
    rest = stream.finish()
    return text + rest, spans + [(len(text), len(text) + len(rest))] * waiting


def _placed(mask: np.ndarray, written: np.ndarray, own: np.ndarray) -> np.ndarray:
    mask[written] = own
    return mask
