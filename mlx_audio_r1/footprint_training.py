"""What a training step takes beside the weights: trained values, activations, scores, logits; in bytes.

Trained values are float32 whatever the model is, so LoRA on a 4-bit base and a full fine-tune cost the
same a value. The surprise: what is trained decides how far a gradient goes down. A LoRA on the last 16
layers keeps nothing of those below; one linear of the audio adaptor makes every layer keep its input.

What follows from shapes is exact; activations are estimates, with coefficients that
benchmarks/train_memory.py measured on MLX's CPU back end at an eighth of the width.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from fnmatch import fnmatchcase

from mlx_audio_r1 import footprint
from mlx_audio_r1.config import CHUNK_SECONDS, AudioConfig, ModelConfig, TextConfig
from mlx_audio_r1.footprint import Sizes

# ---- coefficients; what they give is an estimate. `values` are a token's, `scores` T x T arrays a head
MLP_VALUES = 9.0  # live where the gradient is in a checkpointed layer's MLP, per hidden + intermediate,
MLP_SCORES = 0.95  # and the scores that plain attention has left there
ATTENTION_VALUES = 4.9  # the same where it is in the layer's attention
ATTENTION_SCORES = 3.2
KEPT_VALUES = {"plain": 28.7, "blockwise": 34.9}  # kept of a layer without checkpoints, per hidden
KEPT_SCORES = {"plain": 1.7, "blockwise": 0.0}
UNKEPT_VALUES = 2.7  # live beside that, per hidden + intermediate
TILE_SCORES = 2**19  # of a head in a block of blockwise attention, at most (train/attention.py) ...
TILE_ARRAYS = 4  # ... and how many such float32 arrays live at once
HEAD_CHUNK = 128  # tokens whose logits exist at once in the loss
HEAD_ARRAYS = 3.0  # live float32 (HEAD_CHUNK, vocabulary) arrays there; 2 without entropy
DORA = 1.32  # times as many values as LoRA: the output of every linear is scaled
ENCODER_VALUES = 12.0  # kept of a trained encoder's layer, a frame's values per width ...
ENCODER_SCORES = 1.5  # ... and arrays of frames x frames a head; it has no checkpoints

VALUE_BYTES = 4  # of a trained value, its gradient, a moment of the optimizer
MOMENTS = {"adam": 2, "adamw": 2, "muon": 1, "lion": 1, "sgd": 1, "adafactor": 0}  # arrays a value; mlx's
BLOCKWISE_FROM = 2_048  # tokens a row, in train/forward.py: "auto" attends plainly below

Linears = dict[str, tuple[int, int]]  # name -> values in and out
TARGETS = {  # short names of LoRA's keys
    "all": ("*",),
    "attention": ("self_attn.*",),
    "qv": ("self_attn.q_proj", "self_attn.v_proj"),
}


@dataclass(frozen=True)
class TrainingJob:
    """A training step of `batch` examples; `num_layers` None trains every layer.

    targets: a key of TARGETS, or LoRA's keys. also_trained: modules trained as a whole. tokens: the most at
    once, padding included, where that rules instead of `batch`. rows: of an example; 2 for preferences.
    """

    max_seq_length: int = 2_048
    batch: int = 1
    rank: int = 16
    num_layers: int | None = None
    targets: str | tuple[str, ...] = "all"
    grad_checkpoint: bool = True
    attention: str = "auto"  # plain, blockwise
    fine_tune_type: str = "lora"  # dora, full
    optimizer: str = "adamw"
    also_trained: tuple[str, ...] = ()
    tokens: int | None = None
    rows: int = 1
    accumulated: bool = False  # several micro-batches a step
    bits: int | None = None
    group_size: int = 64

    @property
    def tokens_at_once(self) -> int:
        """Padded tokens of a micro-batch: one example at least, whatever the budget."""
        least = self.rows * self.max_seq_length
        return self.batch * least if self.tokens is None else max(self.tokens, least)

    @property
    def blockwise(self) -> bool:
        return self.attention == "blockwise" or (
            self.attention == "auto" and self.max_seq_length >= BLOCKWISE_FROM)  # fmt: skip


# ---- what is trained


def layer_linears(text: TextConfig) -> Linears:
    """By names within a decoder layer."""
    h, kv, mlp = text.hidden_size, text.num_key_value_heads * text.head_dim, text.intermediate_size
    return {
        "self_attn.q_proj": (h, h), "self_attn.k_proj": (h, kv), "self_attn.v_proj": (h, kv),
        "self_attn.o_proj": (h, h),
        "mlp.gate_proj": (h, mlp), "mlp.up_proj": (h, mlp), "mlp.down_proj": (mlp, h),
    }  # fmt: skip


def outer_linears(config: ModelConfig) -> Linears:
    """The same by names from the root, as LoRA's keys spell them."""
    text, audio = config.text, config.audio
    d = audio.n_audio_state
    block = {"attn.query": (d, d), "attn.key": (d, d), "attn.value": (d, d), "attn.out": (d, d),
             "mlp.0": (d, 4 * d), "mlp.2": (4 * d, d)}  # fmt: skip
    named = {f"model.layers.{i}.{name}": size for i in range(text.num_hidden_layers)
             for name, size in layer_linears(text).items()}  # fmt: skip
    named |= {f"audio_encoder.blocks.{i}.{name}": size for i in range(audio.n_audio_layer)
              for name, size in block.items()}  # fmt: skip
    return {**named, "lm_head": (text.hidden_size, text.vocab_size),
            "audio_adaptor.linear1": (d, audio.adaptor_width),
            "audio_adaptor.linear2": (audio.adaptor_width, audio.llm_dim)}  # fmt: skip


