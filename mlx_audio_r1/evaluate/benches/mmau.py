"""MMAU, test-mini: a thousand questions about sound, music and speech.

Read are the JSON file with its folder of sounds, and the parquet files of the authors and of others. The
surprises: options may stand twice, a category may be a list of one, and the file was changed for months
under one name, so that only its sha256 says which questions these are.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from mlx_audio_r1.errors import EvaluationError
from mlx_audio_r1.evaluate.bench import Bench, Question, Sound
from mlx_audio_r1.evaluate.benches.predictions import answered, json_array, with_gold
from mlx_audio_r1.evaluate.parquet import columns_of, parquet_files, read_parquet, sound, split_of
from mlx_audio_r1.evaluate.profiles import OTHER_CHOICES, step_profile
from mlx_audio_r1.evaluate.rows import Row, choice_target, found, groups_of, locate, read_json
from mlx_audio_r1.evaluate.scorers.string_match import lettered_gold, plain_gold
from mlx_audio_r1.tasks.item import Item
from mlx_audio_r1.tasks.reply import Reply

JSON_FILES, SOUNDS = ("mmau-test-mini.json", "mmau*mini*.json"), ("test-mini-audios", "audio", "audios")
WANTED = "the folder with mmau-test-mini.json and test-mini-audios/, or the parquet files"
GROUPS = {"task": "task", "difficulty": "difficulty", "category": "category", "sub-category": "sub_category"}
ROW = ("id", "audio_id", "question", "choices", "answer", "dataset", "task", "split", "category",
       "sub-category", "difficulty")  # fmt: skip  # as evaluation.py reads it
AUTHORS = ("context", "instruction", "choices", "answer", "other_attributes")  # columns of their parquet
OTHERS = ("audio", "question", "choices", "answer")
_LETTER = re.compile(r"^\([A-H]\)\s*")
CURRENT = "v05.15.25"
VERSIONS = {  # sha256 of mmau-test-mini.json, by the day of its commit
    "5691ee65f86333f32efdba38554100a1ba49310be5ddfe7380902f0cde4431b9": CURRENT,  # of its questions
    "9f18fda99f8dbc2bc5ecd6323fb5063309f54969810b5c6f1caeb3b8d904cf1c": CURRENT,
    "3940399a013d5f6d528ad4f5d1701cce29cdb5b19ccd4e6ab2800e0665dd6ac9": "2025-06-23",
    "5c63fe8f2de12e848be146e48436567c2022fe84ea0012da560003c30a24b2b7": "2025-06-23, earlier",
    "0bbabee60dcbd76815948394ac2dd31c41d18ab1215fe6fd6f93e0e510f78d7a": "2025-05-30",
    "e0042de8b99492539b0a17997b6c12fff90a6d42a47ad5fd8801c80dcb52b405": "2025-05-24",
    "157f1968a686c9e7ffb3669e13296349af72afe78af19c049e5d459ccb59d402": "2025-05-22",
    "cc59d9e3fad1a675f311f341b53b05079b94e735e5bc8992ac881ebeda2976f5": "2025-05-19",
    "cafecebbb4e48b9eb83fd88916911a853245379812e08f118984510340b2dc5b": "2025-05-18",
    "ea9f3f53085a2dfcf9ea7f5b2fca76a6634cd212af084bbb4cd8bf22c8903537": "2025-05-16",
    "9da96f00e43890adfbac3628b7b0dab3a32a6d6ec2d0a800b892ee261d35b818": "2025-05-16, earlier",
    "d35ec10bc3097fc605661b0eed00a487da74a6e7d9e23736567312c632347400": "2025-05-15",
    "e8cc09223b497191781756212cb616315690aaa6ea7ac359db1b65d97d1e2433": "2025-03-25",
    "ed2fd6b6c24ebec1a5a496de5d767e7ebfe79556044d8f0d8bd00ad0cf02d623": "2025-01-28",
    "850c2794664d53c1f7e7e2bcf35744b9ab4e60debad2156d67efd6956220affa": "2024-12-09",
    "1b6d31d0b70c2944a064a5de0147435427af0bcd3167eff175daa8bd5321e9d3": "2024-10-29",
    "a5006730ccb3fbf1fc72016774413b9b4a596bb00ce8f37796d9d30979b46192": "2024-10-25",
    "bef649e4bdeb436779a929ccdb9caa3f5144899bd087fc05e23065268ba888cc": "2024-10-23",
}


def read(path: Path) -> Iterator[Question]:
    """The questions of a download. Raises EvaluationError."""
    if json_file := _json_file(path):
        return _from_json(json_file)
    if files := parquet_files(path):
        return _from_parquet(files)
    raise EvaluationError(f"{path}: no {JSON_FILES[0]} and no parquet file in it; give {WANTED}")


def pinned(path: Path) -> Path | None:
    """The JSON file; parquet files are told by their questions."""
    return _json_file(path)


def _json_file(path: Path) -> Path | None:
    return None if path.suffix == ".parquet" else found(path, JSON_FILES)


def _from_json(path: Path) -> Iterator[Question]:
    for row in read_json(path):
        if not row.has("task", "difficulty"):
            raise row.wrong("no task and difficulty: this is no file of MMAU")
        place = locate(path.parent, row.text("audio_id"), *SOUNDS)
        yield _question(row, row.text("id"), place)


def _from_parquet(files: Sequence[Path]) -> Iterator[Question]:
    for path in files:
        known = set(columns_of(path))
        if set(AUTHORS) <= known:
            yield from map(_of_authors, read_parquet(path, AUTHORS))
        else:
            for number, row in enumerate(read_parquet(path, OTHERS)):
                yield _of_others(row, number, path)


def _of_authors(row: Row) -> Question:
    """Their choices and answer carry "(A) ", and what else is known lies in one column as JSON."""
    raw = {"choices": list(row.texts("choices")), "answer": row.text("answer")}
    plain = {
        **row.nested("other_attributes").values,
        "question": row.text("instruction"),
        "choices": [_LETTER.sub("", choice) for choice in raw["choices"]],
        "answer": _LETTER.sub("", raw["answer"]),
    }
    about = Row(row.where, plain)
    return _question(about, about.text("id"), sound(row, "context", folder=Path()), raw)


def _of_others(row: Row, number: int, path: Path) -> Question:
    """Copies of other people: as many columns of the authors' as they liked to keep."""
    name = next((str(row.values[key]) for key in ("id", "question_id", "index") if row.has(key)), str(number))
    plain = {key: value for key, value in row.values.items() if key != "audio"}
    plain |= {"id": name, "choices": list(row.texts("choices"))}
    plain.setdefault("split", split_of(path))
    return _question(Row(row.where, plain), name, sound(row, "audio", folder=path.parent))


