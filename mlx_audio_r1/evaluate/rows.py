"""Rows of a download, whatever file they came in, and one line for whatever is wrong with them.

    for row in read_json(path):
        row.text("question")                  # EvaluationError "mmau.json: item 3: no question; ..." without it
        choice_target(row, row.texts("choices"), row.text("answer"))

The surprise: a number where text belongs is taken as text. MMSU's options are numbers here and there, and a
benchmark is not to be mended by leaving items out.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlx_audio_r1.errors import EvaluationError
from mlx_audio_r1.tasks.choice import Choice
from mlx_audio_r1.tasks.options import LETTERS

LFS = b"version https://git-lfs"
BOM = "\ufeff"
HALF = "\\ud"  # how the escape of a surrogate begins


@dataclass(frozen=True)
class Row:
    """One row. where: file and place, for errors."""

    where: str
    values: Mapping[str, Any]

    def has(self, *names: str) -> bool:
        """Is there something in every one of these columns?"""
        return all(self.values.get(name) is not None for name in names)

    def text(self, *names: str) -> str:
        """The first of these columns that is there, as text."""
        return _as_text(self.value(*names), names[0], self)

    def text_or(self, name: str, default: str = "") -> str:
        return self.text(name) if self.has(name) else default

    def value(self, *names: str) -> Any:
        found = next((self.values[name] for name in names if self.values.get(name) is not None), None)
        if found is None:
            raise self.wrong(f"no {' or '.join(names)}; there are {', '.join(map(str, self.values))[:160]}")
        return found

    def nested(self, name: str) -> Row:
        """The object of a column, also where it is written down as JSON."""
        found = self.value(name)
        if isinstance(found, str):
            found = _parsed(found, f"{self.where}: {name}")
        return Row(self.where, _object(found, f"{self.where}: {name}"))

    def texts(self, *names: str) -> tuple[str, ...]:
        """A list of texts, also where it is written down as JSON."""
        found = self.value(*names)
        if isinstance(found, str) and found.lstrip()[:1] == "[":
            found = _parsed(found, f"{self.where}: {names[0]}")
        if not isinstance(found, list | tuple):
            raise self.wrong(f"{names[0]} {str(found)[:60]!r}: expected a list")
        return tuple(_as_text(one, names[0], self) for one in found)

    def listed(self, name: str) -> list[Any]:
        """A list of whatever it may be; empty where there is none."""
        found = self.values.get(name)
        if not isinstance(found, list | None):
            raise self.wrong(f"{name} {str(found)[:60]!r}: expected a list")
        return found or []

    def wrong(self, what: str) -> EvaluationError:
        """An error that begins with the row's place."""
        return EvaluationError(f"{self.where}: {what}")


def _as_text(value: Any, name: str, row: Row) -> str:
    if not isinstance(value, str | int | float):
        raise row.wrong(f"{name} {str(value)[:60]!r}: expected text")
    return str(value)


def choice_target(row: Row, options: Sequence[str], answer: str) -> tuple[Choice, float]:
    """(target, what a blind guess scores). An option that stands twice is right twice."""
    gold = tuple(i for i, option in enumerate(options) if option.strip() == answer.strip())
    if not gold:
        raise row.wrong(f"answer {answer[:60]!r} is none of the choices ({', '.join(options)[:120]})")
    if not 2 <= len(options) <= len(LETTERS):
        raise row.wrong(f"{len(options)} choices: expected 2 to {len(LETTERS)}")
    if not all(option.strip() for option in options):
        raise row.wrong("a choice is empty")
    return Choice(tuple(options), gold), len(gold) / len(options)


def without_empty_end(choices: Sequence[str]) -> tuple[str, ...]:
    """Without the empty choices a list ends in; letters of the others stay."""
    count = max((i for i, choice in enumerate(choices, start=1) if choice.strip()), default=0)
    return tuple(choices[:count])


def groups_of(row: Row, columns: Mapping[str, str]) -> dict[str, str]:
    """column -> name of the group; of a list with one element that element."""
    found = {name: row.values.get(column) for column, name in columns.items()}
    found = {name: v[0] if isinstance(v, list) and len(v) == 1 else v for name, v in found.items()}
    return {name: str(value) for name, value in found.items() if value not in (None, "")}


def found(path: Path, names: Iterable[str]) -> Path | None:
    """`path` where it is a file, else the first file in the folder that one of these patterns names."""
    if is_file(path):
        return path
    matches = (match for name in names for match in sorted(path.glob(name)) if is_file(match))
    return next(matches, None)


def find(path: Path, names: Sequence[str], what: str) -> Path:
    """What `found` gives. what: to give instead, for the error."""
    file = found(path, names)
    if file is None:
        problem = f"no {' or '.join(names)} in it" if path.is_dir() else "no such file or folder"
        raise EvaluationError(f"{path}: {problem}; give {what}")
    return file


def locate(root: Path, name: str, *folders: str) -> Path:
    """A sound that a row names: where it says, or by its name in one of these folders; else where it says."""
    places = (root / name, *(root / folder / Path(name).name for folder in folders))
    return next((place for place in places if is_file(place)), places[0])


def is_file(path: Path) -> bool:
    """Is it there, whatever a row may call a path?"""
    try:
        return path.is_file()
    except (OSError, ValueError):  # a name too long for any file
        return False


def read_json(path: Path) -> Iterator[Row]:
    """The objects of a JSON array, or of a file with one a line: told apart by the first character."""
    text = _read(path)
    if text.lstrip()[:1] == "[":
        yield from _array(path, text)
        return
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            where = f"{path}:{number}"
            yield Row(where, _object(_parsed(line, where), where))


def _array(path: Path, text: str) -> Iterator[Row]:
    found = _parsed(text, str(path))
    if not found:
        raise EvaluationError(f"{path}: an empty list; download it again")
    for number, one in enumerate(found, start=1):
        where = f"{path}: item {number}"
        yield Row(where, _object(one, where))


def _read(path: Path) -> str:
    try:
        content = path.read_bytes()
        text = content.decode().removeprefix(BOM)
    except OSError as error:
        raise EvaluationError(f"{path}: cannot be read ({error.strerror or error})") from None
    except UnicodeDecodeError as error:
        raise EvaluationError(f"{path}: is not UTF-8 (byte {error.start}); is it the right file?") from None
    if not text.strip():
        raise EvaluationError(f"{path}: is empty; download it again")
    if content.startswith(LFS):
        raise EvaluationError(f"{path}: is a Git LFS pointer, not the file; run git lfs pull there")
    return text


def _parsed(text: str, where: str) -> Any:
    try:
        found = json.loads(text)
        if HALF in text.lower():  # half a character, which no file can hold
            json.dumps(found, ensure_ascii=False).encode()
        return found
    except json.JSONDecodeError as error:
        at = f"line {error.lineno}, column {error.colno}"
        raise EvaluationError(f"{where}: is not JSON ({error.msg}, {at})") from None
    except UnicodeEncodeError:
        raise EvaluationError(f"{where}: has half a character, a {HALF}... without its other half") from None
    except (ValueError, RecursionError):
        raise EvaluationError(f"{where}: is not readable as JSON") from None


def _object(value: Any, where: str) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise EvaluationError(f"{where}: expected an object {{...}}, found {str(value)[:40]!r}")
    return value
