"""Which prompts a batch of rollouts has: a function of the seed and of its number, so nothing is kept.

Prompts are gone through in whole batches, in another order each time around; the few that make no whole
batch wait for the next one. Where a batch wants more (dynamic sampling), it has an order of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import numpy as np

T = TypeVar("T")


def batch_of(prompts: Sequence[T], seed: int, number: int, size: int) -> list[T]:
    """The `size` prompts of batch `number`, all different; all of them where there are fewer."""
    around, at = divmod(number, max(len(prompts) // size, 1))
    order = _order(len(prompts), seed, around)
    return [prompts[i] for i in order[at * size : (at + 1) * size]]


def more_for(prompts: Sequence[T], seed: int, number: int, tried: Sequence[T], size: int) -> list[T]:
    """Up to `size` prompts for batch `number` that it has not tried yet; [] when it has tried all."""
    seen = {id(prompt) for prompt in tried}
    order = _order(len(prompts), seed, number, own=True)
    return [prompts[i] for i in order if id(prompts[i]) not in seen][:size]


def _order(count: int, seed: int, number: int, own: bool = False) -> list[int]:
    order: list[int] = np.random.default_rng([abs(seed), number, int(own)]).permutation(count).tolist()
    return order
