"""Replies in the making: what the worker thread drives.

`Rows` is the seam between the server and what decodes: the batch engine, and beside it one reply at a
time whose answer is constrained, since a grammar must see every token before the next is begun.
Everything here runs on the worker's thread alone, because the MLX work of one model belongs on one.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from mlx_audio_r1.batch import Engine
from mlx_audio_r1.batch import Event as Token
from mlx_audio_r1.generate import ReplyWriter, Settings, Step
from mlx_audio_r1.prompt import AudioPart, Message, audio_parts
from mlx_audio_r1.reading import kv_format
from mlx_audio_r1.reply import ReplyStream
from mlx_audio_r1.serve.stops import StopWatch
from mlx_audio_r1.serve.structured import Constraint
from mlx_audio_r1.session import AudioR1, Prepared

SPARE = 0.98  # of the memory for keys and values that one reply may plan to take


@dataclass(frozen=True)
class Job:
    """`n` replies to write to one prompt."""

    messages: tuple[Message, ...]
    settings: Mapping[str, Any] = field(default_factory=dict)  # fields of generate.Settings
    n: int = 1
    stop: tuple[str, ...] = ()  # ends the answer; not part of it
    stop_token_ids: frozenset[int] = frozenset()  # the same, by id, anywhere in the reply
    constraint: Constraint | None = None  # what the answer may be


@dataclass(frozen=True)
class Done:
    """The end of a reply, as OpenAI counts it.

    finish_reason: `stop` or `length`. stop_reason: the stop string or id found; or `budget` or `loop`,
    when the reasoning was closed for the model or the answer was stopped.
    """

    finish_reason: str
    stop_reason: str | int | None
    prompt_tokens: int
    audio_tokens: int
    reasoning_tokens: int
    answer_tokens: int
    audio_seconds: float
    cached_tokens: int = 0


Event = Step | Done | Exception
Happened = tuple[str, int, Event]  # key of the job, which of its replies, what


class Rows(Protocol):
    """Many replies, advanced together. An Exception ends all replies of its job."""

    def add(self, key: str, job: Job) -> None:
        """Take a job; it begins when there is room."""

    def cancel(self, key: str) -> None:
        """Forget a job and free what it holds; one that is over is nobody's business."""

    def step(self) -> list[Happened]:
        """Advance, and give what happened. Raises nothing that belongs to one job."""

    def close(self) -> None:
        """Drop everything."""

    def __len__(self) -> int:
        """Jobs running and waiting."""


@dataclass(frozen=True)
class Prompt:
    """What a reply's end says about its prompt."""

    tokens: int
    audio_tokens: int
    seconds: float
    cached: int

    @classmethod
    def of(cls, prepared: Prepared) -> Prompt:
        """Counts of a prepared prompt; call it before the prompt is read."""
        heard, prefix = prepared.heard, prepared.prefix
        cached = prefix.length if prefix is not None and prefix.layers is not None else 0
        return cls(len(prepared.ids), sum(map(sum, heard.patches)), heard.seconds, cached)

    def done(self, writer: ReplyWriter, ended: bool, stop_reason: str | int | None) -> Done:
        """The end of a reply that `writer` has written; `ended` by itself or at a stop."""
        reason = writer.finish_reason
        return Done(
            finish_reason="stop" if ended else "length",
            stop_reason=reason if stop_reason is None and reason in ("budget", "loop") else stop_reason,
            prompt_tokens=self.tokens,
            audio_tokens=self.audio_tokens,
            reasoning_tokens=writer.reasoning_tokens,
            answer_tokens=len(writer.token_ids) - writer.reasoning_tokens,
            audio_seconds=self.seconds,
            cached_tokens=self.cached,
        )


@dataclass
class Waiting:
    """A job whose sounds are being heard, one at a time, so that the rows go on meanwhile."""

    key: str
    job: Job
    unheard: deque[AudioPart]


