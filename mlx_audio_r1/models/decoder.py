"""mlx-lm's Qwen2 decoder, with kernels between its parts where something is decoded and the switch lets them.

Same parameters, same names. Two adds and two norms a layer become two launches: the sum behind an attention
goes with the norm before the MLP, and the sum behind an MLP with the first norm of the next layer, or the last
of all. The surprise: without Metal, with the switch off, in training, and wherever no cache keeps what is
read, it is mlx-lm's own code, to the bit.
"""

from __future__ import annotations

from typing import Any

import mlx.core as mx
import mlx.nn as nn
from mlx_lm.models import qwen2
from mlx_lm.models.activations import swiglu
from mlx_lm.models.base import create_attention_mask

from mlx_audio_r1.kernels.add_rms_norm import add_rms_norm
from mlx_audio_r1.kernels.choice import allowed
from mlx_audio_r1.models.attention import open_attention
from mlx_audio_r1.models.packed import pack, whole

OPS = ("add_rms_norm", "qkv_rope")  # where either is not off, gate and up are one product too


class MLP(qwen2.MLP):
    def fused(self, x: mx.array) -> mx.array:
        """The same, with gate and up from one matrix where they lie in one."""
        gate_up = whole(self)
        if gate_up is None:
            return self(x)
        return self.down_proj(swiglu(*mx.split(gate_up(x), 2, axis=-1)))


class Decoder(qwen2.Qwen2Model):
    """(B, L) ids, or (B, L, D) embeddings beside them -> (B, L, D), normed."""

    _prepared = False

    def __call__(
        self, inputs: mx.array, cache: Any = None, input_embeddings: mx.array | None = None
    ) -> mx.array:
        if not self._fuses(cache):
            return super().__call__(inputs, cache, input_embeddings)
        self.prepare()
        h = self.embed_tokens(inputs) if input_embeddings is None else input_embeddings
        mask = create_attention_mask(h, cache[0])
        norms = [*(layer.input_layernorm for layer in self.layers), self.norm]
        normed = norms[0](h)
        for layer, kept, following in zip(self.layers, cache, norms[1:], strict=True):
            h, normed = _added(layer.self_attn.fused(normed, mask, kept), h, layer.post_attention_layernorm)
            h, normed = _added(layer.mlp.fused(normed), h, following)
        return normed

    def prepare(self) -> None:
        """Before the first token: lay linears side by side, once, where the switch lets anything use that."""
        if not self._prepared and allowed(*OPS):
            object.__setattr__(self, "_prepared", True)
            pack(self)

    def _fuses(self, cache: Any) -> bool:
        """What attends in training in place of a cache keeps nothing and makes no mask."""
        return (
            not self.training
            and self.pipeline_size == 1
            and cache is not None
            and hasattr(cache[0], "make_mask")
            and allowed(*OPS)
        )


def _added(x: mx.array, residual: mx.array, norm: nn.Module) -> tuple[mx.array, mx.array]:
    if type(norm) is not nn.RMSNorm:  # somebody has put another module there
        total = residual + x
        return total, norm(total)
    return add_rms_norm(x, residual, norm.weight, norm.eps)


def open_decoder(language_model: qwen2.Model) -> qwen2.Model:
    """Make the decoder ours, in place; weights and their names stay as they are."""
    language_model.model.__class__ = Decoder
    for layer in language_model.layers:
        layer.mlp.__class__ = MLP
    return open_attention(language_model)
