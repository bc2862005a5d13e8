"""A benchmark as data: where its questions come from, how they are asked, who scores them, what is known.

Each module of `benches` makes one Bench. An adapter yields Questions and knows nothing of prompts; a Profile
turns a Question into an Item of `audio-r1.task/1`. So one import can be asked in the authors' words or in
the benchmark's own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mlx_audio_r1.tasks.item import Turn

TEXT, AUDIO, OPTIONS_HERE = "text", "audio", "options"  # what the parts of a Profile stand for


@dataclass(frozen=True)
class Embedded:
    """A sound that lies inside another file; the import writes it to a file of its own.

    suffix: as the file's name will end; what it really is, is seen when it is decoded.
    """

    content: bytes = field(repr=False)
    suffix: str = ".wav"


Sound = Path | Embedded


@dataclass(frozen=True, eq=False)
class Question:
    """One item as the benchmark has it. id: its own, unique in the benchmark. text: the words of the question,
    "" where it is spoken. target: of `tasks.verify.Target`, or Judged. turns: where there is more than one
    turn, or sounds between the words; AudioPart sources are then Sounds. groups: what is counted by."""

    id: str
    text: str
    sounds: tuple[Sound, ...]
    target: Any
    groups: Mapping[str, str] = field(default_factory=dict)
    turns: tuple[Turn, ...] = ()
    split: str = ""
    lang: str = "en"
    chance: float = 0.0
    ref: Mapping[str, Any] = field(default_factory=dict)  # transcript, thinking, cues, rubric
    extra: Mapping[str, Any] = field(default_factory=dict)  # what official files must give back: raw choices


@dataclass(frozen=True)
class Profile:
    """How a question is asked. order: of TEXT and AUDIO. words: said in place of the question's text; "" is its
    own. options: the style of `tasks.options.STYLES`. settings: of generation, by the names of `Settings`."""

    name: str
    order: tuple[str, ...] = (TEXT, AUDIO)
    words: str = ""
    option_style: str = "step-r1"
    system: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)
    thinking: bool = True


@dataclass(frozen=True)
class Bench:
    """A benchmark.

    read: a folder or file of the user's download -> its questions; raises EvaluationError with file, row or
        column where the layout is another one.
    pinned: the file whose sha256 tells the version; versions: sha256 -> name, of that file or of the questions
        (`importing.fingerprint`), where the same questions come in several files. comparable: the names of
        versions that published numbers are about; () is any.
    make: of a benchmark that is built in: (items per task, seed) -> its questions; nothing is read then.
    expected: group name -> value -> questions; the group "" has the total under "".
    profiles: the first is that of Step-Audio-R1's authors, or the benchmark's own where they have none.
    scorers: names of `scorers.SCORERS`; the first one gives the number to print.
    judge: whose verdicts published numbers (`paper`) rest on; "" where rules decide.
    predictions: (items, replies by uid) -> the files that official scripts read: name -> text.
    """

    name: str
    title: str
    read: Callable[[Path], Iterator[Question]]
    profiles: tuple[Profile, ...]
    scorers: tuple[str, ...]
    pinned: Callable[[Path], Path | None] = lambda path: None
    versions: Mapping[str, str] = field(default_factory=dict)
    expected: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    judge: str = ""
    license: str = ""
    predictions: Callable[..., Mapping[str, str]] | None = None
    comparable: tuple[str, ...] = ()
    make: Callable[[int, int], Iterator[Question]] | None = None
    source: str = ""  # what to download, and from where
    group_by: tuple[str, ...] = ()  # group names in the report, in this order

    def profile(self, name: str | None = None) -> Profile:
        """The profile of a name, the first where None. Raises KeyError."""
        return {p.name: p for p in reversed(self.profiles)}[name or self.profiles[0].name]
