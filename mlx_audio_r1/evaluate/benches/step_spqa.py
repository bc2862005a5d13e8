"""Step-SPQA: questions about how a voice or a place sounds, spoken in the recording itself; eleven kinds of 50.

Read is metadata.jsonl with audio/ and prompts/judge_prompts/. The surprise: the published table mixes models
that were asked 500 and 550 questions, so the kinds are shown one by one, and either share can be compared.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from mlx_audio_r1.errors import EvaluationError
from mlx_audio_r1.evaluate.bench import AUDIO, TEXT, Bench, Question
from mlx_audio_r1.evaluate.judge_words import IN_REF, prompt_text
from mlx_audio_r1.evaluate.profiles import step_profile
from mlx_audio_r1.evaluate.rows import Row, find, found, locate, read_json
from mlx_audio_r1.tasks.judged import Judged

JSON_FILES = ("metadata.jsonl", "step_spqa/metadata.jsonl")
WANTED = "the folder step_spqa with metadata.jsonl, audio/ and prompts/"
JUDGES, MAP, DEFAULT = "prompts/judge_prompts", "prompt_map.json", "default"
TASKS = ("age", "emotions", "event", "gender", "pitch", "rhythm", "scene", "speed", "vocalsound",
         "voice_styles", "voice_tone")  # fmt: skip


def read(path: Path) -> Iterator[Question]:
    """The questions of a download. Raises EvaluationError."""
    file = find(path, JSON_FILES, WANTED)
    judges = judge_prompts(file.parent / JUDGES)
    for row in read_json(file):
        yield _question(row, judges, file.parent)


def pinned(path: Path) -> Path | None:
    return found(path, JSON_FILES)


def judge_prompts(folder: Path) -> dict[str, str]:
    """kind -> what a judge is asked, {} where the download has no prompts."""
    if not (folder / MAP).is_file():
        return {}
    try:
        names = {str(task): folder / str(name) for task, name in json.loads(prompt_text(folder / MAP)).items()}
    except (ValueError, AttributeError):
        raise EvaluationError(f"{folder / MAP}: is no JSON object; download the prompts again") from None
    return {task: prompt_text(place) for task, place in names.items()}


def _question(row: Row, judges: dict[str, str], folder: Path) -> Question:
    task = row.text("task_type")
    spoken = row.values.get("audio_only_input", True)
    words = judges.get(task) or judges.get(DEFAULT)
    return Question(
        id=row.text("id"),
        text="" if spoken else row.text("question"),
        sounds=(locate(folder, row.text("audio_path"), f"audio/{task}", "audio"),),
        target=Judged((row.text("reference_answer").strip(),)),
        groups={"task": task},
        lang="zh",
        ref={
            "transcript": row.values.get("legacy_question"),
            **({IN_REF: {"user": words, "source": "its download"}} if words else {}),
        },
        extra={"label": row.text_or("label").strip()},
    )


BENCH = Bench(
    name="step-spqa",
    title="Step-SPQA",
    read=read,
    profiles=(step_profile("step-spqa", order=(AUDIO, TEXT)),),
    scorers=("spqa.judge", "spqa.exact"),
    pinned=pinned,
    expected={"": {"": 550}, "task": dict.fromkeys(TASKS, 50)},
    license="Apache-2.0, recordings of third parties",
    group_by=("task",),
    source="the Step-Audio-R1 repository: benchmarks/Step-Audio-R1.5/step_spqa",
)
