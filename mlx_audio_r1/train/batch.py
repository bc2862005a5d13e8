"""The arrays of a training step.

The surprise: the tokens that are learnt are listed sparsely, so that only they get logits, and several
examples may share a row; `samples` says which token belongs to which.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any

import mlx.core as mx

MEL_FRAMES = "mel_frames"  # in `extra` where features are log-mels: (C,) int32, the frames of each chunk


@dataclass(frozen=True)
class Batch:
    """B rows of T tokens holding n examples, M learnt tokens, C chunks of sound.

    In DPO batches example 2i is the chosen reply and 2i + 1 the rejected one.
    """

    ids: mx.array  # (B, T) int32, 0 where padded
    samples: mx.array  # (B, T) int32: the example a token belongs to, -1 where padded
    patches: mx.array  # (B, T) int32: row c * N + i of the adapted features that a patch takes, -1 elsewhere
    positions: mx.array  # (M,) int32: b * T + t of the tokens whose next one is learnt
    targets: mx.array  # (M,) int32: that next token
    weights: mx.array  # (M,) float32: its weight in the loss, 0 where M is padded
    owners: mx.array  # (M,) int32: its example
    features: mx.array | None = None  # (C, E, width) encoder outputs, zeros behind the end of a chunk
    names: tuple[str, ...] = ()  # n places such as train.jsonl:12
    extra: Mapping[str, mx.array] = field(default_factory=dict)  # what a recipe adds

    @property
    def examples(self) -> int:
        return len(self.names)


class Tree(dict):
    """A batch as mx.compile takes it: arrays by name, the number of examples, and `names` beside them."""

    names: tuple[str, ...] = ()


def as_tree(batch: Batch) -> Tree:
    """The arrays of a batch."""
    values = {f.name: getattr(batch, f.name) for f in fields(Batch) if f.name != "names"}
    tree = Tree({name: value for name, value in values.items() if value is not None})
    tree["examples"] = batch.examples
    tree.names = batch.names
    return tree


def of_tree(loss: Callable[[Any, Batch], Any]) -> Callable[[Any, Mapping[str, Any]], Any]:
    """A loss of batches as a loss of trees."""

    def of_arrays(model: Any, tree: Mapping[str, Any]) -> Any:
        arrays = {name: value for name, value in tree.items() if name != "examples"}
        return loss(model, Batch(**arrays, names=("",) * tree["examples"]))

    return of_arrays
