"""Optimizers and schedules: mlx's own by name, and Muon for the matrices with AdamW for everything else.

Matrices are the weights that map features to features. Embeddings, position tables, throw-away heads,
biases and norms are not: orthogonalising their updates makes no sense.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import mlx.core as mx
import mlx.optimizers as optim

from mlx_audio_r1.errors import TrainingError

Rate = float | Callable[[mx.array], mx.array]

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


def build_optimizer(name: str, rate: Rate, settings: Mapping[str, Any]) -> optim.Optimizer:
    """mlx's optimizer of this name; `muon` is Muon for the matrices and AdamW for the rest.

    AdamW and Adam correct their bias here (mlx's default does not): the first steps are then as long as
    in PyTorch. Raises TrainingError for settings the optimizer does not know.
    """
    try:
        if name == "muon":
            return optim.MultiOptimizer([optim.Muon(rate, **settings), optim.AdamW(rate, bias_correction=True)],
                                        [is_matrix])  # fmt: skip
        return _OPTIMIZERS[name](rate, **{**_CORRECTED.get(name, {}), **settings})
    except TypeError as error:
        raise TrainingError(f"optimizer_config of {name}: {error}") from None


def build_schedule(rate: float, schedule: Mapping[str, Any] | None) -> Rate:
    """mlx-lm's `lr_schedule` {name, warmup, warmup_init, arguments}, or the plain rate."""
    if schedule is None:
        return rate
    from mlx_lm.tuner.utils import build_schedule as mlx_lm_schedule  # brings transformers: only when asked for

    try:
        return mlx_lm_schedule({"arguments": [rate], **schedule})
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise TrainingError(
            f"lr_schedule {dict(schedule)}: {error}; for example {{name: cosine_decay, warmup: 100, "
            "arguments: [1e-4, 1000]}"
        ) from None


_OPTIMIZERS: dict[str, Callable[..., optim.Optimizer]] = {
    "adam": optim.Adam, "adamw": optim.AdamW, "sgd": optim.SGD, "lion": optim.Lion,
    "adafactor": optim.Adafactor,
}  # fmt: skip
_CORRECTED = {"adam": {"bias_correction": True}, "adamw": {"bias_correction": True}}
