"""Attention of a few query positions over one run of keys and values, and the merge of several runs.

What the attention kernels have in common. A *segment* is keys and values (rows, kv_heads, T, D), exact or
in MLX's affine layout (codes, scales, biases). A launch over one segment cuts its tokens in splits and gives
for each split a *part*: the attention over these tokens alone, and the logsumexp of their scores. Parts of
one segment or of several are merged by

    output = sum_i exp(lse_i - lse) output_i,    lse = log sum_i exp(lse_i)

The surprise: nothing here is copied to be contiguous. A cache is a view into a larger room, and a copy of it
would cost more than the attention, so the kernel takes strides.

Bytes of one launch, as loads and stores ask for them (S splits, H query heads of L positions, G_kv kv heads,
B rows of the cache, `item` bytes a value of the cache, padding skipped and so not in T):

    keys and values    2 * sum_b T_b * G_kv * (D * bits / 8 + 2 * item * D / group_size), or D * item if exact,
                       times ceil(query rows of one kv head / 40): at most 40 of them share one reading
    queries            S times their own size
    parts              S * B * H * L * (D + 1) * 4, written here, read once by the merge
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Protocol

import mlx.core as mx

from mlx_audio_r1.kernels.source import FOLDER, kernel
from mlx_audio_r1.kernels.trial import normal

Store = Any  # an array (rows, kv_heads, T, D), or its quantised form: codes, scales, biases

DTYPES = (mx.float32, mx.float16, mx.bfloat16)
MAX_QUERY_LENGTH = 8
TILE_VALUES = 1024        # of keys, and as many of values, in threadgroup memory: 8 KB together
SIMDGROUPS, SLOTS = 8, 5  # at most: 256 threads a group, 5 query rows in the registers of a simdgroup
SPLIT_TOKENS, THREADGROUPS = 64, 256  # tokens a split is worth; groups that fill a GPU, an estimate


class Form(Protocol):
    """How quantised keys and values are packed; `models.shared_prefix.KVFormat` is one."""

    @property
    def bits(self) -> int | None: ...
    @property
    def group_size(self) -> int: ...


@dataclass(frozen=True)
class Affine:
    """MLX's affine layout: value = scale * code + bias, for each group."""

    bits: int | None = 8  # None where everything is exact
    group_size: int = 64


@dataclass(frozen=True)
class Parts:
    """output (B, H, L, S, D) and lse (B, H, L, S) of S splits; lse is -inf where no token was seen."""

    output: mx.array
    lse: mx.array


def is_exact(store: Store) -> bool:
    return isinstance(store, mx.array)


def why_unsupported(queries: mx.array, keys: Store, values: Store, form: Form, own: bool) -> str | None:
    """What the kernel does not do here, or None."""
    first = keys if is_exact(keys) else keys[0]
    B, heads, length, dims = queries.shape
    rows, kv_heads, tokens = first.shape[:3]
    if queries.dtype not in DTYPES:
        return f"queries in {queries.dtype}"
    if is_exact(keys) != is_exact(values) or first.shape != (values if is_exact(values) else values[0]).shape:
        return "keys and values of two kinds or shapes"
    if rows != (B if own else 1):
        return f"{rows} rows of {'own' if own else 'shared'} keys for {B} of queries"
    if own and tokens < length:
        return f"{length} query positions, and {tokens} keys"
    if not 1 <= length <= MAX_QUERY_LENGTH:
        return f"{length} query positions, not 1 to {MAX_QUERY_LENGTH}"
    if dims % 32 or not 32 <= dims <= 256:
        return f"heads of {dims}, not a multiple of 32 up to 256"
    if queries.size == 0 or first.size == 0:
        return "nothing to attend"
    if heads % kv_heads:
        return f"{heads} heads over {kv_heads} kv heads"
    if is_exact(keys):
        return None if first.shape[3] == dims else f"keys of {first.shape[3]} for queries of {dims}"
    if form.bits not in (2, 4, 8) or form.group_size not in (32, 64, 128):
        return f"{form.bits} bits in groups of {form.group_size}"
    if dims % form.group_size:
        return f"heads of {dims} in groups of {form.group_size}"
    if first.dtype != mx.uint32 or first.shape[3] * 32 != dims * form.bits:
        return f"codes {first.shape[3]} wide for heads of {dims} at {form.bits} bits"
    return None


def is_of_rows(padding: mx.array | None, queries: mx.array) -> bool:
    """Whether there is a number for each row, or none at all."""
    return padding is None or padding.shape == queries.shape[:1]


