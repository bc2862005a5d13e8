"""The arrays of a training step.

The surprise: the tokens that are learnt are listed sparsely, so that only they get logits, and several
examples may share a row; `samples` says which token belongs to which.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import mlx.core as mx


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
