"""What takes memory: weights, KV cache, activations of replies. Formulas alone, no I/O; sizes in bytes.

What follows from shapes is exact: weights, LoRA, KV cache, kept layer inputs. What depends on how long
MLX keeps things alive is an estimate: its coefficients were measured on MLX's CPU back end with real
Qwen2 blocks at an eighth of the width (memory scales with the width: 7.87 times at full width), never
on Apple hardware. The surprise: a quantised KV cache saves less than it seems when the prompt is long,
because mlx-lm then computes attention unfused and keeps the scores of a whole prefill step.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Protocol

from mlx_audio_r1.config import AudioConfig, ModelConfig, TextConfig, parse_config
from mlx_audio_r1.models.key_map import AUDIO_PREFIXES, PREFIXES

GB, GIB = 10**9, 1 << 30
Tensors = Iterable[tuple[str, int, int]]  # name, bytes, values

# ---- coefficients; "estimate" is what they give
SLACK = 1.0 * GB  # run time, buffer pool, everything not listed; less for a model smaller than this
SMALL_SLACK = 0.1 * GB
MARGIN = 2.0  # over the CPU's activations: how far Metal runs ahead is not measured (CPU: 1.4 to 1.65)

BLOCK = 256  # tokens: lengths are planned in these, as mlx-lm's cache grows
TOKENS_PER_SECOND = 12.5
QUESTION_TOKENS = 225  # roles, text and markers around the sound: 30 s make a prompt of 600 tokens


_AUDIO = (*AUDIO_PREFIXES, *(theirs for theirs, ours in PREFIXES.items() if ours in AUDIO_PREFIXES))


@dataclass(frozen=True)
class Sizes:
    """What is stored of a checkpoint."""

    decoder: int
    audio: int
    tied: bool = False  # no separate head
    value_bytes: int = 2  # of a value that is not quantised; activations and KV cache have its type


@dataclass(frozen=True)
class Workload:
    """Replies to plan for: `rows` at a time, each of `context` tokens with a prompt of `prompt`.

    `kv_start`: the cache is 16-bit up to that many tokens and quantised as a whole beyond.
    `bits`: plan for the weights quantised to this, whatever they are now.
    """

    context: int
    rows: int = 1
    prompt: int = 600
    kv_bits: int | None = None
    kv_group_size: int = 64
    kv_start: int = 0
    prefill_step: int = 2_048
    bits: int | None = None
    group_size: int = 64


class Quantisable(Protocol):
    """What says for which bits to plan: a Workload, a TrainingJob."""

    @property
    def bits(self) -> int | None: ...
    @property
    def group_size(self) -> int: ...


# ---- weights


def decoder_matrix_values(text: TextConfig, tied: bool) -> int:
    """Values of the decoder's linears, embedding and head: what a conversion quantises."""
    h, kv = text.hidden_size, text.num_key_value_heads * text.head_dim
    layer = 2 * h * h + 2 * h * kv + 3 * h * text.intermediate_size
    return text.num_hidden_layers * layer + (1 if tied else 2) * text.vocab_size * h


def decoder_other_values(text: TextConfig) -> int:
    """Norms, and the biases of q, k and v."""
    h, kv = text.hidden_size, text.num_key_value_heads * text.head_dim
    return text.num_hidden_layers * (3 * h + 2 * kv) + h


def audio_values(audio: AudioConfig) -> int:
    """Encoder and adaptor: 636,968,960 + 18,030,848 for Step-Audio-R1."""
    d, width = audio.n_audio_state, audio.adaptor_width
    stem = 3 * audio.n_mels * d + 3 * d * d + 2 * d + audio.n_audio_ctx * d
    block = 12 * d * d + 12 * d  # attention 4 + MLP 8; biases 3 + 5, two norms 4
    encoder = stem + audio.n_audio_layer * block + 2 * d
    return encoder + audio.kernel_size * d * d + d + d * width + width + width * audio.llm_dim + audio.llm_dim


