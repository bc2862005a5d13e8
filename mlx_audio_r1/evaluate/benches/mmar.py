"""MMAR: a thousand questions that want several steps of reasoning, about speech, sound, music and their mixes.

Read are MMAR-meta.jsonl (2026, with reasoning, cues and rubrics) and MMAR-meta.json (2025, without), with the
folder `audio` or the archive it comes in. The surprises: the two differ in six questions, and four questions
have an empty last choice, which is not shown.
"""

from __future__ import annotations

import tarfile
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from mlx_audio_r1.errors import EvaluationError
from mlx_audio_r1.evaluate.bench import Bench, Embedded, Question, Sound
from mlx_audio_r1.evaluate.benches.predictions import answered, json_lines, with_gold
from mlx_audio_r1.evaluate.profiles import OTHER_CHOICES, step_profile
from mlx_audio_r1.evaluate.rows import (
    Row,
    choice_target,
    find,
    found,
    groups_of,
    locate,
    read_json,
    without_empty_end,
)  # fmt: skip
from mlx_audio_r1.evaluate.scorers.string_match import lettered_gold, plain_gold
from mlx_audio_r1.tasks.item import Item
from mlx_audio_r1.tasks.reply import Reply

JSON_FILES, SOUNDS = ("MMAR-meta.jsonl", "MMAR-meta.json"), ("audio", "mmar-audio/audio", "mmar-audio")
ARCHIVES = ("mmar-audio.tar.gz", "*.tar.gz", "*.tar")
GROUPS = {"modality": "modality", "category": "category", "sub-category": "sub_category"}
IN_REF = ("thinking", "cue", "rubric")  # columns that an item has as references
VERSIONS = {
    "1c9a343e7bebf1037482b935c54eacd43cc63df7b2c668724b5560caf1f84fad": "2026-02",
    "7240ecca11b252c782ef44d4d19f711dd9b8424656a2bc3f92c548e318d25cee": "2025-05",
}


def read(path: Path) -> Iterator[Question]:
    """The questions of a download. Raises EvaluationError."""
    file = find(path, JSON_FILES, "the folder with MMAR-meta.jsonl and audio/")
    folder = file.parent
    archive = None if any((folder / name).is_dir() for name in SOUNDS) else found(folder, ARCHIVES)
    if archive:
        yield from _from_archive(archive, _rows(file))
        return
    for row in _rows(file):
        yield _question(row, locate(folder, row.text("audio_path"), *SOUNDS))


def pinned(path: Path) -> Path | None:
    return None if path.suffix == ".parquet" else found(path, JSON_FILES)


def _rows(file: Path) -> Iterator[Row]:
    for row in read_json(file):
        if not row.has("modality"):
            raise row.wrong("no modality: this is no file of MMAR")
        yield row


def _from_archive(archive: Path, rows: Iterable[Row]) -> Iterator[Question]:
    """In the order of the archive, which is read once; questions whose sound is not in it come last."""
    waiting: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        waiting[Path(row.text("audio_path")).name].append(row)
    try:
        with tarfile.open(archive) as tar:
            for member in tar:
                asked = waiting.pop(Path(member.name).name, []) if member.isfile() else []
                content = file.read() if asked and (file := tar.extractfile(member)) else b""
                yield from (_question(row, Embedded(content)) for row in asked)
    except (OSError, EOFError, tarfile.TarError) as error:
        raise EvaluationError(f"{archive}: cannot be unpacked ({error}); download it again") from None
    yield from (_question(row, Embedded(b"")) for left in waiting.values() for row in left)


def _question(row: Row, place: Sound) -> Question:
    choices = row.texts("choices")
    target, chance = choice_target(row, without_empty_end(choices), row.text("answer"))
    return Question(
        id=row.text("id"),
        text=row.text("question"),
        sounds=(place,),
        target=target,
        groups=groups_of(row, GROUPS),
        chance=chance,
        ref={
            "thinking": row.text_or("thinking") or None,
            "cues": row.listed("cue"),
            "rubric": row.listed("rubric"),
        },
        extra={"choices": list(choices), "row": {k: v for k, v in row.values.items() if k not in IN_REF}},
    )


def _predictions(items: Iterable[Item], replies: Mapping[str, Reply]) -> dict[str, str]:
    """evaluation.py's input twice, with and without the letters shown, and evaluation_rubrics.py's."""
    rows = list(answered(items, replies))
    made = {f"mmar_predictions{end}.jsonl": [with_gold(row, gold, "answer_prediction") for row in rows]
            for end, gold in (("", lettered_gold), ("_plain", plain_gold))}  # fmt: skip
    made["mmar_rubrics.jsonl"] = [
        {**row.official, "thinking": row.item.ref["thinking"], "cue": row.item.ref["cues"],
         "rubric": row.item.ref["rubric"], "thinking_prediction": row.thinking, "answer_prediction": row.answer}
        for row in rows if row.item.ref.get("rubric")
    ]  # fmt: skip
    return {name: json_lines(found) for name, found in made.items() if found}


BENCH = Bench(
    name="mmar",
    title="MMAR",
    read=read,
    profiles=(step_profile("mmar", settings={"repetition_penalty": 1.07}), *OTHER_CHOICES),
    scorers=("mmar.official", "mmar.official_plain", "mcq.resolve", "mmar.rubrics"),
    pinned=pinned,
    versions=VERSIONS,
    expected={
        "": {"": 1000},
        "modality": {"speech": 294, "mix-sound-speech": 218, "music": 206, "sound": 165, "mix-music-speech": 82,
                     "mix-sound-music-speech": 24, "mix-sound-music": 11},
    },
    judge="gpt-4o-2024-11-20",
    license="CC-BY-NC-4.0",
    predictions=_predictions,
    group_by=("modality", "category", "sub_category"),
    source="GitHub ddlBoJack/MMAR (MMAR-meta.jsonl) and mmar-audio.tar.gz of the hub data set BoJack/MMAR",
)  # fmt: skip
