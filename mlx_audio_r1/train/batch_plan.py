"""Which examples go into which step: a pure function of lengths, seed and epoch.

An epoch is a permutation, sorted by length within wide windows so that little is padded, cut into
micro-batches, shuffled again and dealt to steps and ranks. Every unit (an example, or the two of a
preference) comes once an epoch; nothing is dropped and nothing drawn twice. The surprise: the tail is not
a small last step. The micro-batches of an epoch are spread evenly over its steps, and in every step each
rank has at least one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from mlx_audio_r1.errors import DataError

WINDOW, PACK_WINDOW = 1_024, 8_192  # units that are sorted, or packed, together
Cell = tuple[int, ...]  # units that stay together: one, or those that are packed into one row
MicroBatch = list[Cell]
Rows = list[list[int]]  # of a batch: each row's examples


@dataclass(frozen=True)
class BatchConfig:
    """batch_size counts examples, pairs, or packed rows of a micro-batch; max_tokens_per_batch replaces it
    and counts padded tokens. A step is grad_accumulation_steps micro-batches on every rank. over_long:
    `refuse` or `drop` what is longer than max_seq_length."""

    max_seq_length: int = 2_048
    batch_size: int = 4
    max_tokens_per_batch: int | None = None
    grad_accumulation_steps: int = 1
    pack: bool = False  # several short examples in one row of max_seq_length
    over_long: str = "refuse"
    pad_to: int = 32  # lengths are multiples of it, so that few shapes exist
    seed: int = 0


class BatchPlan:
    """units: for each, the numbers of its examples. lengths: of all examples, in tokens."""

    def __init__(
        self, units: Sequence[Sequence[int]], lengths: Sequence[int], config: BatchConfig, world: int = 1
    ):
        self._units, self._config, self._world = units, config, world
        self._longest = [max(lengths[i] for i in unit) for unit in units]
        self._total = [sum(lengths[i] for i in unit) for unit in units]

    def steps(self, epoch: int) -> list[list[MicroBatch]]:
        """The steps of an epoch; the micro-batches of each are in the order in which ranks take them.

        Raises DataError where there are fewer units than ranks.
        """
        if len(self._units) < self._world:
            raise DataError(f"{len(self._units)} rows for {self._world} processes: each needs one at least")
        per_step = self._config.grad_accumulation_steps * self._world
        batches = self.micro_batches(np.random.default_rng([self._config.seed, epoch]))
        return [self._for_ranks(step) for step in _spread(batches, per_step, self._world)]

    def micro_batches(self, rng: np.random.Generator) -> list[MicroBatch]:
        """Every unit once."""
        order = rng.permutation(len(self._units)).tolist()
        size, most = self._config.batch_size, PACK_WINDOW if self._config.pack else WINDOW
        window = -(-most // size) * size  # so that only the last one leaves a short batch
        parts = [order[i : i + window] for i in range(0, len(order), window)]
        batches = [batch for part in parts for batch in self._cut(self._cells(part))]
        return [batches[i] for i in rng.permutation(len(batches))]

    def rows(self, batch: MicroBatch) -> Rows:
        """The examples of each row."""
        return [row for cell in batch for row in self._rows(cell)]

    def tokens(self, batch: MicroBatch) -> int:
        return sum(self._total[unit] for cell in batch for unit in cell)

    def padded(self, batch: MicroBatch) -> int:
        """Tokens with the padding."""
        return sum(map(self._height, batch)) * max(map(self._width, batch))

    # ---- cells

    def _cells(self, units: Sequence[int]) -> list[Cell]:
        if not self._config.pack:
            return [(unit,) for unit in units]
        bins = first_fit([self._total[unit] for unit in units], self._config.max_seq_length)
        return [tuple(units[i] for i in bin) for bin in bins]

    def _packed(self, cell: Cell) -> bool:
        """All in one row? A pair that is too long for that keeps two."""
        return self._config.pack and sum(self._total[unit] for unit in cell) <= self._config.max_seq_length

    def _rows(self, cell: Cell) -> Rows:
        examples = [i for unit in cell for i in self._units[unit]]
        return [examples] if self._packed(cell) else [[i] for i in examples]

    def _height(self, cell: Cell) -> int:
        """Number of its rows."""
        return 1 if self._packed(cell) else sum(len(self._units[unit]) for unit in cell)

    def _width(self, cell: Cell) -> int:
        """Padded length of its longest row."""
        packed = self._packed(cell)
        longest = sum(self._total[u] for u in cell) if packed else max(self._longest[u] for u in cell)
        return -(-longest // self._config.pad_to) * self._config.pad_to

    # ---- micro-batches

    def _cut(self, cells: Sequence[Cell]) -> Iterator[MicroBatch]:
        """Sorted by width, neighbours together; equal widths stay in the order of the permutation."""
        batch: MicroBatch = []
        height = 0
        for width, cell in sorted(((self._width(cell), cell) for cell in cells), key=lambda pair: pair[0]):
            height += self._height(cell)
            if batch and self._is_full(len(batch) + 1, height * width):
                yield batch
                batch, height = [], self._height(cell)
            batch.append(cell)
        if batch:
            yield batch

    def _is_full(self, cells: int, tokens: int) -> bool:
        """Is a micro-batch of so many cells and padded tokens too large?"""
        budget = self._config.max_tokens_per_batch
        return cells > self._config.batch_size if budget is None else tokens > budget

    # ---- ranks

    def _for_ranks(self, batches: list[MicroBatch]) -> list[MicroBatch]:
        """At least one a rank; ranks that work at the same time get neighbours in size."""
        while len(batches) < self._world:
            largest = max(batches, key=_count)
            at = batches.index(largest)
            batches = [*batches[:at], *_halves(largest), *batches[at + 1 :]]
        return sorted(batches, key=self.padded)


def first_fit(lengths: Sequence[int], capacity: int) -> list[list[int]]:
    """First-fit-decreasing: numbers of the items in each bin. What is longer than a bin has one alone.

    The first bin with enough room is found in a tree of maxima, so n items take n log n steps.
    """
    size = 1 << max(0, len(lengths) - 1).bit_length()
    room = [capacity] * (2 * size)  # leaves: bins; above them: the most room of any bin below
    bins: dict[int, list[int]] = {}
    for item in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        at = 1
        while at < size:
            at = 2 * at if room[2 * at] >= min(lengths[item], capacity) else 2 * at + 1
        bins.setdefault(at, []).append(item)
        room[at] -= lengths[item]
        while at > 1:
            at //= 2
            room[at] = max(room[2 * at], room[2 * at + 1])
    return [bins[at] for at in sorted(bins)]


def _spread(batches: Sequence[MicroBatch], per_step: int, world: int) -> list[list[MicroBatch]]:
    """As few steps as hold the micro-batches, equally many in each to within one; a step with fewer units
    than ranks joins its neighbour."""
    steps: list[list[MicroBatch]] = [[]]
    for part in np.array_split(np.arange(len(batches)), -(-len(batches) // per_step)):
        if _units(steps[-1]) >= world:
            steps.append([])
        steps[-1] += [batches[i] for i in part]
    if len(steps) > 1 and _units(steps[-1]) < world:
        last = steps.pop()
        steps[-1] += last
    return steps


def _units(batches: Sequence[MicroBatch]) -> int:
    return sum(map(_count, batches))


def _count(batch: MicroBatch) -> int:
    """Units of a micro-batch."""
    return sum(len(cell) for cell in batch)


def _halves(batch: MicroBatch) -> tuple[MicroBatch, MicroBatch]:
    """Two micro-batches of one: its cells shared out, or the units of its only cell."""
    if len(batch) == 1:
        half = len(batch[0]) // 2
        return [batch[0][:half]], [batch[0][half:]]
    return batch[: len(batch) // 2], batch[len(batch) // 2 :]