@dataclass
class Seated:
    """A job the engine has."""

    key: str
    job: Job
    prompt: Prompt
    watches: dict[int, StopWatch]  # of the replies that are still to come


class Batch:
    """The batch engine, up to `max_rows` replies at a time, and one constrained reply beside it.

    listen_ahead: the prompt cache has room for the sounds of a request, so they are heard one by one
    between two tokens of the others, and all at once otherwise.
    """

    def __init__(self, r1: AudioR1, max_rows: int, listen_ahead: bool = False):
        self._r1, self._max_rows, self._listen_ahead = r1, max_rows, listen_ahead
        self._engine = Engine(r1.model, r1.tokenizer, max_rows=max_rows)
        self._beside = OneByOne(r1)
        self._waiting: deque[Waiting] = deque()
        self._seated: dict[int, Seated] = {}  # by the engine's id

    def add(self, key: str, job: Job) -> None:
        if job.constraint is not None:
            self._beside.add(key, job)
        else:
            unheard = audio_parts(job.messages) if self._listen_ahead else []
            self._waiting.append(Waiting(key, job, deque(unheard)))

    def cancel(self, key: str) -> None:
        self._beside.cancel(key)
        self._waiting = deque(waiting for waiting in self._waiting if waiting.key != key)
        for id in [id for id, seated in self._seated.items() if seated.key == key]:
            self._engine.cancel(id)
            del self._seated[id]

    def close(self) -> None:
        self._engine.close()
        self._beside.close()

    def __len__(self) -> int:
        return len(self._waiting) + len(self._seated) + len(self._beside)

    def step(self) -> list[Happened]:
        return [*self._admit(), *self._advance(), *self._beside.step()]

    def _admit(self) -> list[Happened]:
        """Hear one sound of the next job, or hand the job to the engine."""
        if not self._waiting or self._engine.running + self._engine.waiting >= self._max_rows:
            return []
        waiting = self._waiting[0]
        try:
            if waiting.unheard:
                self._r1.listen([waiting.unheard.popleft()])  # the prompt cache keeps its features
                return []
            self._waiting.popleft()
            self._submit(waiting.key, waiting.job)
        except Exception as error:  # belongs to this job: its client is told, the others go on
            self._waiting = deque(other for other in self._waiting if other is not waiting)
            return [(waiting.key, 0, error)]
        return []

    def _submit(self, key: str, job: Job) -> None:
        prepared = self._r1.prepare(list(job.messages), **job.settings)
        settings = self._within_memory(prepared)
        prompt = Prompt.of(prepared)
        id = self._engine.submit(
            prepared.ids, prepared.embeddings, settings, prepared.thinking_open, job.n, prepared.prefix
        )
        self._seated[id] = Seated(key, job, prompt, {i: StopWatch(job.stop) for i in range(job.n)})

    def _within_memory(self, prepared: Prepared) -> Settings:
        """Settings whose max_tokens fits the memory for keys and values, as it fits the context: most
        requests name a limit they never come near, or none."""
        settings, length = prepared.settings, len(prepared.ids)
        text, form = self._r1.config.text, kv_format(settings)
        values = 2 * text.num_hidden_layers * text.num_key_value_heads * text.head_dim
        size = prepared.embeddings.dtype.size
        reading = values * size * length if form.bits else 0
        each = form.bytes(length + settings.max_tokens, values, size) / (length + settings.max_tokens)
        fits = int((self._engine.kv_limit - reading) * SPARE / each) - length
        return replace(settings, max_tokens=max(1, min(settings.max_tokens, fits)))

    def _advance(self) -> list[Happened]:
        if not self._engine.busy:
            return []
        try:
            tokens = self._engine.step()
        except Exception as error:  # what the rows share is broken: all of them end, the server goes on
            return self._start_over(error)
        return [happened for token in tokens for happened in self._happened(token)]

    def _start_over(self, error: Exception) -> list[Happened]:
        lost = [seated.key for seated in self._seated.values()]
        self._seated.clear()
        self._engine.close()
        self._engine = Engine(self._r1.model, self._r1.tokenizer, max_rows=self._max_rows)
        return [(key, 0, error) for key in lost]

    def _happened(self, token: Token) -> Iterator[Happened]:
        seated = self._seated.get(token.request)
        if seated is None:
            return
        watch, writer = seated.watches[token.sample], token.draft.writer
        stop: str | int | None = None
        if token.token in seated.job.stop_token_ids - self._r1.tokenizer.stop_ids:
            stop = token.token
        else:
            for step in token.steps:
                for passed in watched(step, watch):
                    yield seated.key, token.sample, passed
            stop = watch.hit
        if stop is None and token.finish_reason is None:
            return
        if token.finish_reason is None:
            self._engine.cancel(token.request, token.sample)
        ended = stop is not None or token.token in self._r1.tokenizer.stop_ids
        yield seated.key, token.sample, seated.prompt.done(writer, ended, stop)
        del seated.watches[token.sample]
        if not seated.watches:
            del self._seated[token.request]


