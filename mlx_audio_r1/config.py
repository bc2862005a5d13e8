"""What config.json says, and the constants of the audio front end.

Two layouts exist: the text values nested under `text_config`, or flat at the top level. Both are
read; keys nobody here needs are dropped. The surprise: three values the model needs stand in no
config file (the adaptor's inner width, the audio token id, whether the head is tied); the first and
the last are read from the weights, the token is looked up by its string.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from mlx_audio_r1.errors import ConfigError

SAMPLE_RATE = 16_000  # Hz
N_FFT = 400  # samples, 25 ms
HOP_LENGTH = 160  # samples, 10 ms
TAIL_PAD = 479  # zero samples appended to every chunk: 3 * HOP_LENGTH - 1
CHUNK_SECONDS = 25.0  # what the official client cuts at
MAX_CHUNK_SAMPLES = 479_680  # 3000 mel frames, the most 1500 positions take
MAX_CHUNK_SECONDS = MAX_CHUNK_SAMPLES / SAMPLE_RATE  # 29.98
SAMPLES_PER_PATCH = 1_280  # 12.5 patches a second

LENGTH_CONVENTIONS = ("vllm", "hf")
FRONT_END_VERSION = 1  # part of every cache key: raise it when features change


def mel_frames(samples: int) -> int:
    """Mel frames T of a chunk of `samples` at 16 kHz: ceil(samples / 160) + 2."""
    return (samples + TAIL_PAD) // HOP_LENGTH


def patch_count(samples: int, convention: str = "vllm") -> int:
    """Audio patches of a chunk of `samples` at 16 kHz.

    `vllm` is what the official server does: ceil(samples / 1280), exactly 12.5 a second rounded up.
    `hf` is the `- 2` convention of the modelling file; it has one patch less for a quarter of all
    lengths.
    """
    if convention == "vllm":
        return -(-samples // SAMPLES_PER_PATCH)
    if convention == "hf":
        return (-(-samples // HOP_LENGTH) + 5) // 8
    raise ConfigError(f"length convention {convention!r}: choose one of {LENGTH_CONVENTIONS}")


@dataclass(frozen=True)
class AudioConfig:
    """The encoder and the adaptor; field names are the keys of `audio_encoder_config`."""

    n_mels: int = 128
    n_audio_ctx: int = 1500
    n_audio_state: int = 1280
    n_audio_head: int = 20
    n_audio_layer: int = 32
    llm_dim: int = 5120
    kernel_size: int = 3
    adapter_stride: int = 2
    adaptor_width: int = 2048  # no official key: read from adapter.linear1.weight


@dataclass(frozen=True)
class TextConfig:
    """The decoder; field names are mlx-lm's `qwen2.ModelArgs`."""

    hidden_size: int
    num_hidden_layers: int
    intermediate_size: int
    num_attention_heads: int
    num_key_value_heads: int
    rms_norm_eps: float
    vocab_size: int
    max_position_embeddings: int = 32768
    rope_theta: float = 1_000_000.0
    rope_scaling: dict[str, Any] | None = None
    tie_word_embeddings: bool = False
    model_type: str = "qwen2"

    @property
    def head_dim(self) -> int:
        return self.hidden_size // self.num_attention_heads


@dataclass(frozen=True)
class ModelConfig:
    """Everything the model is built from."""

    audio: AudioConfig
    text: TextConfig
    length_convention: str = "vllm"
    eos_token_ids: tuple[int, ...] = ()
    quantization: Mapping[str, Any] | None = None
    raw: Mapping[str, Any] = field(default_factory=dict, repr=False)

    @property
    def context_length(self) -> int:
        """Positions the decoder was trained for, in tokens."""
        return self.text.max_position_embeddings

    def with_shapes(self, *, adaptor_width: int, tied: bool) -> ModelConfig:
        """The same configuration with the two values only the weights tell."""
        return replace(
            self,
            audio=replace(self.audio, adaptor_width=adaptor_width),
            text=replace(self.text, tie_word_embeddings=tied),
        )


