"""What the tests of the attention kernels share: plain MLX in the queries' dtype, and the proofs' float64."""

from __future__ import annotations

from collections.abc import Sequence

import mlx.core as mx
from mlx_lm.models.base import quantized_scaled_dot_product_attention

from mlx_audio_r1.kernels.attention_segments import Affine, Store
from mlx_audio_r1.kernels.proof import DTYPES, bound, error, exact
from mlx_audio_r1.kernels.proof_attention import attention64, packed

__all__ = ["DTYPES", "Store", "attention64", "bound", "error", "exact", "mask", "normal", "packed", "plain"]


def normal(*shape: int, dtype: mx.Dtype = mx.float32) -> mx.array:
    return mx.random.normal(shape).astype(dtype)


def mask(tokens: int, length: int, padding: Sequence[int] | None) -> mx.array:
    """(B or 1, 1, L, T): what each position sees."""
    column = mx.arange(tokens)
    causal = column <= mx.arange(tokens - length, tokens)[:, None]
    return causal & (column >= mx.array(padding or [0])[:, None, None, None])


def plain(queries: mx.array, keys: Store, values: Store, scale: float, form: Affine,
          padding: Sequence[int] | None = None) -> mx.array:
    """mlx-lm's attention over a quantised cache, in the queries' dtype."""
    seen = mask(keys[0].shape[2], queries.shape[2], padding)
    return quantized_scaled_dot_product_attention(
        queries * 1, keys, values, scale, seen, form.group_size, form.bits)  # which scales its queries in place
