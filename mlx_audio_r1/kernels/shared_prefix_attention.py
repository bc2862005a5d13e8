"""Decode attention of K replies that share a prompt: the prefix once for all, then each row's own tokens.

The rows' queries are folded into one launch over each shared segment, then one over the own keys, and all parts
are merged by their logsumexp. Segments may be exact or quantised, one kind beside the other.

Bytes of keys and values a layer, w bytes a token (the formula is in `attention_segments`):

    P * w * ceil(K * L * H / G_kv / 40) + sum_k T_k * w     instead of     sum_k (P + T_k) * w

so at 40 heads over 8 the prefix is read once for 8 replies, and twice for 16. Launches: one a segment, one for
the own keys, one to merge (with more than one shared segment 2 more, which put their parts together). Whether
that is faster than plain operations, which read the prefix once too, is to be measured on a GPU; it was not.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import mlx.core as mx

from mlx_audio_r1.kernels.attention_segments import (
    Affine,
    Form,
    Store,
    attend_segment,
    is_exact,
    is_of_rows,
    made_up,
    merge,
    merge_traffic,
    reference_merge,
    reference_part,
    segment_traffic,
    why_unsupported,
)
from mlx_audio_r1.kernels.choice import Op, register

Result = tuple[mx.array, mx.array]
Pair = tuple[Store, Store]  # keys and values


def shared_prefix_attention(
    queries: mx.array,
    segments: Sequence[Pair],
    own: Pair,
    scale: float,
    form: Form = Affine(),  # noqa: B008, frozen
    padding: mx.array | None = None,
) -> Result:
    """queries (B, H, L, D) over the segments (1, kv_heads, T, D), then over own keys and values
    (B, kv_heads, T, D), which end with the queries' positions. Row b's first padding[b] (int32) are not there.

    -> output (B, H, L, D) in the queries' dtype, and the logsumexp (B, H, L) of the scaled scores in float32.
    """
    arrays, kinds = flat([*segments, own])
    skipped = [] if padding is None else [padding]
    return OP(queries, *arrays, *skipped, scale=scale, kinds=kinds, bits=form.bits, group_size=form.group_size)


def flat(pairs: Sequence[Pair]) -> tuple[list[mx.array], str]:
    """Every array, and a letter for each pair: e exact, q quantised."""
    arrays = [part for pair in pairs for store in pair for part in ([store] if is_exact(store) else store)]
    return arrays, "".join("e" if is_exact(keys) else "q" for keys, _ in pairs)


def reference(queries: mx.array, *arrays: mx.array, scale: float, kinds: str, bits: int | None,
              group_size: int) -> Result:
    """The same in plain operations and float32. arrays: those of `flat`, padding or none."""
    segments, own, padding = pairs_of(arrays, kinds)
    form = Affine(bits, group_size)
    shared = [reference_part(queries, *segment, scale, form, own=False) for segment in segments]
    last = reference_part(queries, *own, scale, form, padding=padding)
    return reference_merge([*shared, last], queries.dtype)


def launch(queries: mx.array, *arrays: mx.array, scale: float, kinds: str, bits: int | None,
           group_size: int) -> Result:
    """The kernels: a launch for each pair, and the merge."""
    segments, own, padding = pairs_of(arrays, kinds)
    form = Affine(bits, group_size)
    shared = [attend_segment(queries, *segment, scale, form, own=False) for segment in segments]
    return merge([*shared, attend_segment(queries, *own, scale, form, padding=padding)], queries.dtype)


def fits(queries: mx.array, *arrays: mx.array, scale: float, kinds: str, bits: int | None,
         group_size: int) -> bool:
    segments, own, padding = pairs_of(arrays, kinds)
    form = Affine(bits, group_size)
    reasons = [why_unsupported(queries, *segment, form, own=False) for segment in segments]
    return is_of_rows(padding, queries) and not any([*reasons, why_unsupported(queries, *own, form, own=True)])


def traffic(queries: mx.array, *arrays: mx.array, kinds: str, **_: Any) -> int:
    """Without the copies that put the parts of more than one shared segment together."""
    segments, own, padding = pairs_of(arrays, kinds)
    parts = [segment_traffic(queries, *segment, own=False) for segment in segments]
    parts.append(segment_traffic(queries, *own, padding=padding))
    return sum(part.bytes for part in parts) + merge_traffic(queries, parts)


def pairs_of(arrays: tuple[mx.array, ...], kinds: str) -> tuple[list[Pair], Pair, mx.array | None]:
    """The segments, the own keys and values, the padding."""
    pairs: list[Pair] = []
    at = 0
    for kind in kinds:
        if kind == "e":
            pairs.append((arrays[at], arrays[at + 1]))
        else:
            pairs.append((arrays[at : at + 3], arrays[at + 3 : at + 6]))
        at += 2 if kind == "e" else 6
    return pairs[:-1], pairs[-1], arrays[at] if at < len(arrays) else None


OP = register(Op("shared_prefix_attention", reference, launch, fits, traffic, made_up))
