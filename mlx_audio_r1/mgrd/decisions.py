"""What became of every candidate, and why: decisions.jsonl, a line as soon as it is decided."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from mlx_audio_r1.errors import TrainingError
from mlx_audio_r1.files import disk_errors
from mlx_audio_r1.mgrd.filter_config import FilterConfig

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

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Decision:
        """Raises TypeError or KeyError for what was never written."""
        return cls(**{f.name: values[f.name] for f in fields(cls)})


class DecisionFile:
    """The decisions of one round: a line that says by which configuration, then one for each.

    Raises TrainingError where the file is of another configuration, DiskError where it cannot be written.
    """

    def __init__(self, folder: Path, config: FilterConfig):
        self.path = folder / FILE
        self.found: dict[tuple[str, int], Decision] = {}
        self._head = {"decisions": FORMAT, "digest": config.digest, "config": config.deciding}
        lines = self.path.read_bytes().splitlines(keepends=True) if self.path.exists() else []
        with disk_errors(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            whole = self._read(lines)
            if whole == 0:
                self.path.write_text(_line(self._head), encoding="utf-8")
            elif whole < sum(map(len, lines)):
                with self.path.open("rb+") as file:
                    file.truncate(whole)

    def append(self, decision: Decision) -> None:
        """Add a line, at once."""
        with disk_errors(self.path), self.path.open("a", encoding="utf-8") as file:
            file.write(_line(asdict(decision)))
        self.found[decision.key] = decision

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

    def _read(self, lines: Sequence[bytes]) -> int:
        """Bytes up to the first line that a kill left torn; what stood behind it is decided again."""
        if not lines or not self._is_of_this_config(lines[0]):
            return 0
        size = len(lines[0])
        for line in lines[1:]:
            try:
                decision = Decision.from_dict(json.loads(line if line.endswith(b"\n") else b""))
            except (ValueError, KeyError, TypeError):
                break
            self.found[decision.key] = decision
            size += len(line)
        return size

    def _is_of_this_config(self, line: bytes) -> bool:
        """False where a kill tore the first line. Raises TrainingError for any other file."""
        if not line.endswith(b"\n") and _line(self._head).encode().startswith(line):
            return False
        try:
            head = json.loads(line)
        except ValueError:
            head = None
        if not isinstance(head, dict) or "decisions" not in head:
            raise TrainingError(f"{self.path}: no file of decisions; move it away")
        if head.get("decisions") == FORMAT and head.get("digest") == self._head["digest"]:
            return True
        other = _difference(head, self._head)
        raise TrainingError(f"{self.path}: decided with {other}; move it away to decide anew")


def natural(key: tuple[str, int]) -> tuple[list[Any], int]:
    """train.jsonl:9 before train.jsonl:10."""
    parts = [(0, int(p), "") if p.isdecimal() else (1, 0, p) for p in _DIGITS.split(key[0])]
    return parts, key[1]


def _difference(head: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """The first setting that was another one."""
    old = head.get("config")
    old = old if isinstance(old, dict) else {}
    name = next((name for name, value in now["config"].items() if old.get(name) != value), None)
    return f"another {name} ({old.get(name)!r}, now {now['config'][name]!r})" if name else "another version"


def _line(values: Mapping[str, Any]) -> str:
    return json.dumps(values, ensure_ascii=False) + "\n"
