"""What official scripts read of an item: its row as the benchmark has it, or what can be made of the target.

Read are extra["choices"], extra["answer"] and extra["references"], raw; without them the target's options and
gold. The surprise: a raw choice may be a number, and an official script then compares numbers with texts.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from typing import Any

from mlx_audio_r1.tasks.boolean import Boolean
from mlx_audio_r1.tasks.choice import Choice
from mlx_audio_r1.tasks.item import Item
from mlx_audio_r1.tasks.label import Label
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
    """The right answer of the target, "" where none can be written down."""
    target = item.target
    if isinstance(target, Choice):
        return target.gold_text
    if isinstance(target, Label):
        return target.gold
    if isinstance(target, Boolean):
        return "yes" if target.gold else "no"
    if isinstance(target, Quantity):
        return shown(target.value)
    return target.references[0] if isinstance(target, Wording) and target.references else ""


def references(item: Item) -> tuple[str, ...]:
    """All texts that are right, at least one."""
    found = item.extra.get("references") or getattr(item.target, "references", ()) or (raw_answer(item),)
    return (found,) if isinstance(found, str) else tuple(str(text) for text in found)


def shown(value: Fraction) -> str:
    """ "7", "3.5"; a fraction that no decimal ends as "1/3"."""
    if value.denominator == 1:
        return str(value.numerator)
    return str(float(value)) if Fraction(str(float(value))) == value else str(value)
