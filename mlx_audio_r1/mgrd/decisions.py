"""What became of every candidate, and why: decisions.jsonl, a line as soon as it is decided."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from mlx_audio_r1.errors import TrainingError
from mlx_audio_r1.mgrd.filter_config import FilterConfig
from mlx_audio_r1.record_file import RecordFile

FORMAT, FILE = 1, "decisions.jsonl"
_DIGITS = re.compile(r"(\d+)")


@dataclass(frozen=True)
class Decision:
    """reason: the filter that rejected it, `surplus`, or `kept`. why: in words, "" for what is kept. scores:
    all that were computed."""

    prompt: str
    sample: int
    kept: bool
    reason: str
    why: str = ""
    scores: Mapping[str, float] = field(default_factory=dict)

    @property
    def key(self) -> tuple[str, int]:
        return self.prompt, self.sample

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Decision:
        """Raises TypeError or KeyError for what was never written."""
        return cls(**{f.name: values[f.name] for f in fields(cls)})


class DecisionFile(RecordFile[Decision]):
    """The decisions of one round: a line that says by which configuration, then one for each.

    Raises TrainingError where the file is of another configuration, DiskError where it cannot be written.
    """

    def __init__(self, folder: Path, config: FilterConfig):
        head = {"decisions": FORMAT, "digest": config.digest, "config": config.deciding}
        super().__init__(folder / FILE, head, Decision.from_dict, _difference)

    @classmethod
    def read(cls, folder: Path) -> list[Decision]:
        """The whole decisions of a folder, in the order of prompts and samples. Raises TrainingError."""
        path = folder / FILE
        try:
            lines = path.read_bytes().splitlines(keepends=True)
            if not lines or "decisions" not in json.loads(lines[0]):
                raise ValueError
            found = [Decision.from_dict(json.loads(line)) for line in lines[1:] if line.endswith(b"\n")]
        except (OSError, ValueError, KeyError, TypeError) as error:
            why = getattr(error, "strerror", None) or "not a file of decisions"
            raise TrainingError(f"{path}: {why}; filter the round first") from None
        return sorted(found, key=lambda decision: natural(decision.key))


def natural(key: tuple[str, int]) -> tuple[list[Any], int]:
    """train.jsonl:9 before train.jsonl:10."""
    parts = [(0, int(p), "") if p.isdecimal() else (1, 0, p) for p in _DIGITS.split(key[0])]
    return parts, key[1]


def _difference(found: Mapping[str, Any], head: Mapping[str, Any]) -> str:
    """The first setting that was another one."""
    if found.get("decisions") == FORMAT and found.get("digest") == head["digest"]:
        return ""
    old = found.get("config")
    old = old if isinstance(old, dict) else {}
    name = next((name for name, value in head["config"].items() if old.get(name) != value), None)
    other = f"{name} ({old.get(name)!r}, now {head['config'][name]!r})" if name else "version"
    return f"decided with another {other}"
