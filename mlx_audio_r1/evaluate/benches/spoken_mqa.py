"""Spoken-MQA: spoken sums and spoken word problems, in four splits of very different length.

Read are the parquet files, a split each. The surprise: the published number is over all 2,269 questions, not
the mean of the splits, and an answer is a text in two splits and a list of texts in the others.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any

from mlx_audio_r1.errors import EvaluationError
from mlx_audio_r1.evaluate.bench import Bench, Profile, Question
from mlx_audio_r1.evaluate.benches.predictions import answered, json_array
from mlx_audio_r1.evaluate.parquet import parquet_files, read_parquet, sound, split_of
from mlx_audio_r1.evaluate.profiles import STEP_SETTINGS, step_profile
from mlx_audio_r1.evaluate.rows import Row
from mlx_audio_r1.tasks.item import Item
from mlx_audio_r1.tasks.number import Quantity, read_number
from mlx_audio_r1.tasks.reply import Reply

WORDS = "Solve the given math question step by step."
COLUMNS = ("context", "context_transcript", "instruction", "answer")
SPLITS = {"short_digit": 100, "long_digit": 173, "single_step_reasoning": 594, "multi_step_reasoning": 1402}


def read(path: Path) -> Iterator[Question]:
    """The questions of a download. Raises EvaluationError."""
    files = parquet_files(path)
    if not files:
        raise EvaluationError(f"{path}: no parquet file in it; give the folder with those of Spoken-MQA")
    numbers: dict[str, int] = defaultdict(int)
    for file in files:
        split = next((s for s in SPLITS if s in (split_of(file), file.parent.name)), split_of(file))
        for row in read_parquet(file, COLUMNS):
            yield _question(row, split, numbers[split], file.parent)
            numbers[split] += 1


def _question(row: Row, split: str, number: int, folder: Path) -> Question:
    """Rows have no name: their number in the split is one."""
    answer = _text_of(row, "answer")
    instruction = _text_of(row, "instruction")
    return Question(
        id=str(number),
        text=instruction if isinstance(instruction, str) else WORDS,
        sounds=(sound(row, "context", folder=folder),),
        target=Quantity(_value(row, answer)),
        groups={"split": split},
        split=split,
        ref={"transcript": row.values.get("context_transcript")},
        extra={"answer": answer},
    )


def _text_of(row: Row, column: str) -> Any:
    """The text of {"text": ..., "audio": null}, or the column itself."""
    found = row.value(column)
    return found.get("text") if isinstance(found, Mapping) else found


def _value(row: Row, answer: Any) -> Fraction:
    """The number of a reference: behind #### where it has that."""
    first = answer[0] if isinstance(answer, list) and answer else answer
    text = str(first).rpartition("####")[2].replace(",", "").strip()
    try:
        return Fraction(text)
    except (ValueError, ZeroDivisionError):
        reading = read_number(text)
    if isinstance(reading, str):
        raise row.wrong(f"answer {str(first)[:60]!r} has no number")
    return reading.value


def _predictions(items: Iterable[Item], replies: Mapping[str, Reply]) -> dict[str, str]:
    """What AudioBench's compute_score takes, a file for each split."""
    by_split: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in answered(items, replies):
        by_split[row.item.split].append(
            {"audio_gt": row.item.ref.get("transcript"), "instruction": row.item.ref["question"],
             "answer": row.item.extra["answer"], "task_type": "MathQA", "model_prediction": row.answer}
        )  # fmt: skip
    return {f"spoken-mqa_{split}.json": json_array(rows) for split, rows in by_split.items()}


BENCH = Bench(
    name="spoken-mqa",
    title="Spoken-MQA",
    read=read,
    profiles=(
        step_profile("spoken-mqa", words=WORDS),
        Profile("official/spoken-mqa", settings=STEP_SETTINGS),
    ),
    scorers=("spokenmqa.official", "num.resolve"),
    expected={"": {"": sum(SPLITS.values())}, "split": SPLITS},
    license="none declared",
    predictions=_predictions,
    group_by=("split",),
    source="hub data set amao0o0/spoken-mqa: its parquet files",
)