def sizes_of(tensors: Tensors) -> Sizes:
    """What the headers of a checkpoint say."""
    decoder = audio = 0
    names, value_bytes = set(), 2
    for name, size, values in tensors:
        names.add(name.removeprefix("language_model."))
        if name.startswith(_AUDIO):
            audio += size
        else:
            decoder += size
        if name.endswith("model.norm.weight"):
            value_bytes = max(1, size // values)
    return Sizes(decoder, audio, tied="lm_head.weight" not in names, value_bytes=value_bytes)


def sizes_from_shapes(config: ModelConfig, tied: bool = False, value_bytes: int = 2) -> Sizes:
    """The sizes that the configuration alone tells, unquantised."""
    decoder = decoder_matrix_values(config.text, tied) + decoder_other_values(config.text)
    return Sizes(decoder * value_bytes, audio_values(config.audio) * value_bytes, tied, value_bytes)


def quantised(config: ModelConfig, sizes: Sizes, bits: int, group_size: int = 64) -> Sizes:
    """The sizes after `convert -q`: a scale and a bias for every group; the audio part stays.

    4 bits in groups of 64 are 4.5 bits a value: 18.47 GB for Step-Audio-R1's decoder.
    """
    matrices = decoder_matrix_values(config.text, sizes.tied)
    groups = matrices // group_size
    packed = matrices * bits // 8 + 2 * groups * sizes.value_bytes
    return replace(sizes, decoder=packed + decoder_other_values(config.text) * sizes.value_bytes)


def bits_per_value(config: ModelConfig, sizes: Sizes) -> float:
    """Bits the decoder takes for a value, scales included."""
    values = decoder_matrix_values(config.text, sizes.tied) + decoder_other_values(config.text)
    return sizes.decoder * 8 / values


# ---- KV cache


def kv_bytes_per_token(
    text: TextConfig, bits: int | None = None, group_size: int = 64, value_bytes: int = 2
) -> int:
    """Keys and values of one token: 2 * layers * kv_heads * head_dim values.

    262,144 bytes for Step-Audio-R1 at 16 bits; quantised, every group adds a scale and a bias: 139,264
    at 8 bits, 73,728 at 4, in groups of 64.
    """
    values = 2 * text.num_hidden_layers * text.num_key_value_heads * text.head_dim
    per_value = value_bytes if bits is None else bits / 8 + 2 * value_bytes / group_size
    return int(values * per_value)


def kv_bytes(text: TextConfig, work: Workload, value_bytes: int = 2) -> int:
    """The cache of every row at its longest; 16-bit until `kv_start`, so that may be the largest moment."""
    plain = kv_bytes_per_token(text, value_bytes=value_bytes)
    if work.kv_bits is None:
        return work.rows * work.context * plain
    packed = kv_bytes_per_token(text, work.kv_bits, work.kv_group_size, value_bytes)
    before = plain * min(work.context, work.kv_start)
    after = packed * work.context if work.context > work.kv_start else 0
    return work.rows * max(before, after)


def prompt_tokens(seconds: float) -> int:
    """Tokens of a prompt with `seconds` of sound and an ordinary question."""
    return math.ceil(seconds * TOKENS_PER_SECOND) + QUESTION_TOKENS


# ---- activations: estimates


def slack_bytes(sizes: Sizes) -> int:
    return int(min(SLACK, SMALL_SLACK + sizes.decoder + sizes.audio))


def activation_bytes(config: ModelConfig, sizes: Sizes, work: Workload, fused: bool) -> int:
    """One prefill step, a full one whatever the prompt, or one decode step of all rows.

    Measured on the CPU, fp32, 4 layers, 128 to 2,048 tokens: 4 * intermediate + 2 * hidden values a token
    and 1.07 arrays of scores a head where attention is unfused; MARGIN on top.
    """
    text = config.text
    wide = 4 * text.intermediate_size + 2 * text.hidden_size
    quantised_prompt = work.kv_bits is not None and work.prompt > work.kv_start
    unfused = quantised_prompt or not fused
    step = min(work.prefill_step, work.context)
    scores = text.num_attention_heads * min(step, work.prompt) * work.prompt if unfused else 0
    late = text.num_attention_heads * work.context if work.kv_bits is not None or not fused else 0
    decode = work.rows * (wide + late + 2 * text.vocab_size)
    return int(MARGIN * sizes.value_bytes * max(step * wide + scores, decode))


def stored_sizes(config: ModelConfig, sizes: Sizes, job: Quantisable) -> Sizes:
    """The sizes of the weights a job plans with."""
    return quantised(config, sizes, job.bits, job.group_size) if job.bits else sizes


# ---- published shapes

_TEXT_32B = {"hidden_size": 5120, "num_hidden_layers": 64, "num_attention_heads": 40,
             "num_key_value_heads": 8, "intermediate_size": 27648, "max_position_embeddings": 65536}
_TEXT_MINI = {"hidden_size": 3584, "num_hidden_layers": 28, "num_attention_heads": 28,
              "num_key_value_heads": 4, "intermediate_size": 18944, "max_position_embeddings": 16384}
_PUBLISHED = {
    "stepfun-ai/Step-Audio-R1": _TEXT_32B,
    "stepfun-ai/Step-Audio-R1.1": _TEXT_32B,
    "stepfun-ai/Step-Audio-2-mini": _TEXT_MINI,
}


def published(repo: str) -> ModelConfig | None:
    """The shapes of a published model, for planning before its gated page is open to you."""
    text = _PUBLISHED.get(repo)
    if text is None:
        return None
    shared = {"vocab_size": 158720, "rms_norm_eps": 1e-6}  # no size depends on eps
    return parse_config({"text_config": {**text, **shared},
                         "audio_encoder_config": {"llm_dim": text["hidden_size"]}})
