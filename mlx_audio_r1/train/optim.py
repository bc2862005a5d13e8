"""Muon for the matrices, AdamW for everything else, under one schedule.

Matrices are the weights that map features to features. Embeddings, position tables, throw-away heads,
biases and norms are not: orthogonalising their updates makes no sense.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import mlx.core as mx
import mlx.optimizers as optim

NOT_MATRICES = ("embed_tokens", "positional_embedding", "lm_head", "heads")


@dataclass(frozen=True)
class OptimConfig:
    """Learning rates are peaks; `steps` is the length of the schedule."""

    steps: int
    matrix_rate: float = 0.02
    other_rate: float = 3e-3
    warmup: int = 20  # steps of linear rise
    hold: float = 0.3  # share of the steps at the peak before the cosine
    floor: float = 0.02  # share of the peak at the end


def schedule(config: OptimConfig, peak: float) -> Callable[[mx.array], mx.array]:
    """Step -> learning rate: linear rise, a plateau, half a cosine down to `floor`."""

    def rate(step: mx.array) -> mx.array:
        rise = mx.minimum(1.0, (step + 1) / config.warmup)
        done = mx.clip((step / config.steps - config.hold) / (1 - config.hold), 0.0, 1.0)
        fall = config.floor + (1 - config.floor) * 0.5 * (1 + mx.cos(math.pi * done))
        return peak * rise * fall

    return rate


def is_matrix(path: str, weight: mx.array) -> bool:
    """True for the parameters Muon takes."""
    return weight.ndim >= 2 and not any(name in path for name in NOT_MATRICES)


def muon_and_adamw(config: OptimConfig) -> optim.MultiOptimizer:
    """One optimizer for a whole model."""
    muon = optim.Muon(schedule(config, config.matrix_rate), weight_decay=0.0)
    adamw = optim.AdamW(
        schedule(config, config.other_rate), betas=(0.9, 0.95), weight_decay=0.0, bias_correction=True
    )
    return optim.MultiOptimizer([muon, adamw], [is_matrix])
