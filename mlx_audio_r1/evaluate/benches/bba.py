"""Big Bench Audio: a thousand spoken puzzles. Each of four kinds has answers of its own form.

Read are metadata.jsonl with the MP3 files, and the parquet copy. The surprise: the question is in the sound
alone, and the authors' words only say which form the answer must have.
"""

# ruff: noqa: RUF001  (full-width marks are meant)
from __future__ import annotations

from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path

from mlx_audio_r1.errors import EvaluationError
from mlx_audio_r1.evaluate.bench import AUDIO, TEXT, Bench, Profile, Question, Sound
from mlx_audio_r1.evaluate.parquet import parquet_files, read_parquet, sound
from mlx_audio_r1.evaluate.profiles import STEP_SETTINGS, step_profile
from mlx_audio_r1.evaluate.rows import Row, found, locate, read_json
from mlx_audio_r1.tasks.boolean import Boolean
from mlx_audio_r1.tasks.label import Label
from mlx_audio_r1.tasks.number import Quantity

WORDS = (
    "仅用 \"valid\" 或 \"invalid\"，\"yes\" 或 \"no\"，或者数字来直接回答上面的问题，不要添加任何其他描述。"
)
JSON_FILES = ("metadata.jsonl", "*/metadata.jsonl")
COLUMNS = ("category", "official_answer", "audio", "id")
VALIDITY = ("valid", "invalid")
SYNONYMS = {"valid": ("有效",), "invalid": ("not valid", "无效")}
Target = tuple[Label | Boolean | Quantity, float]  # with what a blind guess scores


def read(path: Path) -> Iterator[Question]:
    """The questions of a download. Raises EvaluationError."""
    if json_file := pinned(path):
        for row in read_json(json_file):
            yield _question(row, locate(json_file.parent, row.text("file_name"), "data", "audio"))
    elif files := parquet_files(path):
        for file in files:
            for row in read_parquet(file, COLUMNS):
                yield _question(row, sound(row, "audio", folder=file.parent))
    else:
        raise EvaluationError(f"{path}: no metadata.jsonl, no parquet file in it; give the data set's folder")


def pinned(path: Path) -> Path | None:
    return None if path.suffix == ".parquet" else found(path, JSON_FILES)


def _question(row: Row, place: Sound) -> Question:
    category = row.text("category")
    if category not in TARGETS:
        raise row.wrong(f"category {category[:60]!r}: known are {', '.join(TARGETS)}")
    answer = row.text("official_answer")
    made = TARGETS[category](answer.strip().lower())
    if made is None:
        raise row.wrong(f"official_answer {answer[:60]!r}: not what {category} has")
    target, chance = made
    return Question(
        id=row.text("id"),
        text="",
        sounds=(place,),
        target=target,
        groups={"category": category},
        chance=chance,
        ref={"transcript": row.values.get("transcript")},
        extra={"official_answer": answer},
    )


def _validity(answer: str) -> Target | None:
    return (Label(answer, VALIDITY, SYNONYMS), 0.5) if answer in VALIDITY else None


def _polar(answer: str) -> Target | None:
    return (Boolean(answer == "yes"), 0.5) if answer in ("yes", "no") else None


def _count(answer: str) -> Target | None:
    return (Quantity(Fraction(answer)), 0.0) if answer.isdecimal() else None


TARGETS: dict[str, Callable[[str], Target | None]] = {  # category -> its form of answer, None for another
    "formal_fallacies": _validity, "navigate": _polar, "web_of_lies": _polar, "object_counting": _count,
}  # fmt: skip

BENCH = Bench(
    name="big-bench-audio",
    title="Big Bench Audio",
    read=read,
    profiles=(
        step_profile("big-bench-audio", order=(AUDIO, TEXT), words=WORDS),
        Profile("audio-only", order=(AUDIO,), settings=STEP_SETTINGS),
    ),
    scorers=("bba.rule", "world", "bba.judge"),
    pinned=pinned,
    expected={"": {"": 1000}, "category": dict.fromkeys(TARGETS, 250)},
    license="MIT",
    group_by=("category",),
    source="hub data set ArtificialAnalysis/big_bench_audio: metadata.jsonl with data/*.mp3",
)
