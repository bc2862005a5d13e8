"""What is asked and what is true: an Item, and what became of a reply to it: a Verdict.

An item is a line of `audio-r1.task/1`: turns, the target its verifier compares with, and groups to report
it under. The surprise: items compare by identity, because a sound in memory is an array.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from mlx_audio_r1.prompt import AudioPart, Message
from mlx_audio_r1.tasks.options import write_options


@dataclass(frozen=True)
class Verdict:
    """correct: 0.0 to 1.0, and 1.0 or 0.0 except for texts measured in errors. parsed: what was understood
    as the answer, None where nothing was (then correct is 0). why: the rule that decided."""

    correct: float
    parsed: Any = None
    why: str = ""

    @property
    def unparsed(self) -> bool:
        return self.parsed is None


@dataclass(frozen=True)
class OptionsMark:
    """The place of a turn where the question's options are written, joined to the words before it."""


OPTIONS = OptionsMark()


@dataclass(frozen=True)
class Turn:
    """A message whose parts may say where the options go."""

    role: str
    parts: tuple[str | AudioPart | OptionsMark, ...]


@dataclass(frozen=True, eq=False)
class Item:
    """One question. `target` is one of `targets.TARGETS`; `chance` is what a blind guess scores, 0-1."""

    uid: str
    turns: tuple[Turn, ...]
    target: Any
    bench: str = ""
    version: str = ""
    split: str = ""
    lang: str = "en"
    option_style: str = "step-r1"
    chance: float = 0.0
    groups: Mapping[str, Any] = field(default_factory=dict)  # what results are counted by
    ref: Mapping[str, Any] = field(default_factory=dict)  # transcript, a thinking to compare with, cues
    license: str = ""
    extra: Mapping[str, Any] = field(default_factory=dict)  # the other columns of a row

    @property
    def sounds(self) -> list[AudioPart]:
        """In the order in which the prompt has them."""
        return [part for turn in self.turns for part in turn.parts if isinstance(part, AudioPart)]

    @property
    def has_audio(self) -> bool:
        """Is it rewarded as audio (the paper's equation 7) or as text (6)?"""
        return bool(self.sounds)

    def messages(self, style: str | None = None) -> list[Message]:
        """The turns as the prompt takes them, options written in the item's style or another."""
        options = getattr(self.target, "options", ())
        return [Message(t.role, _written(t.parts, options, style or self.option_style)) for t in self.turns]


def _written(
    parts: tuple[str | AudioPart | OptionsMark, ...], options: tuple[str, ...], style: str
) -> tuple[str | AudioPart, ...]:
    written: list[str | AudioPart] = []
    for part in parts:
        if isinstance(part, OptionsMark):
            question = written.pop() if written and isinstance(written[-1], str) else ""
            part = write_options(str(question), options, style)
        written.append(part)
    return tuple(written)
