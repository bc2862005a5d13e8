"""Many replies at once: one batch whose rows have their own prompt, settings, seed and end.

mlx-lm's BatchGenerator decodes; here are the queue in front of it, the reading of prompts from
embeddings, one prefix for the replies to one prompt, and the steps behind it. A reply does not depend on
what runs beside it, up to float rounding. The surprise: nothing runs by itself and nothing locks: one
thread calls `submit` and `step` in turn.
"""

from __future__ import annotations

import hashlib
import time
from collections import deque
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import mlx.core as mx
from mlx.utils import tree_flatten
from mlx_lm.generate import BatchGenerator
from mlx_lm.sample_utils import Sampler, apply_min_p, apply_top_k, apply_top_p

from mlx_audio_r1.errors import PromptError
from mlx_audio_r1.generate import ReplyWriter, Settings, Step, Timings, draw, processors, sampler
from mlx_audio_r1.kernels.sample import in_use
from mlx_audio_r1.memory import WORKING_BYTES, usable_bytes
from mlx_audio_r1.models.shared_prefix import EXACT, KVFormat
from mlx_audio_r1.models.step_audio_r1 import Model
from mlx_audio_r1.prompt_cache import Prefix
from mlx_audio_r1.reading import Reading, Request, kv_format
from mlx_audio_r1.tokenizer import Tokenizer

MAX_ROWS = 8  # more are slower a row on most Macs until 32 are full
BUSY_CHUNK = 256  # prompt tokens read between two decode steps while rows are waiting for theirs


@dataclass(eq=False)
class Draft:
    """One reply in the making. Times are wall time and hold what ran beside it."""

    request: int
    sample: int
    writer: ReplyWriter
    started: float  # time.perf_counter() when the reading of its prompt began
    timings: Timings = field(default_factory=Timings)
    text: dict[str, str] = field(default_factory=lambda: {"thinking": "", "answer": ""})
    logprobs: list[float] = field(default_factory=list)  # of writer.token_ids, when the engine records them


@dataclass(frozen=True)
class Event:
    """One token of one reply, and the steps it completes; the last one has a finish_reason.

    logprob: float32, of the distribution after penalty and gate and before the temperature, so 0 for a
    token that the gate forced.
    """

    request: int
    sample: int
    token: int
    logprob: float | None
    steps: tuple[Step, ...]
    draft: Draft

    @property
    def finish_reason(self) -> str | None:
        return self.steps[-1].finish_reason if self.steps else None


@dataclass
class Counts:
    """Work done, in tokens."""

    prefilled: int = 0  # prompt tokens read; those of a known prefix are not
    decoded: int = 0