def parse_config(data: Mapping[str, Any]) -> ModelConfig:
    """config.json as a dict -> ModelConfig. Raises ConfigError naming the key that is wrong."""
    if not isinstance(data, Mapping):
        raise ConfigError("config.json: expected an object at the top level")
    for name, kind in _PARTS.items():
        if data.get(name) is not None and not isinstance(data[name], kind):
            raise ConfigError(f"config.json: {name} is {data[name]!r}, expected {_WORDS[kind]}")
    text_values = {**data, **(data.get("text_config") or {})}
    audio_values = data.get("audio_encoder_config")
    if not isinstance(audio_values, Mapping):
        raise ConfigError("config.json: no audio_encoder_config; is this a Step-Audio checkpoint?")
    text = _build(TextConfig, {**text_values, "model_type": "qwen2"}, "text_config")
    audio = _build(AudioConfig, {"llm_dim": text.hidden_size, **audio_values}, "audio_encoder_config")
    convention = data.get("audio_length_convention", "vllm")
    if convention not in LENGTH_CONVENTIONS:
        raise ConfigError(
            f"config.json: audio_length_convention {convention!r}; choose one of {LENGTH_CONVENTIONS}"
        )
    _check_sizes(text, audio)
    eos = text_values.get("eos_token_id")
    return ModelConfig(
        audio=audio,
        text=text,
        length_convention=convention,
        eos_token_ids=_as_ids(eos),
        quantization=data.get("quantization") or data.get("quantization_config"),
        raw=dict(data),
    )


def read_config(folder: str | Path) -> ModelConfig:
    """`folder`/config.json -> ModelConfig."""
    path = Path(folder) / "config.json"
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file; give a folder that holds a checkpoint") from None
    except (OSError, UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise ConfigError(f"{path}: not readable as JSON ({error})") from None
    return parse_config(data)


def _build(kind: type, values: Mapping[str, Any], where: str) -> Any:
    known = {f.name: f for f in fields(kind)}
    # A null is dropped like an absent key, so the default stands.
    chosen = {k: v for k, v in values.items() if k in known and v is not None}
    try:
        built = kind(**chosen)
    except TypeError as error:
        missing = str(error).split(": ")[-1]
        raise ConfigError(f"config.json: {where} lacks {missing}") from None
    for name, f in known.items():
        value = getattr(built, name)
        if f.type == "int" and (not isinstance(value, int) or isinstance(value, bool) or value < 1):
            raise ConfigError(f"config.json: {where}.{name} is {value!r}, expected a positive integer")
        if f.type == "float" and not (_is_number(value) and 0 < value < math.inf):
            raise ConfigError(f"config.json: {where}.{name} is {value!r}, expected a positive number")
    return built


def _check_sizes(text: TextConfig, audio: AudioConfig) -> None:
    pairs = (
        (text.hidden_size, text.num_attention_heads, "hidden_size", "num_attention_heads"),
        (text.num_attention_heads, text.num_key_value_heads, "num_attention_heads", "num_key_value_heads"),
        (audio.n_audio_state, audio.n_audio_head, "n_audio_state", "n_audio_head"),
    )
    for size, parts, size_name, parts_name in pairs:
        if size % parts:
            raise ConfigError(f"config.json: {size_name} {size} is no multiple of {parts_name} {parts}")
    if audio.llm_dim != text.hidden_size:
        raise ConfigError(
            f"config.json: llm_dim {audio.llm_dim} and hidden_size {text.hidden_size} must be equal"
        )


_PARTS = {"text_config": Mapping, "quantization": Mapping, "quantization_config": Mapping}
_WORDS = {Mapping: "an object"}


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _as_ids(value: Any) -> tuple[int, ...]:
    """One id, a list of them, or none."""
    ids = value if isinstance(value, (list, tuple)) else [] if value is None else [value]
    if not all(isinstance(i, int) and not isinstance(i, bool) for i in ids):
        raise ConfigError(f"config.json: eos_token_id is {value!r}, expected an id or a list of ids")
    return tuple(ids)
