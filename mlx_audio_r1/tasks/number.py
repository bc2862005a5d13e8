"""A number, perhaps with a unit: which one does a reply give, and is it near enough?

The number behind the last "the answer is" or "####", else the last one: digits before words. The surprise:
"3 or 4" is no answer, although it ends in a number.
"""

# ruff: noqa: RUF001  (full-width marks are meant)
from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise

from mlx_audio_r1.tasks.item import Item, Verdict
from mlx_audio_r1.tasks.names import answers_after_cues
from mlx_audio_r1.tasks.numerals import Number, find_numbers, spelled_out
from mlx_audio_r1.tasks.plain import has_words, plain
from mlx_audio_r1.tasks.units import Unit, unit_after, unit_named

TOLERANCE = Fraction(1, 10**6)
_HEDGE = re.compile(
    r"\s*(?:\w+\s+)?(?:or|to|~|–|或者?|到|至|还是)\s*(?:maybe |perhaps |about )?|-", re.IGNORECASE
)
_DENIED = re.compile(
    r"(?:\b(?:not|never|neither|nor|rather than|instead of)|n't|不是|并非)(?: an?| exactly)?\s*$", re.IGNORECASE
)
_OUT_OF = re.compile(r"\s*(?:\w+\s+)?(?:out )?of(?: the| these| those)?\s*", re.IGNORECASE)  # "7 out of 10"
_OPENING_END = re.compile(r"\n|:(?=\s)")
_BETWEEN = re.compile(r"\bbetween $", re.IGNORECASE)
_ASIDE = re.compile(r"\([^()\n]{0,200}\)")


@dataclass(frozen=True)
class Quantity:
    """`value` in `unit`; right within `tolerance` (in the unit) or the share `relative` of the value."""

    value: Fraction
    unit: str | None = None
    tolerance: Fraction = TOLERANCE
    relative: Fraction = Fraction(0)

    def holds(self, value: Fraction) -> bool:
        return abs(value - self.value) <= max(self.tolerance, self.relative * abs(self.value))


@dataclass(frozen=True)
class Reading:
    """The number a text gives, with the unit behind it."""

    value: Fraction
    unit: Unit | None
    why: str


def verify_number(answer: str, item: Item) -> Verdict:
    """Is the number of the answer the right one?"""
    target: Quantity = item.target
    if not has_words(answer):
        return Verdict(0.0, None, "empty")
    wanted = unit_named(target.unit) if target.unit else None
    reading = read_number(answer, wanted)
    if isinstance(reading, str):
        return Verdict(0.0, None, reading)
    if wanted and reading.unit and reading.unit.kind != wanted.kind:
        return Verdict(
            0.0, _shown(reading.value, reading.unit.name), f"unit {reading.unit.name}, not {wanted.name}"
        )
    values = _possible(reading, wanted)
    right = [value for value in values if target.holds(value)]
    return Verdict(
        float(bool(right)), _shown((right or values)[0], wanted.name if wanted else None), reading.why
    )


def read_number(text: str, wanted: Unit | None = None) -> Reading | str:
    """The number a reply gives, or why there is none."""
    text = plain(spelled_out(text).replace("####", "\nAnswer: "))
    for piece in reversed(answers_after_cues(text)):
        piece = piece.rpartition("=")[2]
        numbers = _read(piece)
        if numbers:
            return _reading(piece, numbers, numbers[0], "answer: number")
    outside = _ASIDE.sub(lambda m: " " * len(m.group()), text)
    text = outside if _read(outside) else text
    numbers = _with_unit(text, _read(text), wanted)
    if not numbers:
        return "no number"
    if len(numbers) > 1 and (first := _opening(text, numbers)):
        return _reading(text, numbers, first, "number first")
    chosen = (
        numbers[-2]
        if len(numbers) > 1 and _OUT_OF.fullmatch(text, numbers[-2].end, numbers[-1].start)
        else numbers[-1]
    )
    return _reading(text, numbers, chosen, "number" if len(numbers) == 1 else "last number")


def _opening(text: str, numbers: list[Number]) -> Number | None:
    """The number that the first line is: "7\\n3 + 4", "7 sounds: 3 drums and 4 bells"."""
    first, end = numbers[0], _OPENING_END.search(text)
    if end is None or first.start > 1 or not first.end <= end.start() < numbers[1].start:
        return None
    return first if len(text[first.end : end.start()].split()) <= 2 else None


def _read(text: str) -> list[Number]:
    """Those in digits if there are any, else those in words, a lone "one" last of all; none denied."""
    counted = [n for n in find_numbers(text) if n.end > n.start]
    counted = [n for n in counted if not _DENIED.search(text, max(0, n.start - 25), n.start)]
    digits, strong = [n for n in counted if n.digits], [n for n in counted if not n.weak]
    return digits or strong or counted


def _with_unit(text: str, numbers: list[Number], wanted: Unit | None) -> list[Number]:
    """Those in a unit of the wanted kind, if there are any."""
    units = [unit_after(text, n.end) for n in numbers]
    fitting = [
        n for n, unit in zip(numbers, units, strict=True) if unit and wanted and unit.kind == wanted.kind
    ]
    return fitting or numbers


def _reading(text: str, numbers: list[Number], chosen: Number, why: str) -> Reading | str:
    """`chosen`, unless the reply leaves open whether it is this one or its neighbour."""
    at = numbers.index(chosen)
    for one, other in pairwise(numbers[max(at - 1, 0) : at + 2]):
        if _HEDGE.fullmatch(text, one.end, other.start) or _between(text, one, other):
            return "several numbers"
    return Reading(chosen.value, unit_after(text, chosen.end), why)


def _between(text: str, one: Number, other: Number) -> bool:
    """ "between 3 and 4" """
    return (
        bool(_BETWEEN.search(text, max(0, one.start - 20), one.start))
        and text[one.end : other.start] == " and "
    )


def _possible(reading: Reading, wanted: Unit | None) -> list[Fraction]:
    """Its values in the wanted unit; "50 %" without one may mean 50 or a half."""
    if wanted is None:
        percent = reading.unit is not None and reading.unit.kind == "share"
        return [reading.value, reading.value / 100] if percent else [reading.value]
    return [reading.value * reading.unit.worth / wanted.worth] if reading.unit else [reading.value]


def _shown(value: Fraction, unit: str | None) -> str:
    number = str(value) if value.denominator in (1, 2, 3, 4, 6, 7, 8, 9) else f"{float(value):.6g}"
    return f"{number} {unit}" if unit else number
