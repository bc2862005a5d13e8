"""The trainer for a model and a loss alone: one batch a step, and a loss that is a mean already.

What makes nano runs on this; the loop itself is `trainer`'s.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optim

from mlx_audio_r1.train.trainer import Hooks, LoopConfig, Trainer

MeanLoss = Callable[[nn.Module, Any], tuple[mx.array, dict[str, mx.array]]]


def train(
    model: nn.Module,
    optimizer: optim.Optimizer,
    loss: MeanLoss,
    batches: Callable[[int], Any],
    config: LoopConfig,
    on_save: Callable[[int], dict[str, Any]] | None = None,
) -> None:
    """Train the unfrozen parameters of `model` in place, from the last checkpoint where there is one.

    `loss(model, batch)` gives a scalar and named scalars for the log. `on_save(step)` runs every
    `config.eval_every` steps and at the end, and gives values for metrics.jsonl.
    """

    def counted(model: nn.Module, batch: Any) -> tuple[mx.array, mx.array, dict[str, mx.array]]:
        value, more = loss(model, batch)
        return value, mx.array(1.0), more

    def evaluate(step: int) -> dict[str, Any]:
        return on_save(step) if on_save and step else {}

    Trainer(model, optimizer, counted, lambda step: [batches(step)], config, Hooks(evaluate)).run()
