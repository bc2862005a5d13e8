"""What is heard with an item: its sounds, or what stands in their place to see what the sound is worth.

    silence    zeros of the same length
    noise      Gaussian noise of the same length and RMS, drawn by uid
    shuffle    the sound of another item: of the same task, about as long
    none       nothing; the prompt has no sound at all

Sources: RUListening (noise), AudioMCQ 2509.21060 (silence). NumPy alone, so that a thread can decode ahead of
the model. The surprise: a sound is given as its chunks, each a sound of its own, which makes the same prompt
and features as the file itself, and whatever takes its place has the same chunks.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mlx_audio_r1.audio import Chunk, pcm_sha256, read_chunks
from mlx_audio_r1.config import CHUNK_SECONDS, SAMPLE_RATE
from mlx_audio_r1.errors import AudioError, EvaluationError
from mlx_audio_r1.evaluate.results import REAL
from mlx_audio_r1.jobs.hearing import damage_noted
from mlx_audio_r1.prompt import AudioPart, Message
from mlx_audio_r1.tasks.item import Item

SHUFFLE, NONE = "shuffle", "none"
NEAREST = 8  # in length, among which the other item of a shuffle is drawn
Sound = list[np.ndarray]  # chunks, (n,) float32 at 16 kHz


def _silence(sound: Sound, _: str) -> Sound:
    return [np.zeros_like(chunk) for chunk in sound]


def _noise(sound: Sound, uid: str) -> Sound:
    rms = float(np.sqrt(np.mean(np.concatenate(sound).astype(np.float64) ** 2)))
    rng = np.random.default_rng([*_digest(uid)])
    return [(rms * rng.standard_normal(len(chunk))).astype(np.float32) for chunk in sound]


MADE: Mapping[str, Callable[[Sound, str], Sound]] = {"silence": _silence, "noise": _noise}
CONTROLS = (*MADE, SHUFFLE, NONE)


@dataclass(frozen=True, eq=False)
class Heard:
    """messages: with every sound as its chunks. sha256: of all PCM, "" without any. notes: what was damaged."""

    messages: list[Message]
    sha256: str
    seconds: float
    notes: tuple[str, ...] = ()


class Sounding:
    """The sounds of items under every control.

    items: all there are, for a shuffle to draw from; `seed` and uid decide which.
    """

    def __init__(self, items: Sequence[Item], chunk_seconds: float = CHUNK_SECONDS, seed: int = 0):
        self._chunk_seconds = chunk_seconds
        self.others = Others(items, seed)

    def hear(self, item: Item, control: str = REAL, *, number: int = 0) -> Heard:
        """The item as it is asked. number: which of the other items a shuffle takes, the likest first.

        Raises AudioError for a sound that cannot be read, EvaluationError where nothing is there to shuffle.
        """
        if control == NONE:
            return Heard(_with_sounds(item, []), "", 0.0)
        try:
            with damage_noted() as notes:
                sounds = self._sounds(item, control, number)
        except OSError as error:  # the disk went away while it was read
            raise AudioError(f"{item.uid}: reading failed ({error.strerror or error})") from None
        chunks = [chunk for sound in sounds for chunk in sound]
        digest = pcm_sha256(Chunk(0, 0.0, 0.0, chunk) for chunk in chunks) if chunks else ""
        seconds = sum(map(len, chunks)) / SAMPLE_RATE
        return Heard(_with_sounds(item, sounds), digest, seconds, tuple(notes))

    def _sounds(self, item: Item, control: str, number: int) -> list[Sound]:
        if control == SHUFFLE:
            other = self.others.of(item, number).sounds
            return [self._read(other[k % len(other)]) for k in range(len(item.sounds))]
        sounds = [self._read(part) for part in item.sounds]
        if control == REAL:
            return sounds
        return [MADE[control](sound, f"{item.uid}/{k}") for k, sound in enumerate(sounds)]

    def _read(self, part: AudioPart) -> Sound:
        chunks = read_chunks(part.source, sample_rate=part.sample_rate, chunk_seconds=self._chunk_seconds)
        return [chunk.waveform for chunk in chunks]


class Others:
    """For each item, other items with other sounds: of its task where there are any, about as long."""

    def __init__(self, items: Sequence[Item], seed: int = 0):
        self._seed = seed
        self._by_bench: dict[str, list[Item]] = defaultdict(list)
        self._by_task: dict[tuple[str, str], list[Item]] = defaultdict(list)
        self._sources = {item.uid: tuple(_source(part) for part in item.sounds) for item in items}
        for item in items:
            if item.sounds:
                self._by_bench[item.bench].append(item)
                self._by_task[item.bench, task_of(item)].append(item)

    def check(self) -> None:
        """Raises EvaluationError where the items of a benchmark have one sound between them."""
        for bench, own in self._by_bench.items():
            if len({self._sources[item.uid] for item in own}) < 2:
                raise EvaluationError(f"{bench}: shuffle needs a second sound; ask more items, or leave it out")

    def of(self, item: Item, number: int = 0) -> Item:
        """The number-th of them. Raises EvaluationError where there are not so many."""
        own = self._sources[item.uid]
        for pool in (self._by_task[item.bench, task_of(item)], self._by_bench[item.bench]):
            others = [other for other in pool if self._sources[other.uid] != own]
            if len(others) > number:
                return self._drawn(item, others)[number]
        raise EvaluationError(f"{item.bench}: no {number + 2} items with different sounds; ask more of them")

    def _drawn(self, item: Item, others: Sequence[Item]) -> list[Item]:
        """The nearest in length by lot, then the others by length."""
        apart = {other.uid: abs(_seconds(other) - _seconds(item)) for other in others}
        near = sorted(others, key=lambda other: (apart[other.uid], other.uid))
        lot = lambda other: _digest(f"{self._seed}/{item.uid}/{other.uid}")  # noqa: E731
        return [*sorted(near[:NEAREST], key=lot), *near[NEAREST:]]


def task_of(item: Item) -> str:
    """The value of its first group: the task, the modality, the category."""
    return str(next(iter(item.groups.values()), ""))


def _source(part: AudioPart) -> str:
    """Tells sounds apart; those in memory by where they are."""
    return str(part.source) if isinstance(part.source, str | Path) else str(id(part.source))


def _seconds(item: Item) -> float:
    return float(item.extra.get("seconds", 0.0))


def _with_sounds(item: Item, sounds: Sequence[Sound]) -> list[Message]:
    """The item's messages with chunks where its sounds stand; without a sound where there are no more."""
    rest = iter(sounds)
    return [Message(m.role, tuple(p for part in m.parts for p in _placed(part, rest))) for m in item.messages()]


def _placed(part: str | AudioPart, rest: object) -> list[str | AudioPart]:
    if isinstance(part, AudioPart):
        return [AudioPart(chunk, SAMPLE_RATE) for chunk in next(rest, [])]  # type: ignore[call-overload]
    return [part]


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()


def check_controls(names: Sequence[str]) -> None:
    """Raises EvaluationError for one nobody knows."""
    for name in names:
        if name not in CONTROLS:
            raise EvaluationError(f"no control {name!r}; there are {', '.join(CONTROLS)}")