def adapted(config: ModelConfig, job: TrainingJob) -> tuple[Linears, Linears]:
    """What gets LoRA: linears of every trained layer by their name in it, and others by names from the root.

    A key that fits nothing is left to the adapter to refuse.
    """
    keys = TARGETS[job.targets] if isinstance(job.targets, str) else job.targets
    inner = layer_linears(config.text)
    within = {name: size for name, size in inner.items() if any(fnmatchcase(name, key) for key in keys)}
    others = [key for key in keys if not any(fnmatchcase(name, key) for name in inner)]
    if not others:
        return within, {}
    outer = {name: size for name, size in outer_linears(config).items()
             if any(fnmatchcase(name, key) for key in others)}  # fmt: skip
    return within, {name: size for name, size in outer.items() if not _is_within(name, within, config, job)}


def _is_within(name: str, within: Linears, config: ModelConfig, job: TrainingJob) -> bool:
    """Is a name from the root that of a linear which a trained layer has anyway?"""
    layer = _layer_of(name)
    inner = name.split(".", 3)[-1]
    return layer >= config.text.num_hidden_layers - trained_layers(config, job) and inner in within


def _layer_of(name: str) -> int:
    """Number of the decoder layer a name from the root lies in; -1 for audio parts, below all of them."""
    if name.startswith("model.layers."):
        return int(name.split(".")[2])
    return -1 if name.startswith("audio_") else sys.maxsize


def trained_values(config: ModelConfig, sizes: Sizes, job: TrainingJob) -> int:
    """Values an optimizer moves. LoRA: rank * (in + out) a linear; DoRA one more for every output."""
    also = sum(audio_part_values(config.audio)[name] for name in job.also_trained)
    if job.fine_tune_type == "full":
        return full_values(config, sizes, job) + also
    within, outer = adapted(config, job)
    more = 1 if job.fine_tune_type == "dora" else 0
    layer, rest = (sum(job.rank * (i + o) + more * o for i, o in part.values()) for part in (within, outer))
    return trained_layers(config, job) * layer + rest + also


def full_values(config: ModelConfig, sizes: Sizes, job: TrainingJob) -> int:
    """The last layers; with all of them embedding, norm and head too."""
    text, layers = config.text, trained_layers(config, job)
    if layers == text.num_hidden_layers:
        return footprint.decoder_matrix_values(text, sizes.tied) + footprint.decoder_other_values(text)
    linears = sum(i * o for i, o in layer_linears(text).values())
    others = 3 * text.hidden_size + 2 * text.num_key_value_heads * text.head_dim  # two norms; biases of q, k, v
    return layers * (linears + others)


def audio_part_values(audio: AudioConfig) -> dict[str, int]:
    """Values of the modules that can be trained as a whole."""
    d, width = audio.n_audio_state, audio.adaptor_width
    adaptor = audio.kernel_size * d * d + d + d * width + width + width * audio.llm_dim + audio.llm_dim
    return {"audio_adaptor": adaptor, "audio_encoder": footprint.audio_values(audio) - adaptor}


