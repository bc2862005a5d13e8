"""What official scripts read of an item: its row as the benchmark has it, or what can be made of the target.

Read are extra["choices"], extra["answer"] and extra["references"], raw; without them the target's options and
gold. The surprise: a raw choice may be a number, and an official script then compares numbers with texts.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mlx_audio_r1.tasks.gold import gold_text as told_to_people
from mlx_audio_r1.tasks.gold import shown
from mlx_audio_r1.tasks.item import Item
from mlx_audio_r1.tasks.judged import Judged
from mlx_audio_r1.tasks.number import Quantity
from mlx_audio_r1.tasks.wording import Wording


def raw_choices(item: Item) -> list[Any]:
    """The choices as they stand in the row."""
    found = item.extra.get("choices")
    return list(found) if isinstance(found, Sequence) and not isinstance(found, str) else [*item.target.options]


def raw_answer(item: Item) -> Any:
    """The right answer as it stands in the row."""
    return item.extra["answer"] if "answer" in item.extra else gold_text(item)


def gold_text(item: Item) -> str:
    """The right answer of the target, of numbers without their unit, "" where none can be written down."""
    target = item.target
    if isinstance(target, Quantity):
        return shown(target.value)
    if isinstance(target, Wording | Judged):
        return target.references[0] if isinstance(target, Wording) and target.references else ""
    return told_to_people(item)


def references(item: Item) -> tuple[str, ...]:
    """All texts that are right, at least one."""
    found = item.extra.get("references") or getattr(item.target, "references", ()) or (raw_answer(item),)
    return (found,) if isinstance(found, str) else tuple(str(text) for text in found)
