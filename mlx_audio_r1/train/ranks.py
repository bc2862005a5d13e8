"""Data parallel over mx.distributed: several processes, each with its own part of every batch.

    mlx.launch -n 2 --backend ring -- audio-r1 train sft ...

Sums, never means of means: ranks hold different numbers of tokens, so gradients and counts are added and
divided once. The surprise: every sum is evaluated at once, because a lazy one would be waited for by one
rank while the other has gone on, or left.
"""

from __future__ import annotations

from typing import Any

import mlx.core as mx
from mlx.nn.utils import average_gradients
from mlx.utils import tree_map


class Ranks:
    """The processes of a run; alone, every call gives back what it got."""

    def __init__(self, group: mx.distributed.Group | None = None):
        self._group = group

    @classmethod
    def found(cls) -> Ranks:
        """The processes that mlx.launch started, or this one alone."""
        group = mx.distributed.init()
        return cls(group if group.size() > 1 else None)

    @property
    def rank(self) -> int:
        return self._group.rank() if self._group else 0

    @property
    def size(self) -> int:
        return self._group.size() if self._group else 1

    @property
    def first(self) -> bool:
        """Is this the process that writes files?"""
        return self.rank == 0

    def total(self, gradients: Any) -> Any:
        """Sum of a tree of gradients; mlx groups small arrays into few messages."""
        if self._group is None:
            return gradients
        return _now(tree_map(lambda g: g * self.size, average_gradients(gradients, self._group)))

    def add(self, tree: Any) -> Any:
        """Sum of a tree of arrays or numbers, element by element."""
        group = self._group
        if group is None:
            return tree
        return _now(tree_map(lambda x: mx.distributed.all_sum(mx.array(x), group=group), tree))

    def most(self, tree: Any) -> Any:
        """Largest of a tree of arrays or numbers over the ranks, element by element."""
        group = self._group
        if group is None:
            return tree
        return _now(tree_map(lambda x: mx.distributed.all_max(mx.array(x), group=group), tree))

    def share(self, tree: Any) -> Any:
        """The first rank's arrays, on every rank."""
        if self._group is None:
            return tree
        return self.add(tree if self.first else tree_map(mx.zeros_like, tree))


def _now(tree: Any) -> Any:
    mx.eval(tree)
    return tree
