"""Another adapter in the place of a model's own, for the length of a block.

For what shares the policy's base: a critic, and a reference that is not the base itself but the policy as it
was when reinforcement learning began. Arrays are swapped and nothing is copied, so rank and keys are the same.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import mlx.core as mx

from mlx_audio_r1.adapters import adapter_arrays, fill
from mlx_audio_r1.models.step_audio_r1 import Model


@contextmanager
def wearing(model: Model, arrays: Mapping[str, mx.array], whose: str = "another adapter") -> Iterator[None]:
    """`arrays`, as `adapters.adapter_arrays` gave them, on `model`; behind the block its own, to the bit.

    Do not save the model inside. Raises CheckpointError where they do not fit, the model as it was.
    """
    own = adapter_arrays(model)
    fill(model, arrays, whose)
    try:
        yield
    finally:
        fill(model, own, "the model's own adapter")
