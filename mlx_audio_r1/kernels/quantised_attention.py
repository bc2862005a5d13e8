"""Decode attention over a quantised KV cache, without its scores or a dequantised copy in memory.

mlx-lm's way is two quantised products around a softmax: about 5 launches, and scores of H * L * T written and
read twice or more. Here it is one launch for a short cache and two for a longer one, which cuts the tokens in
splits and merges them; all query heads of a kv head share one reading of its keys and values.

Bytes a layer, with 2-byte scales, H = 40, G_kv = 8, D = 128, T tokens, L = 1, groups of 64:

    keys and values    2 * 8 * T * (128 * bits / 8 + 2 * 2 * 2) = 2,176 T at 8 bits, 1,152 T at 4
    parts of S splits  2 * S * 40 * 129 * 4 = 41,280 S, S at most T / 64 rounded up and at most 32

so that at 8 bits and 8,192 tokens it is 17.8 MB and 1.3 MB. The time of a step is at best these bytes over the
device's bandwidth; that is an estimate, and nothing here was timed on a GPU.
"""

from __future__ import annotations

import mlx.core as mx

from mlx_audio_r1.kernels.attention_segments import (
    Affine,
    Form,
    Store,
    attend_segment,
    is_of_rows,
    made_up,
    merge,
    merge_traffic,
    reference_part,
    segment_traffic,
    why_unsupported,
)
from mlx_audio_r1.kernels.choice import Op, register

Result = tuple[mx.array, mx.array]


def quantised_attention(
    queries: mx.array,
    keys: Store,
    values: Store,
    scale: float,
    form: Form = Affine(),  # noqa: B008, frozen
    padding: mx.array | None = None,
) -> Result:
    """queries (B, H, L, D), the last L positions of keys and values: (codes, scales, biases) of
    (B, kv_heads, T, D). Row b's first padding[b] (int32) tokens are not there.

    -> output (B, H, L, D) in the queries' dtype, and the logsumexp (B, H, L) of the scaled scores in float32.
    A position that sees nothing gives 0 and -inf.
    """
    skipped = [] if padding is None else [padding]
    return OP(queries, *keys, *values, *skipped, scale=scale, bits=form.bits, group_size=form.group_size)


def reference(queries: mx.array, *stores: mx.array, scale: float, bits: int, group_size: int) -> Result:
    """The same in plain operations and float32: dequantise, softmax, weighted sum. stores: the parts of keys,
    those of values, padding or none."""
    keys, values, padding = parts_of(stores)
    part = reference_part(queries, keys, values, scale, Affine(bits, group_size), padding=padding)
    return part.output.squeeze(3).astype(queries.dtype), part.lse.squeeze(3)


def launch(queries: mx.array, *stores: mx.array, scale: float, bits: int, group_size: int) -> Result:
    """The kernel: 1 launch up to 64 tokens or where the rows fill the GPU without splits, else 2."""
    keys, values, padding = parts_of(stores)
    part = attend_segment(queries, keys, values, scale, Affine(bits, group_size), padding=padding, alone=True)
    return merge([part], queries.dtype)


def fits(queries: mx.array, *stores: mx.array, scale: float, bits: int, group_size: int) -> bool:
    keys, values, padding = parts_of(stores)
    reason = why_unsupported(queries, keys, values, Affine(bits, group_size), own=True)
    return reason is None and is_of_rows(padding, queries)


def traffic(queries: mx.array, *stores: mx.array, scale: float, bits: int, group_size: int) -> int:
    keys, values, padding = parts_of(stores)
    part = segment_traffic(queries, keys, values, padding=padding, alone=True)
    return part.bytes + merge_traffic(queries, [part])


def parts_of(stores: tuple[mx.array, ...]) -> tuple[Store, Store, mx.array | None]:
    """Keys, values, padding."""
    return stores[:3], stores[3:6], stores[6] if len(stores) > 6 else None


OP = register(Op("quantised_attention", reference, launch, fits, traffic, made_up))
