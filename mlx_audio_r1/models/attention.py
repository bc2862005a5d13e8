"""mlx-lm's Qwen2 attention, with two doors more: a cache that attends itself is asked to, and `fused`.

Same parameters, same names; with any other cache a call is mlx-lm's code to the bit. The first door is for
`kv_cache.BatchCache`, which holds a prefix once for many rows and so has no keys to hand out. The second
gives the same numbers up to rounding in fewer launches.
"""

from __future__ import annotations

from typing import Any

import mlx.core as mx
import mlx.nn as nn
from mlx_lm.models import qwen2

from mlx_audio_r1.kernels import quantised_attention
from mlx_audio_r1.kernels.choice import allowed
from mlx_audio_r1.kernels.qkv_rope import qkv_rope
from mlx_audio_r1.models.decode_attention import is_quantised, over_one_stream
from mlx_audio_r1.models.packed import times, whole

Heads = tuple[mx.array, mx.array, mx.array]  # queries, keys, values: (B, heads, L, D)
Offset = int | mx.array  # tokens before x, of all rows or of each (B,)


class Attention(qwen2.Attention):
    """x (B, L, D) -> (B, L, D). `mask` is whatever the cache's `make_mask` gave."""

    def __call__(self, x: mx.array, mask: Any = None, cache: Any = None) -> mx.array:
        if not hasattr(cache, "attend") and (quantised_attention.OP.is_off or not is_quantised(cache)):
            return super().__call__(x, mask, cache)
        return self._attend(self._heads(x, cache.offset), mask, cache)

    def fused(self, x: mx.array, mask: Any, cache: Any) -> mx.array:
        """The same with one projection, and bias, rotation and layout in one kernel, where that can be."""
        qkv = whole(self) if allowed("qkv_rope") else None
        offset = cache.offset
        heads = self._heads(x, offset) if qkv is None else self._heads_at_once(qkv, x, offset)
        return self._attend(heads, mask, cache)

    def _heads(self, x: mx.array, offset: Offset) -> Heads:
        B, L, _ = x.shape

        def heads(projected: mx.array, n: int) -> mx.array:
            return projected.reshape(B, L, n, -1).transpose(0, 2, 1, 3)

        queries = self.rope(heads(self.q_proj(x), self.n_heads), offset=offset)
        keys = self.rope(heads(self.k_proj(x), self.n_kv_heads), offset=offset)
        return queries, keys, heads(self.v_proj(x), self.n_kv_heads)

    def _heads_at_once(self, qkv: nn.Module, x: mx.array, offset: Offset) -> Heads:
        if isinstance(offset, int):
            offset = mx.array([offset] * len(x), mx.int32)
        before = offset.astype(mx.int32)
        return qkv_rope(times(qkv, x), qkv.bias, before, self.n_heads, self.n_kv_heads, self.rope.base)

    def _attend(self, heads: Heads, mask: Any, cache: Any) -> mx.array:
        queries, keys, values = heads
        if hasattr(cache, "attend"):
            output = cache.attend(queries, keys, values, self.scale, mask)
        else:
            keys, values = cache.update_and_fetch(keys, values)
            output = over_one_stream(queries, keys, values, self.scale, mask, cache)
        B, _, L, _ = queries.shape
        return self.o_proj(output.transpose(0, 2, 1, 3).reshape(B, L, -1))


def open_attention(language_model: qwen2.Model) -> qwen2.Model:
    """Make every layer's attention ours, in place; weights and their names stay as they are."""
    for layer in language_model.layers:
        layer.self_attn.__class__ = Attention
    return language_model
