"""VoiceBench: spoken questions of six kinds, a benchmark each, because each is scored in another way.

Read are the parquet files, a folder for each subset; give one, or the folder of all, of which each benchmark
takes its own. The surprises: options are spoken, and read off the transcript; `alpacaeval` is a part of
`alpacaeval_full`; sd-qa has a split for each accent; and mtbench, of another layout, is not read.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
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
from mlx_audio_r1.tasks.options import read_options
from mlx_audio_r1.tasks.reply import Reply

COLUMNS = ("audio", "prompt")
SUBSETS = {  # kind -> subset -> how many there are
    "open": {"alpacaeval": 199, "alpacaeval_full": 636, "commoneval": 200, "wildvoice": 1000},
    "qa": {"sd-qa": 553},
    "mcq": {"openbookqa": 455, "mmsu": 3074},
    "bbh": {"bbh": 1000},
    "ifeval": {"ifeval": 345},
    "harm": {"advbench": 520},
}
IN_EXTRA = ("id", "reference", "prompt", "instruction_id_list", "kwargs")  # columns that rules read
LETTERS = ("A", "B", "C", "D")
Target = tuple[Any, float]  # with what a blind guess scores


def read(path: Path, kind: str) -> Iterator[Question]:
    """The questions of this kind in a download. Raises EvaluationError."""
    files = [(file, subset) for file in parquet_files(path) if (subset := subset_of(file)) in SUBSETS[kind]]
    if not files:
        raise EvaluationError(f"{path}: no parquet file below a folder called {' or '.join(SUBSETS[kind])}; "
                              "give that folder, or the one of all")  # fmt: skip
    numbers: dict[tuple[str, str], int] = defaultdict(int)
    for file, subset in files:
        split = split_of(file)
        for row in read_parquet(file, COLUMNS):
            yield _question(row, kind, (subset, split), numbers[subset, split], file.parent)
            numbers[subset, split] += 1


def subset_of(file: Path) -> str:
    """The name of the folder it lies in, or what its own begins with."""
    known = {subset for subsets in SUBSETS.values() for subset in subsets}
    names = (file.parent.name, file.parent.parent.name, split_of(file), split_of(file).rpartition("-")[0])
    return next((name for name in names if name in known), "")


def _question(row: Row, kind: str, place: tuple[str, str], number: int, folder: Path) -> Question:
    subset, split = place
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
        extra={"row": kept, **{name: kept[name] for name in IN_EXTRA if kept.get(name) is not None}},
    )


def _open(row: Row) -> Target:
    return Judged((row.text("output"),) if row.has("output") else ()), 0.0


def _reference(row: Row) -> Target:
    return Judged((row.text("reference"),)), 0.0


def _letter(row: Row) -> Target:
    letter = row.text("reference").strip().upper()
    if letter not in LETTERS:
        raise row.wrong(f"reference {letter[:20]!r}: expected A, B, C or D")
    spoken = read_options(row.text("prompt"))  # "... A. the cat B. the dog C. ..."
    options = spoken if len(spoken) == len(LETTERS) else LETTERS
    return Choice(options, (LETTERS.index(letter),)), 1 / len(LETTERS)


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


def _bench(kind: str, title: str, scorers: tuple[str, ...], judge: str = "") -> Bench:
    return Bench(
        name=f"voicebench-{kind}",
        title=f"VoiceBench, {title}",
        read=partial(read, kind=kind),
        profiles=(step_profile("voicebench", order=(AUDIO,)),),
        scorers=scorers,
        expected={"subset": SUBSETS[kind]},
        judge=judge,
        license="Apache-2.0",
        predictions=_predictions,
        group_by=("subset", "split"),
        source="hub data set hlt-lab/voicebench: its folders of parquet files",
    )


OPEN = _bench("open", "open questions", ("voicebench.open",), "gpt-4o-mini")
QA = _bench("qa", "questions with a reference", ("voicebench.qa",), "gpt-4o-mini")
MCQ = _bench("mcq", "multiple choice", ("voicebench.mcq", "mcq.resolve"))
BBH = _bench("bbh", "reasoning", ("voicebench.bbh", "world"))
IFEVAL = _bench("ifeval", "instructions", ("voicebench.ifeval",))
HARM = _bench("harm", "refusals", ("voicebench.harm",))
