"""The folder of a run: what it was told, and whether it may go on.

    train_config.json   the resolved configuration, and digests of what else the result depends on

A run that is started again with the same command goes on. Anything that would make the result another
one is refused by name; `--overwrite` begins anew.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from mlx_audio_r1.errors import TrainingError
from mlx_audio_r1.files import disk_errors, write_file
from mlx_audio_r1.train import metrics, state
from mlx_audio_r1.train.config import TrainConfig, differences

CONFIG = "train_config.json"
REPORT = "report.html"
OWN = (CONFIG, metrics.FILE, state.FOLDER, "samples.jsonl", "rollouts", REPORT, "reference.safetensors",
       "adapters.safetensors", "adapter_config.json", "tensorboard", "wandb", "wandb_run.json")  # fmt: skip


def open_folder(config: TrainConfig, depends_on: Mapping[str, str], overwrite: bool = False) -> None:
    """Make the run's folder, or find the run that is in it and check that this is the same one.

    depends_on: name -> digest, of the data and the base. Raises TrainingError.
    """
    folder = config.folder
    if overwrite:
        clear(folder)
    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    told = {**asdict(config), "depends_on": dict(depends_on)}
    before = read_config(folder)
    if before is None and any((folder / name).exists() for name in ("adapters.safetensors", state.FOLDER)):
        raise TrainingError(f"{folder}: holds an adapter of another making; give another --adapter-path, or "
                            "--overwrite it")
    if before is not None:
        _check_same(folder, before, told, type(config))
    write_file(folder / CONFIG, json.dumps(told, indent=1) + "\n")


def _check_same(
    folder: Path, before: Mapping[str, Any], told: Mapping[str, Any], kind: type[TrainConfig]
) -> None:
    changed = differences(before, told, kind)
    for key in changed[:1]:
        raise TrainingError(
            f"{folder}: the run there has {key} {before.get(key)!r}, not {told[key]!r}: give the same to go "
            "on, another --adapter-path, or --overwrite"
        )
    digests = before.get("depends_on", {})
    for name, digest in told["depends_on"].items():
        if digests.get(name, digest) != digest:
            raise TrainingError(f"{folder}: {name} is not what the run there began with: give another "
                                "--adapter-path, or --overwrite")


def read_config(folder: Path) -> dict[str, Any] | None:
    """What the run in `folder` was told, None where there is none. Raises TrainingError."""
    path = folder / CONFIG
    if not path.is_file():
        return None
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise TrainingError(f"{path}: not readable ({error}); begin anew with --overwrite") from None
    if not isinstance(values, dict):
        raise TrainingError(f"{path}: not the configuration of a run; begin anew with --overwrite")
    return values


def clear(folder: Path) -> None:
    """Remove what a run wrote, and nothing else."""
    names = [folder / name for name in OWN] + list(folder.glob("[0-9]*_adapters.safetensors"))
    with disk_errors(folder):
        for path in names:
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)


def digest_of(path: Path) -> str:
    """Hex sha256 of a file, "" where there is none."""
    if not path.is_file():
        return ""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
