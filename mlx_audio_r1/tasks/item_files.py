"""Items as lines of `audio-r1.task/1`, the form in which every task can be stored.

    {"schema": "audio-r1.task/1", "uid": "...", "turns": [{"role": "user", "parts": [{"text": "Which?"},
     {"options": true}, {"audio": "a.wav"}]}], "target": {"kind": "mcq", "choices": ["drum", "bell"],
     "gold": [1]}}

Relative paths count from the file's folder. A sound in memory has no line: store the clip first.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any

from mlx_audio_r1.errors import DataError
from mlx_audio_r1.prompt import AudioPart
from mlx_audio_r1.tasks.boolean import Boolean
from mlx_audio_r1.tasks.choice import Choice
from mlx_audio_r1.tasks.item import OPTIONS, Item, OptionsMark, Turn
from mlx_audio_r1.tasks.judged import Judged
from mlx_audio_r1.tasks.label import Label
from mlx_audio_r1.tasks.number import TOLERANCE, Quantity
from mlx_audio_r1.tasks.wording import METRICS, Wording

SCHEMA = "audio-r1.task/1"
PLAIN = ("bench", "version", "split", "lang", "option_style", "chance", "groups", "ref", "license", "extra")
ROLES = {"human": "user"}  # the schema's word for it


def read_items(path: str | Path) -> Iterator[Item]:
    """The items of a file, in order. Raises DataError with file:line."""
    folder = os.path.dirname(str(path))
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read ({getattr(error, 'strerror', None) or 'not UTF-8'})") from None
    for number, line in enumerate(lines, start=1):
        if line.strip():
            yield _read(line, f"{path}:{number}", folder)


def item_to_json(item: Item) -> dict[str, Any]:
    """One line of a file. Raises DataError for a sound in memory."""
    turns = [{"role": t.role, "parts": [_part_to_json(p, item.uid) for p in t.parts]} for t in item.turns]
    default = Item("", (), None)
    kept = {name: getattr(item, name) for name in PLAIN if getattr(item, name) != getattr(default, name)}
    return {"schema": SCHEMA, "uid": item.uid, "turns": turns, "target": _target_to_json(item.target), **kept}


def item_from_json(data: Mapping[str, Any], folder: str = "") -> Item:
    """The item of a line. Raises KeyError, TypeError or ValueError where it is none."""
    if data.get("schema") != SCHEMA:
        raise ValueError(f"schema {data.get('schema')!r}, expected {SCHEMA!r}")
    turns = tuple(
        Turn(ROLES.get(t["role"], t["role"]), tuple(_part(p, folder) for p in t["parts"]))
        for t in data["turns"]
    )
    known = {name: data[name] for name in PLAIN if name in data}
    rest = {k: v for k, v in data.items() if k not in (*PLAIN, "schema", "uid", "turns", "target")}
    known["extra"] = {**known.get("extra", {}), **rest}
    return Item(uid=data["uid"], turns=turns, target=_target(data["target"]), **known)


def _read(line: str, where: str, folder: str) -> Item:
    try:
        return item_from_json(json.loads(line), folder)
    except json.JSONDecodeError as error:
        raise DataError(f"{where}: is not JSON ({error.msg} at column {error.colno})") from None
    except KeyError as error:
        raise DataError(f"{where}: no {error.args[0]}; a line looks like {SCHEMA}") from None
    except (TypeError, ValueError, AttributeError, RecursionError) as error:
        raise DataError(f"{where}: {str(error)[:200]}") from None


def _part(part: Mapping[str, Any], folder: str) -> str | AudioPart | OptionsMark:
    if "text" in part:
        return str(part["text"])
    if part.get("options"):
        return OPTIONS
    if isinstance(part.get("audio"), str):
        return AudioPart(os.path.join(folder, part["audio"]))
    raise ValueError(f"a part {str(part)[:60]}: expected text, options or the path of an audio")


def _part_to_json(part: str | AudioPart | OptionsMark, uid: str) -> dict[str, Any]:
    if isinstance(part, str):
        return {"text": part}
    if isinstance(part, OptionsMark):
        return {"options": True}
    if not isinstance(part.source, str | Path):
        raise DataError(f"item {uid}: its sound is in memory; write it to a file before the item")
    return {"audio": str(part.source)}


def _target(data: Mapping[str, Any]) -> Any:
    kind = data["kind"]
    if kind not in _READERS:
        raise ValueError(f"target kind {kind!r}: known here are {', '.join(_READERS)}")
    return _READERS[kind](data)


def _choice(data: Mapping[str, Any]) -> Choice:
    options, gold = tuple(map(str, data["choices"])), tuple(data["gold"])
    if not gold or not all(isinstance(i, int) and 0 <= i < len(options) for i in gold):
        raise ValueError(f"gold {list(gold)} points outside {len(options)} choices")
    return Choice(options, gold)


def _quantity(data: Mapping[str, Any]) -> Quantity:
    value, tolerance, relative = (
        Fraction(str(data.get(name, default)))
        for name, default in (("value", None), ("tolerance", TOLERANCE), ("relative", 0))
    )
    return Quantity(value, data.get("unit"), tolerance, relative)


def _label(data: Mapping[str, Any]) -> Label:
    synonyms = {name: tuple(ways) for name, ways in data.get("synonyms", {}).items()}
    return Label(data["gold"], tuple(data.get("labels", ())), synonyms)


def _boolean(data: Mapping[str, Any]) -> Boolean:
    if not isinstance(data["gold"], bool):
        raise ValueError(f"gold {data['gold']!r}: expected true or false")
    return Boolean(data["gold"])


def _wording(data: Mapping[str, Any]) -> Wording:
    metric = data.get("metric", "exact")
    if metric not in METRICS:
        raise ValueError(f"metric {metric!r}: one of {', '.join(METRICS)}")
    return Wording(tuple(map(str, data["references"])), metric)


def _judged(data: Mapping[str, Any]) -> Judged:
    return Judged(tuple(map(str, data.get("references", ()))), tuple(map(str, data.get("rubric", ()))))


_READERS = {
    "mcq": _choice, "number": _quantity, "label": _label, "boolean": _boolean, "text": _wording,
    "judge": _judged,
}  # fmt: skip


def _target_to_json(target: Any) -> dict[str, Any]:
    return _WRITERS[type(target)](target)


def _quantity_to_json(target: Quantity) -> dict[str, Any]:
    exact = {name: str(getattr(target, name)) for name in ("value", "tolerance", "relative")}
    return {"kind": "number", **exact, "unit": target.unit}


def _label_to_json(target: Label) -> dict[str, Any]:
    synonyms = {name: list(ways) for name, ways in target.synonyms.items()}
    return {"kind": "label", "gold": target.gold, "labels": list(target.labels), "synonyms": synonyms}


_WRITERS: dict[type, Any] = {
    Choice: lambda t: {"kind": "mcq", "choices": [*t.options], "gold": [*t.gold], "gold_text": t.gold_text},
    Quantity: _quantity_to_json,
    Label: _label_to_json,
    Boolean: lambda t: {"kind": "boolean", "gold": t.gold},
    Wording: lambda t: {"kind": "text", "references": list(t.references), "metric": t.metric},
    Judged: lambda t: {"kind": "judge", "references": list(t.references), "rubric": list(t.rubric)},
}
