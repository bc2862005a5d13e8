"""What a run of MGRD has written so far, read back: nothing is asked of the run itself.

Every file may be missing or end in a torn line, because a run is looked at while it writes, and after it
died. The surprise: rollouts are hundreds of megabytes, so they are never all held; the few that are shown
are picked out while the file goes by.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from mlx_audio_r1.errors import TrainingError

CONFIG, STATE = "mgrd.json", "state.json"
REASONS = ("verdict", "format", "lexicon", "coherence", "evidence", "judge", "surplus", "kept")
_KEY = re.compile(rb'"prompt": ("(?:[^"\\]|\\.)*"), "sample": (\d+)')

Row = Mapping[str, Any]
Key = tuple[str, int]  # prompt, sample


class RunFiles:
    """The folder of one run. Raises TrainingError where there is none."""

    def __init__(self, folder: Path | str):
        self.folder = Path(folder)
        if not any((self.folder / name).is_file() for name in (CONFIG, STATE)):
            raise TrainingError(f"{self.folder}: no {CONFIG} and no {STATE}; give the folder of an MGRD run")

    @property
    def config(self) -> Row:
        return read_object(self.folder / CONFIG)

    @property
    def name(self) -> str:
        return str(self.config.get("name") or self.folder.resolve().name)

    @property
    def rounds(self) -> list[int]:
        """Numbers of the rounds that have begun; 0 is the cold start."""
        found = (self.folder / "rounds").glob("*") if (self.folder / "rounds").is_dir() else ()
        return sorted(int(path.name) for path in found if path.name.isdigit() and path.is_dir())

    def round(self, number: int) -> Path:
        return self.folder / "rounds" / str(number)

    def measures(self, number: int) -> Row:
        return read_object(self.round(number) / "measures.json")

    def decisions(self, number: int) -> list[Row]:
        """What became of every sample."""
        rows = read_lines(self.round(number) / "decisions.jsonl")
        return [row for row in rows if "decisions" not in row and "reason" in row]

    def rollouts(self, number: int, wanted: Collection[Key]) -> dict[Key, Row]:
        """The rollouts of these keys that are there."""
        found: dict[Key, Row] = {}
        for line in _raw_lines(self.round(number) / "rollouts.jsonl"):
            if len(found) == len(set(wanted)):
                break
            key = _KEY.search(line[:2_000])
            if key is None or (json.loads(key[1]), int(key[2])) in wanted:
                for row in _objects(line):
                    if (row.get("prompt"), row.get("sample")) in wanted:
                        found[row["prompt"], row["sample"]] = row
        return found

    def curated(self, number: int) -> list[Row]:
        """How many samples of every question were right."""
        rows = read_lines(self.round(number) / "curated" / "pass_counts.jsonl")
        return [row for row in rows if isinstance(row.get("passed"), int)]

    def showcase(self, number: int) -> list[Row]:
        """The same clips, answered after this round."""
        return [row for row in read_lines(self.round(number) / "showcase.jsonl") if "where" in row]


def read_object(path: Path) -> Row:
    """One JSON object; an empty one where the file is missing. Raises TrainingError."""
    if not path.is_file():
        return {}
    try:
        found = json.loads(path.read_text(encoding="utf-8", errors="replace"))
    except ValueError as error:
        raise TrainingError(f"{path}: not JSON ({error}); the run would write it anew") from None
    return found if isinstance(found, dict) else {}


def read_lines(path: Path) -> list[Row]:
    """The objects of a JSONL file; what a kill tore is left out."""
    return [row for line in _raw_lines(path) for row in _objects(line)]


def _raw_lines(path: Path) -> Iterator[bytes]:
    if path.is_file():
        with path.open("rb") as file:
            yield from file


def _objects(line: bytes) -> list[dict[str, Any]]:
    """The object of a line, if it is whole."""
    try:
        row = json.loads(line)
    except ValueError:
        return []
    return [row] if isinstance(row, dict) else []