class Engine:
    """Replies to many prompts from one model, `max_rows` at a time.

    kv_limit: bytes of keys and values at most; without it, what the machine offers beyond the weights.
    logprobs: record the log-probability of every token in float32. stop_loops: end a reply whose reasoning
    loops, rather than closing the reasoning for it: what is learnt from must be the model's own choice.
    """

    def __init__(
        self,
        model: Model,
        tokenizer: Tokenizer,
        *,
        max_rows: int = MAX_ROWS,
        kv_limit: int | None = None,
        logprobs: bool = False,
        stop_loops: bool = False,
    ):
        if max_rows < 1:
            raise PromptError(f"max_rows is {max_rows}: give 1 or more")
        self.model, self.tokenizer = model, tokenizer
        self.max_rows, self.logprobs, self._stop_loops = max_rows, logprobs, stop_loops
        self.kv_limit = _room_beside(model) if kv_limit is None else kv_limit
        self.counts = Counts()
        self._generator = BatchGenerator(
            model.language_model, completion_batch_size=max_rows, prefill_batch_size=max_rows
        )
        self._samplers: dict[tuple[float, ...], Sampler] = {}
        self._queue: deque[Request] = deque()  # the first one is being read, or waits for rows
        self._drafts: dict[int, tuple[Request, Draft]] = {}  # by mlx-lm's uid: the rows
        self._next_id = 0

    def __enter__(self) -> Engine:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Drop everything and give the wired memory back."""
        self._queue.clear()
        self._generator.remove(list(self._drafts))
        self._drafts.clear()
        self._generator.close()

    # ---- what people call

    @property
    def busy(self) -> bool:
        return bool(self._queue or self._drafts)

    @property
    def running(self) -> int:
        """Rows that are decoding."""
        return len(self._drafts)

    @property
    def waiting(self) -> int:
        """Replies that have no row yet."""
        return sum(len(request.unseated) for request in self._queue)

    @property
    def kv_nbytes(self) -> int:
        """Bytes of keys and values held now, by rows and by the prompt that is being read."""
        reading = sum(request.nbytes for request in self._queue)
        return self._generator.prompt_cache_nbytes + reading

    def submit(
        self,
        prompt_ids: Sequence[int],
        embeddings: mx.array,
        settings: Settings,
        thinking_open: bool,
        num_samples: int = 1,
        prefix: Prefix | None = None,
    ) -> int:
        """Queue a prompt, (L,) ids and (L, hidden_size) embeddings; the id its events will carry.

        prefix: of a PromptCache, shorter than the prompt. Sample i of a seeded request draws from its own
        stream: sample 0 from the stream of the seed, so it is the reply AudioR1 gives alone.
        Raises PromptError for what a batch cannot do, or what can never fit.
        """
        request = Request(
            self._next_id, list(prompt_ids), embeddings, settings, thinking_open, num_samples,
            prefix if prefix and prefix.length < len(prompt_ids) else None,
            kv_format(settings), embeddings.dtype.size, deque(range(num_samples)),
        )
        self._check(request)
        self._next_id += 1
        self._queue.append(request)
        return request.id

    def cancel(self, request: int, sample: int | None = None) -> bool:
        """Stop a request, or one sample of it; no event of it follows. False when it was over."""
        def meant(id: int, i: int) -> bool:
            return id == request and sample in (None, i)

        uids = [uid for uid, (_, d) in self._drafts.items() if meant(d.request, d.sample)]
        waiting = [(r, i) for r in self._queue for i in r.unseated if meant(r.id, i)]
        self._leave(uids)
        for queued, i in waiting:
            queued.unseated.remove(i)
            if not queued.unseated:
                self._queue.remove(queued)
        return bool(uids or waiting)

    def __iter__(self) -> Iterator[Event]:
        """Events until nothing is left to do."""
        while self.busy:
            yield from self.step()

    def step(self) -> list[Event]:
        """Read a chunk of the next prompt, seat what is read, decode one token of every row."""
        with mx.stream(self._generator.stream):
            self._read()
            self._seat()
        return self._decode()

    # ---- the queue

    def _read(self) -> None:
        if not self._queue or self._queue[0].is_read:
            return
        request = self._queue[0]
        if request.reading is None:
            if self._needed(request) > self.kv_limit:
                return
            request.started = time.perf_counter()
            request.reading = Reading(
                self.model, request.ids, request.embeddings, request.form, request.prefix
            )
        size = request.settings.prefill_step_size
        self.counts.prefilled += request.reading.advance(min(size, BUSY_CHUNK) if self._drafts else size)
        if request.reading.finished:
            several = request.num_samples > 1
            request.rows = request.reading.rows(several or self._has_company(request), several)
            request.is_read, request.reading, request.embeddings = True, None, None

    def _has_company(self, request: Request) -> bool:
        """Do others here begin with the same prefix? Then all see it by reference."""
        others = [*self._queue, *(r for r, _ in self._drafts.values())]
        mine = request.prefix
        return mine is not None and any(r.prefix is mine for r in others if r is not request)

    def _seat(self) -> None:
        if not self._queue or not self._queue[0].is_read:
            return
        request = self._queue[0]
        n = min(len(request.unseated), self.max_rows - len(self._drafts))
        while n and self._needed(request, n) > self.kv_limit:
            n -= 1
        if n:
            self._insert(request, [request.unseated.popleft() for _ in range(n)])
        if not request.unseated:
            self._queue.popleft().rows = None  # the batch has them now

    def _insert(self, request: Request, samples: list[int]) -> None:
        s, length, thinking = request.settings, len(request.ids), request.thinking_open
        writers = [ReplyWriter(self.tokenizer, length, s, thinking, self._stop_loops) for _ in samples]
        drafts = [Draft(request.id, i, writer, request.started)
                  for i, writer in zip(samples, writers, strict=True)]
        last = [_in_float32] if self.logprobs else []
        uids = self._generator.insert(
            [request.ids[-1:] for _ in samples],
            max_tokens=[s.max_tokens] * len(samples),
            caches=[request.rows] * len(samples),
            all_tokens=[request.ids[:-1] for _ in samples],
            samplers=[self._sampler(s, i) for i in samples],
            logits_processors=[[*processors(s, draft.writer.gate), *last] for draft in drafts],
        )
        request.is_seated = True
        self._drafts |= {uid: (request, draft) for uid, draft in zip(uids, drafts, strict=True)}

    def _sampler(self, settings: Settings, sample: int) -> Sampler:
        """One for all rows with the same settings, which mlx-lm then samples in one call."""
        if settings.seed is None or settings.temperature == 0:
            key = (settings.temperature, settings.top_p, settings.min_p, settings.top_k)
            return self._samplers.setdefault(key, sampler(settings))
        return SeededSampler(settings, seed_of(settings.seed, sample))

    # ---- decoding

    def _decode(self) -> list[Event]:
        responses = self._generator.next()[1]
        for response in responses:
            response.prompt_cache = None  # a view that would hold the whole batch's arrays
        logprobs = self._logprobs(responses)
        now = time.perf_counter()
        events = [self._event(r.uid, r.token, r.finish_reason is not None, p, now)
                  for r, p in zip(responses, logprobs, strict=True)]
        self.counts.decoded += len(events)
        over = {r.uid for r, event in zip(responses, events, strict=True) if event.finish_reason}
        self._leave(over)
        return events

    def _logprobs(self, responses: Sequence[Any]) -> list[float | None]:
        if not self.logprobs or not responses:
            return [None] * len(responses)
        return mx.stack([r.logprobs[r.token] for r in responses]).tolist()

    def _event(self, uid: int, token: int, last: bool, logprob: float | None, now: float) -> Event:
        draft = self._drafts[uid][1]
        steps = [*draft.writer.push(token)]
        if last or draft.writer.finish_reason:
            steps += draft.writer.finish()
        for step in steps:
            draft.text[step.kind] += step.text
        if logprob is not None:
            draft.logprobs.append(logprob)
        draft.timings.prefill = draft.timings.prefill or now - draft.started
        draft.timings.decode = now - draft.started - draft.timings.prefill
        return Event(draft.request, draft.sample, token, logprob, tuple(steps), draft)

    def _leave(self, uids: Collection[int]) -> None:
        if uids:
            self._generator.remove(uids)  # those at their max_tokens have left already
        for uid in uids:
            del self._drafts[uid]

    # ---- memory

    def _check(self, request: Request) -> None:
        s, text = request.settings, self.model.config.text
        if not request.ids or request.embeddings.shape != (len(request.ids), text.hidden_size):
            raise PromptError(f"{len(request.ids)} ids and embeddings of shape {request.embeddings.shape}: "
                              f"expected ({len(request.ids)}, {text.hidden_size})")
        if request.num_samples < 1:
            raise PromptError(f"num_samples is {request.num_samples}: give 1 or more")
        if s.max_kv_size is not None:
            raise PromptError("max_kv_size does not go with a batch: leave it out, or use kv_bits")
        if s.kv_bits and text.head_dim % s.kv_group_size:
            raise PromptError(f"kv_group_size {s.kv_group_size} does not divide the head size "
                              f"{text.head_dim}: give {text.head_dim}")
        if s.top_k >= text.vocab_size:
            raise PromptError(f"top_k is {s.top_k}: the vocabulary has {text.vocab_size} tokens")
        if request.tokens > self.model.config.context_length:
            raise PromptError(f"{len(request.ids)} prompt tokens and max_tokens {s.max_tokens} exceed the "
                              f"context of {self.model.config.context_length}: lower max_tokens")
        alone = self.kv_bytes([request])
        if alone > self.kv_limit:
            raise PromptError(
                f"{len(request.ids)} prompt tokens and max_tokens {s.max_tokens} take {alone:,} bytes of KV "
                f"cache, the limit is {self.kv_limit:,}: lower max_tokens, or give kv_bits 8 or 4"
            )

    def kv_bytes(self, rows: Sequence[Request]) -> int:
        """The most bytes these rows, one entry each, will ever take together.

        Rows of single replies stand in one block, which is as wide as its longest. A prompt that will be
        quantised is exact while it is read.
        """
        counted = {request: rows.count(request) for request in rows}
        single = [self._bytes(r, max(r.tokens, r.prompt_room)) for r in rows if r.num_samples == 1]
        several = sum(
            self._bytes(r, r.prompt_room) + n * self._bytes(r, r.settings.max_tokens, before=len(r.ids))
            for r, n in counted.items() if r.num_samples > 1
        )
        exact = [self._bytes(r, r.prompt_room, EXACT) for r in counted if r.form.bits and not r.is_read]
        return len(single) * max(single, default=0) + several + max(exact, default=0)

    def _needed(self, request: Request, rows: int = 1) -> int:
        """Bytes with so many more rows of this request."""
        return self.kv_bytes([*(r for r, _ in self._drafts.values()), *[request] * rows])

    def _bytes(self, request: Request, tokens: int, form: KVFormat | None = None, before: int = 0) -> int:
        text = self.model.config.text
        values = 2 * text.num_hidden_layers * text.num_key_value_heads * text.head_dim
        return (form or request.form).bytes(tokens, values, request.itemsize, before)


class SeededSampler:
    """`generate.sampler` with a stream of its own: the one `mx.random.seed(seed)` would start."""

    def __init__(self, settings: Settings, seed: int):
        self._key, self._settings, self._by_number = mx.random.key(seed), settings, in_use()
        self._filters = [
            partial(apply, **{name: value})
            for apply, name, value, used in (
                (apply_top_p, "top_p", settings.top_p, 0 < settings.top_p < 1),
                (apply_min_p, "min_p", settings.min_p, settings.min_p > 0),
                (apply_top_k, "top_k", settings.top_k, settings.top_k > 0),
            ) if used
        ]

    def __call__(self, logprobs: mx.array) -> mx.array:
        """(1, V) -> (1,)"""
        self._key, now = mx.random.split(self._key)
        if self._by_number:
            return draw(self._settings, logprobs, now)
        for narrow in self._filters:
            logprobs = narrow(logprobs)
        return mx.random.categorical(logprobs * (1 / self._settings.temperature), key=now)


def seed_of(seed: int, sample: int) -> int:
    """The seed of one sample of a request: the request's own for the first, unrelated ones behind it."""
    if sample == 0:
        return seed
    return int.from_bytes(hashlib.sha256(f"{seed}/{sample}".encode()).digest()[:8], "little")


def _in_float32(_: mx.array, logits: mx.array) -> mx.array:
    """A logits processor: mlx-lm takes the log-softmax in the dtype it is given."""
    return logits.astype(mx.float32)


def _room_beside(model: Model) -> int:
    weights = sum(p.nbytes for _, p in tree_flatten(model.parameters()))
    return max(0, usable_bytes() - weights - WORKING_BYTES)
