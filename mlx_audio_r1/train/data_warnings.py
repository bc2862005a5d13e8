"""What nobody wants in a data set although it can be learnt from: leaks, repeats, lopsided answers.

Each check is a function of a `Split` that gives faults; the table at the end lists them.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from mlx_audio_r1.prompt import AudioPart
from mlx_audio_r1.train.examples import Example
from mlx_audio_r1.train.replies import is_laid_out, thinking_and_answer
from mlx_audio_r1.train.rows import SPLITS, Fault, Row
from mlx_audio_r1.train.sounds import Sound

SILENT_PEAK = 1e-4  # of full scale: -80 dB
SHORT_SECONDS = 0.1
ENOUGH = 20  # rows, below which shares say nothing
COMMON_ANSWER = 0.8  # share of one answer among all
HEAVY_ROW = 0.2  # share of the learnt tokens in one row
LENGTH_RATIO = 2.0  # between chosen and rejected replies
EXPECTED = {"train": "there is nothing to train on", "valid": "no loss is measured beside training"}
ONE_SIDED = 0.8  # share of the chosen replies that reason where the rejected do not


@dataclass
class Split:
    """What is known of one file."""

    name: str
    path: Path
    lines: int = 0
    faults: list[Fault] = field(default_factory=list)
    kinds: Counter[str] = field(default_factory=Counter)
    clips: int = 0  # sounds in prompts, a file counted whenever it is used
    heard: float = 0.0  # seconds of them
    sources: dict[str, Sound] = field(default_factory=dict)  # key of a source -> what it is
    lengths: list[int] = field(default_factory=list)  # tokens of every example
    learnt: list[tuple[int, str]] = field(default_factory=list)  # tokens, where
    over_long: list[tuple[str, int]] = field(default_factory=list)
    text_only: int = 0
    reasoning: Counter[bool] = field(default_factory=Counter)  # of the replies
    answers: Counter[str] = field(default_factory=Counter)
    pairs: list[tuple[int, int, bool, bool]] = field(default_factory=list)  # learnt tokens, reasoning?
    notes: list[Fault] = field(default_factory=list)  # warnings about single places
    places: dict[str, list[str]] = field(default_factory=dict)  # habit -> the rows that have it

    def note_sound(self, where: str, label: str, sound: Sound) -> None:
        """Warnings about a sound that is met for the first time."""
        for note in sound.notes:
            self.notes.append(Fault(where, "damaged", note))
        if sound.peak < SILENT_PEAK:
            self.notes.append(Fault(where, "silent", f"{label} is silent (peak {sound.peak:.0e})"))
        if sound.seconds < SHORT_SECONDS:
            self.notes.append(Fault(where, "short", f"{label} lasts {sound.seconds * 1000:.0f} ms"))

    def add(self, row: Row, examples: Sequence[Example]) -> None:
        """A row that can be learnt from."""
        self.text_only += not row.sounds
        if _has_newline_behind_sound(row):
            self.places.setdefault("newline", []).append(row.where)
        if not row.answered:
            return
        thinking, answer = thinking_and_answer(row.reply or "")
        self.reasoning[bool(thinking)] += 1
        self.answers[answer] += 1
        if not all(map(is_laid_out, filter(None, (row.reply, row.rejected)))):
            self.places.setdefault("layout", []).append(row.where)
        if row.rejected is not None:
            self._add_pair(row, examples, bool(thinking))

    def _add_pair(self, row: Row, examples: Sequence[Example], thinks: bool) -> None:
        also_thinks = bool(thinking_and_answer(row.rejected or "")[0])
        self.pairs.append((examples[0].learnt, examples[1].learnt, thinks, also_thinks))
        if row.reply == row.rejected:
            self.notes.append(Fault(row.where, "same", "the chosen and the rejected reply are the same: "
                                                       "nothing can be learnt from it"))


def _has_newline_behind_sound(row: Row) -> bool:
    return any(
        isinstance(a, AudioPart) and isinstance(b, str) and b.startswith("\n")
        for turn in row.history
        for a, b in zip(turn.message.parts, turn.message.parts[1:], strict=False)
    )


def warnings_of(split: Split) -> list[Fault]:
    """Everything to be said about one split."""
    return [*split.notes, *(Fault(str(split.path), kind, text) for kind, check in CHECKS.items()
                            for text in check(split))]  # fmt: skip


# Checks of one split


def _kinds(split: Split) -> Iterator[str]:
    if len(+split.kinds) > 1:
        counted = ", ".join(f"{n:,} {kind}" for kind, n in split.kinds.items())
        yield f"rows of several kinds ({counted}): train takes one kind at a time, part them by folders"


def _newline(split: Split) -> Iterator[str]:
    if found := split.places.get("newline"):
        yield (f"{_rows(found)} a newline behind <audio>; `audio-r1 ask` puts the question directly behind the "
               f"sound ({_places(found)})")


def _layout(split: Split) -> Iterator[str]:
    if found := split.places.get("layout"):
        yield (f"{_rows(found)} <think> or </think> inside a line; the model's form is "
               f"<think>\\n...\\n</think>\\nanswer ({_places(found)})")


def _common_answer(split: Split) -> Iterator[str]:
    total = sum(split.answers.values())
    if total >= ENOUGH:
        answer, n = split.answers.most_common(1)[0]
        if n / total >= COMMON_ANSWER:
            yield f"{n / total:.0%} of the answers are {_short(answer)}: saying it without listening pays"


def _heavy_row(split: Split) -> Iterator[str]:
    total = sum(count for count, _ in split.learnt)
    if total and len(split.learnt) >= ENOUGH:  # of questions without a reply nothing is learnt
        most, where = max(split.learnt)
        if most / total >= HEAVY_ROW:
            yield f"{most / total:.0%} of what is learnt stands in one row, {where} ({most:,} tokens)"


def _pair_lengths(split: Split) -> Iterator[str]:
    chosen, rejected = (sum(pair[i] for pair in split.pairs) for i in (0, 1))
    if len(split.pairs) >= ENOUGH and max(chosen, rejected) >= LENGTH_RATIO * min(chosen, rejected):
        longer = "chosen" if chosen > rejected else "rejected"
        ratio = max(chosen, rejected) / min(chosen, rejected)
        yield f"the {longer} replies are {ratio:.1f} times as long as the others: length is what will be learnt"


def _pair_reasoning(split: Split) -> Iterator[str]:
    for side, other in ((2, 3), (3, 2)):
        alone = sum(pair[side] and not pair[other] for pair in split.pairs)
        if len(split.pairs) >= ENOUGH and alone / len(split.pairs) >= ONE_SIDED:
            names = {2: "chosen", 3: "rejected"}
            yield f"{alone:,} {names[side]} replies reason where the {names[other]} ones do not"


CHECKS: dict[str, Callable[[Split], Iterator[str]]] = {  # kind of the warning -> who finds it
    "kinds": _kinds,
    "newline": _newline,
    "layout": _layout,
    "unbalanced": _common_answer,
    "heavy": _heavy_row,
    "length": _pair_lengths,
    "reasoning": _pair_reasoning,
}


# What comes twice, in a split or across them


class Seen:
    """Rows and sounds that were met, by content."""

    def __init__(self) -> None:
        self._rows: dict[str, str] = {}  # digest -> where first
        self._answers: dict[str, tuple[str, str]] = {}  # digest of the prompt -> answer, where
        self._sounds: dict[tuple[str, str], tuple[str, str]] = {}  # split, digest -> where and label first
        self._told: set[tuple[str, ...]] = set()
        self._leaks: list[Fault] = []

    def add(self, split: Split, row: Row, sounds: Sequence[tuple[str, str]]) -> None:
        """A row and its sounds as (digest, label)."""
        prompt = _digest(row, [digest for digest, _ in sounds])
        self._repeat(split, row, _sha(prompt, row.reply or "", row.rejected or "", repr(row.solution)))
        self._contradiction(split, row, prompt)
        for digest, label in sounds:
            self._sound(split, row, digest, label)

    def _repeat(self, split: Split, row: Row, digest: str) -> None:
        first = self._rows.setdefault(digest, row.where)
        if first != row.where:
            split.notes.append(Fault(row.where, "repeated", f"the same row as {first}"))

    def _contradiction(self, split: Split, row: Row, prompt: str) -> None:
        if row.kind != "sft":
            return
        answer = thinking_and_answer(row.reply or "")[1]
        first, where = self._answers.setdefault(prompt, (answer, row.where))
        if first.casefold() != answer.casefold():
            split.notes.append(Fault(row.where, "contradiction", f"answers {_short(answer)} to what {where} "
                                                                 f"answers {_short(first)}"))

    def _sound(self, split: Split, row: Row, digest: str, label: str) -> None:
        first, name = self._sounds.setdefault((split.name, digest), (row.where, label))
        if name != label and self._is_new(split.name, digest, label):
            text = f"{label} holds the same sound as {name} ({first})"
            split.notes.append(Fault(row.where, "same_sound", text))
        for other in SPLITS:
            before = self._sounds.get((other, digest)) if other != split.name else None
            if before and self._is_new(split.name, digest, other):
                as_what = "" if before[1] == label else f", there {before[1]}"
                text = f"{label} is heard in {before[0]} too{as_what}: {split.name} cannot measure what is new"
                self._leaks.append(Fault(row.where, "leak", text))

    def _is_new(self, *what: str) -> bool:
        """Is it the first time that this is said?"""
        new = what not in self._told
        self._told.add(what)
        return new

    def across(self, splits: Sequence[Split], data: Path) -> list[Fault]:
        """What concerns the folder as a whole."""
        return [*self._leaks, *_folder(splits, data)]


def _folder(splits: Sequence[Split], data: Path) -> Iterator[Fault]:
    if not data.is_dir():
        return
    names = [split.name for split in splits]
    for name, why in EXPECTED.items():
        if name not in names:
            yield Fault(str(data), "missing", f"no {name}.jsonl: {why}")
    for path in sorted(data.glob("*.json*")):
        if path.stem not in SPLITS or path.suffix != ".jsonl":
            yield Fault(str(path), "unread", "not read; the files are train.jsonl, valid.jsonl, test.jsonl")


def _digest(row: Row, sounds: Sequence[str]) -> str:
    """Of what stands before the reply, each sound by its content."""
    left = iter(sounds)
    parts = [
        f"{turn.role} {'sound ' + next(left) if isinstance(part, AudioPart) else 'text ' + part}"
        for turn in row.history
        for part in turn.message.parts
    ]
    return _sha(*parts, repr(row.tools))


def _sha(*texts: str) -> str:
    digest = hashlib.sha256()
    for text in texts:
        digest.update(f"{len(text)} {text}".encode())
    return digest.hexdigest()


def _rows(found: Sequence[str]) -> str:
    return "1 row has" if len(found) == 1 else f"{len(found):,} rows have"


def _places(found: Sequence[str]) -> str:
    return ", ".join(found[:3]) + (", ..." if len(found) > 3 else "")


def _short(text: str) -> str:
    shown = repr(text)
    return shown if len(shown) <= 40 else f"{shown[:34]}...'"
