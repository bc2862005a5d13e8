"""A prompt, read from embeddings into caches that can join a batch.

Everything but the last token is read, in chunks, so that rows which decode meanwhile are not starved.
The surprise: reading is exact, and what is long enough is quantised behind a known prefix and at the
end; so a reply does not depend on where the chunks were cut.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import mlx.core as mx
from mlx_lm.models.cache import KVCache, make_prompt_cache

from mlx_audio_r1.generate import Settings
from mlx_audio_r1.models.kv_cache import RowCache
from mlx_audio_r1.models.shared_prefix import EXACT, STEP, KVFormat, Segment
from mlx_audio_r1.models.step_audio_r1 import Model
from mlx_audio_r1.prompt_cache import Prefix


@dataclass(eq=False)
class Request:
    """A prompt and how many replies to it are wanted."""

    id: int
    ids: list[int]
    embeddings: mx.array | None
    settings: Settings
    thinking_open: bool
    num_samples: int
    prefix: Prefix | None
    form: KVFormat
    itemsize: int  # bytes of one key or value
    unseated: deque[int]  # samples that have no row yet
    started: float = 0.0
    is_read: bool = False
    is_seated: bool = False  # some sample of it has a row
    reading: Reading | None = None  # while the prompt is read
    rows: list[RowCache] | None = None  # one a layer, from then until every sample has its row

    @property
    def tokens(self) -> int:
        """The most tokens one reply's context will have."""
        return len(self.ids) + self.settings.max_tokens

    @property
    def prompt_room(self) -> int:
        """Tokens the prompt takes room for; mlx-lm's cache, in which it is read, takes up to STEP more."""
        return len(self.ids) + (0 if self.is_read else STEP)

    @property
    def nbytes(self) -> int:
        """Bytes of keys and values that no row of the batch holds yet."""
        if self.reading:
            return sum(c.nbytes for c in self.reading.cache)
        return 0 if self.is_seated or self.rows is None else sum(row.nbytes for row in self.rows)


class Reading:
    """Reads all of a prompt but its last token, in chunks, from embeddings into a fresh cache."""

    def __init__(
        self, model: Model, ids: Sequence[int], embeddings: mx.array, form: KVFormat = EXACT,
        prefix: Prefix | None = None,
    ):
        self._model, self._ids, self._embeddings = model, ids, embeddings
        self._form, self._prefix = form, prefix
        self._goal, self.done = len(ids) - 1, 0
        self.cache: list[Any] = make_prompt_cache(model.language_model)
        if prefix and prefix.layers:
            self.cache, self.done = [layer.cache(form) for layer in prefix.layers], prefix.length

    @property
    def finished(self) -> bool:
        return self.done == self._goal

    def advance(self, chunk: int) -> int:
        """Read up to `chunk` tokens, stopping where the prefix does; how many it were."""
        prefix, begin = self._prefix, self.done
        stop = prefix.length if prefix and begin < prefix.length else self._goal
        end = min(begin + chunk, stop)
        if begin < end:
            part = mx.array(self._ids[begin:end])[None]
            self._model(part, self.cache, self._embeddings[begin:end][None])
            mx.eval([c.state for c in self.cache])
            mx.clear_cache()
        self.done = end
        if prefix and end == prefix.length and prefix.layers is None:
            self._pack()
            prefix.fill([_evaluated(Segment.of(c)) for c in self.cache])
        return end - begin

    def rows(self, shared: bool, several: bool) -> list[RowCache]:
        """One a layer, to be given to every reply; hands the keys and values over.

        `shared` keeps what other rows see as segments: the whole prompt when there are `several` replies
        to it, else its prefix.
        """
        self._pack()
        rows = []
        for i, c in enumerate(self.cache):
            rows.append(_evaluated(self._row(i, c, shared, several)))
            self.cache[i] = None  # layer by layer, so that only one is held twice
        return rows

    def _row(self, i: int, cache: Any, shared: bool, several: bool) -> RowCache:
        if not self._goal:
            return RowCache((), None, self._form)
        known: tuple[Segment, ...] = ()
        if shared and self._prefix:
            first = self._prefix.layers[i]
            known = (first.quantised(self._form) if self._form.due(self._goal) else first,)
        begin = sum(segment.length for segment in known)
        if begin == self._goal:
            return RowCache(known, None, self._form)
        rest = Segment.of(cache, begin)
        return RowCache((*known, rest), None, self._form) if several else RowCache(known, rest, self._form)

    def _pack(self) -> None:
        """Quantise what is exact once it is long enough, as mlx-lm does for one stream."""
        if self._form.due(self.done):
            self.cache = [
                c.to_quantized(self._form.group_size, self._form.bits)
                if isinstance(c, KVCache) and not c.empty() else c
                for c in self.cache
            ]


def _evaluated(held: Any) -> Any:
    mx.eval(held.state)
    return held


def kv_format(settings: Settings) -> KVFormat:
    """How these settings want keys and values kept."""
    if settings.kv_bits is None:
        return EXACT
    return KVFormat(settings.kv_bits, settings.kv_group_size, settings.quantized_kv_start)
