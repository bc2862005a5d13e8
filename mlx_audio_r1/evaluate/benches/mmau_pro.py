"""MMAU-Pro: 5,305 questions with one sound or several of up to ten minutes: three benchmarks, by their scoring.

Read is test.parquet with the unpacked data.zip; each takes its own: choices, open questions, instructions. The
surprises: a question's sounds are a list; and the official script chooses the option nearest to the reply by
an embedding model of 7 billion parameters. Our resolver stands in for it; its number is not the official one.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from mlx_audio_r1.errors import EvaluationError
from mlx_audio_r1.evaluate.bench import Bench, Question
from mlx_audio_r1.evaluate.parquet import parquet_files, read_parquet
from mlx_audio_r1.evaluate.profiles import OTHER_CHOICES, step_profile
from mlx_audio_r1.evaluate.rows import Row, choice_target, groups_of, locate
from mlx_audio_r1.tasks.judged import Judged

COLUMNS = ("id", "audio_path", "question", "answer", "choices", "category")
GROUPS = {"category": "category", "length_type": "length"}
CHOICE, OPEN_ONE, INSTRUCTION = "choice", "open", "instruction"
KINDS = {"open": OPEN_ONE, "instruction following": INSTRUCTION}  # category -> kind; all others are choices
COUNTS = {INSTRUCTION: 87}  # of the other kinds no exact count is published


def read(path: Path, kind: str) -> Iterator[Question]:
    """The questions of this kind in a download. Raises EvaluationError."""
    files = parquet_files(path)
    if not files:
        raise EvaluationError(f"{path}: no parquet file in it; give the folder with test.parquet and data/")
    for file in files:
        for row in read_parquet(file, COLUMNS):
            if KINDS.get(row.text("category").strip().lower(), CHOICE) == kind:
                yield _question(row, kind, file.parent)


def _question(row: Row, kind: str, folder: Path) -> Question:
    listed = not isinstance(row.value("audio_path"), str) or row.text("audio_path").startswith("[")
    paths = row.texts("audio_path") if listed else (row.text("audio_path"),)
    if not paths:
        raise row.wrong("audio_path: no sound in the list")
    target, chance = _target(row, kind)
    return Question(
        id=row.text("id"),
        text=row.text("question"),
        sounds=tuple(locate(folder, path, "data") for path in paths),
        target=target,
        groups={**groups_of(row, GROUPS), "sounds": "several" if len(paths) > 1 else "one"},
        chance=chance,
        extra=_instruction(row),
    )


def _target(row: Row, kind: str) -> tuple[Any, float]:
    """A choice where there are two options or more and the answer is one of them."""
    given = [choice for choice in row.values.get("choices") or () if choice is not None]
    choices = [choice for choice in Row(row.where, {"choices": given}).texts("choices") if choice.strip()]
    answer = row.text_or("answer")
    same = next((choice for choice in choices if choice.strip().casefold() == answer.strip().casefold()), None)
    if kind == CHOICE and len(choices) > 1 and same is not None:
        return choice_target(row, choices, same)
    return Judged((answer,) if answer.strip() else ()), 0.0


def _instruction(row: Row) -> dict[str, Any]:
    """The kind of an instruction, and what it asks for: a struct, or JSON as text."""
    if not row.has("task_identifier"):
        return {}
    kwargs = dict(row.nested("kwargs").values) if row.values.get("kwargs") else {}
    return {"task_identifier": row.text("task_identifier"), "kwargs": kwargs}


def _bench(name: str, title: str, kind: str, scorers: tuple[str, ...], judge: str = "") -> Bench:
    choices = kind == CHOICE
    return Bench(
        name=name,
        title=title,
        read=partial(read, kind=kind),
        profiles=(step_profile("mmau"), *OTHER_CHOICES) if choices else (step_profile("mmau-pro"),),
        scorers=scorers,
        expected={"": {"": COUNTS[kind]}} if kind in COUNTS else {},
        judge=judge,
        license="CC-BY-NC-4.0",
        group_by=("category", "length", "sounds"),
        source="hub data set gamma-lab-umd/MMAU-Pro: test.parquet, and data.zip unpacked beside it",
    )


CHOICES = _bench("mmau-pro", "MMAU-Pro, choices", CHOICE, ("mcq.resolve",))
OPEN = _bench("mmau-pro-open", "MMAU-Pro, open questions", OPEN_ONE, ("mmaupro.open", "mmaupro.open_strict"),
              "Qwen2.5-7B-Instruct")  # fmt: skip
INSTRUCTIONS = _bench("mmau-pro-instructions", "MMAU-Pro, instructions", INSTRUCTION, ("mmaupro.instructions",))
