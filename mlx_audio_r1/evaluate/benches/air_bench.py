"""AIR-Bench: Foundation, 19 tasks of single choice, and Chat, open questions that a judge marks.

Read are Foundation_meta.json and Chat_meta.json; sounds lie in folders named after task and data set. The
surprises: sounds of Audio_Grounding end in .flac, whatever the file says; and questions of two or three
choices have none for the other letters, where the authors' prompt writes "None".
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path

from mlx_audio_r1.evaluate.bench import AUDIO, TEXT, Bench, Profile, Question
from mlx_audio_r1.evaluate.benches.predictions import answered, json_lines
from mlx_audio_r1.evaluate.profiles import OTHER_CHOICES, STEP_SETTINGS, step_profile
from mlx_audio_r1.evaluate.rows import Row, choice_target, find, found, groups_of, read_json, without_empty_end
from mlx_audio_r1.tasks.item import Item
from mlx_audio_r1.tasks.judged import Judged
from mlx_audio_r1.tasks.reply import Reply

CHOICES = ("choice_a", "choice_b", "choice_c", "choice_d")
FOUNDATION_FILES = ("Foundation_meta.json", "Foundation/Foundation_meta.json")
CHAT_FILES = ("Chat_meta.json", "Chat/Chat_meta.json")
GROUPS = {"task_name": "task", "dataset_name": "dataset"}
AREAS = {  # the areas that Chat is reported by
    "speech_QA": "speech", "speech_dialogue_QA": "speech", "sound_QA": "sound", "sound_generation_QA": "sound",
    "music_QA": "music", "music_generation_analysis_QA": "music", "speech_and_sound_QA": "speech_and_sound",
    "speech_and_music_QA": "speech_and_music",
}  # fmt: skip
KEPT = ("path", "question", *CHOICES, "answer_gt", "task_name", "dataset_name", "uniq_id", "meta_info")


def read_foundation(path: Path) -> Iterator[Question]:
    """The questions of a download of Foundation. Raises EvaluationError."""
    file = find(path, FOUNDATION_FILES, "the folder with Foundation_meta.json")
    for row in read_json(file):
        choices = without_empty_end([row.text_or(name) for name in CHOICES])
        target, chance = choice_target(row, choices, row.text("answer_gt"))
        yield Question(
            id=row.text("uniq_id"), text=row.text("question"), sounds=(_sound(row, file.parent),),
            target=target, groups=groups_of(row, GROUPS), chance=chance, extra={"row": _kept(row)},
        )  # fmt: skip


def read_chat(path: Path) -> Iterator[Question]:
    """The questions of a download of Chat. Raises EvaluationError."""
    file = find(path, CHAT_FILES, "the folder with Chat_meta.json")
    for row in read_json(file):
        task = row.text("task_name")
        yield Question(
            id=row.text("uniq_id"), text=row.text("question"), sounds=(_sound(row, file.parent),),
            target=Judged((row.text("answer_gt"),)), extra={"row": _kept(row)},
            groups={**groups_of(row, GROUPS), "area": AREAS.get(task, task)},
            ref={"description": row.text("meta_info")},
        )  # fmt: skip


def _sound(row: Row, folder: Path) -> Path:
    """The file as it is named, or as the same name ends in .flac."""
    named = folder / f"{row.text('task_name')}_{row.text('dataset_name')}" / row.text("path")
    other = named.with_suffix(".flac")
    return other if not named.is_file() and other.is_file() else named


def _kept(row: Row) -> dict[str, object]:
    return {name: row.values[name] for name in KEPT if name in row.values}


def _predictions(items: Iterable[Item], replies: Mapping[str, Reply], name: str) -> dict[str, str]:
    """What score_foundation.py and score_chat.py read, where the file has the name they look for."""
    return {name: json_lines({**row.official, "response": row.answer} for row in answered(items, replies))}


FOUNDATION = Bench(
    name="air-bench-foundation",
    title="AIR-Bench Foundation",
    read=read_foundation,
    profiles=(
        Profile("official/air-bench", option_style="air-bench", settings=STEP_SETTINGS),
        step_profile("mmau"),
        *OTHER_CHOICES,
    ),
    scorers=("airbench.official", "mcq.resolve"),
    pinned=lambda path: found(path, FOUNDATION_FILES),
    license="Apache-2.0, sounds under the licences of their data sets",
    predictions=partial(_predictions, name="Foundation_result.jsonl"),
    group_by=("task", "dataset"),
    source="hub data set qyang1021/AIR-Bench-Dataset: the folder Foundation",
)
CHAT = Bench(
    name="air-bench-chat",
    title="AIR-Bench Chat",
    read=read_chat,
    profiles=(
        step_profile("air-bench-chat", order=(AUDIO, TEXT)),
        Profile("text-first", settings=STEP_SETTINGS),
    ),
    scorers=("airbench.chat",),
    pinned=lambda path: found(path, CHAT_FILES),
    judge="gpt-4-0125-preview",
    license="Apache-2.0, sounds under the licences of their data sets",
    predictions=partial(_predictions, name="Chat_result.jsonl"),
    group_by=("area", "task", "dataset"),
    source="hub data set qyang1021/AIR-Bench-Dataset: the folder Chat",
)
