"""VoiceBench: spoken questions: open, with a reference, with choices, of reasoning, with instructions, harmful.

Read are the parquet files, a folder for each subset; give one, or the folder of all. The surprises: options are
spoken, so a choice is between letters; `alpacaeval` is a part of `alpacaeval_full`; sd-qa has a split for each
accent; and mtbench, whose turns are of another layout, is not read.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from mlx_audio_r1.errors import EvaluationError
from mlx_audio_r1.evaluate.bench import AUDIO, Bench, Question
from mlx_audio_r1.evaluate.benches.predictions import answered, json_lines
from mlx_audio_r1.evaluate.parquet import parquet_files, read_parquet, sound, split_of
from mlx_audio_r1.evaluate.profiles import step_profile
from mlx_audio_r1.evaluate.rows import Row
from mlx_audio_r1.tasks.boolean import Boolean
from mlx_audio_r1.tasks.choice import Choice
from mlx_audio_r1.tasks.item import Item
from mlx_audio_r1.tasks.judged import Judged
from mlx_audio_r1.tasks.reply import Reply

COLUMNS = ("audio", "prompt")
SUBSETS = {  # name -> (what its questions are, how many there are)
    "alpacaeval": ("open", 199), "alpacaeval_full": ("open", 636), "commoneval": ("open", 200),
    "wildvoice": ("open", 1000), "openbookqa": ("mcq", 455), "mmsu": ("mcq", 3074), "sd-qa": ("qa", 553),
    "ifeval": ("ifeval", 345), "bbh": ("bbh", 1000), "advbench": ("harm", 520),
}  # fmt: skip
UNREAD = "mtbench"
LETTERS = ("A", "B", "C", "D")
Target = tuple[Any, float]  # with what a blind guess scores


def read(path: Path) -> Iterator[Question]:
    """The questions of a download. Raises EvaluationError."""
    files = [file for file in parquet_files(path) if UNREAD not in _names(file)]
    if not files:
        raise EvaluationError(f"{path}: no parquet file of a subset in it; give the folder of VoiceBench, or "
                              f"one of {', '.join(SUBSETS)}")  # fmt: skip
    numbers: dict[tuple[str, str], int] = defaultdict(int)
    for file in files:
        subset, split = subset_of(file), split_of(file)
        for row in read_parquet(file, COLUMNS):
            yield _question(row, subset, split, numbers[subset, split], file.parent)
            numbers[subset, split] += 1


def subset_of(file: Path) -> str:
    """By the names of the file and of the folders it lies in."""
    found = [name for name in _names(file) if name in SUBSETS]
    if not found:
        raise EvaluationError(f"{file}: of no subset; its folder should be called {', '.join(SUBSETS)}")
    return found[0]


def _names(file: Path) -> list[str]:
    stem = split_of(file)
    return [file.parent.name, file.parent.parent.name, stem, stem.rpartition("-")[0]]


def _question(row: Row, subset: str, split: str, number: int, folder: Path) -> Question:
    kind, _ = SUBSETS[subset]
    target, chance = TARGETS[kind](row)
    kept = {name: value for name, value in row.values.items() if name != "audio"}
    return Question(
        id=f"{subset}:{number}",
        text="",
        sounds=(sound(row, "audio", folder=folder),),
        target=target,
        groups={"subset": subset, "split": split},
        split=split,
        chance=chance,
        ref={"transcript": row.text("prompt")},
        extra={"kind": kind, "row": kept, "reference": kept.get("reference")},
    )


def _open(row: Row) -> Target:
    return Judged((row.text("output"),) if row.has("output") else ()), 0.0


def _reference(row: Row) -> Target:
    return Judged((row.text("reference"),)), 0.0


def _letter(row: Row) -> Target:
    letter = row.text("reference").strip().upper()
    if letter not in LETTERS:
        raise row.wrong(f"reference {letter[:20]!r}: expected A, B, C or D")
    return Choice(LETTERS, (LETTERS.index(letter),)), 1 / len(LETTERS)


def _reasoning(row: Row) -> Target:
    answer = row.text("reference").strip().lower()
    if answer in ("yes", "no"):
        return Boolean(answer == "yes"), 0.5
    if answer in ("(a)", "(b)"):
        return Choice(LETTERS[:2], (int(answer == "(b)"),)), 0.5
    raise row.wrong(f"reference {answer[:20]!r}: expected yes, no, (a) or (b)")


TARGETS: dict[str, Callable[[Row], Target]] = {
    "open": _open, "qa": _reference, "mcq": _letter, "bbh": _reasoning, "ifeval": _open, "harm": _open,
}  # fmt: skip


def _predictions(items: Iterable[Item], replies: Mapping[str, Reply]) -> dict[str, str]:
    """What evaluate.py and api_judge.py read, a file for each subset and split."""
    rows: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in answered(items, replies):
        name = f"{row.item.groups['subset']}-{row.item.groups['split']}-audio.jsonl"
        rows[name].append({**row.official, "response": row.answer})
    return {name: json_lines(found) for name, found in rows.items()}


BENCH = Bench(
    name="voicebench",
    title="VoiceBench",
    read=read,
    profiles=(step_profile("voicebench", order=(AUDIO,)),),
    scorers=("voicebench.open", "voicebench.qa", "mcq.resolve"),
    expected={"subset": {name: count for name, (_, count) in SUBSETS.items()}},
    judge="gpt-4o-mini",
    license="Apache-2.0",
    predictions=_predictions,
    group_by=("subset", "split"),
    source="hub data set hlt-lab/voicebench: its folders of parquet files",
)
