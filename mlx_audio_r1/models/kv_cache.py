"""Keys and values of a whole batch: rows of many prompts, with shared prefixes, quantised or not.

The caches speak the protocol of mlx-lm's BatchGenerator (`merge`, `extend`, `filter`, `extract`) and do
the attention themselves, which `models.attention` lets them. A batch is a list of blocks in row order; a
block is neighbouring rows that see the same segments, then each its own, right-aligned. The surprise:
structure changes cost the block they touch, not the batch, and nothing here ever waits for the GPU.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import mlx.core as mx
from mlx.utils import tree_map
from mlx_lm.models.cache import KVCache, QuantizedKVCache

from mlx_audio_r1.errors import PromptError
from mlx_audio_r1.models.decode_attention import Seen, over_prefix, over_quantised
from mlx_audio_r1.models.shared_prefix import (
    EXACT,
    KVFormat,
    Segment,
    Store,
    bytes_of,
    join,
    pad,
    parts_of,
    rounded,
    single_stream,
)


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
        # there is no room behind `own`, so the first append copies and never writes into it
        return cls(row.form, row.segments, [own.length], own.keys, own.values, row.packed)

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

    def seen(self, L: int) -> Seen:
        """What each of L new tokens sees of its row's own."""
        return Seen.of([self.filled - n for n in self.lengths], self.filled, L)

    def attend(
        self, queries: mx.array, keys: mx.array, values: mx.array, scale: float, seen: Seen
    ) -> mx.array:
        """Take in the new keys and values (R, kv_heads, L, D); attention of the queries over all."""
        self._append(keys, values)
        own = self._own()
        if self.segments:
            return over_prefix(queries, self.segments, *own, scale, self.form, seen)
        if self.packed:
            return over_quantised(queries, *own, scale, self.form, seen)
        return mx.fast.scaled_dot_product_attention(queries, *own, scale=scale, mask=seen.mask)

    def _append(self, keys: mx.array, values: mx.array) -> None:
        begin, L = self.filled, keys.shape[2]
        new = tuple(self.form.quantise(x) if self.packed else x for x in (keys, values))
        self._make_room(begin + L, new)
        for store, fresh in zip((self.keys, self.values), new, strict=True):
            for part, piece in zip(parts_of(store), parts_of(fresh), strict=True):
                part[..., begin : begin + L, :] = piece
        self.lengths = [n + L for n in self.lengths]

    def _make_room(self, tokens: int, like: tuple[Store, Store]) -> None:
        if self.keys is None:
            # no own tokens yet: room of the right shape and dtype
            self.keys, self.values = tree_map(lambda x: mx.zeros((*x.shape[:2], 0, x.shape[3]), x.dtype), like)
        room = parts_of(self.keys)[0].shape[2]
        if tokens > room:
            more = rounded(tokens) - room
            self.keys, self.values = pad(self.keys, right=more), pad(self.values, right=more)

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
        keys, values = (join(pair, axis=0) for pair in zip(*stores, strict=True))
        return Block(self.form, self.segments, lengths, keys, values, self.packed)

    def _aligned(self, filled: int, like: Block) -> tuple[Store, Store]:
        if self.keys is None:
            rows, room = len(self), rounded(filled + 1)
            return tree_map(lambda x: mx.zeros((rows, x.shape[1], room, x.shape[3]), x.dtype),
                            (like.keys, like.values))
        left, right = filled - self.filled, rounded(filled + 1) - filled
        return tree_map(lambda x: pad(x, left, right), self._own())

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
        keys, values = (join(stores, axis=2) for stores in zip(*pieces, strict=True))
        return single_stream(keys, values, self.form)


class BatchCache:
    """One layer's keys and values of a whole batch, rows in the order of the batch."""

    def __init__(self, blocks: Iterable[Block]):
        self.blocks = _merged(blocks)

    @property
    def offset(self) -> int | mx.array:
        """Tokens of each row: one number when all have the same, else (rows,)."""
        lengths = [block.before + n for block in self.blocks for n in block.lengths]
        return lengths[0] if len({*lengths}) == 1 else mx.array(lengths)

    def make_mask(self, N: int, return_array: bool = False, window_size: int | None = None) -> list[Seen]:
        """For each block what N new tokens see; made for the first layer, used by all."""
        if window_size is not None:
            raise PromptError("a sliding window does not go with a batch: leave it out")
        self._turn()
        return [block.seen(N) for block in self.blocks]

    def attend(
        self, queries: mx.array, keys: mx.array, values: mx.array, scale: float, mask: list[Seen] | None
    ) -> mx.array:
        """queries (B, heads, L, D), new keys and values (B, kv_heads, L, D) -> (B, heads, L, D)."""
        self._turn()
        views = self.make_mask(queries.shape[2]) if mask is None else mask
        at, outputs = 0, []
        for block, seen in zip(self.blocks, views, strict=True):
            rows = slice(at, at + len(block))
            outputs.append(block.attend(queries[rows], keys[rows], values[rows], scale, seen))
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
        """Keep these rows, given in ascending order; blocks that lose none are not touched."""
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
        return [part for store in self._stores() for part in parts_of(store)]

    @property
    def nbytes(self) -> int:
        """Bytes held; a segment counts once, however many rows see it."""
        return bytes_of(*self._stores())

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
