"""What the endpoints share: the worker, the limits, and the way of a request from words to events."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence
from contextlib import aclosing, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from mlx_audio_r1.config import SAMPLE_RATE, patch_count
from mlx_audio_r1.errors import AudioR1Error
from mlx_audio_r1.prompt import AudioPart, Message, audio_parts, render, starts_in_thinking, to_ids
from mlx_audio_r1.serve.chat_request import ChatRequest, Turn
from mlx_audio_r1.serve.media import MediaLimits, Sound
from mlx_audio_r1.serve.metrics import Metrics
from mlx_audio_r1.serve.problems import Problem, unsupported
from mlx_audio_r1.serve.replies import Style
from mlx_audio_r1.serve.rows import Done, Job
from mlx_audio_r1.serve.structured import Grammars, read_schema
from mlx_audio_r1.serve.transcription import Segment, TranscriptionRequest, messages_for
from mlx_audio_r1.serve.worker import Inbox, Worker
from mlx_audio_r1.session import AudioR1

DECODED_AHEAD = 2  # requests whose sound is decoded while all rows are busy


@dataclass(frozen=True)
class ServeOptions:
    """How to serve. Times are seconds."""

    media: MediaLimits = field(default_factory=MediaLimits)
    api_key: str | None = None
    allowed_origins: tuple[str, ...] = ()
    decode_concurrency: int = 8  # replies decoding at once
    prompt_cache_bytes: int = 2 << 30  # of encoded sounds and read prompts kept in memory
    prompt_cache_folder: Path | None = None  # where they are kept on disk too
    queue_limit: int = 128  # requests in the server at once; one more is sent away
    keep_alive: float = 5.0  # silence in a stream before a comment is sent
    separate_reasoning: bool = True


class Service:
    """One model behind its endpoints; lives on one event loop."""

    def __init__(self, r1: AudioR1, worker: Worker, options: ServeOptions):
        self.worker, self.options = worker, options
        folder = Path(r1.name).expanduser()
        self.name = folder.resolve().name if folder.is_dir() else r1.name  # a path is nobody's business
        self.created = int(time.time())
        self.thinking_default = r1.defaults.thinking
        self.metrics = Metrics()
        self.closing = False
        self._config, self._tokenizer, self._defaults = r1.config, r1.tokenizer, r1.defaults
        self._chunk_seconds = r1.chunk_seconds
        self._grammars = Grammars(r1.tokenizer, r1.config.text.vocab_size)
        self._slots = asyncio.Semaphore(options.decode_concurrency + DECODED_AHEAD)
        self._inside = 0
        self._inboxes: set[Inbox] = set()
        self._usual_seconds = 1.0
        self.metrics.gauge("requests_inside", "Requests in the server.", lambda: self._inside)
        self.metrics.gauge("rows", "Replies running and waiting.", lambda: worker.rows)

    @contextmanager
    def admitted(self) -> Iterator[None]:
        """A place in the server, or 429."""
        if self._inside >= self.options.queue_limit:
            wait = min(60, max(1, math.ceil(self._usual_seconds)))
            raise Problem(f"{self._inside} requests are in the server already; try again in {wait} seconds",
                          status=429, code="queue_full",
                          headers={"retry-after": str(wait)})
        self._inside += 1
        started = time.perf_counter()
        try:
            yield
        finally:
            self._inside -= 1
            taken = time.perf_counter() - started
            self._usual_seconds += 0.1 * (taken - self._usual_seconds)
            self.metrics.time("request_seconds", taken)

    def end_all(self) -> None:
        """Cut every reply under way; its client is told."""
        for inbox in self._inboxes:
            inbox.put_nowait((0, Problem("the server is stopping", status=503, code="unavailable")))

    def style(self, request: ChatRequest) -> Style:
        """How this reply tells its reasoning."""
        separate = request.separate_reasoning
        return Style(self.options.separate_reasoning if separate is None else separate,
                     request.include_reasoning)

    # ---- chat

    async def chat(self, request: ChatRequest) -> AsyncGenerator[tuple[int, Any], None]:
        """(choice, Step or Done) until every choice is done. Raises Problem."""
        async with self._slots:
            job = await asyncio.to_thread(self._chat_job, request)
            async with aclosing(self._events([job])) as events:
                async for tag, event in events:
                    yield tag, event

    async def _events(self, jobs: Sequence[Job]) -> AsyncGenerator[tuple[int, Any], None]:
        inbox: Inbox = asyncio.Queue()
        started, replies = time.perf_counter(), sum(job.n for job in jobs)
        waiting = replies
        tickets = [self.worker.submit(job, inbox, tag) for tag, job in enumerate(jobs)]
        first = True
        self._inboxes.add(inbox)
        try:
            while waiting:
                tag, event = await inbox.get()
                if isinstance(event, Exception):
                    raise event
                if first:
                    self.metrics.time("time_to_first_token_seconds", time.perf_counter() - started)
                    first = False
                if isinstance(event, Done):
                    self.metrics.reply(event, prompt=waiting == replies or len(jobs) > 1)
                    waiting -= 1
                yield tag, event
        finally:
            self._inboxes.discard(inbox)
            for ticket in tickets:
                self.worker.cancel(ticket)

    def _chat_job(self, request: ChatRequest) -> Job:
        """Decode the sounds and check everything that can be checked without the model."""
        messages = self._messages(request.turns)
        thinking_open = self._check_length(messages)
        schema = read_schema(request.response_format)
        if schema is not None and request.stop_token_ids - self._tokenizer.stop_ids:
            raise unsupported("stop_token_ids", "it does not go with response_format")
        return Job(
            messages=messages,
            settings=self._checked(request.settings),
            n=request.n,
            stop=request.stop,
            stop_token_ids=request.stop_token_ids,
            constraint=None if schema is None else self._grammars.compile(schema, thinking_open),
        )

    def _checked(self, settings: Mapping[str, Any]) -> Mapping[str, Any]:
        try:
            replace(self._defaults, **settings)
        except AudioR1Error as error:
            raise Problem(str(error), code="invalid_value") from None
        return settings

    def _messages(self, turns: Sequence[Turn]) -> tuple[Message, ...]:
        left, messages = self.options.media.seconds, []
        for turn in turns:
            parts: list[str | AudioPart] = []
            for part in turn.parts:
                if not isinstance(part, Sound):
                    parts.append(part)
                    continue
                chunks = part.decode(left, self._chunk_seconds)
                left -= chunks[-1].end
                parts += [AudioPart(chunk.waveform, SAMPLE_RATE) for chunk in chunks]
            messages.append(Message(turn.role, tuple(parts)))
        return tuple(messages)

    def _check_length(self, messages: Sequence[Message]) -> bool:
        """Whether the reply begins inside reasoning. Raises Problem for a prompt that does not fit."""
        segments = render(messages)
        patches = [[patch_count(len(part.source), self._config.length_convention)]
                   for part in audio_parts(messages)]
        length, context = len(to_ids(segments, patches, self._tokenizer)), self._config.context_length
        if length >= context:
            raise Problem(
                f"the prompt has {length} tokens, {sum(map(sum, patches))} of them sound; the context holds "
                f"{context}. Send less; a second of sound takes 12.5 tokens",
                param="messages", code="context_length_exceeded",
            )
        return starts_in_thinking(segments)

    # ---- transcriptions

    async def transcribe(self, sound: Sound, request: TranscriptionRequest) -> list[Segment]:
        """The pieces of a file with their words. Raises Problem."""
        async with self._slots:
            chunks = await asyncio.to_thread(sound.decode, self.options.media.seconds, self._chunk_seconds)
            settings = self._checked(request.settings)
            jobs = [Job(messages_for(chunk, request), settings) for chunk in chunks]
            texts, done = [""] * len(jobs), {}
            async with aclosing(self._events(jobs)) as events:
                async for tag, event in events:
                    if isinstance(event, Done):
                        done[tag] = event
                    elif event.kind == "answer":
                        texts[tag] += event.text
        return [
            Segment(round(chunk.start, 3), round(chunk.end, 3), texts[i].strip(), done[i])
            for i, chunk in enumerate(chunks)
        ]
