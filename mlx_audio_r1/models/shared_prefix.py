"""Keys and values that many rows see, held once, and the attention over them.

What every row sees is read once: the rows are folded into the query axis. The surprise: the parts are
joined before the softmax and not after it; that is one softmax instead of a logsumexp for each part and
a merge, and rounds like ordinary attention.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from weakref import WeakValueDictionary

import mlx.core as mx
from mlx.utils import tree_map
from mlx_lm.models.cache import KVCache, QuantizedKVCache

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
            return rounded(n) * values_per_token * itemsize

        if not self.due(before + tokens):
            return exact(tokens)
        share = (self.bits or 0) / 8 / itemsize + 2 / self.group_size  # codes, then scales and biases
        return max(int(exact(tokens) * share), exact(min(tokens, max(0, self.start - before))))


EXACT = KVFormat()


def rounded(tokens: int) -> int:
    """Up to the next multiple of STEP."""
    return -(-tokens // STEP) * STEP


def parts_of(store: Store) -> Sequence[mx.array]:
    return [store] if isinstance(store, mx.array) else store


def bytes_of(*stores: Store) -> int:
    return sum(part.nbytes for store in stores if store is not None for part in parts_of(store))


def join(stores: Sequence[Store], axis: int) -> Store:
    return tree_map(lambda *parts: mx.concatenate(parts, axis=axis), *stores) if stores[1:] else stores[0]


def pad(store: Store, left: int = 0, right: int = 0) -> Store:
    if not left and not right:
        return store
    return tree_map(lambda x: mx.pad(x, [(0, 0), (0, 0), (left, right), (0, 0)]), store)


class Segment:
    """Keys and values (1, kv_heads, T, head_dim) that many rows see. Never written, never copied."""

    def __init__(self, keys: Store, values: Store):
        self.keys, self.values = keys, values
        self.length = parts_of(keys)[0].shape[2]
        self._packed: WeakValueDictionary[KVFormat, Segment] = WeakValueDictionary()

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
        return [*parts_of(self.keys), *parts_of(self.values)]

    @property
    def nbytes(self) -> int:
        return bytes_of(self.keys, self.values)

    def quantised(self, form: KVFormat) -> Segment:
        """Itself in bits; the same object while anyone holds it, so rows that turn one by one share it."""
        if not self.is_exact:
            return self
        packed = self._packed.get(form)
        if packed is None:
            packed = self._packed[form] = Segment(form.quantise(self.keys), form.quantise(self.values))
        return packed

    def cache(self, form: KVFormat) -> KVCache | QuantizedKVCache:
        """mlx-lm's cache of one stream that goes on from here; it copies before it writes."""
        return single_stream(self.keys, self.values, form)


def single_stream(keys: Store, values: Store, form: KVFormat) -> KVCache | QuantizedKVCache:
    exact = isinstance(keys, mx.array)
    cache = KVCache() if exact else QuantizedKVCache(form.group_size, form.bits)
    cache.keys, cache.values = keys, values
    cache.offset = parts_of(keys)[0].shape[2]
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
    G = parts_of(keys)[0].shape[1]
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
