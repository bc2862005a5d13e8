"""One label of a known set ("valid", "invalid"), each with its synonyms.

Without the set only the label itself and its synonyms are known, and a reply must be one of them: a reply
that also names something else cannot be told from a wrong one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from mlx_audio_r1.tasks.item import Item, Verdict
from mlx_audio_r1.tasks.names import Names, answers_after_cues
from mlx_audio_r1.tasks.plain import has_words, plain


@dataclass(frozen=True)
class Label:
    """`labels` is the whole set, or empty where it is not known; synonyms: label -> other ways to say it."""

    gold: str
    labels: tuple[str, ...] = ()
    synonyms: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def spellings(self) -> dict[str, tuple[str, ...]]:
        return {name: (name, *self.synonyms.get(name, ())) for name in self.labels or (self.gold,)}


def verify_label(answer: str, item: Item) -> Verdict:
    """Does the answer name the label, and no other?"""
    target: Label = item.target
    if not has_words(answer):
        return Verdict(0.0, None, "empty")
    names = Names(target.spellings)
    label, why = _label(plain(answer), names, closed=bool(target.labels))
    return Verdict(float(label is not None and label == names.exact(target.gold)), label, why)


def _label(text: str, names: Names, closed: bool) -> tuple[str | None, str]:
    """(label, rule)"""
    if label := names.exact(text):
        return label, "label"
    pieces = answers_after_cues(text)
    cued = {label for piece in pieces if (label := names.exact(piece) or _only(names, piece, closed))}
    if cued:
        return (cued.pop(), "answer: label") if len(cued) == 1 else (None, "several answers")
    label = _only(names, text, closed)
    return label, "one label named" if label else "no label, or several"


def _only(names: Names, text: str, closed: bool) -> str | None:
    """The one label that a text names, where all labels are known."""
    named = names.named(text) if closed else []
    return named[0] if len(named) == 1 else names.opening(text)
