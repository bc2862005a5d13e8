"""A batch -> the decoder's hidden states, with gradients for whatever is trainable.

The decoder is walked layer by layer, so that each can forget its insides (`recompute`), attend within
its example and block by block (`attention`), and draw its dropout from a key of its own. The surprise:
positions are not reset where a row holds several examples; rotary attention sees differences only.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Literal

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_flatten

from mlx_audio_r1.models.step_audio_r1 import Model
from mlx_audio_r1.train.attention import TrainingAttention
from mlx_audio_r1.train.batch import MEL_FRAMES, Batch
from mlx_audio_r1.train.recompute import drawing, keys, recomputed

BLOCKWISE_FROM = 2048  # tokens a row: below, MLX's own attention is taken


@dataclass(frozen=True)
class ForwardOptions:
    """How a batch goes through the model; results are the same, memory and time are not."""

    checkpoint: bool = False  # keep one hidden state a layer and compute the rest again
    attention: Literal["auto", "plain", "blockwise"] = "auto"
    head_chunk: int = 128  # learnt tokens whose logits exist at once


DEFAULT = ForwardOptions()


def hidden_states(model: Model, batch: Batch, options: ForwardOptions = DEFAULT) -> mx.array:
    """(B, T, hidden_size): what the head turns into logits."""
    decoder = model.language_model.model
    h = embedded(model, batch)
    attention = TrainingAttention(batch.samples, is_blockwise(options, h.shape[1]))
    first = first_trained(model) if options.checkpoint else len(decoder.layers)
    for i, (layer, key) in enumerate(zip(decoder.layers, keys(decoder, len(decoder.layers)), strict=True)):
        apply = partial(_layer, layer, attention, key)
        h = recomputed(layer, apply)(h) if i >= first else apply(h)
    return decoder.norm(h)


def _layer(layer: nn.Module, attention: TrainingAttention, key: mx.array | None, h: mx.array) -> mx.array:
    with drawing(key):
        return layer(h, None, attention)


def embedded(model: Model, batch: Batch) -> mx.array:
    """(B, T, hidden_size): the tokens' embeddings, and adapted sound where the patches are."""
    x = model.language_model.model.embed_tokens(batch.ids)
    if batch.features is None:
        return x
    weight = model.audio_adaptor.conv.weight
    rows = model.audio_adaptor(encoded(model, batch).astype(weight.dtype)).astype(x.dtype)
    sounds = rows.reshape(-1, x.shape[-1])[mx.maximum(batch.patches, 0)]
    return mx.where((batch.patches >= 0)[..., None], sounds, x)


def encoded(model: Model, batch: Batch) -> mx.array:
    """(C, E, width): the batch's features, or what the encoder makes of the log-mels that stand in their
    place where it is trained. The encoder sees no padding: it would change what is heard."""
    assert batch.features is not None
    if MEL_FRAMES not in batch.extra:
        return batch.features
    lengths = batch.extra[MEL_FRAMES].tolist()
    chunks = model.chunk_features([m[:frames] for m, frames in zip(batch.features, lengths, strict=True)])
    longest = (batch.features.shape[1] + 1) // 2 // 2
    return mx.stack([mx.pad(chunk, [(0, longest - chunk.shape[0]), (0, 0)]) for chunk in chunks])


def is_blockwise(options: ForwardOptions, length: int) -> bool:
    """Whether rows of so many tokens are attended to block by block."""
    return options.attention == "blockwise" or (options.attention == "auto" and length >= BLOCKWISE_FROM)


def first_trained(model: Model) -> int:
    """The lowest layer that a gradient passes through; the number of layers where there is none.

    Zero as soon as anything below the decoder is trained.
    """
    decoder = model.language_model.model
    below: tuple[nn.Module, ...] = (model.audio_encoder, model.audio_adaptor, decoder.embed_tokens)
    if any(map(is_trained, below)):
        return 0
    return next((i for i, layer in enumerate(decoder.layers) if is_trained(layer)), len(decoder.layers))


def is_trained(module: nn.Module) -> bool:
    return bool(tree_flatten(module.trainable_parameters()))
