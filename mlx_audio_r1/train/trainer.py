"""The loop under every recipe: gradients, one division, clip, step; log, measure, save; resume to the bit.

A loss gives a *sum* over what is learnt and the count to divide by. Micro-batches and ranks are added
up and divided once, by the global count, so neither accumulation nor padding nor the number of machines
changes the gradient. Batches and random numbers are functions of the step alone: a run that was killed
and goes on ends in the same bits as one that was not.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optim
from mlx.utils import tree_map

from mlx_audio_r1.errors import TrainingError
from mlx_audio_r1.train.metrics import Metrics, is_most
from mlx_audio_r1.train.ranks import Ranks
from mlx_audio_r1.train.state import Beside, Checkpoints

Sums = Mapping[str, mx.array]
Loss = Callable[[nn.Module, Any], tuple[mx.array, mx.array, Sums]]  # total, count, what else to log
SEED_STRIDE = 1_000_003  # apart: the random numbers of neighbouring seeds


@dataclass(frozen=True)
class LoopConfig:
    """How long, how often. `folder` gets metrics.jsonl and checkpoints/."""

    steps: int
    folder: Path
    seed: int = 0
    clip_norm: float = 1.0  # 0: none
    report_every: int = 10
    eval_every: int = 200
    save_every: int = 100
    keep: int = 3
    compiled: bool = False  # traced once a shape: pays where batches have few
    clear_cache_bytes: int = 0  # free MLX's buffer pool above this; 0 leaves it
    may_be_empty: bool = False  # a step with nothing to learn changes nothing, and the run goes on


@dataclass(frozen=True)
class Hooks:
    """What a recipe adds to the loop."""

    evaluate: Callable[[int], Mapping[str, float]] | None = None  # values for metrics.jsonl
    saved: Callable[[int], None] | None = None  # after a checkpoint
    reported: Callable[[Mapping[str, Any]], None] | None = None  # every row of metrics.jsonl
    stop: Callable[[], bool] = lambda: False  # asked after every step: save and leave
    measured: Callable[[], Mapping[str, float]] = dict  # of the step just taken, for metrics.jsonl
    beside: Beside | None = None  # what else is learnt, and belongs into a checkpoint


class Trainer:
    """One run. `batches(step)` gives this rank's micro-batches; a batch is a tree of arrays that `loss`
    understands, or an object with `names`, which an error then tells."""

    def __init__(
        self,
        model: nn.Module,
        optimizer: optim.Optimizer,
        loss: Loss,
        batches: Callable[[int], Sequence[Any]],
        config: LoopConfig,
        hooks: Hooks | None = None,
        ranks: Ranks | None = None,
    ):
        self.model, self.optimizer, self.batches, self.config = model, optimizer, batches, config
        self.hooks, self.ranks = hooks or Hooks(), ranks or Ranks()
        self.checkpoints = Checkpoints(config.folder, config.keep, self.hooks.beside)
        self.gradient = _gradient(model, loss, config.compiled)
        self.damaged: tuple[str, ...] = ()

    def run(self) -> int:
        """Train from the last checkpoint, or from the start; the number of steps done."""
        step = self._begin()
        while step < self.config.steps:
            began = time.monotonic()
            sums = self._step(step)
            step += 1
            self.metrics.add(sums, time.monotonic() - began, self.hooks.measured())
            stopped = self._stopped()
            last = step == self.config.steps
            if last or step % self.config.report_every == 0:
                self._write({"step": step, **self.metrics.row(), "learning_rate": self._rate()})
            if last or step % self.config.eval_every == 0:
                self._evaluate(step)
            if last or stopped or step % self.config.save_every == 0:
                self._save(step)
            if stopped:
                break
        return step

    def _begin(self) -> int:
        self.config.folder.mkdir(parents=True, exist_ok=True)
        self.optimizer.init(self.model.trainable_parameters())
        step, window = 0, {}
        if self.ranks.first:
            restored = self.checkpoints.restore(self.model, self.optimizer)
            step, window, self.damaged = restored.step, restored.notes.get("window", {}), restored.damaged
        step = int(self.ranks.share(mx.array(step)).item())
        if self.ranks.size > 1:
            self.model.update(self.ranks.share(self.model.trainable_parameters()))
            self.optimizer.state = self.ranks.share(self.optimizer.state)
        self.metrics = Metrics(self.config.folder, step, window, writes=self.ranks.first)
        if step == 0:
            self._evaluate(0)
        return step

    def _step(self, step: int) -> dict[str, float]:
        """One optimizer step; summed scalars for the log."""
        mx.random.seed(self.config.seed * SEED_STRIDE + step * self.ranks.size + self.ranks.rank)
        self.model.train()
        micro = self.batches(step)
        gradients, sums = self._accumulate(micro)
        sums = {name: float(value) for name, value in self._of_all_ranks(sums).items()}
        gradients = self.ranks.total(gradients)
        count = sums["count"]
        if not count and self.config.may_be_empty:
            return {**sums, "norm": 0.0}
        if not count:
            raise TrainingError(f"step {step + 1}: nothing to learn ({_names(micro)}); see audio-r1 data check")
        gradients, norm = self._clip(tree_map(lambda g: g / count, gradients))
        self._check(step, sums["total"] / count, norm, micro)
        self.optimizer.update(self.model, gradients)
        mx.eval(self.model.trainable_parameters(), self.optimizer.state)
        if 0 < self.config.clear_cache_bytes < mx.get_cache_memory():
            mx.clear_cache()
        return {**sums, "norm": norm}

    def _accumulate(self, micro: Sequence[Any]) -> tuple[Any, dict[str, mx.array]]:
        """Sums over micro-batches, of float32 gradients where there are several."""
        gradients: Any = None
        sums: dict[str, mx.array] = {"total": mx.array(0.0), "count": mx.array(0.0)}
        for batch in micro:
            (total, count, more), new = self.gradient(batch)
            if len(micro) > 1:
                new = tree_map(lambda g: g.astype(mx.float32), new)
            gradients = new if gradients is None else tree_map(mx.add, gradients, new)
            for name, value in {"total": total, "count": count, **more}.items():
                before = sums.get(name, mx.array(0.0))
                sums[name] = mx.maximum(before, value) if is_most(name) else before + value
            mx.eval(gradients, sums)  # frees the graph of this micro-batch
        if gradients is None:
            gradients = tree_map(mx.zeros_like, self.model.trainable_parameters())
        return gradients, sums

    def _of_all_ranks(self, sums: dict[str, mx.array]) -> dict[str, mx.array]:
        """Every rank must have had a batch: all of them add up the same names."""
        most = {name: value for name, value in sums.items() if is_most(name)}
        rest = {name: value for name, value in sums.items() if not is_most(name)}
        return {**self.ranks.add(rest), **self.ranks.most(most)}

    def _clip(self, gradients: Any) -> tuple[Any, float]:
        most = self.config.clip_norm or math.inf
        gradients, norm = optim.clip_grad_norm(gradients, most)
        parameters = self.model.trainable_parameters()
        return tree_map(lambda g, p: g.astype(p.dtype), gradients, parameters), float(norm)

    def _check(self, step: int, loss: float, norm: float, micro: Sequence[Any]) -> None:
        """A loss that is not a number ends the run before it reaches the weights; the state is kept."""
        if math.isfinite(loss) and math.isfinite(norm):
            return
        self._save(step)
        what = f"the loss is {loss}" if not math.isfinite(loss) else f"the gradient's norm is {norm}"
        raise TrainingError(
            f"step {step + 1}: {what} ({_names(micro)}); the {step} steps before are kept in "
            f"{self.config.folder}: lower --learning-rate or look at these rows"
        )

    def _evaluate(self, step: int) -> None:
        if self.hooks.evaluate:
            self.model.eval()
            self._write({"step": step, **self.hooks.evaluate(step)})

    def _save(self, step: int) -> None:
        if not self.ranks.first:
            return
        self.checkpoints.save(step, self.model, self.optimizer, {"window": self.metrics.window()})
        if self.hooks.saved:
            self.hooks.saved(step)

    def _stopped(self) -> bool:
        """Does any rank want to stop? All leave together."""
        return bool(float(self.ranks.add(mx.array(float(self.hooks.stop())))))

    def _rate(self) -> float:
        rate = getattr(self.optimizer, "learning_rate", None)
        if rate is None:
            rate = self.optimizer.optimizers[0].learning_rate
        return float(rate)

    def _write(self, row: Mapping[str, Any]) -> None:
        self.metrics.write(row)
        if self.hooks.reported:
            self.hooks.reported(row)


def _gradient(model: nn.Module, loss: Loss, compiled: bool) -> Callable[[Any], Any]:
    """Batch -> ((total, count, sums), gradients)."""
    gradient = nn.value_and_grad(model, loss)

    def of_batch(batch: Any) -> Any:
        return gradient(model, batch)

    if not compiled:
        return of_batch
    state = [model.state, mx.random.state]
    return mx.compile(of_batch, inputs=state, outputs=state)


def _names(micro: Sequence[Any]) -> str:
    """Where the rows of a step came from, as far as a line goes."""
    names = [name for batch in micro for name in getattr(batch, "names", ())]
    shown = ", ".join(dict.fromkeys(names[:4]))
    return f"rows {shown}{', ...' if len(names) > 4 else ''}" if names else "this batch"
