"""What a run is taught, step by step: the part in which recipes differ, under one `run`.

`Course` is what a run asks for; `LessonCourse` is that of SFT and DPO, whose batches come from files.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import mlx.core as mx

from mlx_audio_r1.models.step_audio_r1 import Model
from mlx_audio_r1.session import AudioR1
from mlx_audio_r1.train import samples
from mlx_audio_r1.train.batch import Batch
from mlx_audio_r1.train.config import TrainConfig
from mlx_audio_r1.train.lessons import gather
from mlx_audio_r1.train.ranks import Ranks
from mlx_audio_r1.train.state import Beside
from mlx_audio_r1.train.watch import Watcher

if TYPE_CHECKING:
    from mlx_audio_r1.train.recipes import Recipe

Counted = tuple[mx.array, mx.array, dict[str, mx.array]]  # total, count, sums for the log


class Course(Protocol):
    """digests: of what the result depends on. said: lines worth telling before it begins. beside: what is
    learnt beside the model. may_be_empty: a step without anything to learn is no error."""

    digests: Mapping[str, str]
    said: Sequence[str]
    beside: Beside | None
    may_be_empty: bool

    def begin(self) -> None:
        """Once, when the adapter is on the model and nothing is learnt yet."""

    def batches(self, step: int) -> Sequence[Batch]:
        """This rank's micro-batches of a step."""

    def loss(self, model: Model, batch: Batch) -> Counted: ...

    def measured(self) -> Mapping[str, float]:
        """Of the step just taken, for metrics.jsonl."""

    def evaluate(self, step: int) -> Mapping[str, float]:
        """Of the model as it is, for metrics.jsonl."""


Opener = Callable[[AudioR1, Any, Ranks, Watcher], Course]


class LessonCourse:
    """Batches of files, the same each epoch."""

    beside: Beside | None = None
    may_be_empty = False

    def __init__(self, recipe: Recipe, r1: AudioR1, config: TrainConfig, ranks: Ranks, watch: Watcher):
        self._recipe, self._r1, self._config, self._ranks, self._watch = recipe, r1, config, ranks, watch
        self._lessons = gather(r1, config, recipe.make, ranks, watch.counting)
        self.digests, self.said = self._lessons.digests, self._lessons.said

    def begin(self) -> None:
        if self._recipe.prepare:
            self._recipe.prepare(self._r1.model, self._lessons, self._config, self._watch.counting,
                                 self._ranks.first)  # fmt: skip

    def batches(self, step: int) -> Sequence[Batch]:
        return self._lessons.batches(step)

    def loss(self, model: Model, batch: Batch) -> Counted:
        return self._recipe.loss(model, batch, self._config)

    def measured(self) -> Mapping[str, float]:
        return {}

    def evaluate(self, step: int) -> Mapping[str, float]:
        """Loss on valid.jsonl, at the end on test.jsonl too, and the sample replies at both ends."""
        config = self._config
        found = self._measure("valid", "val", None if config.val_batches < 0 else config.val_batches)
        if step == config.iters:
            found |= self._measure("test", "test", None)
        if step in (0, config.iters) and self._ranks.first:
            samples.answer(self._r1, self._lessons.rows.get("valid", []), config.samples, step, config.folder,
                           self._watch.counting)  # fmt: skip
        return found

    def _measure(self, split: str, name: str, limit: int | None) -> dict[str, float]:
        if split not in self._lessons.splits:
            return {}
        sums = {"total": mx.array(0.0), "count": mx.array(0.0)}
        for batch in self._lessons.in_order(split, limit):
            total, count, more = self.loss(self._r1.model, batch)
            for key, value in {"total": total, "count": count, **more}.items():
                sums[key] = sums.get(key, mx.array(0.0)) + value
            mx.eval(sums)
        sums.pop("tokens", None)
        values = {key: float(value) for key, value in self._ranks.add(sums).items()}
        count = values.pop("count")
        values["loss"] = values.pop("total")
        return {f"{name}_{key}": value / count for key, value in values.items()} if count else {}
