"""The acoustic world and sums as a data folder: what `train rl`, `train sft` and `data check` read.

    plan = WorldPlan(train=400, valid=50, tasks=("count", "compare"), difficulty="easy")
    write_world("world", plan)      # clips/*.wav, train.jsonl, valid.jsonl
    item_row(item, "rl", "clips/a.wav")

A row of form `rl` ends in the question and has the columns that `from_rows` makes the item of again; `sft`
is the same with a reply. The surprise: a folder appears whole or not at all, so a run that was killed
leaves `<folder>.new`, which the next one throws away.
"""

from __future__ import annotations

import json
import os
import shutil
import struct
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mlx_audio_r1.config import SAMPLE_RATE
from mlx_audio_r1.errors import DataError
from mlx_audio_r1.files import disk_errors, sync_folder, write_file
from mlx_audio_r1.prompt import AudioPart
from mlx_audio_r1.tasks.acoustic_world import DIFFICULTIES, world_item, world_tasks
from mlx_audio_r1.tasks.arithmetic import arithmetic_item
from mlx_audio_r1.tasks.boolean import Boolean
from mlx_audio_r1.tasks.choice import Choice
from mlx_audio_r1.tasks.item import Item
from mlx_audio_r1.tasks.label import Label
from mlx_audio_r1.tasks.number import Quantity
from mlx_audio_r1.tasks.wording import Wording

FORMS, SPLITS = ("rl", "sft"), ("train", "valid", "test")
MOST_ROWS = 1_000_000  # of a split; its seeds end where the next split's begin
Telling = Callable[[str, int, int], None]  # split, items made, items wanted


@dataclass(frozen=True)
class WorldPlan:
    """What to write. train, valid, test: questions about clips in each split; arithmetic: sums added to
    train, and in proportion to the others. tasks and difficulty: all where None."""

    train: int = 400
    valid: int = 40
    test: int = 0
    arithmetic: int = 0
    tasks: tuple[str, ...] | None = None
    difficulty: str | None = None
    choice: bool = True
    seed: int = 0
    form: str = "rl"

    def __post_init__(self) -> None:
        wrong = [t for t in self.tasks or () if t not in world_tasks()]
        if wrong:
            raise DataError(f"no task {wrong[0]!r} here; there are {', '.join(world_tasks())}")
        if self.difficulty not in (None, *DIFFICULTIES):
            raise DataError(f"no difficulty {self.difficulty!r}; there are {', '.join(DIFFICULTIES)}")
        if self.form not in FORMS:
            raise DataError(f"no form {self.form!r} of rows; there are {', '.join(FORMS)}")
        if not 0 <= min(self.counts.values()) <= max(self.counts.values()) < MOST_ROWS or self.arithmetic < 0:
            raise DataError(f"{self.counts} rows: each split takes 0 to {MOST_ROWS - 1}")
        if not any(self.counts.values()) and not self.arithmetic:
            raise DataError("no rows wanted: give --train, --valid, --test or --arithmetic a number")

    @property
    def counts(self) -> dict[str, int]:
        return {"train": self.train, "valid": self.valid, "test": self.test}

    def sums(self, split: str) -> int:
        """How many sums a split gets."""
        if split == "train" or not self.train:
            return self.arithmetic if split == "train" else 0
        return round(self.arithmetic * self.counts[split] / self.train)

    def first_seed(self, split: str) -> int:
        """Of its items: no two splits, and no two seeds of a plan, share one."""
        return (self.seed * len(SPLITS) + SPLITS.index(split)) * MOST_ROWS


