"""One prompt -> a stream of tokens: prefill, decode, thinking budget, loops, timing.

mlx-lm's `generate_step` does the work. What it lacks is added as one logits processor: at the budget,
or in a loop, `ReasoningGate` forces the closing tag token by token, so an answer always follows. The
surprise: mlx-lm samples one token ahead, so a loop is closed one token after it is seen.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import partial
from typing import Any

import mlx.core as mx
import numpy as np
from mlx_lm.generate import generate_step
from mlx_lm.models.cache import make_prompt_cache
from mlx_lm.sample_utils import LogitsProcessor, Sampler, make_logits_processors, make_sampler
from mlx_lm.utils import maybe_set_recommended_wired_limit

from mlx_audio_r1.errors import PromptError
from mlx_audio_r1.kernels.sample import in_use, sample
from mlx_audio_r1.models.step_audio_r1 import Model
from mlx_audio_r1.reasoning import THINK_CLOSE, THINK_OPEN, Kind, Piece, ReasoningSplitter
from mlx_audio_r1.tokenizer import Tokenizer

FORCED_CLOSE = f"\n{THINK_CLOSE}\n"
ANSWER_RESERVE = 256  # tokens kept for the answer when a thinking budget is given
LOOP_PERIOD = 512  # longest n-gram watched, in tokens: whole paragraphs repeat too
LOOP_TOKENS = 64  # a loop is at least this many tokens ...
LOOP_REPEATS, LOOP_REPEATS_LONG = 6, 3  # ... and this many repeats, fewer where the n-gram is long
LOOP_LONG = 128  # tokens from which an n-gram is long
PENALTY_CONTEXT = 1 << 20  # tokens back that the repetition penalty looks: all of them
KV_GROUP_SIZES = (32, 64, 128)  # what MLX quantises in


@dataclass(frozen=True)
class Settings:
    """How to decode. Defaults are those of the authors' examples; names are mlx-lm's.

    `seed` seeds MLX's generator when a stream starts: streams that are iterated in turns share it (those
    of the batch engine do not). `repetition_penalty` looks at the prompt and the whole reply, as the
    authors' server does. Raises PromptError for a value that is impossible.
    """

    max_tokens: int = 32_000
    temperature: float = 0.7
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    seed: int | None = None
    thinking: bool = True
    thinking_budget: int | None = None  # tokens of reasoning before it is closed
    max_kv_size: int | None = None
    kv_bits: int | None = None
    kv_group_size: int = 64
    quantized_kv_start: int = 5_000
    prefill_step_size: int = 2_048

    def __post_init__(self) -> None:
        for name, (low, high) in _RANGES.items():
            value = getattr(self, name)
            kinds = (int,) if isinstance(high, int) else (int, float)
            if value is None and name in _OPTIONAL:
                continue
            if not isinstance(value, kinds) or isinstance(value, bool) or not low <= value <= high:
                raise PromptError(
                    f"{name} is {value!r}: it must be {_KINDS[kinds]} between {low} and {high}"
                )
        if self.max_kv_size is not None and self.kv_bits is not None:
            raise PromptError("max_kv_size and kv_bits exclude each other: give one")
        if self.kv_bits not in (None, 2, 3, 4, 5, 6, 8):
            raise PromptError(f"kv_bits is {self.kv_bits}: choose 2, 3, 4, 5, 6 or 8")
        if self.kv_group_size not in KV_GROUP_SIZES:
            raise PromptError(f"kv_group_size is {self.kv_group_size}: choose one of {KV_GROUP_SIZES}")


_RANGES: dict[str, tuple[float, float]] = {
    "max_tokens": (1, 10_000_000),
    "temperature": (0.0, 10.0),
    "top_p": (0.0, 1.0),
    "top_k": (0, 10_000_000),
    "min_p": (0.0, 1.0),
    "repetition_penalty": (0.01, 10.0),
    "thinking_budget": (0, 10_000_000),
    "max_kv_size": (16, 10_000_000),
    "quantized_kv_start": (0, 10_000_000),
    "prefill_step_size": (1, 10_000_000),
    "seed": (0, 2**64 - 1),
}
_OPTIONAL = ("seed", "thinking_budget", "max_kv_size")  # may be None
_KINDS = {(int,): "a whole number", (int, float): "a number"}

# The settings of the authors' examples, by the kind of question.
PRESETS: dict[str, dict[str, Any]] = {
    "default": {"max_tokens": 32_000, "temperature": 0.7},
    "mmar": {"max_tokens": 32_000, "temperature": 0.7, "repetition_penalty": 1.07},
    "caption": {"max_tokens": 1_024, "temperature": 0.5, "top_p": 0.9},
    "song": {"max_tokens": 2_048, "temperature": 0.7, "top_p": 0.9},
    "speaker": {"max_tokens": 2_048, "temperature": 0.7, "top_p": 0.9},
}


def settings_from(values: Mapping[str, Any]) -> Settings:
    """Settings from a generation_config.json: its known keys; `do_sample: false` means greedy."""
    known = {f.name for f in fields(Settings)}
    chosen = {k: v for k, v in values.items() if k in known and v is not None}
    if values.get("max_new_tokens") is not None:
        chosen["max_tokens"] = values["max_new_tokens"]
    if values.get("do_sample") is False:
        chosen["temperature"] = 0.0
    return Settings(**chosen)


@dataclass
class Timings:
    """Seconds of each part of a reply."""

    encode: float = 0.0  # decoding the files and the audio encoder
    prefill: float = 0.0  # until the first token
    decode: float = 0.0


@dataclass(frozen=True)
class Step:
    """One event of a generation: some text of one kind, and at the end why it ended."""

    kind: Kind
    text: str
    finish_reason: str | None = None


class LoopWatch:
    """Sees when the same n-gram comes over and over.

    For every period p up to LOOP_PERIOD it counts how long the last tokens equal those p before.
    """

    def __init__(self) -> None:
        self._recent = np.full(LOOP_PERIOD, -1)
        self._run = np.zeros(LOOP_PERIOD, dtype=np.int64)  # [p - 1]: matches at distance p
        periods = np.arange(1, LOOP_PERIOD + 1)
        repeats = np.where(periods < LOOP_LONG, LOOP_REPEATS, LOOP_REPEATS_LONG)
        self._limit = np.maximum(LOOP_TOKENS, repeats * periods) - periods

    def push(self, token: int) -> bool:
        """True when this token completes a loop."""
        self._run = np.where(self._recent == token, self._run + 1, 0)
        self._recent = np.concatenate([[token], self._recent[:-1]])
        return bool((self._run >= self._limit).any())


class ReasoningGate:
    """A logits processor that can close the reasoning by forcing the closing tag.

    It works on (B = 1, V) logits. `tokens` seen by a processor hold the prompt, so the number of
    generated tokens is known without waiting for the GPU; only at the budget itself is the text read.
    """

    def __init__(self, tokenizer: Tokenizer, prompt_length: int, budget: int | None, open_: bool):
        self._tokenizer = tokenizer
        self._close_ids = tokenizer.encode(FORCED_CLOSE)
        self._prompt_length = prompt_length
        self._budget = budget
        self._closed = not open_
        self._forcing: list[int] = []
        self.reason: str | None = None  # why the reasoning was closed, if it was

    def note_closed(self) -> None:
        """The model closed the reasoning itself."""
        self._closed = True

    def note_opened(self) -> None:
        """The model opened a reasoning of its own accord; the budget counts on."""
        self._closed = False

    def close(self, reason: str) -> None:
        """Force the closing tag from the next token on."""
        if not self._closed:
            self._closed, self._forcing, self.reason = True, list(self._close_ids), reason

    def __call__(self, tokens: mx.array, logits: mx.array) -> mx.array:
        generated = tokens.size - self._prompt_length
        if not self._closed and self._budget is not None and generated >= self._budget:
            self._at_budget(tokens[self._prompt_length :].tolist())
        if not self._forcing:
            return logits
        forced = mx.arange(logits.shape[-1]) == self._forcing.pop(0)
        return mx.where(forced, logits, mx.array(-float("inf"), logits.dtype))

    def _at_budget(self, written: list[int]) -> None:
        text = self._tokenizer.decode(written)
        if text.rfind(THINK_CLOSE) > text.rfind(THINK_OPEN):
            self._closed = True
        else:
            self.close("budget")


class ReplyWriter:
    """The part of a reply that is the same alone and in a batch: tokens in, steps out.

    `gate` belongs among the logits processors of the stream. After `push` has set `finish_reason`, or
    the tokens have run out, `finish` gives the rest and the honest reason. With `stop_loops` a loop in
    the reasoning ends the reply, as one in the answer does, and no token is forced.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        prompt_length: int,
        settings: Settings,
        thinking_open: bool,
        stop_loops: bool = False,
    ):
        self.token_ids: list[int] = []
        self.reasoning_tokens = 0
        self.finish_reason: str | None = None
        closing = len(tokenizer.encode(FORCED_CLOSE))
        budget = _budget_within(settings, closing)
        self.gate = ReasoningGate(tokenizer, prompt_length, budget, thinking_open)
        self._stop_ids, self._stop_loops = tokenizer.stop_ids, stop_loops
        self._text = tokenizer.stream()
        self._splitter = ReasoningSplitter(thinking_open)
        self._watch = LoopWatch()

    def push(self, token: int) -> Iterator[Step]:
        """The steps this token completes; sets `finish_reason` when it ends the reply."""
        self.token_ids.append(token)
        if token in self._stop_ids:
            self.finish_reason = "stop"
            return
        in_thinking = not self._splitter.closed
        self.reasoning_tokens += in_thinking
        yield from self._steps(self._splitter.push(self._text.push(token)))
        if in_thinking == self._splitter.closed:
            self._on_turn()
        if self._watch.push(token):
            self._on_loop()

    def finish(self) -> Iterator[Step]:
        """What was held back, and a last step with the reason: `length` and `loop` in the answer come
        first, then why the reasoning was cut short."""
        yield from self._steps(self._splitter.push(self._text.finish()))
        yield from self._steps(self._splitter.finish())
        if self.finish_reason == "stop":
            self.finish_reason = self.gate.reason or "stop"
        self.finish_reason = self.finish_reason or "length"
        yield Step(self._splitter.kind, "", self.finish_reason)

    def _on_turn(self) -> None:
        """The reasoning has just been closed, or opened once more."""
        self._watch = LoopWatch()
        if self._splitter.closed:
            self.gate.note_closed()
        else:
            self.gate.note_opened()

    def _on_loop(self) -> None:
        if self._splitter.closed or self._stop_loops:
            self.finish_reason = "loop"
        else:
            self.gate.close("loop")

    @staticmethod
    def _steps(pieces: Iterable[Piece]) -> Iterator[Step]:
        return (Step(piece.kind, piece.text) for piece in pieces)


