"""Examples -> the arrays of a step, as a pure function of the seed and the step.

A run that was killed needs nothing but its step to go on with the same data, and every rank works out its
own share of it. Which examples meet is `batch_plan`'s matter; here they become arrays.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import mlx.core as mx
import numpy as np

from mlx_audio_r1.errors import DataError
from mlx_audio_r1.train.batch import MEL_FRAMES, Batch
from mlx_audio_r1.train.batch_plan import BatchConfig, BatchPlan, MicroBatch, Rows
from mlx_audio_r1.train.examples import Example, Pair
from mlx_audio_r1.train.features import Features
from mlx_audio_r1.train.sounds import SoundChunk

NAMES_SHOWN = 10  # of the rows that an error lists
FIXED_ORDER = 0  # seed of `in_order`


class Batches:
    """`batches(step)` gives this rank's micro-batches of a step, at least one.

    examples: single ones, or pairs, which stay together as 2i and 2i + 1 of their batch. features: where
    their sounds come from; None when all is text. dropped: names of the rows left out as too long.
    Raises DataError for rows that are too long, with file:line of each.
    """

    def __init__(
        self,
        examples: Sequence[Example | Pair],
        features: Features | None,
        config: BatchConfig,
        rank: int = 0,
        world: int = 1,
    ):
        self.config, self._features, self._rank, self._world = config, features, rank, world
        kept, self.dropped = _fitting(examples, config)
        self.examples = [example for unit in kept for example in unit]
        ends = np.cumsum([len(unit) for unit in kept]).tolist()
        units = [range(end - len(unit), end) for unit, end in zip(kept, ends, strict=True)]
        self._plan = BatchPlan(units, [len(example) for example in self.examples], config, world)
        self._ends: list[int] = []  # steps up to the end of each epoch
        self._planned: dict[int, list[list[MicroBatch]]] = {}  # of the epochs used last

    def __call__(self, step: int) -> list[Batch]:
        return [self._collate(rows) for rows in self.rows(step)]

    def rows(self, step: int) -> list[Rows]:
        """This rank's micro-batches of a step as numbers of `examples`, row by row."""
        epoch, index = self.place(step)
        share = self._epoch(epoch)[index][self._rank :: self._world]
        return [self._plan.rows(batch) for batch in share]

    def place(self, step: int) -> tuple[int, int]:
        """(epoch, step within it), both from 0."""
        epoch = 0
        while step >= self.steps(epoch + 1):
            epoch += 1
        return epoch, step - self.steps(epoch)

    def steps(self, epochs: int) -> int:
        """Steps of the first `epochs` epochs; they may differ by a few."""
        while len(self._ends) < epochs:
            before = self._ends[-1] if self._ends else 0
            self._ends.append(before + len(self._epoch(len(self._ends))))
        return self._ends[epochs - 1] if epochs else 0

    def padding(self, epoch: int = 0) -> float:
        """Share of the tokens of an epoch that are padding, from 0 to 1."""
        batches = self._plan.micro_batches(np.random.default_rng([self.config.seed, epoch]))
        return 1 - sum(map(self._plan.tokens, batches)) / sum(map(self._plan.padded, batches))

    def in_order(self, limit: int | None = None, every_rank: bool = False) -> Iterator[Batch]:
        """This rank's share of all examples once, or of the first `limit` micro-batches, always in the same
        mixed order: what validation needs. every_rank: all of them, not a share."""
        batches = self._plan.micro_batches(np.random.default_rng(FIXED_ORDER))[:limit]
        for batch in batches if every_rank else batches[self._rank :: self._world]:
            yield self._collate(self._plan.rows(batch))

    def chunks(self) -> Iterator[SoundChunk]:
        """Every chunk of sound of this rank and all others: what `FeatureStore.prepare` takes."""
        for example in self.examples:
            yield from example.sounds

    def _collate(self, rows: Rows) -> Batch:
        numbers = [i for row in rows for i in row]
        places = iter(range(len(numbers)))
        local = [[next(places) for _ in row] for row in rows]
        chosen = [self.examples[i] for i in numbers]
        return collate(chosen, self._features, rows=local, pad_to=self.config.pad_to)

    def _epoch(self, epoch: int) -> list[list[MicroBatch]]:
        if epoch not in self._planned:
            self._planned = {e: p for e, p in self._planned.items() if e >= epoch - 1}
            self._planned[epoch] = self._plan.steps(epoch)
        return self._planned[epoch]


def _fitting(
    examples: Sequence[Example | Pair], config: BatchConfig
) -> tuple[list[tuple[Example, ...]], tuple[str, ...]]:
    """(units that fit, names of the others); raises DataError where these are refused or none fits."""
    units = [unit if isinstance(unit, tuple) else (unit,) for unit in examples]
    lengths = [max(map(len, unit)) for unit in units]
    long = [(unit[0], n) for unit, n in zip(units, lengths, strict=True) if n > config.max_seq_length]
    if long and config.over_long != "drop":
        raise DataError(f"{_rows_are(long)} longer than max_seq_length {config.max_seq_length:,}: "
                        f"{_list(long)}; raise --max-seq-length, or leave them out with --over-long drop")
    kept = [unit for unit, n in zip(units, lengths, strict=True) if n <= config.max_seq_length]
    if not kept:
        raise DataError("no row is left to learn from" + (f": {_list(long)} are too long" if long else ""))
    _check_budget(kept, config)
    return kept, tuple(example.name for example, _ in long)


