"""The output of a batch: one JSON object a line, that a run can be killed on and taken up again.

A line is written whole and flushed as soon as its recording is done. A torn last line is cut off when
the file is opened again, and its recording done again. The surprise: which recordings are done is read
from the file alone, by id (and by sample), so lines may be in any order.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, BinaryIO

from mlx_audio_r1.errors import DiskError, JobError
from mlx_audio_r1.files import locked

Record = dict[str, Any]


def reply_fields(reply: Any) -> Record:
    """What every command says of one reply."""
    return {
        "think": reply.thinking,
        "answer": reply.answer,
        "finish_reason": reply.finish_reason,
        "usage": asdict(reply.usage),
        "timings": {k: round(v, 4) for k, v in asdict(reply.timings).items()},
    }


def to_line(record: Mapping[str, Any]) -> bytes:
    """One line of JSON; a name that is no text on this system is escaped."""
    try:
        return (json.dumps(record, ensure_ascii=False) + "\n").encode()
    except UnicodeEncodeError:
        return (json.dumps(record) + "\n").encode()


class Output:
    """Where records go, and what is there already.

    done: (id, sample) of its lines; a recording that failed as a whole has sample None. failed: ids of
    lines that hold an error. asked: id -> file and prompt. dropped: lines that were cut off or removed.
    """

    name = ""

    def __init__(self) -> None:
        self.done: set[tuple[str, int | None]] = set()
        self.failed: set[str] = set()
        self.asked: dict[str, tuple[str | None, str | None]] = {}
        self.dropped = 0

    def write(self, record: Mapping[str, Any]) -> None:
        """Add a line. Raises DiskError."""
        raise NotImplementedError

    def close(self) -> None:
        """Let go of it."""


class RecordStream(Output):
    """Lines into a pipe: nothing is there already."""

    def __init__(self, file: BinaryIO, name: str):
        super().__init__()
        self._file, self.name = file, name

    def write(self, record: Mapping[str, Any]) -> None:
        self._file.write(to_line(record))
        self._file.flush()


class RecordFile(Output):
    """An output file that is ours alone while it is open."""

    def __init__(self, path: str | Path, *, overwrite: bool = False, retry_failed: bool = False):
        super().__init__()
        self.path, self.name = Path(path), str(path)
        self._file = self._open()
        if self.path.is_file():
            self._take_up(overwrite, retry_failed)

    def write(self, record: Mapping[str, Any]) -> None:
        try:
            self._file.write(to_line(record))
            self._file.flush()
        except OSError as error:
            raise DiskError(f"{self.path}: cannot be written ({error.strerror}); "
                            "make room, the same command goes on from here") from None
        self._note(record)

    def close(self) -> None:
        self._file.close()

    def _open(self) -> BinaryIO:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            file = open(self.path, "ab")  # noqa: SIM115
        except OSError as error:
            raise DiskError(f"{self.path}: cannot be written ({error.strerror}); choose another -o") from None
        if not locked(file):
            file.close()
            raise JobError(f"{self.path}: another run is writing to it; wait for it or choose another -o")
        return file

    def _take_up(self, overwrite: bool, retry_failed: bool) -> None:
        lines = [] if overwrite else self.path.read_bytes().splitlines(keepends=True)
        kept = []
        for line, record in self._read(lines):
            if record is None or (retry_failed and "error" in record):
                self.dropped += 1
                continue
            kept.append(line if line.endswith(b"\n") else line + b"\n")
            self._note(record)
        if overwrite or self.dropped or kept != lines:
            self._replace(kept)

    def _read(self, lines: Iterable[bytes]) -> Iterator[tuple[bytes, Record | None]]:
        for number, line in enumerate(lines, start=1):
            try:
                record = json.loads(line)
            except ValueError:
                record = None  # torn, or never JSON
            if record is not None and not (isinstance(record, dict) and isinstance(record.get("id"), str)):
                self.close()
                raise JobError(f"{self.path}:{number}: not a line of a batch; choose another -o")
            yield line, record

    def _replace(self, lines: Iterable[bytes]) -> None:
        """Write aside, lock, rename: the file is whole at every moment."""
        aside = self.path.with_name(f".{self.path.name}.part")
        try:
            file = open(aside, "wb")  # noqa: SIM115
            locked(file)
            file.writelines(lines)
            file.flush()
            os.replace(aside, self.path)
        except OSError as error:
            raise DiskError(f"{aside}: cannot be written ({error.strerror})") from None
        self._file.close()
        self._file = file

    def _note(self, record: Mapping[str, Any]) -> None:
        failed = "error" in record
        self.done.add((record["id"], record.get("sample", None if failed else 0)))
        if failed:
            self.failed.add(record["id"])
        else:
            self.asked[record["id"]] = record.get("file"), record.get("prompt")
