"""metrics.jsonl: what a run says of itself, one JSON object a line, every step counted once.

Rows after the step a run goes on from are dropped; the sums of a window that a kill cut in two are part
of the checkpoint, so a resumed run writes the numbers it would have written.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import mlx.core as mx

from mlx_audio_r1.errors import TrainingError
from mlx_audio_r1.files import disk_errors, write_file

FILE = "metrics.jsonl"
GB = 1e9
STEP, MOST = "step/", "max_"  # in the sums: values of a step, which have no count; names of maxima


class Metrics:
    """The file of one run, and the sums since its last row."""

    def __init__(self, folder: Path, step: int, window: Mapping[str, float] | None = None, writes: bool = True):
        self.path, self._writes = folder / FILE, writes
        self._sums: dict[str, float] = dict(window or {})
        self._seconds = _keep(self.path, step) if writes else 0.0
        self._started = time.monotonic()

    def add(
        self, sums: Mapping[str, float], seconds: float, measured: Mapping[str, float] | None = None
    ) -> None:
        """The sums of a step that took so long, and what was measured of it once. Names that begin with
        `max_` are not added up: the largest counts."""
        more = {STEP + name: value for name, value in (measured or {}).items()}
        for name, value in {**sums, **more, "steps": 1.0, "busy": seconds}.items():
            before = self._sums.get(name, 0.0)
            self._sums[name] = max(before, value) if is_most(name) else before + value

    def window(self) -> dict[str, float]:
        """The sums since the last row, for the checkpoint."""
        return dict(self._sums)

    def row(self) -> dict[str, float]:
        """Means since the last row: the loss and what a recipe summed by its count, the rest by step."""
        sums, self._sums = self._sums, {}
        count, steps, busy = sums.pop("count") or 1.0, sums.pop("steps"), sums.pop("busy")
        row = {"loss": sums.pop("total") / count, "norm": sums.pop("norm") / steps}
        tokens = sums.pop("tokens", None)
        row |= {name.removeprefix(STEP): value / steps for name, value in sums.items() if name.startswith(STEP)}
        row |= {name: value if is_most(name) else value / count for name, value in sums.items()
                if not name.startswith(STEP)}
        if tokens is not None:
            row |= {"tokens": tokens, "tokens_per_second": tokens / max(busy, 1e-9)}
        row["peak_memory_gb"] = mx.get_peak_memory() / GB
        row["seconds"] = self._seconds + time.monotonic() - self._started
        return row

    def write(self, row: Mapping[str, Any]) -> None:
        """Add a line, at once."""
        if not self._writes:
            return
        with disk_errors(self.path), self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")


def is_most(name: str) -> bool:
    """Is a value of this name the largest of its kind, and not a sum?"""
    return name.startswith(MOST)


def read(folder: Path) -> list[dict[str, Any]]:
    """The rows of a run. A line torn by a kill is the last one, and left out. Raises TrainingError."""
    path = folder / FILE
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    rows = []
    for number, line in enumerate(lines, start=1):
        try:
            rows.append(json.loads(line))
        except ValueError:
            if number < len(lines):
                raise TrainingError(f"{path}:{number}: not JSON; begin anew with --overwrite") from None
    return rows


def _keep(path: Path, step: int) -> float:
    """Drop the rows after `step`; the seconds spent until there."""
    rows = [row for row in read(path.parent) if row["step"] <= step] if step else []
    if path.exists():
        write_file(path, "".join(json.dumps(row) + "\n" for row in rows))
    return max((row.get("seconds", 0.0) for row in rows), default=0.0)
