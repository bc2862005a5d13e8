"""The object people use: load a checkpoint once, ask it about sounds.

    r1 = load("mlx-community/Step-Audio-R1.1-4bit")
    reply = r1.ask("clip.wav", "What instrument is this?")
    reply.thinking, reply.answer
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from numbers import Real
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np

from mlx_audio_r1 import audio as audio_in
from mlx_audio_r1.adapter_files import read_adapter
from mlx_audio_r1.config import CHUNK_SECONDS, MAX_CHUNK_SECONDS, SAMPLE_RATE, ModelConfig, patch_count
from mlx_audio_r1.errors import AudioError, PromptError
from mlx_audio_r1.generate import KV_GROUP_SIZES, Generation, Settings, settings_from
from mlx_audio_r1.hub import NANO, NANO_NAME, locate
from mlx_audio_r1.mel import log_mel
from mlx_audio_r1.models.step_audio_r1 import Model
from mlx_audio_r1.prompt import (
    AudioPart,
    Message,
    audio_parts,
    multiple_choice,
    parse_messages,
    render,
    starts_in_thinking,
    to_ids,
    user_message,
)
from mlx_audio_r1.prompt_cache import Prefix, PromptCache
from mlx_audio_r1.reading import Reading, kv_format
from mlx_audio_r1.reasoning import THINK_CLOSE
from mlx_audio_r1.reply import Heard, Reply, ReplyStream
from mlx_audio_r1.tokenizer import AUDIO_END, Tokenizer
from mlx_audio_r1.weights import load_model

SECONDS_PER_PATCH = 0.08
REPLY_ROOM = 1 / 8  # of the context, left for the reply when a length of sound is advised


@dataclass(frozen=True)
class Prepared:
    """A prompt, ready for the decoder."""

    ids: list[int]
    embeddings: mx.array  # (L, hidden_size)
    settings: Settings
    thinking_open: bool
    heard: Heard
    prefix: Prefix | None  # the beginning that a PromptCache keeps, when there is one
    encode_seconds: float


class AudioR1:
    """A loaded checkpoint."""

    def __init__(
        self,
        model: Model,
        tokenizer: Tokenizer,
        name: str,
        defaults: Settings,
        chunk_seconds: float = CHUNK_SECONDS,
        adapter_path: str | Path | None = None,
    ):
        if not 0.1 <= chunk_seconds <= MAX_CHUNK_SECONDS:
            raise PromptError(f"chunks of {chunk_seconds} s: choose between 0.1 and {MAX_CHUNK_SECONDS} s")
        self.model = model
        self.tokenizer = tokenizer
        self.name = name
        self.defaults = defaults
        self.chunk_seconds = chunk_seconds
        self.adapter_path = adapter_path
        self.prompt_cache: PromptCache | None = None  # give one, and a sound asked about twice is heard once

    @property
    def config(self) -> ModelConfig:
        return self.model.config

    # ---- stable small steps

    def log_mel(self, waveform: np.ndarray | mx.array) -> mx.array:
        """(samples,) at 16 kHz, one chunk -> (T, n_mels) float32. Raises AudioError as a file would."""
        chunks = audio_in.load_audio(
            _as_numpy(waveform), sample_rate=SAMPLE_RATE, chunk_seconds=MAX_CHUNK_SECONDS
        )
        if len(chunks) > 1:
            raise AudioError(f"log_mel takes one chunk of at most {MAX_CHUNK_SECONDS} s: cut it first")
        return log_mel(chunks[0].waveform, self.config.audio.n_mels)

    def encode_audio(self, waveform: np.ndarray | mx.array) -> mx.array:
        """(samples,) at 16 kHz, any length -> (N, hidden_size); chunked as a file would be."""
        chunks = audio_in.read_chunks(
            _as_numpy(waveform), sample_rate=SAMPLE_RATE, chunk_seconds=self.chunk_seconds
        )
        features = [rows for together in self.model.passes(chunks) for rows in self._encode(together)]
        return mx.concatenate(features)

    def prompt_ids(self, messages: Sequence[Mapping[str, Any] | Message], **rendering: Any) -> list[int]:
        """Messages -> ids, as the official server renders them (options of `prompt.render`)."""
        parsed = parse_messages(messages)
        heard = self.listen(audio_parts(parsed), encode=False)
        return to_ids(render(parsed, **rendering), heard.patches, self.tokenizer)

    def logits(self, messages: Sequence[Mapping[str, Any] | Message], **rendering: Any) -> mx.array:
        """Messages -> (L, vocab_size) logits of the prompt."""
        parsed = parse_messages(messages)
        heard = self.listen(audio_parts(parsed))
        ids = to_ids(render(parsed, **rendering), heard.patches, self.tokenizer)
        embeddings = self._embed(ids, heard)
        return self.model(mx.array(ids)[None], input_embeddings=embeddings[None])[0]

    def listen(self, parts: Sequence[AudioPart], *, encode: bool = True, beside: int = 0) -> Heard:
        """Decode and encode sounds, chunk by chunk; nothing is kept but the features.

        `beside` is what the rest of the prompt takes, in tokens. Raises PromptError with the number of
        seconds that fit when the sounds do not fit the context.
        """
        features: list[mx.array] = []
        patches: list[list[int]] = [[] for _ in parts]
        digests: list[str] = []
        seconds = 0.0
        for together in self.model.passes(self._chunks(parts, beside)):
            for i, chunk in together:
                patches[i].append(self._patches(chunk))
                seconds += len(chunk.waveform) / SAMPLE_RATE
                digests.append(audio_in.pcm_sha256([chunk]))
            if encode:
                features += self._encode([chunk for _, chunk in together], digests[-len(together) :])
        return Heard(features, patches, seconds, digests)

    # ---- asking

    def ask(
        self,
        audio: Any = (),
        prompt: str = "",
        *,
        system_prompt: str | None = None,
        choices: Sequence[str] | None = None,
        text_first: bool = False,
        **options: Any,
    ) -> Reply:
        """Ask one question about one or more sounds.

        `audio` is whatever `audio.read_chunks` opens, an `AudioPart`, or a list of them; without a
        prompt the sound alone is the question. `options` are fields of `Settings`, and those of `reply`.
        """
        messages = self.question(
            audio, prompt, system_prompt=system_prompt, choices=choices, text_first=text_first
        )
        return self.reply(messages, **options)

    def question(
        self,
        audio: Any = (),
        prompt: str = "",
        *,
        system_prompt: str | None = None,
        choices: Sequence[str] | None = None,
        text_first: bool = False,
    ) -> list[Message]:
        """The messages of one question: system, then the sounds in order and the text.

        `text_first` puts the text before the sounds, as most of the authors' examples do; behind them,
        other questions about the same sounds can share what was read of them.
        """
        text = multiple_choice(prompt, choices) if choices else prompt
        parts = _as_parts(audio)
        if not parts and not text:
            raise PromptError("nothing to answer: give a sound, a prompt or both")
        system = [Message("system", (system_prompt,))] if system_prompt else []
        return [*system, user_message(parts, text, text_first)]

    def reply(self, messages: Sequence[Mapping[str, Any] | Message], **options: Any) -> Reply:
        """Answer messages; the whole of `stream` in one object."""
        stream = self.stream(messages, **options)
        for _ in stream:
            pass
        return stream.reply()

    def stream(
        self,
        messages: Sequence[Mapping[str, Any] | Message],
        *,
        prefill_response: str = "",
        close_history: bool = False,
        tools: Sequence[Mapping[str, Any]] | None = None,
        progress: Callable[[int, int], None] | None = None,
        **options: Any,
    ) -> ReplyStream:
        """Iterate over the result for `Step`s (kind `thinking` or `answer`, text), then `.reply()`."""
        prompt = self.prepare(
            messages, prefill_response=prefill_response, close_history=close_history, tools=tools, **options
        )
        generation = Generation(
            self.model, self.tokenizer, prompt.ids, prompt.embeddings, prompt.settings,
            prompt.thinking_open, progress, self._prefix_reader(prompt),
        )
        generation.timings.encode = prompt.encode_seconds
        return ReplyStream(generation, len(prompt.ids), prompt.heard)

    def prepare(
        self,
        messages: Sequence[Mapping[str, Any] | Message],
        *,
        prefill_response: str = "",
        close_history: bool = False,
        tools: Sequence[Mapping[str, Any]] | None = None,
        **options: Any,
    ) -> Prepared:
        """Messages -> what the decoder needs: sounds decoded and encoded, ids, settings that fit."""
        settings = replace(self.defaults, **options) if options else self.defaults
        started = time.perf_counter()
        parsed = parse_messages(messages)
        segments = render(
            parsed,
            thinking=settings.thinking,
            prefill=prefill_response,
            close_history=close_history,
            tools=tools,
        )
        parts = audio_parts(parsed)
        heard = self.listen(parts, beside=len(to_ids(segments, [[]] * len(parts), self.tokenizer)))
        ids = to_ids(segments, heard.patches, self.tokenizer)
        settings = self._fit(len(ids), settings)
        prefix = self._prefix(ids, heard, settings) if audio_comes_first(parsed) else None
        return Prepared(
            ids, self._embed(ids, heard), settings, starts_in_thinking(segments), heard, prefix,
            time.perf_counter() - started,
        )

    def continued(self, prompt: Prepared, ids: Sequence[int]) -> Prepared:
        """The prompt with the beginning of a reply behind it, id by id; where there is a prompt cache, all
        that go on from this prompt share what was read of it. Raises PromptError where it no longer fits."""
        whole, text = [*prompt.ids, *ids], self.tokenizer.decode(ids)
        settings = self._fit(len(whole), prompt.settings)
        cache = self._cache()
        return replace(
            prompt,
            ids=whole,
            embeddings=mx.concatenate([prompt.embeddings, self.model.embed(mx.array(ids), (), -1)]),
            settings=settings,
            thinking_open=starts_in_thinking([text]) if THINK_CLOSE in text else prompt.thinking_open,
            prefix=cache.prefix(prompt.ids, prompt.heard.digests, kv_format(settings)) if cache else None,
        )

    # ---- inside

    def _chunks(self, parts: Sequence[AudioPart], beside: int) -> Iterator[tuple[int, audio_in.Chunk]]:
        """Each chunk with the number of its part, as long as they fit the context."""
        room = self.config.context_length - beside
        for i, part in enumerate(parts):
            for chunk in audio_in.read_chunks(
                part.source, sample_rate=part.sample_rate, chunk_seconds=self.chunk_seconds
            ):
                room -= self._patches(chunk) + 2
                if room <= 0:
                    raise PromptError(self._too_long(beside))
                yield i, chunk

    def _patches(self, chunk: audio_in.Chunk) -> int:
        return patch_count(len(chunk.waveform), self.config.length_convention)

    def _encode(self, chunks: Sequence[audio_in.Chunk], digests: Sequence[str] = ()) -> list[mx.array]:
        def encode(places: Sequence[int]) -> list[mx.array]:
            features = self.model.encode_chunks([self.log_mel(chunks[i].waveform) for i in places])
            mx.eval(features)
            return features

        cache = self._cache()
        if cache is None:
            return encode(range(len(chunks)))
        return cache.features(digests or [audio_in.pcm_sha256([chunk]) for chunk in chunks], encode)

    def _cache(self) -> PromptCache | None:
        """The prompt cache; none while the adapter is switched off, for it keeps what the adapter made."""
        return None if self.model.adapter_off else self.prompt_cache

    def _prefix(self, ids: list[int], heard: Heard, settings: Settings) -> Prefix | None:
        """What the prompt cache has or will have of the prompt up to its last <audio_end>."""
        cache = self._cache()
        if cache is None or not heard.digests:
            return None
        end = len(ids) - ids[::-1].index(self.tokenizer.special[AUDIO_END])
        if end == len(ids):
            return None  # nothing behind it that could be read first
        return cache.prefix(ids[:end], heard.digests, kv_format(settings))

    def _prefix_reader(self, prompt: Prepared) -> Callable[[], list[Any]] | None:
        """What gives the cache of one stream behind the kept prefix, reading it when it never was."""
        if prompt.prefix is None or prompt.settings.max_kv_size is not None:
            return None

        def read() -> list[Any]:
            form = kv_format(prompt.settings)
            reading = Reading(self.model, prompt.ids, prompt.embeddings, form, prompt.prefix)
            while reading.done < prompt.prefix.length:
                reading.advance(prompt.settings.prefill_step_size)
            return reading.cache

        return read

    def _embed(self, ids: Sequence[int], heard: Heard) -> mx.array:
        return self.model.embed(mx.array(ids), heard.features, self.tokenizer.audio_patch_id)

    def _fit(self, prompt_tokens: int, settings: Settings) -> Settings:
        """The settings within the context: fewer max_tokens, top_k within the vocabulary."""
        self._check_kv(prompt_tokens, settings)
        room = self.config.context_length - prompt_tokens
        if room < 1:
            raise PromptError(
                f"the prompt has {prompt_tokens} tokens, the context {self.config.context_length}: shorten it"
            )
        top_k = 0 if settings.top_k >= self.config.text.vocab_size else settings.top_k
        return replace(settings, max_tokens=min(settings.max_tokens, room), top_k=top_k)

    def _check_kv(self, prompt_tokens: int, settings: Settings) -> None:
        head_dim = self.config.text.head_dim
        if settings.kv_bits and head_dim % settings.kv_group_size:
            fitting = [size for size in KV_GROUP_SIZES if head_dim % size == 0]
            advice = f"give {fitting[-1]}" if fitting else "this model's KV cache cannot be quantised"
            raise PromptError(
                f"kv_group_size {settings.kv_group_size} does not divide the head size {head_dim}: {advice}"
            )
        if settings.max_kv_size is not None and settings.max_kv_size < prompt_tokens:
            raise PromptError(
                f"max_kv_size {settings.max_kv_size} would forget the beginning of the prompt, "
                f"which has {prompt_tokens} tokens: give that many or more"
            )

    def _too_long(self, beside: int) -> str:
        per_chunk = patch_count(int(self.chunk_seconds * SAMPLE_RATE), self.config.length_convention) + 2
        context = self.config.context_length
        room = max(0, int(context * (1 - REPLY_ROOM)) - beside)
        whole, rest = divmod(room, per_chunk)
        fits = int(whole * self.chunk_seconds + max(0, rest - 2) * SECONDS_PER_PATCH)
        return (
            f"the sound is longer than the context of {context} tokens: "
            f"at most {fits} seconds fit, cut or split it"
        )


def load(
    path_or_repo: str | Path | None = None,
    *,
    adapter_path: str | Path | None = None,
    lazy: bool = False,
    chunk_seconds: float = CHUNK_SECONDS,
) -> AudioR1:
    """Load a checkpoint folder or a hub repository; without a name, the embedded nano model.

    `adapter_path` is the folder of an adapter for it, of this package or of mlx-lm. `lazy` leaves the
    weights on disk until they are used. A sound is cut into pieces of at most `chunk_seconds`, the longest
    being 29.98. Raises CheckpointError, HubError or ConfigError.
    """
    if adapter_path is not None:
        read_adapter(adapter_path)  # a wrong folder is said before gigabytes are read
    folder = locate(path_or_repo)
    model = load_model(folder, lazy=lazy)
    if folder == NANO and mx.default_device() == mx.cpu:
        model.set_dtype(mx.float32)  # half precision is emulated there and takes twice the time
    if adapter_path is not None:
        from mlx_audio_r1 import adapters  # brings mlx-lm's trainer, and that transformers: a second or more

        adapters.load_adapter(model, adapter_path)
        adapters.settle(model)
    if not lazy:  # else before the first token
        model.language_model.model.prepare()
    tokenizer = Tokenizer.from_folder(folder, model.config.eos_token_ids)
    defaults = settings_from(_generation_config(folder))
    return AudioR1(model, tokenizer, str(path_or_repo or NANO_NAME), defaults, chunk_seconds, adapter_path)


def audio_comes_first(messages: Sequence[Message]) -> bool:
    """Does no text stand before a sound in the last message that has one? Then other questions about
    the same sounds begin alike."""
    for message in reversed(messages):
        is_sound = [isinstance(part, AudioPart) for part in message.parts]
        if any(is_sound):
            return is_sound == sorted(is_sound, reverse=True)
    return False


def _as_numpy(waveform: np.ndarray | mx.array) -> np.ndarray:
    """numpy has no bfloat16, so MLX's floats come as float32."""
    if isinstance(waveform, mx.array) and mx.issubdtype(waveform.dtype, mx.floating):
        waveform = waveform.astype(mx.float32)
    return np.array(waveform)


def _generation_config(folder: Path) -> dict[str, Any]:
    """generation_config.json, or nothing: the file is optional."""
    path = folder / "generation_config.json"
    if not path.is_file():
        return {}
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise PromptError(f"{path}: not readable as JSON ({error})") from None
    return values if isinstance(values, dict) else {}


def _as_parts(audio: Any) -> list[AudioPart]:
    """One sound or several -> parts. A tuple of (array, rate) is one sound."""
    if isinstance(audio, AudioPart):
        return [audio]
    if isinstance(audio, tuple) and len(audio) == 2 and isinstance(audio[1], Real):
        return [AudioPart(audio[0], int(audio[1]))]
    if isinstance(audio, (list, tuple)):
        return [part for item in audio for part in _as_parts(item)]
    return [AudioPart(audio)]
