"""What a sentence of a reasoning says the answer is, by the kind of target: one small reader for each.

    said("So the answer is B.", item)   # {"bell"}: what it names as the answer; empty where it names none

The surprise: only what can be told apart for sure is read, because a filter that guesses throws good chains
away; a sentence that lists all labels names all of them.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from mlx_audio_r1.tasks.boolean import POLAR, Boolean
from mlx_audio_r1.tasks.choice import Choice, choose
from mlx_audio_r1.tasks.item import Item
from mlx_audio_r1.tasks.label import Label
from mlx_audio_r1.tasks.names import Names, answers_after_cues
from mlx_audio_r1.tasks.number import Quantity
from mlx_audio_r1.tasks.numerals import find_numbers, spelled_out
from mlx_audio_r1.tasks.options import LETTERS
from mlx_audio_r1.tasks.plain import fold, plain
from mlx_audio_r1.tasks.units import unit_after, unit_named
from mlx_audio_r1.tasks.verify import verify
from mlx_audio_r1.tasks.wording import Wording, normal

_CONCLUDED = re.compile(
    r"(?:^|[\s,;])(?:so|thus|therefore|hence)\b,?\s*|[:,]\s*|所以|因此|答案(?:是|为)?\s*", re.IGNORECASE
)
_FIRST_WORD = re.compile(r"[A-Za-z']+|[\u3400-\u9fff]{1,2}(?=[\s,.。!?;]|$)")
_LETTER = re.compile(r"(?:^|[\s:(,]|选|选项|option |answer is )([A-H])(?=$|[\s.,:;)。]*$|[.:)]\s)")


def answered(answer: str, item: Item) -> str | None:
    """What the answer is understood as, as `said` would name it; None where it is not understood."""
    if isinstance(item.target, Quantity):
        found = said(answer, item)
        return next(iter(found)) if len(found) == 1 else _parsed(answer, item)
    return _parsed(answer, item)


def said(sentence: str, item: Item) -> set[str]:
    """The answers that a sentence names and does not deny."""
    return _READERS[type(item.target)](plain(sentence), item)


def cued(sentence: str, item: Item) -> set[str]:
    """The answers that stand behind "the answer is" in it."""
    return {name for piece in answers_after_cues(plain(sentence)) for name in _behind_cue(piece, item)}


def _behind_cue(piece: str, item: Item) -> set[str]:
    if isinstance(item.target, Wording):
        return {normal(piece)} - {""}
    return said(piece, item)


def _parsed(answer: str, item: Item) -> str | None:
    parsed = verify(answer, item).parsed
    return None if parsed is None else str(parsed)


def _choice(text: str, item: Item) -> set[str]:
    """Options by their texts, and by a letter that stands for one."""
    options = item.target.options
    named = set(Names.of(options).named(text))
    by_letter = {options[i] for m in _LETTER.finditer(text) if (i := LETTERS.find(m.group(1))) < len(options)}
    if named or by_letter:
        return {choose(name, options).option or name for name in named | by_letter}
    chosen = choose(text, options).option
    return {chosen} if chosen else set()


def _label(text: str, item: Item) -> set[str]:
    return set(Names(item.target.spellings).named(text))


def _boolean(text: str, item: Item) -> set[str]:
    """Yes and no at the beginning, or behind "so", a colon, "the answer is"."""
    pieces = [text, *_CONCLUDED.split(text)[1:]]
    words = [m.group() for piece in pieces if (m := _FIRST_WORD.match(piece.strip()))]
    return {str(POLAR[fold(word)]) for word in words if fold(word) in POLAR}


def _quantity(text: str, item: Item) -> set[str]:
    """All numbers, in the target's unit where they have one of its kind."""
    text = plain(spelled_out(text))
    wanted = unit_named(item.target.unit) if item.target.unit else None
    found = set()
    for number in find_numbers(text):
        unit = unit_after(text, number.end)
        scaled = unit and wanted and unit.kind == wanted.kind
        found.add(number.value * unit.worth / wanted.worth if unit and wanted and scaled else number.value)
    return {f"{float(value):.6g}" for value in found}


def _wording(text: str, item: Item) -> set[str]:
    """Free words cannot be found in a sentence, except behind "the answer is"."""
    return set()


_READERS: dict[type, Callable[[str, Item], set[str]]] = {
    Choice: _choice,
    Label: _label,
    Boolean: _boolean,
    Quantity: _quantity,
    Wording: _wording,
}
