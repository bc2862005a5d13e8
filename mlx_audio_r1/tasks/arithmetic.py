"""Sums in words, without end: text-only items for mixing with audio and for tests.

    arithmetic_item(seed=3, difficulty="medium").messages()   # "What is 47 - 18 + 6?"

The same seed and difficulty give the same item. Divisions come out even, and no result is negative.
"""

# ruff: noqa: RUF001  (full-width marks are meant)
from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction

import numpy as np

from mlx_audio_r1.tasks.item import Item, Turn
from mlx_audio_r1.tasks.number import Quantity

Rng = np.random.Generator
DIFFICULTIES = {  # name -> (numbers in the sum, largest of them)
    "easy": (2, 9),
    "medium": (3, 49),
    "hard": (4, 199),
}
WAYS = {
    "en": ("What is {}?", "Calculate {}.", "Work out {}.", "How much is {}?"),
    "zh": ("{}等于多少？", "请计算{}。", "算一算：{}。"),
}


def arithmetic_item(seed: int, difficulty: str = "easy", lang: str = "en") -> Item:
    """The sum of this seed. Raises KeyError for a difficulty or a language that is not there."""
    rng = np.random.default_rng([seed, list(DIFFICULTIES).index(difficulty)])
    count, largest = DIFFICULTIES[difficulty]
    expression, value = _drawn(rng, count, largest)
    text = str(rng.choice(WAYS[lang])).format(expression)
    return Item(
        uid=f"arithmetic/{difficulty}/{lang}/{seed}",
        turns=(Turn("user", (text,)),),
        target=Quantity(Fraction(value)),
        bench="arithmetic",
        lang=lang,
        groups={"task": "arithmetic", "difficulty": difficulty},
        extra={"expression": expression},
    )


def _drawn(rng: Rng, count: int, largest: int) -> tuple[str, int]:
    """A sum that never falls below zero, read from left to right with products first."""
    value, text = 0, ""
    for i in range(count):
        sign = 1 if not i or value == 0 else int(rng.choice([1, -1]))
        part, worth = _part(rng, largest if sign > 0 else min(largest, value))
        text = part if not i else f"{text} {'+' if sign > 0 else '-'} {part}"
        value += sign * worth
    return text, value


def _part(rng: Rng, most: int) -> tuple[str, int]:
    """A number of at most `most`, or a small product or quotient worth as much."""
    return _PARTS[int(rng.choice(len(_PARTS), p=[0.6, 0.25, 0.15]))](rng, most)


def _number(rng: Rng, most: int) -> tuple[str, int]:
    value = int(rng.integers(0 if most < 2 else 1, most + 1))
    return str(value), value


def _product(rng: Rng, most: int) -> tuple[str, int]:
    if most < 4:
        return _number(rng, most)
    one = int(rng.integers(2, most // 2 + 1))
    other = int(rng.integers(2, most // one + 1))
    return f"{one} × {other}", one * other


def _quotient(rng: Rng, most: int) -> tuple[str, int]:
    if most < 2:
        return _number(rng, most)
    divisor, value = int(rng.integers(2, 10)), int(rng.integers(1, most + 1))
    return f"{value * divisor} ÷ {divisor}", value


_PARTS: tuple[Callable[[Rng, int], tuple[str, int]], ...] = (_number, _product, _quotient)
