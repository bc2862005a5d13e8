"""The same validation clips answered before and after training: what a report shows people.

samples.jsonl has one line a reply; a resumed run answers what is missing only.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

from mlx_audio_r1.errors import AudioR1Error
from mlx_audio_r1.files import disk_errors
from mlx_audio_r1.prompt import AudioPart
from mlx_audio_r1.session import AudioR1
from mlx_audio_r1.train.lessons import Counting
from mlx_audio_r1.train.replies import thinking_and_answer
from mlx_audio_r1.train.rows import Row

T = TypeVar("T")
FILE = "samples.jsonl"
MOST_TOKENS = 256  # of a sample reply


def answer(r1: AudioR1, rows: Sequence[Row], count: int, step: int, folder: Path, counting: Counting) -> None:
    """Answer up to `count` rows, spread over all, greedily. Raises DiskError."""
    path = folder / FILE
    done = {(row["step"], row["where"]) for row in read_samples(path)}
    chosen = spread(rows, count)
    for number, row in enumerate(chosen, start=1):
        if (step, row.name) not in done:
            line = json.dumps(_sample(r1, row, step), ensure_ascii=False)
            with disk_errors(path), path.open("a", encoding="utf-8") as file:
                file.write(line + "\n")
        counting("sample replies", number, len(chosen))


def _sample(r1: AudioR1, row: Row, step: int) -> dict[str, Any]:
    expected = thinking_and_answer(row.reply)[1] if row.reply else ""
    sounds = [str(part.source) for part in row.sounds if not isinstance(part.source, bytes)]
    sample = {"step": step, "where": row.name, "audio": sounds, "prompt": text_of(row), "expected": expected}
    try:
        reply = r1.reply([turn.message for turn in row.history], temperature=0.0, max_tokens=MOST_TOKENS)
    except AudioR1Error as error:  # a sample is no reason to end a run
        return {**sample, "think": "", "answer": f"({error})"}
    return {**sample, "think": reply.thinking, "answer": reply.answer}


def text_of(row: Row) -> str:
    """Its last question, with marks for its sounds."""
    parts = row.history[-1].message.parts
    return " ".join("<audio>" if isinstance(part, AudioPart) else part for part in parts)


def spread(rows: Sequence[T], count: int) -> list[T]:
    """`count` of the rows at equal distances."""
    step = max(1, len(rows) // max(count, 1))
    return list(rows[::step][:count])


def read_samples(path: Path) -> list[dict[str, Any]]:
    """Lines that are whole; one torn by a kill is answered again."""
    if not path.exists():
        return []
    text = path.read_text(encoding="utf-8")
    if text and not text.endswith("\n"):
        text = text[: text.rfind("\n") + 1]
        path.write_text(text, encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]
