"""One fine-tuning run, from a folder of rows to an adapter: what every recipe shares.

    outcome = fine_tune(resolve("sft", {"data": "sounds/"}), RECIPES["sft"])
    load(adapter_path=outcome.adapter)

Run again, it goes on where it was. Only the first rank writes.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import mlx.core as mx
from mlx.utils import tree_flatten

from mlx_audio_r1.adapter_config import WEIGHTS_FILE, AdapterConfig, LoRAParameters
from mlx_audio_r1.adapter_files import read_arrays
from mlx_audio_r1.adapters import attach, fill, save_adapter
from mlx_audio_r1.errors import TrainingError
from mlx_audio_r1.files import disk_errors
from mlx_audio_r1.session import load
from mlx_audio_r1.train import folder as run_folder
from mlx_audio_r1.train import preflight, sinks
from mlx_audio_r1.train.batch import as_tree, of_tree
from mlx_audio_r1.train.config import TrainConfig
from mlx_audio_r1.train.course import Opener
from mlx_audio_r1.train.metrics import read
from mlx_audio_r1.train.optim import build_optimizer, build_schedule
from mlx_audio_r1.train.ranks import Ranks
from mlx_audio_r1.train.report import write_report
from mlx_audio_r1.train.trainer import Hooks, LoopConfig, Trainer
from mlx_audio_r1.train.watch import Follower, Silent, Watcher

OUT_OF_MEMORY = ("[malloc", "Unable to allocate", "Insufficient Memory", "Attempting to allocate")


@dataclass(frozen=True)
class Outcome:
    """How a run went. first: is this the rank that speaks?"""

    adapter: str
    steps: int
    finished: bool
    last: Mapping[str, float]  # the last value of everything in metrics.jsonl
    report: str | None = None
    first: bool = True

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def fine_tune(
    config: TrainConfig,
    recipe: Opener,
    watch: Watcher | None = None,
    *,
    overwrite: bool = False,
    force: bool = False,
) -> Outcome:
    """Train, or go on training. Raises DataError, PlanError, DiskError or TrainingError."""
    watch, ranks = watch or Silent(), Ranks.found()
    if not ranks.first:
        watch = Follower(watch)
    plan = preflight.preflight(config, force)
    if plan:
        watch.say(preflight.in_words(plan))
    mx.set_memory_limit(preflight.memory_limit(config))
    run = _Run(config, recipe, watch, ranks, overwrite)
    try:
        return run.go()
    except RuntimeError as error:
        if not any(words in str(error) for words in OUT_OF_MEMORY):
            raise
        raise TrainingError(
            f"out of memory ({error}); lower --batch-size or --max-seq-length, or see audio-r1 plan --train"
        ) from None


class _Run:
    """The parts of a run, made in the order in which they can fail cheaply."""

    def __init__(self, config: TrainConfig, recipe: Opener, watch: Watcher, ranks: Ranks, overwrite: bool):
        self.config, self.watch, self.ranks = config, watch, ranks
        self.r1 = load(config.model)
        self.course = recipe(self.r1, config, ranks, watch)
        for line in self.course.said:
            watch.say(line)
        if ranks.first:
            run_folder.open_folder(config, self.course.digests, overwrite)
        ranks.add(mx.array(0.0))  # the folder is there before another rank writes into it
        self.adapter = self._attach()
        self.sinks = sinks.sinks(config.report_to if ranks.first else None, config.folder, config.project_name,
                                 asdict(config))  # fmt: skip

    def _attach(self) -> AdapterConfig:
        config, model = self.config, self.r1.model
        adapter = AdapterConfig(
            config.fine_tune_type, config.num_layers, LoRAParameters(**config.lora),
            config.also_trained, self.r1.name,
        )  # fmt: skip
        adapter = attach(model, adapter, config.seed)
        if config.resume_adapter_file:
            fill(model, read_arrays(Path(config.resume_adapter_file)), config.resume_adapter_file)
        trained = sum(value.size for _, value in tree_flatten(model.trainable_parameters()))
        self.watch.say(f"training {trained:,} values")
        return adapter

    def go(self) -> Outcome:
        config, model = self.config, self.r1.model
        self.course.begin()
        rate = build_schedule(config.rate, config.lr_schedule)
        optimizer = build_optimizer(config.optimizer, rate, config.optimizer_config.get(config.optimizer, {}))
        loss = of_tree(self.course.loss) if config.compile else self.course.loss
        trainer = Trainer(model, optimizer, loss, self._batches, self._loop(), self._hooks(), self.ranks)
        steps = trainer.run()
        for name in trainer.damaged:
            self.watch.warn(f"damaged, and passed over: {name}")
        return self._finish(steps)

    def _batches(self, step: int) -> Sequence[Any]:
        self.watch.step(step)
        batches = self.course.batches(step)
        return [as_tree(batch) for batch in batches] if self.config.compile else batches

    def _loop(self) -> LoopConfig:
        config = self.config
        return LoopConfig(
            steps=config.iters, folder=config.folder, seed=config.seed, clip_norm=config.clip_norm,
            report_every=config.steps_per_report, eval_every=config.steps_per_eval,
            save_every=config.save_every, keep=config.keep_checkpoints, compiled=config.compile,
            clear_cache_bytes=config.clear_cache_threshold, may_be_empty=self.course.may_be_empty,
        )  # fmt: skip

    def _hooks(self) -> Hooks:
        course = self.course
        return Hooks(course.evaluate, self._saved, self._reported, self.watch.stop, course.measured,
                     course.beside)  # fmt: skip

    def _saved(self, step: int) -> None:
        """mlx-lm's files: the adapter as it is, and under its step."""
        folder = save_adapter(self.config.folder, self.r1.model, self.adapter)
        numbered = folder / f"{step:07d}_{WEIGHTS_FILE}"
        with disk_errors(numbered):
            shutil.copyfile(folder / WEIGHTS_FILE, numbered)
            for old in sorted(folder.glob(f"[0-9]*_{WEIGHTS_FILE}"))[: -self.config.keep_checkpoints]:
                old.unlink()

    def _reported(self, row: Mapping[str, Any]) -> None:
        if self.ranks.first and len(row) > 1:
            self.watch.row(row)
            for sink in self.sinks:
                sink(row)

    def _finish(self, steps: int) -> Outcome:
        last: dict[str, float] = {}
        report = None
        if self.ranks.first:
            save_adapter(self.config.folder, self.r1.model, self.adapter)
            for row in read(self.config.folder):
                last |= row
            report = str(write_report(self.config.folder))
        finished = steps >= self.config.iters
        return Outcome(str(self.config.folder), steps, finished, last, report, self.ranks.first)
