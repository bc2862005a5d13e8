"""What a question gives: steps while the model writes, the reply after them, and what was heard for it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import mlx.core as mx

from mlx_audio_r1.generate import Generation, ReplyWriter, Step, Timings


@dataclass(frozen=True)
class Usage:
    """Tokens of one exchange."""

    prompt_tokens: int
    audio_tokens: int
    reasoning_tokens: int
    answer_tokens: int


@dataclass(frozen=True)
class Reply:
    """What the model thought and what it answered.

    finish_reason: `stop` the model ended by itself; `budget` its reasoning was closed for it; `loop` it
    repeated itself and was closed or stopped; `length` it ran into max_tokens or the end of the context.
    """

    thinking: str
    answer: str
    finish_reason: str
    usage: Usage
    timings: Timings
    audio_seconds: float
    token_ids: list[int] = field(repr=False)


@dataclass(frozen=True)
class Heard:
    """The sounds of a prompt, ready for the decoder."""

    features: list[mx.array]  # one (N, hidden_size) a chunk
    patches: list[list[int]]  # for each sound, the patches of its chunks
    seconds: float
    digests: list[str] = field(default_factory=list)  # for each chunk, the sha256 of its PCM


class ReplyStream:
    """Steps while the model writes, and the whole reply after them."""

    def __init__(self, generation: Generation, prompt_tokens: int, heard: Heard):
        self._generation = generation
        self._prompt_tokens = prompt_tokens
        self._heard = heard
        self._text = {"thinking": "", "answer": ""}
        self._steps = iter(generation)  # one: a stream that was left goes on where it was

    @property
    def heard(self) -> Heard:
        """The sounds of the prompt."""
        return self._heard

    def __iter__(self) -> Iterator[Step]:
        for step in self._steps:
            self._text[step.kind] += step.text
            yield step

    def reply(self) -> Reply:
        """The reply; runs to the end what has not been iterated over."""
        writer = self._generation.writer
        if writer.finish_reason is None:
            for _ in self:
                pass
        return reply_of(writer, self._text, self._generation.timings, self._prompt_tokens, self._heard)


def reply_of(
    writer: ReplyWriter, text: Mapping[str, str], timings: Timings, prompt_tokens: int, heard: Heard
) -> Reply:
    """The reply that `writer` has written."""
    return Reply(
        thinking=text["thinking"],
        answer=text["answer"],
        finish_reason=writer.finish_reason or "length",
        usage=Usage(
            prompt_tokens=prompt_tokens,
            audio_tokens=sum(sum(chunks) for chunks in heard.patches),
            reasoning_tokens=writer.reasoning_tokens,
            answer_tokens=len(writer.token_ids) - writer.reasoning_tokens,
        ),
        timings=timings,
        audio_seconds=heard.seconds,
        token_ids=writer.token_ids,
    )
