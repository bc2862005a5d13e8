"""mlx-lm's Qwen2 attention, with one door more: a cache that attends itself is asked to.

Same parameters, same names; with any other cache it is mlx-lm's code to the bit. The door is for
`kv_cache.BatchCache`, which holds a prefix once for many rows and so has no keys to hand out.
"""

from __future__ import annotations

from typing import Any

import mlx.core as mx
from mlx_lm.models import qwen2


class Attention(qwen2.Attention):
    """x (B, L, D) -> (B, L, D). `mask` is whatever the cache's `make_mask` gave."""

    def __call__(self, x: mx.array, mask: Any = None, cache: Any = None) -> mx.array:
        if not hasattr(cache, "attend"):
            return super().__call__(x, mask, cache)
        B, L, _ = x.shape

        def heads(projected: mx.array, n: int) -> mx.array:
            return projected.reshape(B, L, n, -1).transpose(0, 2, 1, 3)

        offset = cache.offset
        queries = self.rope(heads(self.q_proj(x), self.n_heads), offset=offset)
        keys = self.rope(heads(self.k_proj(x), self.n_kv_heads), offset=offset)
        values = heads(self.v_proj(x), self.n_kv_heads)
        output = cache.attend(queries, keys, values, self.scale, mask)
        return self.o_proj(output.transpose(0, 2, 1, 3).reshape(B, L, -1))


def open_attention(language_model: qwen2.Model) -> qwen2.Model:
    """Make every layer's attention ours, in place; weights and their names stay as they are."""
    for layer in language_model.layers:
        layer.self_attn.__class__ = Attention
    return language_model
