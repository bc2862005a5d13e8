"""Audio MultiChallenge: conversations of up to eight turns; the model speaks last, by a rubric.

Read are the parquet files. What the person says is sound, what the assistant said before is the reference text,
and there is no system turn: the fixed context of the paper. What a judge is asked stands in the data set's
README.md, and is taken from there if it lies beside the files. The surprise: the rubric is a list written down
as text, as JSON or as Python writes it.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from mlx_audio_r1.errors import EvaluationError
from mlx_audio_r1.evaluate.bench import AUDIO, Bench, Question
from mlx_audio_r1.evaluate.judge_words import IN_REF, prompt_text
from mlx_audio_r1.evaluate.parquet import parquet_files, read_parquet, sound
from mlx_audio_r1.evaluate.profiles import step_profile
from mlx_audio_r1.evaluate.rows import Row, groups_of
from mlx_audio_r1.prompt import AudioPart
from mlx_audio_r1.tasks.item import Turn
from mlx_audio_r1.tasks.judged import Judged

COLUMNS = ("id", "axis", "user_turn_1_audio", "user_turn_1_transcript", "rubric")
MOST_TURNS = 8
AXES = {"INFERENCE_MEMORY": 132, "INSTRUCTION_RETENTION": 120, "SELF_COHERENCE": 83, "VOICE_EDITING": 117}
CARD, JUDGE_MARKS = "README.md", ("«conversation_history»", "«rubric_item»")
_FENCED = re.compile(r"^(`{3,})[^\n`]*\n(.*?)^\1\s*$", re.DOTALL | re.MULTILINE)
POINT_NAMES = ("rubric_item", "criterion", "criteria", "rubric", "text", "description")  # where it is an object


def read(path: Path) -> Iterator[Question]:
    """The questions of a download. Raises EvaluationError."""
    files = parquet_files(path)
    if not files:
        raise EvaluationError(f"{path}: no parquet file in it; give the folder with those of audiomc")
    for file in files:
        judge = judge_words(file)
        for row in read_parquet(file, COLUMNS):
            yield _question(row, judge, file.parent)


def judge_words(file: Path) -> dict[str, dict[str, str]]:
    """{"judge": ...} of the card beside a file or above its folder; {} where there is none."""
    for card in (file.parent / CARD, file.parent.parent / CARD):
        fenced = _FENCED.findall(prompt_text(card)) if card.is_file() else []
        found = next((text for _, text in fenced if all(mark in text for mark in JUDGE_MARKS)), None)
        if found:
            return {IN_REF: {"user": found.strip(), "source": "its card"}}
    return {}


def _question(row: Row, judge: Mapping[str, Any], folder: Path) -> Question:
    last = max((n for n in range(1, MOST_TURNS + 1) if _is_there(row, n)), default=0)
    turns: list[Turn] = []
    conversation = []
    for n in range(1, last + 1):
        if not _is_there(row, n):
            raise row.wrong(f"user_turn_{n}_audio is empty, and later turns are not")
        turns.append(Turn("user", (AudioPart(sound(row, f"user_turn_{n}_audio", folder=folder)),)))
        conversation.append({"role": "user", "text": row.text_or(f"user_turn_{n}_transcript")})
        if n < last:
            said = row.text(f"assistant_turn_{n}_transcript")
            turns.append(Turn("assistant", (said,)))
            conversation.append({"role": "assistant", "text": said})
    if not turns:
        raise row.wrong("no turn of the person has a sound")
    return Question(
        id=row.text("id"),
        text="",
        sounds=(),
        target=Judged(rubric=rubric_of(row)),
        groups={**groups_of(row, {"axis": "axis"}), "turns": str(last)},
        turns=tuple(turns),
        ref={"conversation": conversation, "transcript": conversation[-1]["text"], **judge},
    )


def _is_there(row: Row, number: int) -> bool:
    value = row.values.get(f"user_turn_{number}_audio")
    return bool(value.get("bytes") or value.get("path") if isinstance(value, Mapping) else value)


def rubric_of(row: Row) -> tuple[str, ...]:
    """The points of the rubric, at least one."""
    found = _parsed(row)
    if isinstance(found, Mapping):
        found = list(found.values())
    points = tuple(_point(one, row) for one in found) if isinstance(found, list | tuple) else ()
    if not points:
        raise row.wrong(f"rubric {str(row.value('rubric'))[:60]!r}: expected a list of points")
    return points


def _parsed(row: Row) -> Any:
    text = row.value("rubric")
    if not isinstance(text, str):
        return text
    for reader in (json.loads, ast.literal_eval):
        try:
            return reader(text)
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            continue
    return None


def _point(one: Any, row: Row) -> str:
    if isinstance(one, Mapping):
        one = next((one[name] for name in POINT_NAMES if isinstance(one.get(name), str)), None)
    if not isinstance(one, str) or not one.strip():
        raise row.wrong(f"rubric: a point {str(one)[:60]!r} is no text")
    return one.strip()


BENCH = Bench(
    name="audio-mc",
    title="Audio MultiChallenge",
    read=read,
    profiles=(step_profile("audio-mc", order=(AUDIO,)),),
    scorers=("audiomc.judge", "audiomc.ars"),
    expected={"": {"": sum(AXES.values())}, "axis": AXES},
    license="MIT",
    group_by=("axis", "turns"),
    source="hub data set ScaleAI/audiomc: its parquet files",
)
