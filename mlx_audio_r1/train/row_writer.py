"""Rows -> lines: the one spelling in which this package writes data for itself and for others.

    {"messages": [{"role": "user", "content": "<audio>Which?"}], "audios": ["clips/a.wav"], "solution": "B"}

What `rows` reads of a line is what the row was, whatever spelling it came in. Paths become absolute, so the
line means the same in any folder.
"""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from mlx_audio_r1.files import write_file
from mlx_audio_r1.prompt import AudioPart
from mlx_audio_r1.train.row_forms import MARK, Row, Turn


def row_as_json(
    row: Row, *, reply: str | None = None, rejected: str | None = None, **columns: Any
) -> dict[str, Any]:
    """The question of a row with another reply, or with none; columns are added to its own."""
    messages = [_message(turn) for turn in row.history]
    if reply is not None:
        messages.append({"role": "assistant", "content": reply})
    written: dict[str, Any] = {"messages": messages}
    if rejected is not None:
        written["rejected_response"] = rejected
    if row.sounds:
        written["audios"] = [_source(part) for part in row.sounds]
    if row.tools:
        written["tools"] = [dict(tool) for tool in row.tools]
    return {**written, **row.columns, **columns}


def write_rows(path: Path, rows: Iterable[Mapping[str, Any]]) -> int:
    """Lines of a file, all or nothing; how many. Raises DiskError."""
    lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in rows]
    path.parent.mkdir(parents=True, exist_ok=True)
    write_file(path, "".join(lines))
    return len(lines)


def _message(turn: Turn) -> dict[str, Any]:
    content, before = "", False  # is the part before it text?
    for part in turn.message.parts:
        if isinstance(part, AudioPart):
            content += ("\n" if before else "") + MARK
        else:
            content += ("\n" if before else "") + part
        before = isinstance(part, str)
    loss = {} if turn.loss is None else {"loss_scale": turn.loss}
    return {"role": turn.role, "content": content, **loss}


def _source(part: AudioPart) -> str:
    if isinstance(part.source, bytes):
        return "data:audio/wav;base64," + base64.b64encode(part.source).decode()
    path = str(part.source)
    return path if "://" in path else os.path.abspath(path)
