"""A JSONL file of records that belong together: a line that says of what, then one for each, as they come.

A kill tears the last line at most; what stands before it counts when the file is opened again. The surprise:
a head that differs is refused rather than mixed, so whoever opens the file says what makes it the same.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

from mlx_audio_r1.errors import AudioR1Error, TrainingError
from mlx_audio_r1.files import disk_errors


class Record(Protocol):
    @property
    def key(self) -> Hashable: ...

    def as_dict(self) -> dict[str, Any]: ...


R = TypeVar("R", bound=Record)


class RecordFile(Generic[R]):
    """head: the first line, whose first key names the kind. read: a line's object -> its record; raises
    TypeError, KeyError or ValueError. differs: (head found, ours) -> what is another one, "" where nothing.

    Raises `error` for a file of another kind or head, DiskError where it cannot be written.
    """

    def __init__(
        self, path: Path, head: Mapping[str, Any], read: Callable[[Mapping[str, Any]], R],
        differs: Callable[[Mapping[str, Any], Mapping[str, Any]], str],
        error: type[AudioR1Error] = TrainingError,
    ):  # fmt: skip
        self.path, self._head, self._record, self._differs, self._error = path, head, read, differs, error
        self.found: dict[Hashable, R] = {}
        lines = path.read_bytes().splitlines(keepends=True) if path.exists() else []
        with disk_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            whole = self._read(lines)
            if whole == 0:
                path.write_text(line_of(head), encoding="utf-8")
            elif whole < sum(map(len, lines)):
                with path.open("rb+") as file:
                    file.truncate(whole)

    def append(self, record: R) -> None:
        """Add a line, at once."""
        with disk_errors(self.path), self.path.open("a", encoding="utf-8") as file:
            file.write(line_of(record.as_dict()))
        self.found[record.key] = record

    def _read(self, lines: Sequence[bytes]) -> int:
        """Bytes up to the first line that a kill left torn; what stood behind it is made again."""
        if not lines or not self._is_ours(lines[0]):
            return 0
        size = len(lines[0])
        for line in lines[1:]:
            try:
                record = self._record(json.loads(line if line.endswith(b"\n") else b""))
            except (ValueError, KeyError, TypeError):
                break
            self.found[record.key] = record
            size += len(line)
        return size

    def _is_ours(self, line: bytes) -> bool:
        """False where a kill tore the first line. Raises for any other file."""
        if not line.endswith(b"\n") and line_of(self._head).encode().startswith(line):
            return False
        kind = next(iter(self._head))
        try:
            head = json.loads(line)
        except ValueError:
            head = None
        if not isinstance(head, dict) or kind not in head:
            raise self._error(f"{self.path}: no file of {kind}; move it away")
        other = self._differs(head, self._head)
        if other:
            raise self._error(f"{self.path}: {other}; move it away to begin it anew")
        return True


def line_of(values: Mapping[str, Any]) -> str:
    """A line of the file."""
    return json.dumps(values, ensure_ascii=False) + "\n"
