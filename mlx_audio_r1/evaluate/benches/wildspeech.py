"""WildSpeech-Bench: questions that people once typed, spoken, some of them in noise; a judge marks the answers.

Read are its parquet files. The surprise: rows have no name of their own, because one question comes with
several kinds of noise; their number in the data set is one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from mlx_audio_r1.errors import EvaluationError
from mlx_audio_r1.evaluate.bench import AUDIO, Bench, Question
from mlx_audio_r1.evaluate.benches.predictions import answered, json_lines
from mlx_audio_r1.evaluate.parquet import parquet_files, read_parquet, sound
from mlx_audio_r1.evaluate.profiles import step_profile
from mlx_audio_r1.evaluate.rows import Row, groups_of
from mlx_audio_r1.tasks.item import Item
from mlx_audio_r1.tasks.judged import Judged
from mlx_audio_r1.tasks.reply import Reply

COLUMNS = ("audio", "user_query", "taskType", "checklist", "modification_type")
GROUPS = {"taskType": "task", "modification_type": "noise"}
KEPT = ("user_query", "taskType", "checklist", "conversation_hash", "modification_type", "additional_info")


def read(path: Path) -> Iterator[Question]:
    """The questions of a download. Raises EvaluationError."""
    files = parquet_files(path)
    if not files:
        raise EvaluationError(f"{path}: no parquet file in it; give the folder with those of WildSpeech-Bench")
    number = 0
    for file in files:
        for row in read_parquet(file, COLUMNS):
            yield _question(row, number, file.parent)
            number += 1


def _question(row: Row, number: int, folder: Path) -> Question:
    return Question(
        id=str(number),
        text="",
        sounds=(sound(row, "audio", folder=folder),),
        target=Judged(rubric=(row.text("checklist"),)),
        groups=groups_of(row, GROUPS),
        ref={"transcript": row.text("user_query")},
        extra={"row": {name: row.values.get(name) for name in KEPT}},
    )


def _predictions(items: Iterable[Item], replies: Mapping[str, Reply]) -> dict[str, str]:
    """What tools/api_judge.py reads: an answer in text, in the place of three transcripts of one in speech."""
    rows = ({**row.official, "response": [row.answer]} for row in answered(items, replies))
    return {"wildspeech_results.jsonl": json_lines(rows)}


BENCH = Bench(
    name="wildspeech",
    title="WildSpeech-Bench",
    read=read,
    profiles=(step_profile("wildspeech", order=(AUDIO,)),),
    scorers=("wildspeech.judge",),
    judge="gpt-4o-mini",
    license="CC-BY-4.0, parts of WildChat under its own",
    predictions=_predictions,
    group_by=("task", "noise"),
    source="hub data set tencent/WildSpeech-Bench: its parquet files",
)