def world_items(plan: WorldPlan, split: str) -> Iterator[Item]:
    """The items of a split: tasks in turn, then the sums. Every answer of a task is as likely as the others.

    Raises DataError where a task has no clip of the wanted difficulty.
    """
    first, tasks = plan.first_seed(split), plan.tasks or world_tasks()
    for number in range(plan.counts[split]):
        try:
            yield world_item(first + number, tasks[number % len(tasks)], plan.difficulty, choice=plan.choice)
        except ValueError as error:
            raise DataError(f"{split} item {number + 1}: {error}; take another task or difficulty") from None
    for number in range(plan.sums(split)):
        level = plan.difficulty or DIFFICULTIES[number % len(DIFFICULTIES)]
        yield arithmetic_item(first + number, level, ("en", "zh")[number // len(DIFFICULTIES) % 2])


def item_row(item: Item, form: str = "rl", sound: str | None = None) -> dict[str, Any]:
    """The row of an item; `sound` is the path of its clip, counted from the file of the row."""
    parts = ["<audio>" if isinstance(p, AudioPart) else p for p in item.messages()[0].parts]
    messages = [{"role": "user", "content": "".join(parts)}]
    if form == "sft":
        messages.append({"role": "assistant", "content": model_reply(item)})
    return {
        "messages": messages,
        **({"audios": [sound]} if sound else {}),
        **_WRITERS[type(item.target)](item.target),
        "task": item.groups["task"],
        "difficulty": item.groups["difficulty"],
        "chance": round(item.chance, 4),
        "uid": item.uid,
    }


def model_reply(item: Item) -> str:
    """The reasoning and the answer of one who listened, or who can add up."""
    reasoning, answer = item.ref.get("thinking"), item.ref.get("answer")
    if answer is None:
        answer = str(item.target.value)
        reasoning = f"{item.extra['expression']} = {answer}."
    return f"<think>\n{reasoning}\n</think>\n{answer}"


def write_world(folder: str | Path, plan: WorldPlan, tell: Telling | None = None) -> dict[str, Counter[str]]:
    """Write the folder; gives the number of rows of each task, split by split.

    Raises DataError where the folder has something in it, DiskError where it cannot be written.
    """
    folder = Path(folder)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise DataError(f"{folder}: is there already and not empty; give -o a new folder")
    aside = folder.with_name(folder.name + ".new")
    with disk_errors(folder):
        shutil.rmtree(aside, ignore_errors=True)
        (aside / "clips").mkdir(parents=True)
        written = {split: _write_split(aside, plan, split, tell) for split in SPLITS}
        sync_folder(aside)
        os.replace(aside, folder)
    return {split: rows for split, rows in written.items() if rows}


def _write_split(folder: Path, plan: WorldPlan, split: str, tell: Telling | None) -> Counter[str]:
    rows, lines, wanted = Counter[str](), [], plan.counts[split] + plan.sums(split)
    for number, item in enumerate(world_items(plan, split), start=1):
        sound = f"clips/{split}-{number:06d}.wav" if item.has_audio else None
        if sound:
            write_wav(folder / sound, np.asarray(item.sounds[0].source))
        lines.append(json.dumps(item_row(item, plan.form, sound), ensure_ascii=False) + "\n")
        rows[str(item.groups["task"])] += 1
        if tell:
            tell(split, number, wanted)
    if lines:
        write_file(folder / f"{split}.jsonl", "".join(lines))
    return rows


def write_wav(path: Path, waveform: np.ndarray) -> None:
    """(samples,) float in [-1, 1] at 16 kHz -> a 16-bit file, the same bytes on every machine."""
    path.write_bytes(wav_bytes(waveform))


def wav_bytes(waveform: np.ndarray, sample_rate: int = SAMPLE_RATE) -> bytes:
    """(samples,) float in [-1, 1] -> the content of a 16-bit file."""
    data = np.clip(np.rint(waveform * 32_767), -32_768, 32_767).astype("<i2").tobytes()
    head = struct.pack("<4sI8sIHHIIHH4sI", b"RIFF", 36 + len(data), b"WAVEfmt ", 16, 1, 1, sample_rate,
                       2 * sample_rate, 2, 16, b"data", len(data))  # fmt: skip
    return head + data


def _label(target: Label) -> dict[str, Any]:
    labels = {name: list(target.synonyms.get(name, ())) for name in target.labels}
    return {"solution": target.gold, "problem_type": "label", "labels": labels}


_WRITERS: Mapping[type, Callable[[Any], dict[str, Any]]] = {  # target -> the columns it is read from again
    Choice: lambda t: {"solution": t.gold_text, "problem_type": "mcq", "options": [*t.options]},
    Quantity: lambda t: {"solution": str(t.value), "problem_type": "number"},
    Boolean: lambda t: {"solution": "yes" if t.gold else "no", "problem_type": "boolean"},
    Wording: lambda t: {"solution": t.references[0], "problem_type": "text"},
    Label: _label,
}
