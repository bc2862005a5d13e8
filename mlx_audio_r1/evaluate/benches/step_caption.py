"""Step-Caption: describe the voices of a recording in one paragraph, held against fifteen labels a speaker.

Read is metadata.jsonl with the folders audio/ and prompts/. The surprise: the question is not in the data but
in prompts/model_user_prompt.txt, and is the same for all; what a judge is asked lies beside it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from mlx_audio_r1.evaluate.bench import AUDIO, TEXT, Bench, Profile, Question
from mlx_audio_r1.evaluate.judge_words import IN_REF, prompt_text, words_in
from mlx_audio_r1.evaluate.profiles import STEP_SETTINGS, step_profile
from mlx_audio_r1.evaluate.rows import Row, find, found, locate, read_json
from mlx_audio_r1.tasks.judged import Judged

JSON_FILES = ("metadata.jsonl", "step_caption/metadata.jsonl")
WANTED = "the folder step_caption with metadata.jsonl, audio/ and prompts/"
QUESTION = "prompts/model_user_prompt.txt"


def read(path: Path) -> Iterator[Question]:
    """The questions of a download. Raises EvaluationError."""
    file = find(path, JSON_FILES, WANTED)
    rows = read_json(file)
    for number, row in enumerate(rows):
        row.text("test_id")  # another benchmark's metadata is told before a missing prompt is
        if number == 0:
            text, judge = question_in(file.parent), words_in(file.parent / "prompts")
        yield _question(row, text, judge, file.parent)


def pinned(path: Path) -> Path | None:
    return found(path, JSON_FILES)


def question_in(folder: Path) -> str:
    """What is asked of every recording."""
    file = find(folder, (QUESTION,), f"the folder with {QUESTION}, which has the question")
    return prompt_text(file)


def _question(row: Row, text: str, judge: Mapping[str, str] | None, folder: Path) -> Question:
    speakers, several = _speakers(row), row.value("is_multi_speakers")
    if not isinstance(several, bool):
        raise row.wrong(f"is_multi_speakers {several!r}: expected true or false")
    return Question(
        id=row.text("test_id"),
        text=text,
        sounds=(locate(folder, row.text("audio"), "audio"),),
        target=Judged(),
        groups={"speakers": "several" if several else "one", "language": str(speakers[0].get("language", ""))},
        lang="zh",
        ref={"speakers": speakers, "several": several, **({IN_REF: judge} if judge else {})},
    )


def _speakers(row: Row) -> list[dict[str, Any]]:
    speakers = row.value("speakers")
    if not isinstance(speakers, list) or not speakers or not all(isinstance(one, Mapping) for one in speakers):
        raise row.wrong("speakers: expected a list with an object for each speaker")
    return [dict(one) for one in speakers]


BENCH = Bench(
    name="step-caption",
    title="Step-Caption",
    read=read,
    profiles=(
        step_profile("step-caption", order=(AUDIO, TEXT)),
        Profile("text-first", settings=STEP_SETTINGS),
    ),
    scorers=("caption.judge", "caption.recomputed"),
    pinned=pinned,
    expected={"": {"": 905}},
    license="Apache-2.0, recordings of third parties",
    group_by=("speakers", "language"),
    source="the Step-Audio-R1 repository: benchmarks/Step-Audio-R1.5/step_caption",
)
