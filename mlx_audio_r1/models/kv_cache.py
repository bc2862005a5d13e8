"""Keys and values of many replies at once: prefixes held once, rows of their own, quantised or not.

The caches speak the protocol of mlx-lm's BatchGenerator (`merge`, `extend`, `filter`, `extract`) and
do the attention themselves, which `models.attention` lets them. A batch is a list of blocks in row
order. A block is rows that see the same segments (keys and values held once, by reference) and then
their own, right-aligned. What every row sees is read once: the rows are folded into the query axis.
The surprise: the parts are joined before the softmax and not after it; that is one softmax instead of
a logsumexp for each part and a merge, and rounds like ordinary attention.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import mlx.core as mx
from mlx.utils import tree_map
from mlx_lm.models.base import quantized_scaled_dot_product_attention
from mlx_lm.models.cache import KVCache, QuantizedKVCache

from mlx_audio_r1.errors import PromptError

STEP = 256  # tokens by which the room of a block grows, as in mlx-lm

Store = Any  # an array (rows, kv_heads, T, head_dim), or its quantised form: codes, scales, biases


@dataclass(frozen=True)
class KVFormat:
    """How keys and values are kept: exact, or in `bits` once a row has `start` tokens."""

    bits: int | None = None
    group_size: int = 64
    start: int = 0

    def due(self, tokens: int) -> bool:
        """Is a row of so many tokens kept in `bits`?"""
        return self.bits is not None and tokens >= self.start

    def quantise(self, store: mx.array) -> Store:
        return mx.quantize(store, group_size=self.group_size, bits=self.bits)

    def bytes(self, tokens: int, values_per_token: int, itemsize: int, before: int = 0) -> int:
        """The most bytes that `tokens` behind `before` others take at any time; room grows by STEP."""
        def exact(n: int) -> int:
            return _room(n) * values_per_token * itemsize

        if not self.due(before + tokens):
            return exact(tokens)
        share = (self.bits or 0) / 8 / itemsize + 2 / self.group_size  # codes, then scales and biases
        return max(int(exact(tokens) * share), exact(min(tokens, max(0, self.start - before))))


EXACT = KVFormat()


def _room(tokens: int) -> int:
    return -(-tokens // STEP) * STEP


def _parts(store: Store) -> Sequence[mx.array]:
    return [store] if isinstance(store, mx.array) else store


def _nbytes(*stores: Store) -> int:
    return sum(part.nbytes for store in stores if store is not None for part in _parts(store))


def _join(stores: Sequence[Store], axis: int) -> Store:
    return tree_map(lambda *parts: mx.concatenate(parts, axis=axis), *stores) if stores[1:] else stores[0]


def _pad(store: Store, left: int = 0, right: int = 0) -> Store:
    if not left and not right:
        return store
    return tree_map(lambda x: mx.pad(x, [(0, 0), (0, 0), (left, right), (0, 0)]), store)


class Segment:
    """Keys and values (1, kv_heads, T, head_dim) that many rows see. Never written, never copied."""

    def __init__(self, keys: Store, values: Store):
        self.keys, self.values = keys, values
        self.length = _parts(keys)[0].shape[2]
        self._packed: dict[KVFormat, Segment] = {}

    def __deepcopy__(self, _: dict[int, Any]) -> Segment:
        return self  # mlx-lm copies caches when it splits a batch

    @classmethod
    def of(cls, cache: KVCache | QuantizedKVCache, start: int = 0) -> Segment:
        """The tokens of mlx-lm's cache from `start` on, without the room behind them."""
        def cut(x: mx.array) -> mx.array:
            return mx.contiguous(x[..., start : cache.offset, :])

        return cls(tree_map(cut, cache.keys), tree_map(cut, cache.values))

    @property
    def is_exact(self) -> bool:
        return isinstance(self.keys, mx.array)

    @property
    def state(self) -> list[mx.array]:
        return [*_parts(self.keys), *_parts(self.values)]

    @property
    def nbytes(self) -> int:
        return _nbytes(self.keys, self.values)

    def quantised(self, form: KVFormat) -> Segment:
        """Itself in bits; made once, so that rows that turn one by one go on sharing it."""
        if not self.is_exact:
            return self
        if form not in self._packed:
            self._packed[form] = Segment(form.quantise(self.keys), form.quantise(self.values))
        return self._packed[form]

    def cache(self, form: KVFormat) -> KVCache | QuantizedKVCache:
        """mlx-lm's cache of one stream that goes on from here; it copies before it writes."""
        return _single(self.keys, self.values, form)


