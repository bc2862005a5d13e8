"""Random models of a few thousand parameters and batches of a few tokens, for tests of numbers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from mlx.utils import tree_flatten, tree_map
from mlx_lm.tuner.utils import linear_to_lora_layers

from mlx_audio_r1.config import parse_config
from mlx_audio_r1.models.step_audio_r1 import Model
from mlx_audio_r1.train.batch import Batch

VOCAB, WIDTH, STATE = 97, 64, 32  # words, hidden_size, width of the encoder's outputs


def tiny_model(
    seed: int = 0, *, tied: bool = False, heads: int = 4, kv_heads: int = 2, layers: int = 3, vocab: int = VOCAB
) -> Model:
    """Weights large enough that no gradient is small; all but the encoder is trained."""
    text = {"vocab_size": vocab, "hidden_size": WIDTH, "intermediate_size": 96, "num_hidden_layers": layers,
            "num_attention_heads": heads, "num_key_value_heads": kv_heads, "rms_norm_eps": 1e-6,
            "rope_theta": 1e4}  # fmt: skip
    audio = {"n_mels": 16, "n_audio_ctx": 60, "n_audio_state": STATE, "n_audio_head": 2, "n_audio_layer": 1}
    config = parse_config({"text_config": text, "audio_encoder_config": audio})
    model = Model(config.with_shapes(adaptor_width=24, tied=tied))
    mx.random.seed(seed)
    model.update(tree_map(_drawn, model.parameters()))
    mx.eval(model.parameters())
    model.audio_encoder.freeze()
    return model


def _drawn(weight: mx.array) -> mx.array:
    values = mx.random.normal(weight.shape)
    return values * 1.3 * weight.shape[-1] ** -0.5 if weight.ndim > 1 else 1 + 0.1 * values


def with_lora(model: Model, *, layers: int = 3, dropout: float = 0.0, dora: bool = False) -> Model:
    """mlx-lm's adapters on all linears of the top layers, with factors that are not zero."""
    model.freeze()
    config = {"rank": 4, "scale": 2.0, "dropout": dropout, "keys": None}
    linear_to_lora_layers(model, layers, config, use_dora=dora)
    model.update(tree_map(lambda p: p + 0.1 * mx.random.normal(p.shape), model.trainable_parameters()))
    model.train()
    mx.eval(model.parameters())
    return model


@dataclass(frozen=True)
class Piece:
    """An example: `ids`, of which those from `prompt` on are learnt. patches: place -> row of the sounds."""

    ids: Sequence[int]
    prompt: int
    patches: dict[int, int] = field(default_factory=dict)
    weight: float = 1.0
    name: str = ""


def random_piece(seed: int, length: int, prompt: int, **more: object) -> Piece:
    ids = np.random.default_rng(seed).integers(1, VOCAB, length)
    return Piece(ids.tolist(), prompt, name=f"example {seed}", **more)  # type: ignore[arg-type]


def batch_of(
    rows: Sequence[Sequence[Piece]], *, padding: int = 0, unlearnt: int = 0, features: mx.array | None = None,
    **extra: mx.array,
) -> Batch:
    """Pieces packed into rows, with so many columns, and learnt tokens of no weight, behind them."""
    T = max(sum(len(piece.ids) for piece in row) for row in rows) + padding
    ids, samples, patches = (np.full((len(rows), T), fill, np.int32) for fill in (0, -1, -1))
    learnt: list[tuple[int, int, float, int]] = []  # position, target, weight, owner
    names: list[str] = []
    for b, row in enumerate(rows):
        at = 0
        for piece in row:
            end = at + len(piece.ids)
            ids[b, at:end], samples[b, at:end] = piece.ids, len(names)
            for place, sound in piece.patches.items():
                patches[b, at + place] = sound
            learnt += [(b * T + at + i - 1, piece.ids[i], piece.weight, len(names))
                       for i in range(piece.prompt, len(piece.ids))]  # fmt: skip
            names.append(piece.name)
            at = end
    positions, targets, weights, owners = zip(*learnt, *[(0, 0, 0.0, 0)] * unlearnt, strict=True)
    return Batch(
        mx.array(ids), mx.array(samples), mx.array(patches), mx.array(positions, mx.int32),
        mx.array(targets, mx.int32), mx.array(weights, mx.float32), mx.array(owners, mx.int32),
        features, tuple(names), extra,
    )  # fmt: skip


def random_features(chunks: int, frames: int, seed: int = 9) -> mx.array:
    return mx.random.normal((chunks, frames, STATE), key=mx.random.key(seed))


def gradient(model: nn.Module, loss: Callable[[nn.Module], mx.array]) -> tuple[float, dict[str, mx.array]]:
    """The loss and its gradient by name."""
    value, grads = nn.value_and_grad(model, loss)(model)
    flat = dict(tree_flatten(grads))
    mx.eval(value, flat)
    return value.item(), flat


def distance(a: mx.array, b: mx.array) -> float:
    """Largest difference over the largest value of b."""
    return (mx.abs(a - b).max() / mx.maximum(mx.abs(b).max(), 1e-12)).item()


def farthest(a: dict[str, mx.array], b: dict[str, mx.array]) -> float:
    """The largest distance of all tensors; both must have the same."""
    assert a.keys() == b.keys() and a
    return max(distance(a[name], b[name]) for name in a)
