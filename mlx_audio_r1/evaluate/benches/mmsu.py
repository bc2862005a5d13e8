"""MMSU: five thousand questions about spoken language. Not VoiceBench's `mmsu`, which is spoken MMLU-Pro.

Read are `question/mmsu.jsonl` with the folder `audio`, and the parquet files. The surprise: some options are
numbers in the file, and the official script compares them as they are.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from mlx_audio_r1.errors import EvaluationError
from mlx_audio_r1.evaluate.bench import Bench, Question, Sound
from mlx_audio_r1.evaluate.benches.predictions import answered, json_lines
from mlx_audio_r1.evaluate.parquet import parquet_files, read_parquet, sound
from mlx_audio_r1.evaluate.profiles import OTHER_CHOICES, step_profile
from mlx_audio_r1.evaluate.rows import (
    Row,
    choice_target,
    found,
    groups_of,
    locate,
    read_json,
    without_empty_end,
)
from mlx_audio_r1.tasks.item import Item
from mlx_audio_r1.tasks.reply import Reply

JSON_FILES = ("question/mmsu.jsonl", "mmsu.jsonl", "question/*.jsonl")
CHOICES = ("choice_a", "choice_b", "choice_c", "choice_d")
COLUMNS = ("id", "audio", "question", *CHOICES[:2], "answer_gt")
ROW = ("id", "audio_path", "question", *CHOICES, "answer_gt", "task_name", "category", "sub-category",
       "sub-sub-category", "linguistics_sub_discipline")  # fmt: skip  # as mmsu_evaluation.py reads it
GROUPS = {"category": "category", "sub-category": "sub_category", "sub-sub-category": "sub_sub_category",
          "task_name": "task"}  # fmt: skip


def read(path: Path) -> Iterator[Question]:
    """The questions of a download. Raises EvaluationError."""
    if json_file := pinned(path):
        root = json_file.parent.parent if json_file.parent.name == "question" else json_file.parent
        for row in read_json(json_file):
            yield _question(row, locate(root, row.text("audio_path", "audio"), "audio"))
    elif files := parquet_files(path):
        for file in files:
            for row in read_parquet(file, COLUMNS):
                yield _question(row, sound(row, "audio", folder=file.parent))
    else:
        raise EvaluationError(f"{path}: no {JSON_FILES[0]} and no parquet file in it; give the folder of MMSU")


def pinned(path: Path) -> Path | None:
    return None if path.suffix == ".parquet" else found(path, JSON_FILES)


def _question(row: Row, place: Sound) -> Question:
    shown = without_empty_end([row.text_or(name) for name in CHOICES])
    target, chance = choice_target(row, shown, row.text("answer_gt"))
    raw = {"choices": [row.values.get(name, "") for name in CHOICES], "answer": row.value("answer_gt")}
    return Question(
        id=row.text("id"),
        text=row.text("question"),
        sounds=(place,),
        target=target,
        groups=groups_of(row, GROUPS),
        chance=chance,
        extra={**raw, "row": {name: row.values[name] for name in ROW if name in row.values}},
    )


def _predictions(items: Iterable[Item], replies: Mapping[str, Reply]) -> dict[str, str]:
    rows = [{**row.official, "response": row.answer} for row in answered(items, replies)]
    return {"mmsu_predictions.jsonl": json_lines(rows)} if rows else {}


BENCH = Bench(
    name="mmsu",
    title="MMSU",
    read=read,
    profiles=(step_profile("mmsu"), *OTHER_CHOICES),
    scorers=("mmsu.official", "mmsu.official_all", "mcq.resolve"),
    pinned=pinned,
    expected={"": {"": 5000}},
    license="MIT",
    predictions=_predictions,
    group_by=("category", "sub_category", "task"),
    source="hub data set ddwang2000/MMSU: question/mmsu.jsonl with audio/, or its parquet files",
)