def _single(keys: Store, values: Store, form: KVFormat) -> KVCache | QuantizedKVCache:
    exact = isinstance(keys, mx.array)
    cache = KVCache() if exact else QuantizedKVCache(form.group_size, form.bits)
    cache.keys, cache.values = keys, values
    cache.offset = _parts(keys)[0].shape[2]
    return cache


def _scores(queries: mx.array, keys: Store, form: KVFormat) -> mx.array:
    """(..., Q, D) and keys (..., T, D) -> (..., Q, T)."""
    if isinstance(keys, mx.array):
        return queries @ keys.swapaxes(-1, -2)
    return mx.quantized_matmul(queries, *keys, transpose=True, group_size=form.group_size, bits=form.bits)


def _weighted(weights: mx.array, values: Store, form: KVFormat) -> mx.array:
    """(..., Q, T) and values (..., T, D) -> (..., Q, D)."""
    if isinstance(values, mx.array):
        return weights @ values
    return mx.quantized_matmul(weights, *values, transpose=False, group_size=form.group_size, bits=form.bits)


def shared_attention(
    queries: mx.array,
    segments: Sequence[Segment],
    keys: Store,
    values: Store,
    scale: float,
    mask: mx.array | None,
    form: KVFormat = EXACT,
) -> mx.array:
    """queries (R, heads, L, D) over segments all rows see, then over each row's own (R, kv_heads, T, D).

    mask (R, 1, L, T) bool is over the own keys. -> (R, heads, L, D). Scores are in the queries' dtype
    and the softmax in float32, as in mlx-lm's quantised attention.
    """
    R, H, L, D = queries.shape
    G = _parts(keys)[0].shape[1]
    Q = H // G * L  # query positions of one row that read one kv head

    def fold(x: mx.array) -> mx.array:  # (R, G, Q, ·) -> (1, G, R * Q, ·)
        return x.swapaxes(0, 1).reshape(1, G, R * Q, -1)

    def unfold(x: mx.array) -> mx.array:
        return x.reshape(G, R, Q, -1).swapaxes(0, 1)

    q = (queries * scale).reshape(R, G, Q, D)
    own = _scores(q, keys, form)
    if mask is not None:
        lowest = mx.array(mx.finfo(own.dtype).min, own.dtype)
        own = mx.where(mask[:, :, None], own.reshape(R, G, H // G, L, -1), lowest).reshape(R, G, Q, -1)
    folded = fold(q)
    shared = [unfold(_scores(folded, segment.keys, form)) for segment in segments]
    weights = mx.softmax(mx.concatenate([*shared, own], axis=-1), axis=-1, precise=True)
    at, output = 0, None
    for segment in segments:
        part = fold(weights[..., at : at + segment.length])
        seen = unfold(_weighted(part, segment.values, form))
        output = seen if output is None else output + seen
        at += segment.length
    own_output = _weighted(weights[..., at:], values, form)
    return (own_output if output is None else output + own_output).reshape(R, H, L, D)


class Block:
    """Neighbouring rows that see the same segments, in the same format.

    keys, values: the rows' own (R, kv_heads, room, D), of which columns up to `filled` are in use; a row
    with fewer of its own has them at the right, so new tokens of all rows go to the same column.
    """

    def __init__(self, form: KVFormat, segments: tuple[Segment, ...], lengths: list[int],
                 keys: Store | None, values: Store | None, packed: bool):
        self.form, self.segments, self.packed = form, segments, packed
        self.lengths = lengths  # own tokens of each row
        self.keys, self.values = keys, values

    @classmethod
    def one(cls, row: RowCache) -> Block:
        own = row.own
        if own is None:
            return cls(row.form, row.segments, [0], None, None, row.packed)
        # handles of its own: to write into an mx.array is to change it for every holder
        keys, values = tree_map(mx.array, (own.keys, own.values))
        return cls(row.form, row.segments, [own.length], keys, values, row.packed)

    def __len__(self) -> int:
        return len(self.lengths)

    @property
    def filled(self) -> int:
        return max(self.lengths)

    @property
    def before(self) -> int:
        """Tokens of the segments."""
        return sum(segment.length for segment in self.segments)

    def fits(self, other: Block) -> bool:
        """Could the rows of `other` stand in this block?"""
        return (
            self.form == other.form
            and self.packed == other.packed
            and [*map(id, self.segments)] == [*map(id, other.segments)]
        )

    # ---- what the model does

    def mask(self, L: int) -> mx.array | None:
        """(R, 1, L, filled + L) bool: own keys a row may see at each of its L new tokens."""
        padding = [self.filled - n for n in self.lengths]
        if L == 1 and not any(padding):
            return None
        column = mx.arange(self.filled + L)
        causal = column <= mx.arange(self.filled, self.filled + L)[:, None]
        return causal & (column >= mx.array(padding)[:, None, None, None])

    def attend(
        self, queries: mx.array, keys: mx.array, values: mx.array, scale: float, mask: mx.array | None
    ) -> mx.array:
        """Take in the new keys and values (R, kv_heads, L, D); attention of the queries over all."""
        self._append(keys, values)
        own_keys, own_values = self._own()
        if self.segments:
            return shared_attention(queries, self.segments, own_keys, own_values, scale, mask, self.form)
        if self.packed:
            return quantized_scaled_dot_product_attention(
                queries, own_keys, own_values, scale, mask, self.form.group_size, self.form.bits
            )
        return mx.fast.scaled_dot_product_attention(queries, own_keys, own_values, scale=scale, mask=mask)

    def _append(self, keys: mx.array, values: mx.array) -> None:
        begin, L = self.filled, keys.shape[2]
        new = tuple(self.form.quantise(x) if self.packed else x for x in (keys, values))
        self._make_room(begin + L, new)
        for store, fresh in zip((self.keys, self.values), new, strict=True):
            for part, piece in zip(_parts(store), _parts(fresh), strict=True):
                part[..., begin : begin + L, :] = piece
        self.lengths = [n + L for n in self.lengths]

    def _make_room(self, tokens: int, like: tuple[Store, Store]) -> None:
        if self.keys is None:
            # no own tokens yet: room of the right shape and dtype
            self.keys, self.values = tree_map(lambda x: mx.zeros((*x.shape[:2], 0, x.shape[3]), x.dtype), like)
        room = _parts(self.keys)[0].shape[2]
        if tokens > room:
            more = _room(tokens) - room
            self.keys, self.values = _pad(self.keys, right=more), _pad(self.values, right=more)

    def _own(self) -> tuple[Store, Store]:
        """Own keys and values without the room behind them."""
        filled = self.filled
        return tree_map(lambda x: x[..., :filled, :], (self.keys, self.values))

    # ---- what the batch does

    def take(self, rows: Sequence[int]) -> Block:
        """Only these rows, moved right over the padding that is no longer needed; this one if all stay."""
        if list(rows) == list(range(len(self))):
            return self
        lengths = [self.lengths[i] for i in rows]
        if self.keys is None:
            return Block(self.form, self.segments, lengths, None, None, self.packed)
        at, first = mx.array(list(rows)), self.filled - max(lengths)
        keys, values = tree_map(lambda x: x[at][:, :, first:], (self.keys, self.values))
        return Block(self.form, self.segments, lengths, keys, values, self.packed)

    def joined(self, other: Block) -> Block:
        """The rows of both, which fit."""
        filled, lengths = max(self.filled, other.filled), self.lengths + other.lengths
        if filled == 0:
            return Block(self.form, self.segments, lengths, None, None, self.packed)
        stores = [block._aligned(filled, like=self if self.keys is not None else other)
                  for block in (self, other)]
        keys, values = (_join(pair, axis=0) for pair in zip(*stores, strict=True))
        return Block(self.form, self.segments, lengths, keys, values, self.packed)

    def _aligned(self, filled: int, like: Block) -> tuple[Store, Store]:
        if self.keys is None:
            rows, room = len(self), _room(filled + 1)
            return tree_map(lambda x: mx.zeros((rows, x.shape[1], room, x.shape[3]), x.dtype),
                            (like.keys, like.values))
        left, right = filled - self.filled, _room(filled + 1) - filled
        return tree_map(lambda x: _pad(x, left, right), self._own())

    def turned(self) -> list[Block]:
        """The rows that have reached the format's `start` in bits, the others as they are."""
        if self.packed or self.form.bits is None:
            return [self]
        due = [self.form.due(self.before + n) for n in self.lengths]
        if not any(due):
            return [self]
        runs = [(now, [i for i, _ in run]) for now, run in groupby(enumerate(due), key=lambda x: x[1])]
        return [self.take(rows)._quantised() if now else self.take(rows) for now, rows in runs]

    def _quantised(self) -> Block:
        segments = tuple(segment.quantised(self.form) for segment in self.segments)
        keys, values = (None if self.keys is None else self.form.quantise(x) for x in (self.keys, self.values))
        return Block(self.form, segments, self.lengths, keys, values, packed=True)

    def row(self, i: int) -> KVCache | QuantizedKVCache:
        """Row i as mlx-lm's cache of one stream, its segments copied in; lazy."""
        begin = self.filled - self.lengths[i]
        pieces = [(s.keys, s.values) for s in self.segments]
        if self.lengths[i]:
            pieces.append(tree_map(lambda x: x[i : i + 1, :, begin : self.filled], (self.keys, self.values)))
        if not pieces:
            return KVCache()
        keys, values = (_join(stores, axis=2) for stores in zip(*pieces, strict=True))
        return _single(keys, values, self.form)


class BatchCache:
    """One layer's keys and values of a whole batch, rows in the order of the batch."""

    def __init__(self, blocks: Iterable[Block]):
        self.blocks = _merged(blocks)

    @property
    def offset(self) -> int | mx.array:
        """Tokens of each row: one number when all have the same, else (rows,)."""
        lengths = [block.before + n for block in self.blocks for n in block.lengths]
        return lengths[0] if len({*lengths}) == 1 else mx.array(lengths)

    def make_mask(self, N: int, return_array: bool = False, window_size: int | None = None) -> list[Any]:
        """For each block the mask of N new tokens; made for the first layer, used by all."""
        if window_size is not None:
            raise PromptError("a sliding window does not go with a batch: leave it out")
        self._turn()
        return [block.mask(N) for block in self.blocks]

    def attend(
        self, queries: mx.array, keys: mx.array, values: mx.array, scale: float, mask: list[Any] | None
    ) -> mx.array:
        """queries (B, heads, L, D), new keys and values (B, kv_heads, L, D) -> (B, heads, L, D)."""
        self._turn()
        masks = self.make_mask(queries.shape[2]) if mask is None else mask
        at, outputs = 0, []
        for block, own in zip(self.blocks, masks, strict=True):
            rows = slice(at, at + len(block))
            outputs.append(block.attend(queries[rows], keys[rows], values[rows], scale, own))
            at += len(block)
        return outputs[0] if len(outputs) == 1 else mx.concatenate(outputs)

    def _turn(self) -> None:
        turned = [part for block in self.blocks for part in block.turned()]
        if turned != self.blocks:
            self.blocks = _merged(turned)

    # ---- the protocol of mlx-lm's batches

    def extend(self, other: BatchCache) -> None:
        self.blocks = _merged([*self.blocks, *other.blocks])

    def filter(self, keep: Sequence[int]) -> None:
        """Keep these rows; blocks that lose none are not touched."""
        at, blocks = 0, []
        for block in self.blocks:
            rows = [i - at for i in keep if at <= i < at + len(block)]
            if rows:
                blocks.append(block.take(rows))
            at += len(block)
        self.blocks = _merged(blocks)

    def extract(self, i: int) -> KVCache | QuantizedKVCache:
        """Row i as a cache of one stream."""
        for block in self.blocks:
            if i < len(block):
                return block.row(i)
            i -= len(block)
        raise IndexError(i)

    def prepare(self, **padding: Any) -> None:
        raise PromptError("prompts of several lengths cannot be read in one batch: read each alone first")

    def finalize(self) -> None:
        """Nothing was prepared."""

    @property
    def state(self) -> list[mx.array]:
        """Every array, for mx.eval."""
        return [part for store in self._stores() for part in _parts(store)]

    @property
    def nbytes(self) -> int:
        """Bytes held; a segment counts once, however many rows see it."""
        return _nbytes(*self._stores())

    def _stores(self) -> list[Store]:
        segments = {id(s): s for block in self.blocks for s in block.segments}.values()
        holders = [*segments, *(block for block in self.blocks if block.keys is not None)]
        return [store for holder in holders for store in (holder.keys, holder.values)]

    def size(self) -> int:
        """Tokens of the longest row."""
        return max((block.before + block.filled for block in self.blocks), default=0)

    def empty(self) -> bool:
        return self.size() == 0

    def is_trimmable(self) -> bool:
        return False


def _merged(blocks: Iterable[Block]) -> list[Block]:
    """Neighbours that fit become one block; empty blocks go."""
    merged: list[Block] = []
    for block in blocks:
        if merged and merged[-1].fits(block):
            merged[-1] = merged[-1].joined(block)
        elif len(block):
            merged.append(block)
    return merged


@dataclass(frozen=True)
class RowCache:
    """One layer's keys and values of one row that waits to join a batch: segments, then its own."""

    segments: tuple[Segment, ...] = ()
    own: Segment | None = None
    form: KVFormat = EXACT

    @property
    def parts(self) -> tuple[Segment, ...]:
        return (*self.segments, self.own) if self.own else self.segments

    @property
    def packed(self) -> bool:
        return any(not part.is_exact for part in self.parts)

    @property
    def state(self) -> list[mx.array]:
        return [x for part in self.parts for x in part.state]

    @property
    def nbytes(self) -> int:
        return sum(part.nbytes for part in self.parts)

    def size(self) -> int:
        return sum(part.length for part in self.parts)

    @staticmethod
    def merge(rows: Sequence[RowCache]) -> BatchCache:
        """What BatchGenerator calls with the caches of the rows that start together."""
        return BatchCache(Block.one(row) for row in rows)
