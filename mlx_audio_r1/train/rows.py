"""train.jsonl, valid.jsonl and test.jsonl -> rows, one JSON object a line.

A line that cannot be used is a Fault with file:line, and the next one is read; whoever trains takes the
first fault as a DataError, whoever checks collects them all.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlx_audio_r1.errors import DataError
from mlx_audio_r1.train.row_forms import Row, Turn, Wrong, parse_row

__all__ = ["SPLITS", "Fault", "Row", "Turn", "find_splits", "parse_lines", "read_rows"]

SPLITS = ("train", "valid", "test")
BOM = b"\xef\xbb\xbf"


@dataclass(frozen=True)
class Fault:
    """A line, or something in it, that cannot be used. kind: file, json, form, marks, empty, audio, fit."""

    where: str
    kind: str
    text: str

    def error(self) -> DataError:
        return DataError(f"{self.where}: {self.text}")


def find_splits(data: str | Path) -> dict[str, Path]:
    """Split -> file: what of train, valid and test is in a folder, or one file by itself.

    Raises DataError when there is nothing to read.
    """
    path = Path(data)
    try:
        if path.is_file():
            return {path.stem: path}
        found = {split: path / f"{split}.jsonl" for split in SPLITS if (path / f"{split}.jsonl").is_file()}
    except (OSError, ValueError) as error:
        raise DataError(f"{str(path)[:80]!r}: not a folder ({error})") from None
    if not found:
        what = "no train.jsonl, valid.jsonl or test.jsonl in it" if path.is_dir() else "no such folder"
        raise DataError(f"{path}: {what}; give the folder that holds them")
    return found


def read_rows(path: str | Path) -> Iterator[Row]:
    """The rows of a file, in order. Raises DataError at the first line that cannot be used."""
    for row in parse_lines(path):
        if isinstance(row, Fault):
            raise row.error()
        yield row


def parse_lines(path: str | Path) -> Iterator[Row | Fault]:
    """A Row or a Fault for every line that is not blank; a file without any is one Fault."""
    path, folder, empty = str(path), os.path.dirname(path), True
    try:
        with open(path, "rb") as file:
            for number, line in enumerate(file, start=1):
                line = line.removeprefix(BOM) if number == 1 else line
                if line.strip():
                    empty = False
                    yield _parse(line, f"{path}:{number}", folder)
    except OSError as error:
        yield Fault(path, "file", f"cannot be read ({error.strerror or error})")
        return
    if empty:
        yield Fault(path, "file", "no rows in it; write one JSON object a line")


def _parse(line: bytes, where: str, folder: str) -> Row | Fault:
    try:
        data = json.loads(line.decode(), object_pairs_hook=_object)
        if not isinstance(data, dict):
            raise Wrong("json", f"is {_kind(data)}, expected an object: {{...}}")
        return parse_row(data, where, folder)
    except Wrong as wrong:
        return Fault(where, wrong.kind, str(wrong))
    except UnicodeDecodeError as error:
        return Fault(where, "json", f"is not UTF-8 (byte {error.start} of the line): convert the file")
    except json.JSONDecodeError as error:
        return Fault(where, "json", f"is not JSON ({_reason(error, line)})")
    except RecursionError:
        return Fault(where, "json", "is nested too deeply to be read")
    except ValueError as error:  # a number of thousands of digits
        return Fault(where, "json", f"is not readable as JSON ({str(error).split(';')[0]})")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object whose keys are all different; JSON itself would let the last of two win."""
    made = dict(pairs)
    if len(made) < len(pairs):
        twice = Counter(name for name, _ in pairs).most_common(1)[0][0]
        raise Wrong("json", f"has the key {twice[:60]!r} twice")
    return made


def _reason(error: json.JSONDecodeError, line: bytes) -> str:
    if line.strip() in (b"[", b"{") or error.pos >= len(error.doc.rstrip()):
        return "it ends too early: one object a line, without line breaks inside"
    if error.msg == "Extra data":
        return f"a second value at column {error.pos + 1}: one object a line"
    return f"{error.msg} at column {error.pos + 1}"


def _kind(value: Any) -> str:
    names = {list: "an array", str: "text", bool: "true or false", int: "a number", float: "a number"}
    return names.get(type(value), "null")
