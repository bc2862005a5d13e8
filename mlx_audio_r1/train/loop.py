"""The training loop: loss, gradient, clip, step; log as JSON lines; save aside, rename; resume.

A batch is a function of its step alone, so a run that was killed and goes on ends in the same bits as
one that was not.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optim
from mlx.utils import tree_flatten, tree_unflatten

Loss = Callable[[nn.Module, Any], tuple[mx.array, dict[str, mx.array]]]
STATE_FILE, LOG_FILE = "state.safetensors", "log.jsonl"


@dataclass(frozen=True)
class LoopConfig:
    """How long, how often."""

    steps: int
    folder: Path  # of the state and the log
    clip_norm: float = 1.0
    log_every: int = 20
    save_every: int = 200
    compiled: bool = True  # pays where batches have few shapes: each is traced once


def train(
    model: nn.Module,
    optimizer: optim.Optimizer,
    loss: Loss,
    batches: Callable[[int], Any],
    config: LoopConfig,
    on_save: Callable[[int], dict[str, Any]] | None = None,
) -> None:
    """Train the unfrozen parameters of `model` in place, from the saved state where there is one.

    `loss(model, batch)` gives a scalar and named scalars for the log. `on_save(step)` runs at every
    save and gives values for the log.
    """
    config.folder.mkdir(parents=True, exist_ok=True)
    optimizer.init(model.trainable_parameters())
    first = load_state(config.folder, model, optimizer)
    log = _Log(config.folder / LOG_FILE, first)
    gradient = _gradient(model, loss, config.compiled)
    for step in range(first, config.steps):
        (value, extra), grads = gradient(batches(step))
        grads, norm = optim.clip_grad_norm(grads, config.clip_norm)
        optimizer.update(model, grads)
        mx.eval(value, extra, norm, model.trainable_parameters(), optimizer.state)
        log.add({"loss": value, "norm": norm, **extra})
        done = step + 1
        if done % config.log_every == 0 or done == config.steps:
            log.write(done)
        if done % config.save_every == 0 or done == config.steps:
            save_state(config.folder, model, optimizer, done)
            if on_save:
                log.note({"step": done, **on_save(done)})


def _gradient(model: nn.Module, loss: Loss, compiled: bool) -> Callable[[Any], Any]:
    """Batch -> ((loss, extra), gradients)."""
    gradient = nn.value_and_grad(model, loss)

    def of_batch(batch: Any) -> Any:
        return gradient(model, batch)

    if not compiled:
        return of_batch
    return mx.compile(of_batch, inputs=model.state, outputs=model.state)


def save_state(folder: Path, model: nn.Module, optimizer: optim.Optimizer, step: int) -> None:
    """Write trainable parameters and optimizer state, in full before they take the old ones' place."""
    arrays = {f"model.{k}": v for k, v in tree_flatten(model.trainable_parameters())}
    arrays |= {f"optimizer.{k}": v for k, v in tree_flatten(optimizer.state)}
    aside = folder / f"aside-{STATE_FILE}"
    mx.save_safetensors(str(aside), arrays, metadata={"step": str(step)})
    aside.replace(folder / STATE_FILE)


def load_state(folder: Path, model: nn.Module, optimizer: optim.Optimizer) -> int:
    """Restore what save_state wrote; the step to go on with, 0 where nothing was saved."""
    path = folder / STATE_FILE
    if not path.exists():
        return 0
    arrays, metadata = mx.load(str(path), return_metadata=True)
    model.update(_subtree(arrays, "model."))
    optimizer.state = _subtree(arrays, "optimizer.")
    mx.eval(model.trainable_parameters(), optimizer.state)  # loading is lazy, the file will be replaced
    return int(metadata["step"])


def _subtree(arrays: dict[str, mx.array], prefix: str) -> Any:
    return tree_unflatten([(k.removeprefix(prefix), v) for k, v in arrays.items() if k.startswith(prefix)])


class _Log:
    """Means since the last line, one JSON object a line."""

    def __init__(self, path: Path, first: int):
        self.path = path
        self.seconds = _keep_lines(path, first)
        self.started = time.monotonic()
        self.sums: dict[str, float] = {}
        self.count = 0

    def add(self, values: dict[str, mx.array]) -> None:
        for name, value in values.items():
            self.sums[name] = self.sums.get(name, 0.0) + float(value)
        self.count += 1

    def write(self, step: int) -> None:
        means = {name: round(total / self.count, 4) for name, total in self.sums.items()}
        seconds = round(self.seconds + time.monotonic() - self.started, 1)
        self.note({"step": step, **means, "seconds": seconds})
        self.sums, self.count = {}, 0

    def note(self, row: dict[str, Any]) -> None:
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")


def _keep_lines(path: Path, first: int) -> float:
    """Drop the lines after step `first`; the seconds spent until then."""
    if not path.exists():
        return 0.0
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    rows = [row for row in rows if row["step"] <= first]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return max((row.get("seconds", 0.0) for row in rows), default=0.0)
