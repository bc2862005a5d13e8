"""Replies in the making: what the worker thread drives.

`Rows` is the seam between the server and whatever decodes. Everything here runs on the worker's
thread alone, because MLX work of one model belongs on one thread.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from mlx_audio_r1.generate import Step
from mlx_audio_r1.prompt import Message
from mlx_audio_r1.serve.stops import StopWatch
from mlx_audio_r1.serve.structured import Constraint
from mlx_audio_r1.session import AudioR1, ReplyStream


@dataclass(frozen=True)
class Job:
    """One reply to write."""

    messages: tuple[Message, ...]
    settings: Mapping[str, Any] = field(default_factory=dict)  # fields of generate.Settings
    stop: tuple[str, ...] = ()  # ends the answer; not part of it
    constraint: Constraint | None = None  # what the answer may be


@dataclass(frozen=True)
class Done:
    """The end of a reply, as OpenAI counts it.

    finish_reason: `stop` or `length`. stop_reason: the stop string found, or `budget` or `loop` when
    the reasoning was closed for the model or the answer was stopped.
    """

    finish_reason: str
    stop_reason: str | None
    prompt_tokens: int
    audio_tokens: int
    reasoning_tokens: int
    answer_tokens: int
    audio_seconds: float
    cached_tokens: int = 0


Event = Step | Done | Exception


class Rows(Protocol):
    """Many replies, advanced together."""

    def add(self, key: str, job: Job) -> None:
        """Take a job; it begins when there is room."""

    def cancel(self, key: str) -> None:
        """Forget a job and free what it holds; unknown keys are none of our business."""

    def step(self) -> list[tuple[str, Event]]:
        """Advance, and give what happened. Raises nothing that belongs to one job."""

    def __len__(self) -> int:
        """Jobs running and waiting."""


class OneByOne:
    """`AudioR1.stream`, one job after the other."""

    def __init__(self, r1: AudioR1):
        self._r1 = r1
        self._waiting: deque[tuple[str, Job]] = deque()
        self._key: str | None = None
        self._steps: Iterator[Event] = iter(())

    def add(self, key: str, job: Job) -> None:
        self._waiting.append((key, job))

    def cancel(self, key: str) -> None:
        if key == self._key:
            self._key, self._steps = None, iter(())
        self._waiting = deque(item for item in self._waiting if item[0] != key)

    def __len__(self) -> int:
        return len(self._waiting) + (self._key is not None)

    def step(self) -> list[tuple[str, Event]]:
        if self._key is None:
            if not self._waiting:
                return []
            self._key, job = self._waiting.popleft()
            self._steps = self._reply(job)
        key = self._key
        try:
            event = next(self._steps)
        except Exception as error:  # belongs to this job: its client is told, the others go on
            event = error
        if not isinstance(event, Step):
            self._key, self._steps = None, iter(())
        return [(key, event)]

    def _reply(self, job: Job) -> Iterator[Event]:
        stream = self._r1.stream(list(job.messages), **job.settings)
        writer = stream._generation.writer
        if job.constraint is not None:
            gate: Any = job.constraint.behind(writer.gate, stream._prompt_tokens)
            writer.gate = gate
        watch = StopWatch(job.stop)
        for step in stream:
            yield from watched(step, watch)
            if watch.hit is not None:
                break
        yield self._done(stream, watch)

    def _done(self, stream: ReplyStream, watch: StopWatch) -> Done:
        writer = stream._generation.writer
        reason = writer.finish_reason
        whole = watch.hit is not None or writer.token_ids[-1] in self._r1.tokenizer.stop_ids
        return Done(
            finish_reason="stop" if whole else "length",
            stop_reason=watch.hit or (reason if reason in ("budget", "loop") else None),
            prompt_tokens=stream._prompt_tokens,
            audio_tokens=sum(map(sum, stream._heard.patches)),
            reasoning_tokens=writer.reasoning_tokens,
            answer_tokens=len(writer.token_ids) - writer.reasoning_tokens,
            audio_seconds=stream._heard.seconds,
        )


def watched(step: Step, watch: StopWatch) -> Iterator[Step]:
    """A step without what stands behind a stop string; the reasoning passes as it is."""
    if step.kind == "thinking":
        if step.text:
            yield step
        return
    text = watch.push(step.text) + (watch.finish() if step.finish_reason else "")
    if text:
        yield Step("answer", text)
