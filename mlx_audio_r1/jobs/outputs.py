"""Where the transcripts go: a stem for every recording, none the same, and files written whole."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from mlx_audio_r1.errors import DiskError
from mlx_audio_r1.jobs.pending import Pending
from mlx_audio_r1.jobs.sources import Item
from mlx_audio_r1.jobs.subtitles import WRITERS, Transcript

STDIN_STEM = "stdin"


def stems(items: Sequence[Item]) -> dict[str, str]:
    """id -> path below the output folder, without suffix. Where two would be the same (letter case
    does not count), their folders tell them apart, then their suffixes, then a number."""
    wanted = {item.id: _stem(item.inside) for item in items}
    for tell_apart in (_with_folder(items), {item.id: item.inside for item in items}):
        for ids in _clashes(wanted):
            wanted.update({id_: tell_apart[id_] for id_ in ids})
    return _numbered(wanted)


def _stem(inside: str) -> str:
    return STDIN_STEM if inside == "-" else os.path.splitext(inside)[0]


def _with_folder(items: Sequence[Item]) -> dict[str, str]:
    """id -> stem below the folder that all of them share."""
    paths = {item.id: os.path.abspath(item.path) for item in items}
    shared = os.path.commonpath([os.path.dirname(path) for path in paths.values()]) if paths else ""
    return {id_: os.path.splitext(os.path.relpath(path, shared))[0] for id_, path in paths.items()}


def _clashes(wanted: dict[str, str]) -> list[list[str]]:
    same: dict[str, list[str]] = defaultdict(list)
    for id_, stem in wanted.items():
        same[stem.casefold()].append(id_)
    return [ids for ids in same.values() if len(ids) > 1]


def _numbered(wanted: dict[str, str]) -> dict[str, str]:
    taken: set[str] = set()
    chosen = {}
    for id_, stem in wanted.items():
        name, number = stem, 1
        while name.casefold() in taken:
            number += 1
            name = f"{stem}-{number}"
        taken.add(name.casefold())
        chosen[id_] = name
    return chosen


def paths(folder: Path, stem: str, formats: Iterable[str]) -> list[Path]:
    """The files of one recording."""
    return [folder / f"{stem}.{name}" for name in formats]


def write(transcript: Transcript, folder: Path, stem: str, formats: Iterable[str]) -> list[Path]:
    """Write every format aside and rename it into place. Raises DiskError."""
    written = []
    for name in formats:
        path = folder / f"{stem}.{name}"
        aside = path.with_name(f".audio-r1-{os.getpid()}.part")  # short: names have a longest length
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            aside.write_bytes(WRITERS[name](transcript).encode("utf-8", "replace"))
            os.replace(aside, path)
        except OSError as error:
            raise DiskError(f"{path}: cannot be written ({error.strerror})") from None
        written.append(path)
    return written


def missing(items: Sequence[Item], stems: Mapping[str, str], folder: Path, formats: Iterable[str]) -> Pending:
    """Recordings that lack one of their files; all of them when no formats are given."""
    formats = list(formats)
    todo = [
        item for item in items
        if not formats or not all(path.is_file() for path in paths(folder, stems[item.id], formats))
    ]
    return Pending(todo, {item.id: (0,) for item in todo}, len(items) - len(todo), 0)
