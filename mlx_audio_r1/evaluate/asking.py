"""What is wanted of the model -> rows of results, through the batch engine, in whatever order they finish.

    for result in ask(r1, [Wanted(item, {"temperature": 0.7, "seed": 3})], Sounding(items), max_rows=8):
        file.append(result)

A thread decodes sounds ahead. The surprise: the seconds of a row are those since the row before it, so that
they add up to what the run took; of one row alone nobody knows, because others decode beside it.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from mlx_audio_r1.batch import MAX_ROWS, seed_of
from mlx_audio_r1.errors import AudioR1Error
from mlx_audio_r1.evaluate.controls import Heard, Sounding
from mlx_audio_r1.evaluate.results import FULL, REAL, Result
from mlx_audio_r1.footprint import prompt_tokens
from mlx_audio_r1.generate import FORCED_CLOSE
from mlx_audio_r1.jobs.ahead import Ahead
from mlx_audio_r1.jobs.answers import Answer, Passed, Request, answer
from mlx_audio_r1.prompt import AudioPart, Message, Segment, Special, render
from mlx_audio_r1.prompt_cache import PromptCache
from mlx_audio_r1.reasoning import THINK_CLOSE
from mlx_audio_r1.reply import Reply
from mlx_audio_r1.session import AudioR1
from mlx_audio_r1.tasks.item import Item
from mlx_audio_r1.tasks.reply import read_reply
from mlx_audio_r1.tasks.token_kinds import spelled
from mlx_audio_r1.tokenizer import Tokenizer

AHEAD_SECONDS = 600.0  # of decoded sound that may wait: 38 MB
CACHE_BYTES = 1 << 30  # of features and read prompts
LEAST_TOKENS = 256  # a reply that memory has less room for is refused rather than cut


@dataclass(frozen=True, eq=False)
class Wanted:
    """Replies to one item. options: fields of `Settings`, a seed among them. samples: their numbers; each draws
    from a stream of its own. thought: ids of a reasoning that is given, and closed behind it."""

    item: Item
    options: Mapping[str, Any]
    samples: tuple[int, ...] = (0,)
    budget: int = FULL
    control: str = REAL
    thought: tuple[int, ...] = ()
    thinking: str = field(default="", repr=False)  # the text of it

    @property
    def thinks(self) -> bool:
        """Does the reply itself begin inside the reasoning?"""
        return bool(self.options.get("thinking", True)) and not self.thought


@dataclass(frozen=True, eq=False)
class _Ready:
    wanted: Wanted
    heard: Heard | None = None
    error: AudioR1Error | None = None


def ask(
    r1: AudioR1,
    wanted: Iterable[Wanted],
    sounding: Sounding,
    *,
    max_rows: int = MAX_ROWS,
    room: int | None = None,
) -> Iterator[Result]:
    """A row for every sample of everything wanted; what cannot be asked gives rows with an error.

    room: tokens of a prompt and its reply that memory has place for; a reply is kept within it.
    """
    desk, before = _Desk(r1.tokenizer, room), time.monotonic()
    with closing(Ahead(_ready(wanted, sounding), _cost, AHEAD_SECONDS)) as ready:
        requests = map(desk.request, ready)
        for found in answer(r1, requests, max_rows=max_rows, is_ready=ready.is_ready):
            for result in found.value if isinstance(found, Passed) else desk.results(found):
                now = time.monotonic()
                yield replace(result, seconds=round(now - before, 4))
                before = now


@contextmanager
def shared_prompts(r1: AudioR1) -> Iterator[None]:
    """Within, a sound or a prompt that is asked about again is not read again; for what comes item by item."""
    before, r1.prompt_cache = r1.prompt_cache, PromptCache(r1.name, CACHE_BYTES)
    try:
        yield
    finally:
        r1.prompt_cache = before


def _ready(wanted: Iterable[Wanted], sounding: Sounding) -> Iterator[_Ready]:
    for one in wanted:
        try:
            yield _Ready(one, sounding.hear(one.item, one.control))
        except AudioR1Error as error:
            yield _Ready(one, error=error)


def _cost(ready: _Ready) -> float:
    return max(1.0, ready.heard.seconds) if ready.heard else 1.0


class _Desk:
    """Knows whose the replies are."""

    def __init__(self, tokenizer: Tokenizer, room: int | None):
        self._tokenizer, self._room = tokenizer, room
        self._open: dict[int, tuple[Wanted, Result, int]] = {}  # number -> what is known, samples to come
        self._asked = 0

    def request(self, ready: _Ready) -> Request | Passed:
        """What to ask the engine; a sound that cannot be read is answered at once."""
        wanted, heard = ready.wanted, ready.heard
        if heard is None:
            return Passed([failed(wanted, sample, str(ready.error)) for sample in wanted.samples])
        self._asked += 1
        known = Result(
            wanted.item.uid, wanted.item.bench, budget=wanted.budget, control=wanted.control,
            thinking=wanted.thinking, thinking_tokens=len(wanted.thought), audio_sha256=heard.sha256,
            prompt_sha256=_prompt_sha256(heard.messages, wanted),
            extra={"damaged": list(heard.notes)} if heard.notes else {},
        )  # fmt: skip
        self._open[self._asked] = wanted, known, len(wanted.samples)
        options = self._within(wanted.options, heard.seconds)
        if wanted.thought:
            options["behind"] = [*wanted.thought, *self._tokenizer.encode(FORCED_CLOSE)]
        return Request(self._asked, heard.messages, wanted.samples, options)

    def _within(self, options: Mapping[str, Any], seconds: float) -> dict[str, Any]:
        """The options with a reply that memory has room for; what has none is left to the engine to refuse."""
        left = self._room - prompt_tokens(seconds) if self._room else 0
        if left < LEAST_TOKENS:
            return dict(options)
        return {**options, "max_tokens": min(options.get("max_tokens", left), left)}

    def results(self, found: Answer) -> list[Result]:
        """The rows of an answer."""
        wanted, known, left = self._open[found.key]
        if isinstance(found.reply, AudioR1Error):
            del self._open[found.key]
            return [failed(wanted, sample, str(found.reply)) for sample in wanted.samples]
        if left == 1:
            del self._open[found.key]
        else:
            self._open[found.key] = wanted, known, left - 1
        return [self._row(wanted, known, found.sample or 0, found.reply)]

    def _row(self, wanted: Wanted, known: Result, sample: int, reply: Reply) -> Result:
        ids = [i for i in reply.token_ids if i not in self._tokenizer.stop_ids]
        read = read_reply(self._tokenizer.decode(ids), wanted.thinks)
        thought = thinking_tokens(self._tokenizer, reply.token_ids) if wanted.thinks else 0
        return replace(
            known, sample=sample, thinking=known.thinking or read.thinking, answer=read.answer,
            closed=read.closed, finish="budget" if _is_cut(wanted) else reply.finish_reason,
            ids=tuple(reply.token_ids), prompt_tokens=reply.usage.prompt_tokens,
            audio_tokens=reply.usage.audio_tokens, audio_seconds=round(reply.audio_seconds, 3),
            thinking_tokens=known.thinking_tokens + thought, answer_tokens=len(reply.token_ids) - thought,
            seed=seed_used(wanted.options, sample),
        )  # fmt: skip


def _is_cut(wanted: Wanted) -> bool:
    """Was a reasoning closed that wanted to be longer, perhaps before its first word?"""
    return bool(wanted.thought) or (wanted.budget == 0 and not wanted.thinks)


def failed(wanted: Wanted, sample: int, why: str) -> Result:
    """The row of what has no reply."""
    return Result(wanted.item.uid, wanted.item.bench, sample, wanted.budget, wanted.control, closed=False,
                  finish="error", seed=seed_used(wanted.options, sample), error=why)  # fmt: skip


def seed_for(seed: int, uid: str, *more: object) -> int:
    """The seed of an item's replies, below that of a run: the same whatever else is asked, in any order."""
    text = "/".join(map(str, (seed, uid, *more)))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little")


def seed_used(options: Mapping[str, Any], sample: int) -> int | None:
    """The seed with which AudioR1 gives this sample alone."""
    seed = options.get("seed")
    return None if seed is None else seed_of(seed, sample)


def thinking_tokens(tokenizer: Tokenizer, ids: Sequence[int]) -> int:
    """Tokens of the reasoning, the beginning of a reply: up to its last word, before the closing tag."""
    text, spans = spelled(tokenizer, [i for i in ids if i not in tokenizer.stop_ids])
    reasoning = text.partition(THINK_CLOSE)[0]
    last = len(reasoning.rstrip())
    return sum(start < last and end <= len(reasoning) for start, end in spans)


def _prompt_sha256(messages: Sequence[Message], wanted: Wanted) -> str:
    """Of the prompt as it is rendered, a mark in the place of each chunk of sound, and the thought given."""
    segments = render(messages, thinking=bool(wanted.options.get("thinking", True)))
    text = "".join(map(_written, segments)) + wanted.thinking
    return hashlib.sha256(text.encode()).hexdigest()


def _written(segment: Segment) -> str:
    if isinstance(segment, AudioPart):
        return "<audio>"
    return segment.name if isinstance(segment, Special) else segment
