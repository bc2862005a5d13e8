"""Step-DU (dialogue understanding): 87 questions about the speaker's own voice, each with a label.

Read is metadata.jsonl with audio/ and prompts/. The surprises: labels end in spaces and may have several parts;
and with 87 questions one point is less than one question, so no two models should be told apart by this alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from mlx_audio_r1.evaluate.bench import AUDIO, TEXT, Bench, Profile, Question
from mlx_audio_r1.evaluate.judge_words import IN_REF, prompt_text, words_in
from mlx_audio_r1.evaluate.profiles import STEP_SETTINGS, step_profile
from mlx_audio_r1.evaluate.rows import Row, find, found, groups_of, locate, read_json
from mlx_audio_r1.tasks.judged import Judged

JSON_FILES = ("metadata.jsonl", "step_dialogue_understanding/metadata.jsonl")
WANTED = "the folder step_dialogue_understanding with metadata.jsonl, audio/ and prompts/"
LABEL = "recording_requirement_or_qa_category"
TEMPLATE, MARK = "prompts/model_user_prompt_template.txt", "{question}"  # without it the question is asked


def read(path: Path) -> Iterator[Question]:
    """The questions of a download. Raises EvaluationError."""
    file = find(path, JSON_FILES, WANTED)
    judge, place = words_in(file.parent / "prompts"), file.parent / TEMPLATE
    template = prompt_text(place) if place.is_file() else MARK
    for row in read_json(file):
        yield _question(row, template, {IN_REF: judge} if judge else {}, file.parent)


def pinned(path: Path) -> Path | None:
    return found(path, JSON_FILES)


def _question(row: Row, template: str, judge: dict[str, dict[str, str]], folder: Path) -> Question:
    return Question(
        id=row.text("id"),
        text=template.replace(MARK, row.text("input_question_text")),
        sounds=(locate(folder, row.text("audio_path"), "audio"),),
        target=Judged((row.text(LABEL).strip(),)),
        groups=groups_of(row, {"secondary_dimension": "dimension", "primary_dimension": "kind"}),
        lang="zh",
        ref={"transcript": row.text("input_question_text"), **judge},
    )


BENCH = Bench(
    name="step-dialogue",
    title="Step-DU",
    read=read,
    profiles=(
        step_profile("step-dialogue", order=(AUDIO, TEXT)),
        Profile("text-first", settings=STEP_SETTINGS),
    ),
    scorers=("du.judge", "du.rule"),
    pinned=pinned,
    expected={"": {"": 87}},
    license="Apache-2.0, recordings of third parties",
    group_by=("kind", "dimension"),
    source="the Step-Audio-R1 repository: benchmarks/Step-Audio-R1.5/step_dialogue_understanding",
)
