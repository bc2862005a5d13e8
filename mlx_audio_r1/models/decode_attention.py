"""Attention of the tokens being decoded: our kernels where the switch lets them, or plain operations.

The plain operations are mlx-lm's and `shared_attention`: with the switch off they give what they gave before
there were kernels, to the bit, and `auto` holds a kernel against them, not against the float32 reference that
proves it. The surprise: a kernel gets no mask. That a position sees nothing after itself, and nothing of its
row's padding, it works out itself, so a cache says both: the mask and what it follows from.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import mlx.core as mx
from mlx_lm.models.base import quantized_scaled_dot_product_attention, scaled_dot_product_attention

from mlx_audio_r1.kernels import quantised_attention, shared_prefix_attention
from mlx_audio_r1.kernels.attention_segments import is_exact
from mlx_audio_r1.models.shared_prefix import KVFormat, Segment, Store, shared_attention


@dataclass(frozen=True)
class Seen:
    """What the last L of a row's own T tokens see of these: none after themselves, and no padding.

    mask: (R, 1, L, T) bool, "causal", or None where one position sees all. padding: the same in int32 (R,), the
    first tokens of each row that are not there; None where all are. MLX computes of the two what is used.
    """

    mask: mx.array | str | None
    padding: mx.array | None = None

    @classmethod
    def of(cls, padding: Sequence[int], before: int, length: int) -> Seen:
        """Of `length` new positions behind `before` others, the first padding[row] of which are not there."""
        if any(padding):
            skipped = mx.array(padding, mx.int32)
            return cls(mask_of(before + length, length, skipped), skipped)
        return cls(None if length == 1 else mask_of(before + length, length, mx.array(padding, mx.int32)))


def mask_of(tokens: int, length: int, padding: mx.array) -> mx.array:
    """(R, 1, length, tokens) bool."""
    column = mx.arange(tokens)
    causal = column <= mx.arange(tokens - length, tokens)[:, None]
    return causal & (column >= padding[:, None, None, None])


def over_quantised(
    queries: mx.array, keys: Store, values: Store, scale: float, form: KVFormat, seen: Seen
) -> mx.array:
    """queries (R, heads, L, D), the last positions of quantised (R, kv_heads, T, D) -> (R, heads, L, D)."""
    given = [queries, *keys, *values, *_skipped(seen)]
    options = {"scale": scale, "bits": form.bits, "group_size": form.group_size}
    if _QUANTISED.runs(*given, **options):
        return _QUANTISED.launch(*given, **options)
    return quantized_scaled_dot_product_attention(
        queries, keys, values, scale, seen.mask, form.group_size, form.bits
    )


def over_prefix(
    queries: mx.array,
    segments: Sequence[Segment],
    keys: Store,
    values: Store,
    scale: float,
    form: KVFormat,
    seen: Seen,
) -> mx.array:
    """The same over segments that all rows see, then over their own keys, each exact or quantised."""
    arrays, kinds = shared_prefix_attention.flat([*((s.keys, s.values) for s in segments), (keys, values)])
    given = [queries, *arrays, *_skipped(seen)]
    options = {"scale": scale, "kinds": kinds, "bits": form.bits, "group_size": form.group_size}
    if _SHARED.runs(*given, **options):
        return _SHARED.launch(*given, **options)
    return shared_attention(queries, segments, keys, values, scale, seen.mask, form)


def over_one_stream(
    queries: mx.array, keys: Store, values: Store, scale: float, mask: Any, cache: Any
) -> mx.array:
    """mlx-lm's attention over what its cache of one stream gave, with any mask."""
    causal = queries.shape[2] == 1 if mask is None else isinstance(mask, str)
    if not causal or not is_quantised(cache):
        return scaled_dot_product_attention(queries, keys, values, cache=cache, scale=scale, mask=mask)
    return over_quantised(queries, keys, values, scale, KVFormat(cache.bits, cache.group_size), Seen(mask))


def is_quantised(cache: Any) -> bool:
    return hasattr(cache, "bits")


def _skipped(seen: Seen) -> list[mx.array]:
    return [] if seen.padding is None else [seen.padding]


# ---- the same as ops, without the logsumexp that nobody asks for here

def _first(side: Callable[..., tuple[mx.array, mx.array]]) -> Callable[..., mx.array]:
    return lambda *arrays, **options: side(*arrays, **options)[0]


def _plain_quantised(
    queries: mx.array, *stores: mx.array, scale: float, bits: int, group_size: int
) -> mx.array:
    keys, values, padding = quantised_attention.parts_of(stores)
    mask = _mask_of(queries, keys, padding)
    own = queries * 1  # mlx-lm scales its queries in place
    return quantized_scaled_dot_product_attention(own, keys, values, scale, mask, group_size, bits)


def _plain_shared(
    queries: mx.array, *arrays: mx.array, scale: float, kinds: str, bits: int | None, group_size: int
) -> mx.array:
    segments, own, padding = shared_prefix_attention.pairs_of(arrays, kinds)
    mask, form = _mask_of(queries, own[0], padding), KVFormat(bits, group_size)
    return shared_attention(queries, [Segment(*pair) for pair in segments], *own, scale, mask, form)


def _mask_of(queries: mx.array, keys: Store, padding: mx.array | None) -> mx.array | None:
    R, _, L, _ = queries.shape
    if padding is None:
        if L == 1:
            return None
        padding = mx.zeros(R, mx.int32)
    return mask_of((keys if is_exact(keys) else keys[0]).shape[2], L, padding)


_QUANTISED = replace(
    quantised_attention.OP, reference=_plain_quantised, launch=_first(quantised_attention.launch),
    measure=_first(quantised_attention.reference),
)
_SHARED = replace(
    shared_prefix_attention.OP, reference=_plain_shared, launch=_first(shared_prefix_attention.launch),
    measure=_first(shared_prefix_attention.reference),
)
MEASURED = {op.name: op for op in (_QUANTISED, _SHARED)}  # what the bench holds against each other
