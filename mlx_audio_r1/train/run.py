"""One fine-tuning run, from a folder of rows to an adapter: what every recipe shares.

    outcome = fine_tune(resolve("sft", {"data": "sounds/"}), RECIPES["sft"])
    load(adapter_path=outcome.adapter)

Run again, it goes on where it was. Only the first rank writes.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import mlx.core as mx
from mlx.utils import tree_flatten

from mlx_audio_r1.adapter_config import WEIGHTS_FILE, AdapterConfig, LoRAParameters
from mlx_audio_r1.adapter_files import read_arrays
from mlx_audio_r1.adapters import attach, fill, save_adapter
from mlx_audio_r1.errors import TrainingError
from mlx_audio_r1.files import disk_errors
from mlx_audio_r1.session import load
from mlx_audio_r1.train import folder as run_folder
from mlx_audio_r1.train import preflight, samples, sinks
from mlx_audio_r1.train.batch import as_tree, of_tree
from mlx_audio_r1.train.config import TrainConfig
from mlx_audio_r1.train.lessons import gather
from mlx_audio_r1.train.metrics import read
from mlx_audio_r1.train.optim import build_optimizer, build_schedule
from mlx_audio_r1.train.ranks import Ranks
from mlx_audio_r1.train.recipes import Recipe
from mlx_audio_r1.train.report import write_report
from mlx_audio_r1.train.trainer import Hooks, LoopConfig, Trainer

OUT_OF_MEMORY = ("[malloc", "Unable to allocate", "Insufficient Memory", "Attempting to allocate")


class Watcher(Protocol):
    """Who is told how it goes. `stop` asks the run to save and leave."""

    def say(self, text: str) -> None: ...
    def warn(self, text: str) -> None: ...
    def counting(self, what: str, done: int, total: int) -> None: ...
    def row(self, row: Mapping[str, Any]) -> None: ...
    def step(self, step: int) -> None: ...
    def stop(self) -> bool: ...


class Silent:
    """A Watcher that says nothing."""

    def say(self, text: str) -> None: ...
    def warn(self, text: str) -> None: ...
    def counting(self, what: str, done: int, total: int) -> None: ...
    def row(self, row: Mapping[str, Any]) -> None: ...
    def step(self, step: int) -> None: ...

    def stop(self) -> bool:
        return False


class _Follower(Silent):
    """What another rank than the first tells: nothing, but it stops when it is asked to."""

    def __init__(self, watch: Watcher):
        self.stop = watch.stop  # type: ignore[method-assign]


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
    recipe: Recipe,
    watch: Watcher | None = None,
    *,
    overwrite: bool = False,
    force: bool = False,
) -> Outcome:
    """Train, or go on training. Raises DataError, PlanError, DiskError or TrainingError."""
    watch, ranks = watch or Silent(), Ranks.found()
    if not ranks.first:
        watch = _Follower(watch)
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

    def __init__(self, config: TrainConfig, recipe: Recipe, watch: Watcher, ranks: Ranks, overwrite: bool):
        self.config, self.recipe, self.watch, self.ranks = config, recipe, watch, ranks
        self.r1 = load(config.model)
        self.lessons = gather(self.r1, config, recipe.make, ranks, watch.counting)
        for line in self.lessons.said:
            watch.say(line)
        if ranks.first:
            run_folder.open_folder(config, self.lessons.digests, overwrite)
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
        if self.recipe.prepare:
            self.recipe.prepare(model, self.lessons, config, self.watch.counting, self.ranks.first)
        rate = build_schedule(config.rate, config.lr_schedule)
        optimizer = build_optimizer(config.optimizer, rate, config.optimizer_config.get(config.optimizer, {}))
        loss = partial(self.recipe.loss, config=config)
        trainer = Trainer(
            model, optimizer, of_tree(loss) if config.compile else loss, self._batches,
            self._loop(), self._hooks(), self.ranks,
        )  # fmt: skip
        steps = trainer.run()
        for name in trainer.damaged:
            self.watch.warn(f"damaged, and passed over: {name}")
        return self._finish(steps)

    def _batches(self, step: int) -> list[Any]:
        self.watch.step(step)
        batches = self.lessons.batches(step)
        return [as_tree(batch) for batch in batches] if self.config.compile else batches

    def _loop(self) -> LoopConfig:
        config = self.config
        return LoopConfig(
            steps=config.iters, folder=config.folder, seed=config.seed, clip_norm=config.clip_norm,
            report_every=config.steps_per_report, eval_every=config.steps_per_eval,
            save_every=config.save_every, keep=config.keep_checkpoints, compiled=config.compile,
            clear_cache_bytes=config.clear_cache_threshold,
        )  # fmt: skip

    def _hooks(self) -> Hooks:
        return Hooks(self._evaluate, self._saved, self._reported, self.watch.stop)

    def _evaluate(self, step: int) -> dict[str, float]:
        """Loss on valid.jsonl, at the end on test.jsonl too, and the sample replies at both ends."""
        limit = None if self.config.val_batches < 0 else self.config.val_batches
        found = self._measure("valid", "val", limit)
        if step == self.config.iters:
            found |= self._measure("test", "test", None)
        if step in (0, self.config.iters) and self.ranks.first:
            samples.answer(self.r1, self.lessons.rows.get("valid", []), self.config.samples, step,
                           self.config.folder, self.watch.counting)  # fmt: skip
        return found

    def _measure(self, split: str, name: str, limit: int | None) -> dict[str, float]:
        if split not in self.lessons.splits:
            return {}
        sums = {"total": mx.array(0.0), "count": mx.array(0.0)}
        for batch in self.lessons.in_order(split, limit):
            total, count, more = self.recipe.loss(self.r1.model, batch, self.config)
            for key, value in {"total": total, "count": count, **more}.items():
                sums[key] = sums.get(key, mx.array(0.0)) + value
            mx.eval(sums)
        sums.pop("tokens", None)
        values = {key: float(value) for key, value in self.ranks.add(sums).items()}
        count = values.pop("count")
        values["loss"] = values.pop("total")
        return {f"{name}_{key}": value / count for key, value in values.items()} if count else {}

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
