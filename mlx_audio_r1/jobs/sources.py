"""What is given on the command line -> a list of recordings, each with an id that stays the same.

A folder gives the sound files in it, a pattern the files that match, `-` a list on stdin, a .jsonl file
a manifest: one object a line with `audio` and perhaps `prompt` and `id`; its other columns come back
untouched. The surprise: nothing is checked here but names. A path that does not exist is a recording
that will fail, so that it gets its line like every other.
"""

from __future__ import annotations

import fnmatch
import glob
import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from mlx_audio_r1.errors import JobError

SOUND_SUFFIXES = (
    ".wav", ".wave", ".flac", ".mp3", ".ogg", ".oga", ".opus", ".aif", ".aiff", ".aifc", ".caf", ".w64",
    ".au", ".m4a", ".m4b", ".mp4", ".aac", ".webm", ".mkv", ".mov", ".wma", ".amr", ".3gp",
)
MANIFEST_SUFFIXES = (".jsonl", ".ndjson")


@dataclass(frozen=True)
class Item:
    """A recording to work on. inside: its place below the folder it was found in, else its name.
    error: what is wrong with its line in the manifest. content: its bytes, where there is no file."""

    id: str
    path: str
    prompt: str | None = None
    columns: Mapping[str, Any] = field(default_factory=dict)
    inside: str = ""
    error: str | None = None
    content: bytes | None = field(default=None, repr=False)


def find_items(
    inputs: Iterable[str],
    *,
    stdin: Iterable[str] = (),
    recursive: bool = False,
    pattern: str | None = None,
) -> list[Item]:
    """Every recording of `inputs`, once, in a stable order. Raises JobError when an input is no use:
    an unreadable manifest, a folder or a pattern with nothing in it.

    stdin: lines that stand for `-`. recursive: folders with everything below. pattern: which names in
    a folder, in place of the known sound suffixes.
    """
    found: list[Item] = []
    for given in inputs:
        found += _from_list(stdin) if given == "-" else _from_one(given, recursive, pattern)
    return _unique(found)


def _from_list(lines: Iterable[str]) -> list[Item]:
    items = [_file(path) for line in lines if (path := line.rstrip("\r\n"))]
    if not items:
        raise JobError("-: the list on stdin is empty; give one path a line")
    return items


def _from_one(given: str, recursive: bool, pattern: str | None) -> Iterator[Item]:
    if os.path.isdir(given):
        yield from _from_folder(given, recursive, pattern)
    elif Path(given).suffix.lower() in MANIFEST_SUFFIXES:
        yield from read_manifest(given)
    elif not os.path.lexists(given) and glob.has_magic(given):
        yield from _from_glob(given)
    else:
        yield _file(given)


def _file(path: str) -> Item:
    return Item(path, path, inside=os.path.basename(path))


def _from_folder(folder: str, recursive: bool, pattern: str | None) -> Iterator[Item]:
    names = []
    for at, below, files in os.walk(folder):
        below[:] = [name for name in below if recursive and not name.startswith(".")]
        names += [os.path.relpath(os.path.join(at, name), folder) for name in files if _wanted(name, pattern)]
    if not names:
        kind = f"files that match {pattern}" if pattern else "sound files"
        hint = "" if recursive else "; --recursive looks into its sub-folders"
        raise JobError(f"{folder}: no {kind} in this folder{hint}")
    for name in sorted(names):
        yield Item(os.path.join(folder, name), os.path.join(folder, name), inside=name)


def _wanted(name: str, pattern: str | None) -> bool:
    if name.startswith("."):
        return False  # macOS leaves ._clip.wav beside clip.wav
    if pattern:
        return fnmatch.fnmatch(name, pattern)
    return os.path.splitext(name)[1].lower() in SOUND_SUFFIXES


def _from_glob(given: str) -> Iterator[Item]:
    names = sorted(name for name in glob.glob(given, recursive=True) if not os.path.isdir(name))
    if not names:
        raise JobError(f"{given}: nothing matches")
    yield from map(_file, names)


def read_manifest(path: str) -> list[Item]:
    """The rows of a JSONL manifest; relative paths count from its folder."""
    try:
        lines = Path(path).read_bytes().split(b"\n")
    except OSError as error:
        raise JobError(f"{path}: cannot be read ({error.strerror})") from None
    items = [_row(line, path, number) for number, line in enumerate(lines, start=1) if line.strip()]
    if not items:
        raise JobError(f'{path}: nothing in it; a line is an object such as {{"audio": "a.wav"}}')
    return items


def _row(line: bytes, manifest: str, number: int) -> Item:
    """One line as an Item; a bad line is an Item with its error."""
    where = f"{manifest}:{number}"
    try:
        row = json.loads(line)
    except ValueError as error:
        return Item(where, "", error=f"{where}: not JSON ({error})")
    if not isinstance(row, dict):
        return Item(where, "", error=f'{where}: expected an object such as {{"audio": "a.wav"}}')
    columns = {k: v for k, v in row.items() if k not in ("audio", "prompt", "id")}
    path, given = row.get("audio"), row.get("id")
    has_id = isinstance(given, str | int | float) and given != ""
    if problem := _problem(row):
        return Item(str(given) if has_id else where, "", columns=columns, error=f"{where}: {problem}")
    return Item(
        str(given) if has_id else path,
        os.path.join(os.path.dirname(manifest), path),
        row.get("prompt"),
        columns,
        os.path.basename(path),
    )


def _problem(row: Mapping[str, Any]) -> str | None:
    if not isinstance(row.get("audio"), str) or not row["audio"]:
        return "no audio; every line needs the path of a file"
    if not isinstance(row.get("prompt", ""), str | None):
        return "the prompt is no text"
    if isinstance(row.get("id"), dict | list) or row.get("id") == "":
        return "the id is neither text nor a number"
    return None


def _unique(items: list[Item]) -> list[Item]:
    """The same recording with the same question is one; else a repeated id gets #2, #3."""
    once = {(i.id, i.path, i.prompt, json.dumps(i.columns, sort_keys=True)): i for i in items}
    taken: set[str] = set()
    seen: Counter[str] = Counter()
    unique = []
    for item in once.values():
        name = item.id
        while name in taken:
            seen[item.id] += 1
            name = f"{item.id}#{seen[item.id] + 1}"
        taken.add(name)
        unique.append(replace(item, id=name))
    return unique