class Generation:
    """One reply in the making. Iterate over it for `Step`s, then read `writer` and `timings`."""

    def __init__(
        self,
        model: Model,
        tokenizer: Tokenizer,
        ids: Sequence[int],
        embeddings: mx.array,
        settings: Settings,
        thinking_open: bool,
        progress: Callable[[int, int], None] | None = None,
        read_prefix: Callable[[], list[Any]] | None = None,
    ):
        """`read_prefix` gives a cache that holds the first ids already."""
        self.timings = Timings()
        self.writer = ReplyWriter(tokenizer, len(ids), settings, thinking_open)
        self._settings = settings
        self._ids, self._embeddings = ids, embeddings
        self._model, self._progress = model, progress
        self._read_prefix = read_prefix

    def __iter__(self) -> Iterator[Step]:
        for token in self._tokens():
            yield from self.writer.push(token)
            if self.writer.finish_reason:
                break
        yield from self.writer.finish()

    def _tokens(self) -> Iterator[int]:
        """Ids as they are sampled, with the times taken."""
        s = self._settings
        if s.seed is not None:
            mx.random.seed(s.seed)
        maybe_set_recommended_wired_limit()
        started = time.perf_counter()
        cache = self._start()
        known = cache[0].offset
        steps = generate_step(
            mx.array(self._ids[known:]),
            self._model.language_model,
            max_tokens=s.max_tokens,
            sampler=sampler(s),
            logits_processors=behind(self._ids[:known], processors(s, self.writer.gate)),
            prompt_cache=cache,
            prefill_step_size=s.prefill_step_size,
            kv_bits=s.kv_bits,
            kv_group_size=s.kv_group_size,
            quantized_kv_start=s.quantized_kv_start,
            prompt_progress_callback=self._progress,
            input_embeddings=self._embeddings[known:],
        )
        for token, _ in steps:
            now = time.perf_counter()
            self.timings.prefill = self.timings.prefill or now - started
            self.timings.decode = now - started - self.timings.prefill
            yield int(token)

    def _start(self) -> list[Any]:
        """The cache to go on from; nothing is known yet where nobody kept a prefix."""
        if self._read_prefix:
            return self._read_prefix()
        return make_prompt_cache(self._model.language_model, self._settings.max_kv_size)


