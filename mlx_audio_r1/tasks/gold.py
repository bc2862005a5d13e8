"""The right answer of an item, in words for people and judges."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

from mlx_audio_r1.tasks.boolean import Boolean
from mlx_audio_r1.tasks.choice import Choice
from mlx_audio_r1.tasks.item import Item
from mlx_audio_r1.tasks.label import Label
from mlx_audio_r1.tasks.number import Quantity


def shown(value: Fraction) -> str:
    """ "7", "3.5"; a fraction that no decimal ends as "1/3"."""
    if value.denominator == 1:
        return str(value.numerator)
    return str(float(value)) if Fraction(str(float(value))) == value else str(value)


def gold_text(item: Item) -> str:
    """Empty where nobody has written one down."""
    target: Any = item.target
    if isinstance(target, Boolean):
        return "yes" if target.gold else "no"
    if isinstance(target, Quantity):
        return " ".join(filter(None, [shown(target.value), target.unit]))
    if isinstance(target, Choice):
        return target.gold_text
    return target.gold if isinstance(target, Label) else " | ".join(target.references)
