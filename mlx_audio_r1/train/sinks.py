"""Where else the rows of metrics.jsonl go: TensorBoard, Weights & Biases. Imported when asked for.

    for row in rows: for sink in sinks("tensorboard,wandb", folder, "sounds", config): sink(row)

metrics.jsonl is the truth and these are copies. With its first row a sink looks into that file, so a run
that goes on shows every step once: TensorBoard's files are written anew, rows that a kill swallowed
included; of W&B, which cannot take a row back, a note (wandb_run.json) says up to where it has them, and
what a resumed run repeats is not sent again.
"""

from __future__ import annotations

import importlib
import json
import secrets
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

from mlx_audio_r1.errors import TrainingError
from mlx_audio_r1.files import disk_errors, write_file
from mlx_audio_r1.train import metrics

Row = Mapping[str, Any]
TENSORBOARD, WANDB_NOTE = "tensorboard", "wandb_run.json"  # in the run's folder
GROUPS = {"val_": "val/", "test_": "test/", "": "train/"}  # beginning of a key -> of a name in the sink
DEFAULT_PROJECT = "audio-r1"


class Sink(Protocol):
    """Takes every row, in order. `close` waits until all is written; the end of the process does too."""

    def __call__(self, row: Row) -> None: ...
    def close(self) -> None: ...


def sinks(
    report_to: str | None, folder: Path, project_name: str | None, config: Mapping[str, Any]
) -> list[Sink]:
    """The sinks named in `report_to`, with commas between. For the first rank alone.

    Raises TrainingError for a name nobody knows and for a package that is not there.
    """
    names = [name.strip() for name in (report_to or "").split(",") if name.strip()]
    for name in names:
        if name not in SINKS:
            raise TrainingError(f"report_to is {name!r}; choose from {', '.join(SINKS)}, or both with a comma")
    return [SINKS[name](folder, project_name or DEFAULT_PROJECT, config) for name in dict.fromkeys(names)]


class TensorBoard:
    """Event files in `folder`/tensorboard: look at them with `tensorboard --logdir`."""

    def __init__(self, folder: Path, project: str, config: Mapping[str, Any]):
        self._package = _import("tensorboardX", "tensorboard")
        self._folder, self._config = folder, config
        self._writer: Any = None

    def __call__(self, row: Row) -> None:
        if self._writer is not None:
            self._write(row, time.time())
            return
        rows = _rows(self._folder, row)
        begun = time.time() - _seconds(rows)[-1]
        self._open()
        for old, seconds in zip(rows, _seconds(rows), strict=True):
            self._write(old, begun + seconds)

    def _open(self) -> None:
        events = self._folder / TENSORBOARD
        with disk_errors(events):
            shutil.rmtree(events, ignore_errors=True)
            self._writer = self._package.SummaryWriter(str(events), flush_secs=1)
        settings = "\n".join(f"    {key}: {value}" for key, value in self._config.items())
        self._writer.add_text("settings", settings)

    def _write(self, row: Row, when: float) -> None:
        for name, value in _named(row):
            self._writer.add_scalar(name, value, row["step"], walltime=when)

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()


class Wandb:
    """A run of Weights & Biases; WANDB_MODE=offline keeps it in the folder until `wandb sync`."""

    def __init__(self, folder: Path, project: str, config: Mapping[str, Any]):
        self._package = _import("wandb", "wandb")
        self._folder, self._project, self._config = folder, project, config
        self._sent: tuple[int, bool] = (-1, False)
        self._run: Any = None

    def __call__(self, row: Row) -> None:
        rows = [row]
        if self._run is None:
            rows = _rows(self._folder, row)
            self._open(goes_on=len(rows) > 1)
        for new in rows:
            if _place(new) > self._sent:
                self._run.log({"step": new["step"], **dict(_named(new))})
                self._note(new)

    def _open(self, goes_on: bool) -> None:
        note = self._folder / WANDB_NOTE
        known = json.loads(note.read_text(encoding="utf-8")) if goes_on and note.is_file() else None
        self._id = known["id"] if known else secrets.token_hex(4)
        self._sent = tuple(known["sent"]) if known else self._sent
        try:
            self._run = self._package.init(
                project=self._project, name=self._folder.resolve().name, dir=str(self._folder), id=self._id,
                resume="allow", config=dict(self._config), settings=self._package.Settings(console="off"),
            )  # fmt: skip
        except self._package.Error as error:
            line = " ".join(str(error).split())
            raise TrainingError(f"wandb: {line}; `wandb login`, or set WANDB_MODE=offline") from None
        self._run.define_metric("*", step_metric="step")

    def _note(self, row: Row) -> None:
        self._sent = _place(row)
        write_file(self._folder / WANDB_NOTE, json.dumps({"id": self._id, "sent": self._sent}))

    def close(self) -> None:
        if self._run is not None:
            self._run.finish()


SINKS: dict[str, Callable[[Path, str, Mapping[str, Any]], Sink]] = {"tensorboard": TensorBoard, "wandb": Wandb}


def _import(package: str, extra: str) -> Any:
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise TrainingError(
            f"report_to {extra} needs the package {package} ({error}): pip install 'mlx-audio-r1[{extra}]'"
        ) from None


def _rows(folder: Path, row: Row) -> list[Row]:
    """The rows of the run so far, ending with this one, which stands in metrics.jsonl already."""
    rows = metrics.read(folder)
    there = bool(rows) and json.dumps(rows[-1]) == json.dumps(row)  # as text: NaN is not equal to itself
    return rows if there else [*rows, row]


def _seconds(rows: list[Row]) -> list[float]:
    """Seconds into the run at each row; a row that does not tell has those of the one before."""
    told, last = [], 0.0
    for row in rows:
        last = row.get("seconds", last)
        told.append(last)
    return told


def _named(row: Row) -> Iterator[tuple[str, float]]:
    """train/loss, val/loss, ...: the numbers of a row but its step."""
    for key, value in row.items():
        if key != "step" and isinstance(value, int | float):
            start = next(start for start in GROUPS if key.startswith(start))
            yield GROUPS[start] + key.removeprefix(start), float(value)


def _place(row: Row) -> tuple[int, bool]:
    """Where a row stands: by step, what was learnt before what was measured."""
    return row["step"], any(key.startswith(("val_", "test_")) for key in row)
