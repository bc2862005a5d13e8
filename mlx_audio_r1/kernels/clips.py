"""Clips of different lengths, one behind the other along the rows of one array, without padding.

Lengths are Python numbers and no array, as they come from shapes: a launch must know how many threadgroups it
needs, and would have to wait for the device to tell.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate

import mlx.core as mx
import numpy as np


@dataclass(frozen=True)
class Clips:
    """lengths: rows of each clip, at least 1. visible: how many of its first rows are attended to, 1 to all."""

    lengths: tuple[int, ...]
    visible: tuple[int, ...]

    @classmethod
    def of(cls, lengths: Sequence[int], hidden: int = 0) -> Clips:
        """Every clip hides its last `hidden` rows; at least one of each stays visible."""
        return cls(tuple(lengths), tuple(length - hidden for length in lengths))

    @property
    def rows(self) -> int:
        return sum(self.lengths)

    @property
    def are_sound(self) -> bool:
        """Whether there are clips, and each has a row that is visible."""
        pairs = zip(self.lengths, self.visible, strict=True)
        return bool(self.lengths) and all(1 <= seen <= length for length, seen in pairs)

    @property
    def starts(self) -> tuple[int, ...]:
        """Row at which each begins, and the number of rows."""
        return tuple(accumulate(self.lengths, initial=0))

    def split(self, x: mx.array) -> list[mx.array]:
        """(rows, ...) -> each clip's rows."""
        return [x[start : start + n] for start, n in zip(self.starts, self.lengths, strict=False)]

    def tiles(self, rows: int) -> np.ndarray:
        """(n, 4) int32, for every `rows` rows of a clip: the first, the end of the clip, and the first and the
        end of what they attend to."""
        return np.array([tile for tile in self._tiles(rows)], np.int32).reshape(-1, 4)

    def _tiles(self, rows: int) -> Iterator[tuple[int, int, int, int]]:
        for start, length, seen in zip(self.starts, self.lengths, self.visible, strict=False):
            for first in range(start, start + length, rows):
                yield first, start + length, start, start + seen

    @property
    def kind(self) -> str:
        """What the choice of a kernel depends on: coarse, that not every mix of lengths is tried again."""
        longest = max(self.lengths, default=0)
        return f"{len(self.lengths)}x{1 << max(0, longest - 1).bit_length()}"