def splits_of(tokens: int, groups: int) -> tuple[int, int]:
    """(splits, tokens of each) for a segment that `groups` threadgroups would read without splits."""
    wanted = min(-(-tokens // SPLIT_TOKENS), max(1, THREADGROUPS // groups))
    each = -(-tokens // wanted)
    return -(-tokens // each), each


@dataclass(frozen=True)
class Shape:
    """How a launch over one segment is cut."""

    tokens: int
    rows: int    # query rows that read one kv head
    blocks: int  # threadgroups they are dealt to, each reads the keys and values
    splits: int
    each: int    # tokens of a split


def shape_of(queries: mx.array, keys: Store, own: bool) -> Shape:
    B, H, L, _ = queries.shape
    cache_rows, kv_heads, tokens = (keys if is_exact(keys) else keys[0]).shape[:3]
    rows = H // kv_heads * L * (1 if own else B)
    blocks = -(-rows // (SIMDGROUPS * SLOTS))
    return Shape(tokens, rows, blocks, *splits_of(tokens, kv_heads * cache_rows * blocks))


@dataclass(frozen=True)
class SegmentTraffic:
    """What a launch over one segment reads and writes, and what of it the merge reads: none if it is alone."""

    bytes: int
    parts: int


def segment_traffic(queries: mx.array, keys: Store, values: Store, *, padding: mx.array | None = None,
                    own: bool = True, alone: bool = False) -> SegmentTraffic:
    """The formula at the top."""
    shape = shape_of(queries, keys, own)
    stores = [keys, values] if is_exact(keys) else [*keys, *values]
    cache_rows = stores[0].shape[0]
    shown = cache_rows * shape.tokens - (int(padding.sum()) if padding is not None else 0)
    read = sum(x.nbytes for x in stores) // (cache_rows * shape.tokens) * shown * shape.blocks
    whole = alone and shape.splits == 1
    D, item = queries.shape[3], queries.itemsize if whole else 4
    parts = shape.splits * queries.size // D * (D * item + 4)
    return SegmentTraffic(read + shape.splits * queries.nbytes + parts, 0 if whole else parts)


def merge_traffic(queries: mx.array, parts: Sequence[SegmentTraffic]) -> int:
    """Parts read once, and the result; nothing where there is no merge."""
    read = sum(part.parts for part in parts)
    return read + queries.nbytes + queries.size // queries.shape[3] * 4 if read else 0


def attend_segment(
    queries: mx.array,
    keys: Store,
    values: Store,
    scale: float,
    form: Form,
    *,
    padding: mx.array | None = None,
    own: bool = True,
    alone: bool = False,
) -> Parts:
    """One launch. queries (B, H, L, D), L at most 8.

    own: keys (B, kv_heads, T, D) end with the queries' own positions, which see no later one, and the first
    padding[b] tokens of row b are not there. Otherwise keys (1, kv_heads, T, D), all seen by every row.
    alone: this is the only segment, so that the part of a single split is the result, in the queries' dtype.
    """
    B, H, L, D = queries.shape
    cache_rows, kv_heads = (keys if is_exact(keys) else keys[0]).shape[:2]
    shape = shape_of(queries, keys, own)
    rows, blocks, splits = shape.rows, shape.blocks, shape.splits
    slots = -(-rows // (blocks * SIMDGROUPS))
    simdgroups = -(-rows // (blocks * slots))
    out = queries.dtype if alone and splits == 1 else mx.float32
    template = [("OUT", out), ("D", D), ("G", H // kv_heads), ("CAUSAL", own), ("SLOTS", slots),
                ("NSG", simdgroups), ("TILE", TILE_VALUES // D)]
    if is_exact(keys):
        stores = [keys, values]
    else:
        stores = [*keys, *values]
        template += [("BITS", form.bits), ("GROUP", form.group_size)]
    if padding is None:
        padding = mx.broadcast_to(mx.array(0, mx.int32), (cache_rows,))  # which is no launch, as mx.zeros is
    output, lse = _segment_kernel(not is_exact(keys))(
        inputs=[queries, *stores, padding.astype(mx.int32), float(scale), shape.tokens, shape.each, L, rows,
                blocks],
        template=template,
        grid=(splits * simdgroups * 32, kv_heads, cache_rows * blocks),
        threadgroup=(simdgroups * 32, 1, 1),
        output_shapes=[(B, H, L, splits, D), (B, H, L, splits)],
        output_dtypes=[out, mx.float32],
    )
    return Parts(output, lse)


def merge(parts: Sequence[Parts], dtype: mx.Dtype) -> tuple[mx.array, mx.array]:
    """Parts of one query each, as if attended at once: output (B, H, L, D), lse (B, H, L).

    No launch for a single part, one for two segments; the parts of more are put together first.
    """
    if len(parts) == 1 and parts[0].lse.shape[-1] == 1 and parts[0].output.dtype == dtype:
        return parts[0].output.squeeze(3), parts[0].lse.squeeze(3)
    one, two = _joined(parts[: max(1, len(parts) - 1)]), parts[-1]
    B, H, L, _, D = one.output.shape
    names = ("one", "one_lse", "two", "two_lse", "one_count", "two_count")
    output, lse = kernel("merge_segments", names, ("out", "lse"))(
        inputs=[one.output, one.lse, two.output, two.lse,
                one.lse.shape[-1], two.lse.shape[-1] if len(parts) > 1 else 0],
        template=[("OUT", dtype), ("D", D)],
        grid=(B * H * L * 32, 1, 1),
        threadgroup=(128, 1, 1),
        output_shapes=[(B, H, L, D), (B, H, L)],
        output_dtypes=[dtype, mx.float32],
    )
    return output, lse


def _joined(parts: Sequence[Parts]) -> Parts:
    if len(parts) == 1:
        return parts[0]
    return Parts(mx.concatenate([p.output for p in parts], axis=3),
                 mx.concatenate([p.lse for p in parts], axis=3))


def reference_part(
    queries: mx.array,
    keys: Store,
    values: Store,
    scale: float,
    form: Form,
    *,
    padding: mx.array | None = None,
    own: bool = True,
) -> Parts:
    """As `attend_segment` in plain operations, one split, in float32: dequantise, softmax, sum."""
    B, H, L, D = queries.shape
    k, v = (_dequantised(store, form) for store in (keys, values))
    kv_heads, tokens = k.shape[1:3]
    q = (queries.astype(mx.float32) * scale).reshape(B, kv_heads, -1, D)
    scores = (q @ k.swapaxes(-1, -2)).reshape(B, H, L, tokens)
    if own:
        column = mx.arange(tokens)
        seen = column <= mx.arange(tokens - L, tokens)[:, None]
        if padding is not None:
            seen = seen & (column >= padding[:, None, None, None])
        scores = mx.where(seen, scores, -mx.inf)
    top = mx.max(scores, axis=-1, keepdims=True)
    top = mx.where(top == -mx.inf, 0, top)  # of a row that sees nothing
    weights = mx.exp(scores - top)
    total = weights.sum(-1, keepdims=True)
    output = (weights.reshape(B, kv_heads, -1, tokens) @ v).reshape(B, H, L, D)
    output = output / mx.where(total == 0, 1, total)
    return Parts(output[..., None, :], mx.log(total) + top)


def reference_merge(parts: Sequence[Parts], dtype: mx.Dtype) -> tuple[mx.array, mx.array]:
    """As `merge` in plain operations."""
    joined = _joined(parts)
    top = joined.lse.max(-1, keepdims=True)
    weights = mx.exp(joined.lse - mx.where(top == -mx.inf, 0, top))
    total = weights.sum(-1)
    output = (weights[..., None] * joined.output).sum(3) / mx.where(total == 0, 1, total)[..., None]
    return output.astype(dtype), mx.log(total) + mx.where(top == -mx.inf, 0, top).squeeze(-1)


def made_up(*arrays: mx.array, bits: int | None, **_: Any) -> list[mx.array]:
    """Arrays to try an attention op with: codes of all kinds, whose values are of size 1; no padding."""
    return [_made_up(x, i > 0 and arrays[i - 1].dtype == mx.uint32, bits, i) for i, x in enumerate(arrays)]


def _made_up(x: mx.array, is_scales: bool, bits: int | None, seed: int) -> mx.array:
    if x.dtype == mx.uint32:
        return mx.random.randint(-(2**31), 2**31 - 1, x.shape, key=mx.random.key(seed)).view(mx.uint32)
    if x.dtype == mx.int32:
        return mx.zeros(x.shape, x.dtype)
    return normal(x, 2.0 ** -(bits or 0) if is_scales else 1.0, seed)


def _dequantised(store: Store, form: Form) -> mx.array:
    if is_exact(store):
        return store.astype(mx.float32)
    codes, scales, biases = store
    return mx.dequantize(codes, scales.astype(mx.float32), biases.astype(mx.float32),
                         group_size=form.group_size, bits=form.bits)


@cache
def _segment_kernel(quantised: bool) -> Any:
    names = ["k", "k_scales", "k_biases", "v", "v_scales", "v_biases"] if quantised else ["k", "v"]
    return mx.fast.metal_kernel(
        name=f"attention_segment_{'quantised' if quantised else 'exact'}",
        input_names=["queries", *names, "padding", "scale", "tokens", "per_split", "L", "rows", "blocks"],
        output_names=["parts", "lse"],
        header=f"#define QUANTISED {int(quantised)}\n",
        source=(FOLDER / "attention_segment.metal").read_text(encoding="ascii"),
        ensure_row_contiguous=False,
    )
