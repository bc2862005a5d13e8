"""Checkpoints of a run: everything the next step depends on, whole or not there.

    adapters/checkpoints/0000100/   adapters.safetensors optimizer_state.safetensors trainer_state.json

A checkpoint is written into a folder aside that is renamed when all of it is on the disk. Its
trainer_state.json holds the sha256 of the arrays, so a damaged one is noticed and the one before it
used. What a step draws at random is seeded by its number, so no random state is kept.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optim
from mlx.utils import tree_flatten, tree_unflatten

from mlx_audio_r1.errors import TrainingError
from mlx_audio_r1.files import disk_errors, sync_folder, write_arrays, write_file

FOLDER, ASIDE = "checkpoints", "aside"
ADAPTER, OPTIMIZER, TRAINER = "adapters.safetensors", "optimizer_state.safetensors", "trainer_state.json"
BESIDE = "beside.safetensors"


class Beside(Protocol):
    """What else a run learns beside its model, such as a critic with its optimizer, by name."""

    def arrays(self) -> dict[str, mx.array]: ...
    def restore(self, arrays: Mapping[str, mx.array]) -> None: ...


@dataclass(frozen=True)
class Restored:
    """Where a run goes on: the step that comes next, what was noted, and the checkpoints passed over."""

    step: int = 0
    notes: Mapping[str, Any] = field(default_factory=dict)
    damaged: tuple[str, ...] = ()


class Checkpoints:
    """The checkpoints of one run, the last `keep` of them."""

    def __init__(self, run: Path, keep: int = 3, beside: Beside | None = None):
        self.folder = run / FOLDER
        self.keep, self._beside = keep, beside

    def save(self, step: int, model: nn.Module, optimizer: optim.Optimizer, notes: Mapping[str, Any]) -> Path:
        """Write the state before step `step`; `notes` is small and JSON. Raises DiskError."""
        with disk_errors(self.folder):
            shutil.rmtree(self.folder / ASIDE, ignore_errors=True)
            (self.folder / ASIDE).mkdir(parents=True)
        aside = self.folder / ASIDE
        trees: dict[str, Any] = {ADAPTER: model.trainable_parameters(), OPTIMIZER: optimizer.state}
        if self._beside:
            trees[BESIDE] = self._beside.arrays()
        for name, tree in trees.items():
            write_arrays(aside / name, dict(tree_flatten(tree)), {"step": str(step)})
        digests = {name: _sha256(aside / name) for name in trees}
        write_file(aside / TRAINER, json.dumps({"step": step, "sha256": digests, "notes": notes}, indent=1))
        sync_folder(aside)
        return self._put_in_place(aside, step)

    def _put_in_place(self, aside: Path, step: int) -> Path:
        final = self.folder / f"{step:07d}"
        with disk_errors(final):
            shutil.rmtree(final, ignore_errors=True)
            os.rename(aside, final)
            sync_folder(self.folder)
            for old in self.all()[: -self.keep]:
                shutil.rmtree(old, ignore_errors=True)
        return final

    def all(self) -> list[Path]:
        """Oldest first."""
        return sorted(p for p in self.folder.glob("[0-9]*") if p.is_dir())

    def restore(self, model: nn.Module, optimizer: optim.Optimizer) -> Restored:
        """Put the newest sound checkpoint into model and optimizer; step 0 where there is none.

        Raises TrainingError when there are checkpoints and none of them can be read.
        """
        damaged: list[str] = []
        for folder in reversed(self.all()):
            try:
                state = _read(folder)
            except (OSError, ValueError, KeyError, TypeError, RuntimeError) as error:
                damaged.append(f"{folder}: {error}")
                continue
            _fill(model, optimizer, state)
            if self._beside:
                self._beside.restore(state.get(BESIDE, {}))
            return Restored(int(state["step"]), state["notes"], tuple(damaged))
        if damaged:
            raise TrainingError(f"no checkpoint can be read ({damaged[0]}); begin anew with --overwrite")
        return Restored()


def _read(folder: Path) -> dict[str, Any]:
    state = json.loads((folder / TRAINER).read_text(encoding="utf-8"))
    for name, digest in state["sha256"].items():
        if _sha256(folder / name) != digest:
            raise ValueError(f"{name} is damaged")
    arrays = {name: mx.load(str(folder / name)) for name in state["sha256"]}
    mx.eval(arrays)  # loading is lazy, and the folder will be removed
    return {**state, **arrays}


def _fill(model: nn.Module, optimizer: optim.Optimizer, state: Mapping[str, Any]) -> None:
    expected = {name: value.shape for name, value in tree_flatten(model.trainable_parameters())}
    stored = {name: value.shape for name, value in state[ADAPTER].items()}
    if expected != stored:
        odd = sorted(expected.items() ^ stored.items())[0][0]
        raise TrainingError(f"the checkpoint is of another run: {odd} differs; begin anew with --overwrite")
    model.update(tree_unflatten(list(state[ADAPTER].items())))
    optimizer.state = tree_unflatten(list(state[OPTIMIZER].items()))


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
