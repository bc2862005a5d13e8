"""What makes a run SFT or DPO: how a row becomes examples, and the loss; and RL, whose course is its own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import mlx.core as mx

from mlx_audio_r1.models.step_audio_r1 import Model
from mlx_audio_r1.session import AudioR1
from mlx_audio_r1.train.batch import Batch
from mlx_audio_r1.train.config import TrainConfig
from mlx_audio_r1.train.course import Counted, Course, LessonCourse, Opener
from mlx_audio_r1.train.examples import Example, ExampleMaker, Pair
from mlx_audio_r1.train.forward import ForwardOptions
from mlx_audio_r1.train.lessons import Counting, Lessons
from mlx_audio_r1.train.losses import dpo_loss, sft_loss
from mlx_audio_r1.train.ranks import Ranks
from mlx_audio_r1.train.reference import know_reference
from mlx_audio_r1.train.rl import RLCourse
from mlx_audio_r1.train.rl_config import RLConfig
from mlx_audio_r1.train.row_forms import Row
from mlx_audio_r1.train.watch import Watcher


@dataclass(frozen=True)
class Recipe:
    """make: row -> what is learnt of it. loss: as `Trainer` takes it. prepare: once before the first step."""

    name: str
    make: Callable[[ExampleMaker, Row], Example | Pair]
    loss: Callable[[Model, Batch, TrainConfig], Counted]
    prepare: Callable[[Model, Lessons, TrainConfig, Counting, bool], None] | None = None

    def __call__(self, r1: AudioR1, config: TrainConfig, ranks: Ranks, watch: Watcher) -> Course:
        """The course of a run."""
        return LessonCourse(self, r1, config, ranks, watch)


def forward_options(config: TrainConfig) -> ForwardOptions:
    """How batches of this run go through the model."""
    return ForwardOptions(checkpoint=config.grad_checkpoint, attention=config.attention)  # type: ignore[arg-type]


def _sft_loss(model: Model, batch: Batch, config: TrainConfig) -> Counted:
    total, count, sums = sft_loss(model, batch, forward_options(config))
    return total, count, {**sums, "tokens": _tokens(batch)}


def _dpo_loss(model: Model, batch: Batch, config: TrainConfig) -> Counted:
    total, count, sums = dpo_loss(model, batch, forward_options(config), config.beta, config.label_smoothing)
    return total, count, {**sums, "tokens": _tokens(batch)}


def _tokens(batch: Batch) -> mx.array:
    """Tokens that went through the model, without padding."""
    return (batch.samples >= 0).sum().astype(mx.float32)


RECIPES: dict[str, Opener] = {
    "sft": Recipe("sft", ExampleMaker.sft, _sft_loss),
    "dpo": Recipe("dpo", ExampleMaker.pair, _dpo_loss, know_reference),
    "rl": RLCourse,
}
CONFIGS: dict[str, type[TrainConfig]] = {"sft": TrainConfig, "dpo": TrainConfig, "rl": RLConfig}
