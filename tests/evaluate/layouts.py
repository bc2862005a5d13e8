"""Synthetic data sets in every official layout, tiny: what a download looks like, with other words and sounds.

    folder = layouts.mmau_json(tmp_path / "MMAU")       # a path for `audio-r1 eval import mmau`

Each function gives the path to import. Rows are made by `*_rows`, so that a test can spoil one before it is
written. Sounds are tones of a fifth of a second, all different.
"""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from mlx_audio_r1.tasks.world_rows import wav_bytes

Rows = list[dict[str, Any]]
WORDS = ("cello", "oboe", "harp", "snare", "a bell and a drum", "rain", "a child", "an old man")


def tone(number: int, rate: int = 16_000) -> np.ndarray:
    """(n,) float32, a fifth of a second; of every number another pitch."""
    return 0.3 * np.sin(2 * np.pi * (200 + 37 * number) * np.arange(rate // 5) / rate).astype(np.float32)


def wav(number: int, rate: int = 16_000) -> bytes:
    return wav_bytes(tone(number, rate), rate)


def mp3(number: int) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, tone(number, 24_000), 24_000, format="MP3")
    return file.getvalue()


def write(path: Path, content: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def write_json(path: Path, rows: Any) -> Path:
    return write(path, json.dumps(rows, ensure_ascii=False, indent=1).encode())


def write_jsonl(path: Path, rows: Iterable[Mapping[str, Any]]) -> Path:
    return write(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode())


def write_parquet(path: Path, rows: Sequence[Mapping[str, Any]]) -> Path:
    """Needs pyarrow."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist([dict(row) for row in rows]), path)
    return path


def lettered(choices: Sequence[str]) -> list[str]:
    return [f"({'ABCDEFGH'[i]}) {choice}" for i, choice in enumerate(choices)]


# MMAU


def mmau_rows(n: int = 8) -> Rows:
    """With the traps of the real file: a category in a list, equal choices, two to eight, chord names."""
    choices = [
        ["cello", "oboe", "harp", "snare"], ["yes", "no"], ["rain", "rain", "a bell and a drum", "a child"],
        list(WORDS), ["A:maj/5", "C:min", "D:maj", "G:7"], ["A", "B", "C", "D"],
        [" fast", "slow", "steady", "none"], ["happy", "sad", "angry", "calm", "bored"],
    ]  # fmt: skip
    gold = [2, 0, 0, 7, 1, 2, 1, 4]
    return [
        {
            "id": f"0{k}-mmau", "audio_id": f"./test-mini-audios/0{k}-mmau.wav", "question": f"What is {k}?",
            "choices": choices[k % 8], "answer": choices[k % 8][gold[k % 8]], "dataset": "made",
            "task": ("sound", "music", "speech")[k % 3], "split": "test-mini",
            "category": ["Reasoning"] if k == 1 else "Reasoning", "sub-category": f"Kind {k % 2}",
            "difficulty": ("easy", "medium", "hard")[k % 3],
        }
        for k in range(n)
    ]  # fmt: skip


def mmau_json(folder: Path, rows: Rows | None = None) -> Path:
    """GitHub's layout; the second sound is MP3 under a name that ends in .wav."""
    rows = mmau_rows() if rows is None else rows
    for k, row in enumerate(rows):
        write(folder / row["audio_id"], mp3(k) if k == 1 else wav(k, 44_100 if k % 2 else 16_000))
    write_json(folder / "mmau-test-mini.json", rows)
    return folder


def mmau_parquet(folder: Path, rows: Rows | None = None) -> Path:
    """The authors' parquet: letters in choices and answer, the rest as JSON in one column."""
    rows = mmau_rows() if rows is None else rows
    made = []
    for k, row in enumerate(rows):
        about = {name: row[name] for name in row if name not in ("question", "choices", "answer", "audio_id")}
        shown = lettered(row["choices"])
        made.append({
            "context": {"bytes": mp3(k) if k == 1 else wav(k), "path": None}, "instruction": row["question"],
            "choices": shown, "answer": shown[row["choices"].index(row["answer"])],
            "other_attributes": json.dumps(about),
        })  # fmt: skip
    write_parquet(folder / "test_mini.parquet", made)
    return folder


def mmau_others(folder: Path, rows: Rows | None = None, as_json: bool = True) -> Path:
    """A copy of other people: a column a fact, choices as JSON text."""
    rows = mmau_rows() if rows is None else rows
    made = [
        {
            "audio": {"bytes": wav(k), "path": f"{k}.wav"}, "question": row["question"],
            "choices": json.dumps(row["choices"]) if as_json else row["choices"], "answer": row["answer"],
            "task": row["task"], "difficulty": row["difficulty"],
        }
        for k, row in enumerate(rows)
    ]  # fmt: skip
    write_parquet(folder / "data" / "test-00000-of-00001.parquet", made)
    return folder


# MMSU


def mmsu_rows(n: int = 6) -> Rows:
    """With numbers among the choices, as the real file has them."""
    choices: list[list[Any]] = [["laugh", "burp", "cough", "yawn"], [1, 2, 3, 4], ["yes", "no", "", ""]]
    return [
        {
            "id": f"made_{k:04d}", "audio_path": f"audio/made_{k:04d}.wav", "question": f"Which is it, {k}?",
            **dict(zip(("choice_a", "choice_b", "choice_c", "choice_d"), choices[k % 3], strict=True)),
            "answer_gt": choices[k % 3][1], "task_name": f"task {k % 2}",
            "category": ("Perception", "Reasoning")[k % 2], "sub-category": "Paralinguistics",
            "sub-sub-category": "Speaking Style", "linguistics_sub_discipline": "none",
        }
        for k in range(n)
    ]  # fmt: skip


def mmsu_jsonl(folder: Path, rows: Rows | None = None) -> Path:
    rows = mmsu_rows() if rows is None else rows
    for k, row in enumerate(rows):
        write(folder / row["audio_path"], wav(k))
    write_jsonl(folder / "question" / "mmsu.jsonl", rows)
    return folder


def mmsu_parquet(folder: Path, rows: Rows | None = None) -> Path:
    """Two shards of the split `train`; a column of parquet has one type, so numbers are text there."""
    rows = mmsu_rows() if rows is None else rows
    made = [
        {"audio": {"bytes": wav(k), "path": Path(row["audio_path"]).name},
         **{name: str(value) for name, value in row.items() if name != "audio_path"}}
        for k, row in enumerate(rows)
    ]  # fmt: skip
    half = len(made) // 2
    write_parquet(folder / "data" / "train-00000-of-00002.parquet", made[:half])
    write_parquet(folder / "data" / "train-00001-of-00002.parquet", made[half:])
    return folder


# MMAR


def mmar_rows(n: int = 6) -> Rows:
    """With an empty last choice, which four real questions have."""
    choices = [["no", "yes"], ["a bell", "a drum", "rain", "wind"], ["slow", "fast", "both", "neither", ""]]
    modality = ("sound", "music", "speech", "mix-sound-music", "mix-sound-speech", "mix-music-speech")
    return [
        {
            "id": f"made{k}_00-00-00_00-00-10", "audio_path": f"./audio/made{k}_00-00-00_00-00-10.wav",
            "question": f"What follows, {k}?", "choices": choices[k % 3], "answer": choices[k % 3][k % 2],
            "modality": modality[k % 6], "category": "Signal Layer", "sub-category": f"Kind {k % 2}",
            "language": "en", "source": "youtube", "url": "none", "timestamp": "00:00:00,00:00:10",
            "thinking": "The pitch rises, so it is as it is.", "cue": ["rising pitch"],
            "rubric": [{"name": f"Criterion {i}", "scoring_point": "Award 1 point if it is so.", "note": "",
                        "choices": [0, 1]} for i in range(5)],
        }
        for k in range(n)
    ]  # fmt: skip


def mmar_jsonl(folder: Path, rows: Rows | None = None) -> Path:
    """GitHub's layout of 2026."""
    rows = mmar_rows() if rows is None else rows
    for k, row in enumerate(rows):
        write(folder / row["audio_path"], wav(k, 48_000))
    write_jsonl(folder / "MMAR-meta.jsonl", rows)
    return folder


def mmar_json(folder: Path) -> Path:
    """The hub's of 2025: an array, without reasoning; the sounds in the archive they come in."""
    rows = [{k: v for k, v in row.items() if k not in ("thinking", "cue", "rubric")} for row in mmar_rows()]
    write_json(folder / "MMAR-meta.json", rows)
    with tarfile.open(folder / "mmar-audio.tar.gz", "w:gz") as tar:
        for k, row in reversed(list(enumerate(rows))):
            content = wav(k)
            member = tarfile.TarInfo(row["audio_path"].removeprefix("./"))
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return folder


# Big Bench Audio


def big_bench_rows(n: int = 8) -> Rows:
    kinds = (("formal_fallacies", ("valid", "invalid")), ("navigate", ("Yes", "No")),
             ("web_of_lies", ("No", "Yes")), ("object_counting", ("7", "12")))  # fmt: skip
    return [
        {"category": kinds[k % 4][0], "official_answer": kinds[k % 4][1][k // 4 % 2],
         "file_name": f"data/question_{3 * k}.mp3", "id": 3 * k}
        for k in range(n)
    ]  # fmt: skip


def big_bench(folder: Path, rows: Rows | None = None) -> Path:
    rows = big_bench_rows() if rows is None else rows
    for k, row in enumerate(rows):
        write(folder / row["file_name"], mp3(k))
    write_jsonl(folder / "metadata.jsonl", rows)
    return folder


def big_bench_parquet(folder: Path) -> Path:
    made = [{**{k: v for k, v in row.items() if k != "file_name"}, "transcript": "Is it so?",
             "audio": {"bytes": mp3(k), "path": None}} for k, row in enumerate(big_bench_rows())]  # fmt: skip
    write_parquet(folder / "data" / "train-00000-of-00001.parquet", made)
    return folder


# Spoken-MQA

SPLITS = ("short_digit", "long_digit", "single_step_reasoning", "multi_step_reasoning")


def spoken_mqa_rows(split: str, n: int = 2) -> Rows:
    """A text in the arithmetic splits, a list of one in the others, here and there behind a solution."""
    arithmetic = split.endswith("digit")
    answers: Sequence[Any] = ("731", "0.60") if arithmetic else (["7"], ["3 and 4 are 7. #### 1,207"])
    return [
        {
            "context": {"bytes": wav(k), "path": None}, "context_transcript": "Tom has three apples.",
            "instruction": {"text": "Solve the given math question step by step.", "audio": None},
            "answer": {"text": answers[k % 2], "audio": None},
        }
        for k in range(n)
    ]  # fmt: skip


def spoken_mqa(folder: Path) -> Path:
    for split in SPLITS:
        write_parquet(folder / "data" / f"{split}-00000-of-00001.parquet", spoken_mqa_rows(split))
    return folder


# Your own


def generic_rows() -> Rows:
    """One of each form."""
    return [
        {"audio": "a.wav", "question": "Which is it?", "choices": ["drum", "bell"], "answer": "bell",
         "id": "columns"},
        {"messages": [{"role": "user", "content": "<audio>How many?"}], "audios": ["b.wav"], "solution": 3,
         "uid": "messages", "task": "count"},
        {"schema": "audio-r1.task/1", "uid": "item", "option_style": "brackets", "groups": {"task": "which"},
         "turns": [{"role": "human", "parts": [{"text": "Which?"}, {"options": True}, {"audio": "a.wav"}]}],
         "target": {"kind": "mcq", "choices": ["drum", "bell"], "gold": [0]}},
        {"index": 4, "audio_path": "b.wav", "prompt": "Is it loud?", "answer": "yes", "subset": "loudness"},
    ]  # fmt: skip


def generic(folder: Path, rows: Rows | None = None) -> Path:
    write(folder / "a.wav", wav(1))
    write(folder / "b.wav", wav(2))
    return write_jsonl(folder / "mine.jsonl", generic_rows() if rows is None else rows)


LAYOUTS = {  # name of the layout -> bench, what makes it, needs pyarrow
    "mmau-json": ("mmau", mmau_json, False), "mmau-parquet": ("mmau", mmau_parquet, True),
    "mmau-others": ("mmau", mmau_others, True), "mmsu-jsonl": ("mmsu", mmsu_jsonl, False),
    "mmsu-parquet": ("mmsu", mmsu_parquet, True), "mmar-jsonl": ("mmar", mmar_jsonl, False),
    "mmar-json": ("mmar", mmar_json, False), "big-bench": ("big-bench-audio", big_bench, False),
    "big-bench-parquet": ("big-bench-audio", big_bench_parquet, True),
    "spoken-mqa": ("spoken-mqa", spoken_mqa, True), "generic": ("generic", generic, False),
}  # fmt: skip
