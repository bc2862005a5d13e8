"""Rows -> examples: token ids, and for every token how much it weighs in the loss.

The prompt is rendered and tokenised exactly as it is served, up to and with `<think>\\n`; the reply is
tokenised by itself behind it, as the model would write it, and ends in <|EOT|>. Nothing is ever cut: what
does not fit the context is refused with file:line.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from mlx_audio_r1.config import ModelConfig
from mlx_audio_r1.errors import AudioError, DataError, PromptError
from mlx_audio_r1.prompt import DROPPED_ROLE, THINKING_TAIL, AudioPart, Segment, Special, render, to_ids
from mlx_audio_r1.tokenizer import AUDIO_END, AUDIO_PATCH, AUDIO_START, BEGIN_TURN, END_TURN, Tokenizer
from mlx_audio_r1.train.replies import completion_text
from mlx_audio_r1.train.row_forms import Row, Turn
from mlx_audio_r1.train.sounds import Sound, SoundChunk

HEADER = "assistant\n"


@dataclass(frozen=True, eq=False)
class Example:
    """One prompt and one reply, or a prompt alone.

    weights: of each token as a target; 0 where it is not learnt, always for the first. sounds: the chunks
    of the prompt in order, whose patches stand at `patch_at`. where: file:line.
    """

    ids: np.ndarray  # (L,) int32
    weights: np.ndarray  # (L,) float32
    where: str
    sounds: tuple[SoundChunk, ...] = ()
    patch_at: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int32))  # (sum of patches,) int32

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def name(self) -> str:
        """train.jsonl:12"""
        return self.where.replace("\\", "/").rpartition("/")[2]

    @property
    def learnt(self) -> int:
        """Tokens that are learnt."""
        return int(np.count_nonzero(self.weights))


Pair = tuple[Example, Example]  # the same prompt with the chosen and the rejected reply


@dataclass(frozen=True)
class ExampleOptions:
    """mask_prompt: learn the reply alone. close_history: end the assistant's earlier turns with <|EOT|>,
    which the published template does not."""

    mask_prompt: bool = True
    close_history: bool = False


class ExampleMaker:
    """Makes examples for one checkpoint. sounds: part of a prompt -> what it is, as `sounds.Sounds`."""

    def __init__(
        self,
        tokenizer: Tokenizer,
        config: ModelConfig,
        sounds: Callable[[AudioPart], Sound],
        options: ExampleOptions | None = None,
    ):
        self.tokenizer, self.config, self.sounds = tokenizer, config, sounds
        self.options = options or ExampleOptions()
        special = tokenizer.special
        self._of_audio = [special[name] for name in (AUDIO_START, AUDIO_PATCH, AUDIO_END)]

    def sft(self, row: Row) -> Example:
        """The reply of a row, and of its earlier turns those that say so. Raises DataError."""
        if row.kind == "prompt":
            raise DataError(f"{row.where}: ends without an assistant's turn: nothing to learn; such rows are "
                            "for RL")
        if row.kind == "preference":
            raise DataError(f"{row.where}: has a rejected reply: such rows are for train dpo")
        ids, weights, chunks = self._prompt(row, learn=True)
        scale = row.turns[-1].loss
        made = self._example(row, ids, weights, chunks, row.reply or "", 1.0 if scale is None else scale)
        if not made.learnt:
            raise DataError(f"{row.where}: no token of it is learnt: its loss is switched off in every turn")
        return made

    def pair(self, row: Row) -> Pair:
        """The two replies of a preference, and nothing else, to be learnt. Raises DataError."""
        if row.kind != "preference":
            raise DataError(f"{row.where}: has no rejected reply: add rejected_response, or use train sft")
        ids, weights, chunks = self._prompt(row, learn=False)
        replies = row.reply or "", row.rejected or ""
        chosen, rejected = (self._example(row, ids, weights, chunks, reply, 1.0) for reply in replies)
        return chosen, rejected

    def prompt(self, row: Row, thinking: bool = True) -> Example:
        """What stands before the reply, with nothing learnt; without `thinking`, up to a reasoning that is
        empty and closed. Raises DataError."""
        ids, weights, chunks = self._prompt(row, learn=False, thinking=thinking)
        return self._made(row, ids, weights, chunks)

    def all_of(self, row: Row) -> tuple[Example, ...]:
        """Whatever the row's kind is."""
        if row.kind == "preference":
            return self.pair(row)
        return (self.sft(row) if row.kind == "sft" else self.prompt(row),)

    def _example(
        self, row: Row, ids: list[int], weights: list[float], chunks: list[SoundChunk], reply: str, scale: float
    ) -> Example:
        with_end = [*self._encode(row, completion_text(reply)), self.tokenizer.special[END_TURN]]
        return self._made(row, [*ids, *with_end], [*weights, *[scale] * len(with_end)], chunks)

    def _made(self, row: Row, ids: list[int], weights: list[float], chunks: list[SoundChunk]) -> Example:
        context = self.config.context_length
        if len(ids) > context:
            raise DataError(f"{row.where}: {len(ids):,} tokens, more than the context of {context:,}: "
                            "shorten its text or cut its sound")
        made = Example(
            np.array(ids, np.int32), np.array(weights, np.float32), row.where, tuple(chunks), self._patches(ids)
        )
        made.weights[0] = 0.0  # nothing comes before it
        return made

    def _patches(self, ids: list[int]) -> np.ndarray:
        return np.flatnonzero(np.array(ids) == self.tokenizer.audio_patch_id).astype(np.int32)

    def _prompt(
        self, row: Row, learn: bool, thinking: bool = True
    ) -> tuple[list[int], list[float], list[SoundChunk]]:
        """Ids and weights up to `<think>\\n`, and the chunks of its sounds."""
        try:
            found = [self.sounds(part) for part in row.sounds]
        except AudioError as error:
            raise DataError(f"{row.where}: {error}") from None
        segments = render(
            [turn.message for turn in row.history], thinking=thinking, close_history=self.options.close_history,
            tools=row.tools,
        )  # fmt: skip
        patches = iter([sound.patches for sound in found])
        ids: list[int] = []
        weights: list[float] = []
        for segment, turn, first in _owned(segments, row.history):
            new = self._ids(row, segment, patches)
            ids += new
            weights += self._weights(row, segment, new, turn, first) if learn else [0.0] * len(new)
        return ids, weights, [chunk for sound in found for chunk in sound.chunks]

    def _ids(self, row: Row, segment: Segment, patches: Iterator[list[int]]) -> list[int]:
        if isinstance(segment, str):
            return self._encode(row, segment)
        return to_ids([segment], [next(patches)] if isinstance(segment, AudioPart) else [], self.tokenizer)

    def _encode(self, row: Row, text: str) -> list[int]:
        try:
            return self.tokenizer.encode(text)
        except PromptError as error:
            raise DataError(f"{row.where}: {error}") from None

    def _weights(
        self, row: Row, segment: Segment, ids: list[int], turn: Turn | None, first: bool
    ) -> list[float]:
        """Weights of a piece of the prompt. `first`: it begins with the turn's header."""
        own = turn.loss if turn and turn.role == "assistant" else None
        rest = 0.0 if self.options.mask_prompt else 1.0
        if own is None or segment == Special(BEGIN_TURN):
            return [0.0 if i in self._of_audio else rest for i in ids]
        header = self._header(row, segment) if first and isinstance(segment, str) else 0
        return [rest] * header + [own] * (len(ids) - header)

    def _header(self, row: Row, segment: str) -> int:
        """Tokens of `assistant\\n` and of an opening tag: they stand in the prompt when a turn is served."""
        opened = segment.startswith(HEADER + THINKING_TAIL)
        header = self._encode(row, HEADER + THINKING_TAIL if opened else HEADER)
        pairs = zip(header, self._encode(row, segment), strict=False)
        return next((i for i, (a, b) in enumerate(pairs) if a != b), len(header))


def _owned(segments: Sequence[Segment], history: Sequence[Turn]) -> Iterator[tuple[Segment, Turn | None, bool]]:
    """Each segment with the turn that it renders, and whether it is the one behind <|BOT|>.

    Counted from the end, where the opened reply stands: the schemas of tools come before all turns.
    """
    turns = [turn for turn in history if turn.role != DROPPED_ROLE]
    number = len(turns) - sum(segment == Special(BEGIN_TURN) for segment in segments)
    first = False
    for segment in segments:
        begins = segment == Special(BEGIN_TURN)
        number += begins
        turn = turns[number] if 0 <= number < len(turns) else None
        yield segment, turn, first
        first = begins