def _question(row: Row, name: str, place: Sound, raw: Mapping[str, Any] | None = None) -> Question:
    target, chance = choice_target(row, row.texts("choices"), row.text("answer"))
    official = {key: row.values[key] for key in ROW if key in row.values}
    return Question(
        id=name,
        text=row.text("question"),
        sounds=(place,),
        target=target,
        groups=groups_of(row, GROUPS),
        split=row.text_or("split", "test-mini"),
        chance=chance,
        extra={**(raw or {}), "row": official},
    )


def _predictions(items: Iterable[Item], replies: Mapping[str, Reply]) -> dict[str, str]:
    """evaluation.py's input twice: choices with the letters they were shown with, and as in the file."""
    rows = [row for row in answered(items, replies) if {"task", "difficulty"} <= row.official.keys()]
    forms = {"mmau_predictions.json": lettered_gold, "mmau_predictions_plain.json": plain_gold}
    return {name: json_array(with_gold(row, gold, "model_output") for row in rows)
            for name, gold in forms.items() if rows}  # fmt: skip


BENCH = Bench(
    name="mmau",
    title="MMAU, test-mini",
    read=read,
    profiles=(step_profile("mmau"), *OTHER_CHOICES),
    scorers=("mmau.official", "mmau.official_plain", "mcq.resolve"),
    pinned=pinned,
    versions=VERSIONS,
    comparable=(CURRENT,),
    expected={
        "": {"": 1000},
        "task": {"sound": 333, "music": 334, "speech": 333},
        "difficulty": {"easy": 224, "medium": 540, "hard": 236},
    },
    license="CC-BY-NC-4.0",
    predictions=_predictions,
    group_by=("task", "difficulty", "sub_category"),
    source="GitHub Sakshi113/MMAU and its test-mini sounds, or the parquet of gamma-lab-umd/MMAU-test-mini",
)