def processors(settings: Settings, gate: ReasoningGate) -> list[LogitsProcessor]:
    """The logits processors of one stream: the penalty, then the gate, which has the last word."""
    penalty = settings.repetition_penalty
    if penalty == 1.0:
        return [gate]
    # The authors' server penalises every token of prompt and reply; mlx-lm's default are the last 20.
    whole = make_logits_processors(repetition_penalty=penalty, repetition_context_size=PENALTY_CONTEXT)
    return [*whole, gate]


def behind(known: Sequence[int], processors: list[LogitsProcessor]) -> list[LogitsProcessor]:
    """The same processors for a stream that starts behind `known` ids: they go on seeing all."""
    if not known:
        return processors
    head = mx.array(known)
    return [lambda tokens, logits, p=p: p(mx.concatenate([head, tokens]), logits) for p in processors]


def sampler(settings: Settings) -> Sampler:
    """(B, V) log-probabilities -> (B,) tokens. mlx-lm's sampler; where the switch does not turn the kernel
    `sample` off, `draw`, which gives a seed other tokens of the same distribution."""
    if settings.temperature > 0 and in_use():
        return partial(draw, settings)
    return make_sampler(settings.temperature, settings.top_p, settings.min_p, top_k=settings.top_k)


def draw(settings: Settings, logprobs: mx.array, key: mx.array | None = None) -> mx.array:
    """One uniform number a row picks its token; key: where they come from, else MLX's own generator."""
    numbers = mx.random.uniform(shape=logprobs.shape[:1], key=key)
    return sample(logprobs, numbers, settings.temperature, settings.top_p, settings.min_p, settings.top_k)


def _budget_within(settings: Settings, closing: int) -> int | None:
    """The thinking budget, lowered so that of `max_tokens` the closing tag and an answer are left."""
    if settings.thinking_budget is None:
        return None
    reserve = closing + min(ANSWER_RESERVE, settings.max_tokens // 2)
    return max(0, min(settings.thinking_budget, settings.max_tokens - reserve))