def _check_budget(units: Iterable[tuple[Example, ...]], config: BatchConfig) -> None:
    budget = config.max_tokens_per_batch
    if budget is None:
        return
    sizes = [(unit[0], len(unit) * -(-max(map(len, unit)) // config.pad_to) * config.pad_to) for unit in units]
    over = [(example, size) for example, size in sizes if size > budget]
    if over:
        most = max(size for _, size in over)
        raise DataError(f"{_rows_are(over)} more than max_tokens_per_batch {budget:,} alone: {_list(over)}; "
                        f"raise it to {most:,}")


def _rows_are(found: Sequence[tuple[Example, int]]) -> str:
    return "1 row is" if len(found) == 1 else f"{len(found):,} rows are"


def _list(found: Sequence[tuple[Example, int]]) -> str:
    shown = ", ".join(f"{example.where} ({n:,})" for example, n in found[:NAMES_SHOWN])
    return shown + (f" and {len(found) - NAMES_SHOWN:,} more" if len(found) > NAMES_SHOWN else "")


# Arrays


def collate(
    examples: Sequence[Example],
    features: Features | None = None,
    *,
    rows: Rows | None = None,
    pad_to: int = 32,
) -> Batch:
    """Examples in the order of their numbers -> Batch.

    rows: which of them share each row; a row each where it is None. T, M and E are padded to multiples of
    pad_to. Where features are log-mels, `extra[MEL_FRAMES]` says which frames are.
    """
    rows = rows or [[i] for i in range(len(examples))]
    chunks = {chunk.digest: chunk for example in examples for chunk in example.sounds}
    stacked, lengths, per_chunk = _stack(list(chunks.values()), features, pad_to)
    first_row = {digest: c * per_chunk for c, digest in enumerate(chunks)}
    width = _up(max(sum(len(examples[i]) for i in row) for row in rows), pad_to)
    ids = np.zeros((len(rows), width), np.int32)
    samples, patches = np.full_like(ids, -1), np.full_like(ids, -1)
    learnt: list[tuple[np.ndarray, ...]] = []
    for b, row in enumerate(rows):
        at = 0
        for number in row:
            example = examples[number]
            here = slice(at, at + len(example))
            ids[b, here], samples[b, here] = example.ids, number
            patches[b, at + example.patch_at] = _patch_rows(example, first_row)
            learnt.append(_learnt(example, number, b * width + at))
            at += len(example)
    positions, targets, weights, owners = (
        _padded(np.concatenate(parts), pad_to) for parts in zip(*learnt, strict=True)
    )
    return Batch(
        *map(mx.array, (ids, samples, patches, positions, targets, weights, owners)),
        features=stacked,
        names=tuple(example.name for example in examples),
        extra={MEL_FRAMES: mx.array(lengths)} if features is not None and features.log_mels else {},
    )


def _learnt(example: Example, number: int, start: int) -> tuple[np.ndarray, ...]:
    """(positions, targets, weights, owners) of the tokens that are learnt."""
    at = np.flatnonzero(example.weights).astype(np.int32)
    return start + at - 1, example.ids[at], example.weights[at], np.full_like(at, number)


def _patch_rows(example: Example, first_row: dict[str, int]) -> np.ndarray:
    """For each patch of an example its row among the adapted features of the batch."""
    parts = [first_row[chunk.digest] + np.arange(chunk.patches) for chunk in example.sounds]
    return np.concatenate(parts) if parts else np.zeros(0, np.int64)


def _stack(
    chunks: Sequence[SoundChunk], features: Features | None, pad_to: int
) -> tuple[mx.array | None, np.ndarray, int]:
    """((C, E, width) features, (C,) lengths, rows the adaptor makes of E)."""
    if not chunks:
        return None, np.zeros(0, np.int32), 0
    if features is None or not all(chunk.digest for chunk in chunks):
        raise DataError("sounds among the examples, but nothing that encodes them, or sounds not decoded")
    arrays = [features(chunk) for chunk in chunks]
    for chunk, array in zip(chunks, arrays, strict=True):
        if chunk.patches > features.rows(array.shape[0]):
            raise DataError(f"a chunk has {chunk.patches} patches but {features.rows(array.shape[0])} rows of "
                            "features: the length convention of the sounds is not the model's")
    longest = _up(max(array.shape[0] for array in arrays), pad_to)
    stacked = mx.stack([mx.pad(array, [(0, longest - array.shape[0]), (0, 0)]) for array in arrays])
    return stacked, np.array([array.shape[0] for array in arrays], np.int32), features.rows(longest)


def _up(length: int, multiple: int) -> int:
    return -(-length // multiple) * multiple


def _padded(array: np.ndarray, multiple: int) -> np.ndarray:
    """Zeros up to the next multiple, and at least one."""
    return np.pad(array, (0, _up(max(1, len(array)), multiple) - len(array)))