class OneByOne:
    """`AudioR1.stream`, one reply after the other; the only way for a constrained one."""

    def __init__(self, r1: AudioR1):
        self._r1 = r1
        self._waiting: deque[tuple[str, Job]] = deque()
        self._key: str | None = None
        self._events: Iterator[tuple[int, Event]] = iter(())

    def add(self, key: str, job: Job) -> None:
        self._waiting.append((key, job))

    def cancel(self, key: str) -> None:
        if key == self._key:
            self._leave()
        self._waiting = deque(item for item in self._waiting if item[0] != key)

    def close(self) -> None:
        self._leave()
        self._waiting.clear()

    def __len__(self) -> int:
        return len(self._waiting) + (self._key is not None)

    def step(self) -> list[Happened]:
        if self._key is None:
            if not self._waiting:
                return []
            self._key, job = self._waiting.popleft()
            self._events = self._replies(job)
        key = self._key
        try:
            sample, event = next(self._events)
        except StopIteration:
            self._leave()
            return []
        except Exception as error:  # belongs to this job: its client is told, the others go on
            self._leave()
            return [(key, 0, error)]
        return [(key, sample, event)]

    def _leave(self) -> None:
        self._key, self._events = None, iter(())

    def _replies(self, job: Job) -> Iterator[tuple[int, Event]]:
        for sample in range(job.n):
            settings = dict(job.settings)
            if settings.get("seed") is not None:
                settings["seed"] = (settings["seed"] + sample) % 2**64
            yield from ((sample, event) for event in self._reply(job, settings))

    def _reply(self, job: Job, settings: Mapping[str, Any]) -> Iterator[Event]:
        stream = self._r1.stream(list(job.messages), **settings)
        writer, watch = stream._generation.writer, StopWatch(job.stop)
        if job.constraint is not None:
            gate: Any = job.constraint.copy().behind(writer.gate, stream._prompt_tokens)
            writer.gate = gate
        for step in stream:
            yield from watched(step, watch)
            if watch.hit is not None:
                break
        ended = watch.hit is not None or writer.token_ids[-1] in self._r1.tokenizer.stop_ids
        yield _prompt_of(stream).done(writer, ended, watch.hit)


def _prompt_of(stream: ReplyStream) -> Prompt:
    heard = stream._heard
    return Prompt(stream._prompt_tokens, sum(map(sum, heard.patches)), heard.seconds, 0)


def watched(step: Step, watch: StopWatch) -> Iterator[Step]:
    """A step without what stands behind a stop string; the reasoning passes as it is."""
    if step.kind == "thinking":
        if step.text:
            yield step
        return
    text = watch.push(step.text) + (watch.finish() if step.finish_reason else "")
    if text:
        yield Step("answer", text)