def trained_bytes(config: ModelConfig, sizes: Sizes, job: TrainingJob) -> int:
    """float32 values, gradients, the optimizer's moments, and a sum of gradients where they accumulate."""
    arrays = 2 + MOMENTS[job.optimizer] + job.accumulated
    return VALUE_BYTES * arrays * trained_values(config, sizes, job)


def trained_layers(config: ModelConfig, job: TrainingJob) -> int:
    return min(job.num_layers or config.text.num_hidden_layers, config.text.num_hidden_layers)


def passed_layers(config: ModelConfig, job: TrainingJob) -> int:
    """Decoder layers that a gradient passes through: all as soon as something below them is trained."""
    every = config.text.num_hidden_layers
    if job.also_trained:
        return every
    if job.fine_tune_type == "full":
        return trained_layers(config, job)
    within, outer = adapted(config, job)
    lowest = [every - trained_layers(config, job)] if within else []
    return every - max(0, min([every, *lowest, *map(_layer_of, outer)]))


# ---- activations: estimates


def activation_width(sizes: Sizes, job: TrainingJob) -> int:
    """Bytes of an activation: float32 where the weights themselves are, as in a full fine-tune."""
    return VALUE_BYTES if job.fine_tune_type == "full" else sizes.value_bytes


def kept_bytes(config: ModelConfig, sizes: Sizes, job: TrainingJob) -> int:
    """What every passed layer keeps for the backward: its input, or all it computed. Lower layers: nothing."""
    way = "blockwise" if job.blockwise else "plain"
    values = job.tokens_at_once * config.text.hidden_size
    if not job.grad_checkpoint:
        values = KEPT_VALUES[way] * _dora(job) * values + KEPT_SCORES[way] * _scores(config, job)
    return int(values * passed_layers(config, job) * activation_width(sizes, job))


def backward_moments(config: ModelConfig, sizes: Sizes, job: TrainingJob) -> dict[str, int]:
    """What lives beside that, by where the gradient is; the largest of them counts."""
    width = activation_width(sizes, job)
    values = _dora(job) * (config.text.hidden_size + config.text.intermediate_size) * job.tokens_at_once
    scores = 0 if job.blockwise else _scores(config, job) * width
    if job.blockwise:
        tile = min(TILE_SCORES, job.max_seq_length**2) * -(-job.tokens_at_once // job.max_seq_length)
        attending = TILE_ARRAYS * config.text.num_attention_heads * tile * 4
    else:
        attending = int(ATTENTION_SCORES * scores)
    attention = int(ATTENTION_VALUES * values * width) + attending
    if job.grad_checkpoint:
        mlp = int(MLP_VALUES * values * width + MLP_SCORES * scores)
    else:  # what the layer keeps is part of these
        mlp = int(UNKEPT_VALUES * values * width)
        attention = max(0, attention - kept_bytes(config, sizes, job) // max(1, passed_layers(config, job)))
    logits = int(HEAD_ARRAYS * HEAD_CHUNK * config.text.vocab_size * 4)
    return {"a layer's MLP": mlp, "a layer's attention": attention, "the loss": logits}


def _dora(job: TrainingJob) -> float:
    return DORA if job.fine_tune_type == "dora" else 1.0


def _scores(config: ModelConfig, job: TrainingJob) -> int:
    """Values of one set of T x T arrays: every head, every row."""
    return config.text.num_attention_heads * job.tokens_at_once * job.max_seq_length


def encoder_bytes(config: ModelConfig, sizes: Sizes, job: TrainingJob) -> int:
    """Activations of a trained encoder, in float32, with a sound of one chunk (25 s) in every row."""
    if "audio_encoder" not in job.also_trained:
        return 0
    audio, frames_a_token = config.audio, 4  # 50 Hz behind the convolutions, 12.5 tokens a second
    frames = frames_a_token * min(job.max_seq_length, int(CHUNK_SECONDS * footprint.TOKENS_PER_SECOND))
    values = ENCODER_VALUES * audio.n_audio_state * frames + ENCODER_SCORES * audio.n_audio_head * frames**2
    rows = -(-job.tokens_at_once // job.max_seq_length)
    return int(VALUE_BYTES * rows * audio.n_audio_layer * values)


def end_bytes(config: ModelConfig, sizes: Sizes, job: TrainingJob) -> int:
    """A second set of gradients while they are divided and clipped, when the activations are gone; where they
    accumulate it has the room of the micro-batch's own."""
    return 0 if job.accumulated else VALUE_BYTES * trained_values(config, sizes, job)
