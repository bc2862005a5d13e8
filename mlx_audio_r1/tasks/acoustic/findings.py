"""What is true of a clip, task by task: the answer and the step from the note to it.

Each function gives None where its task does not fit the clip.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from mlx_audio_r1.tasks.acoustic.notes import article, hertz, length
from mlx_audio_r1.tasks.acoustic.world import STEADY_TONES, SUSTAINED, Event, Truth, nearest_pitch, tenth

Rng = np.random.Generator

CATEGORY = {**dict.fromkeys(STEADY_TONES, "tone"), **{s: s for s in
            ("bell", "plucked string", "noise", "click", "drum", "speech", "music")}}  # fmt: skip
REGISTERS = (("low", 0, 280), ("middle", 330, 740), ("high", 890, 9_999))  # name, from Hz, to Hz
CLEAN_DB, NOISY_DB = 40, 15  # floors at least and at most this far below the sounds
ORDINALS = ("first", "second")
SOUNDS = ("sine tone", "square tone", "sawtooth tone", "bell", "plucked string", "noise", "click", "drum")
ALL_SOUNDS = (*SOUNDS, "speech", "music")
YES_NO = ("yes", "no")


@dataclass(frozen=True)
class Finding:
    """What is true: the answer, a conclusion from the note, words to put into the question."""

    answer: str
    conclusion: str = ""
    words: tuple[str, str] = ("", "")


def register(hz: float) -> str | None:
    """low, middle or high; None in between."""
    return next((name for name, low, high in REGISTERS if low <= hz <= high), None)


def pitch_relation(first: int, second: int) -> tuple[str, str]:
    """The answer and the sentence for two pitches in Hz. Both are written before they are compared: what
    stands close together is easier compared."""
    answer = "same" if first == second else "higher" if second > first else "lower"
    return answer, f"{first}, then {second}: {answer}."


def length_relation(first: float, second: float) -> tuple[str, str]:
    """Which is the longer one, and the sentence; in s."""
    answer = ORDINALS[int(second > first)]
    return answer, f"{first:.1f} s, then {second:.1f} s: the {answer} is longer."


def time_relation(first: tuple[str, float], second: tuple[str, float]) -> tuple[str, str]:
    """Whether the first of two sounds with their times in s is the earlier one, and the sentence."""
    answer = YES_NO[int(second[1] < first[1])]
    text = f"{first[0]} {tenth(first[1]):.1f}, then {second[0]} {tenth(second[1]):.1f}: {answer}."
    return answer, text[0].upper() + text[1:]


def _source(truth: Truth, _: Rng) -> Finding | None:
    if truth.kind not in ("single", "pair", "repeat"):
        return None
    name = truth.events[0].source
    return Finding(name, f"It sounds like {article(name)}.")


def _main(truth: Truth, _: Rng) -> Finding | None:
    if truth.kind == "sequence":
        return None
    if not truth.events:
        return Finding("silence")
    name = CATEGORY[truth.events[0].source]
    return Finding(name, f"So it is {article(name)}.")


def _contour(truth: Truth, _: Rng) -> Finding | None:
    event = truth.events[0] if truth.kind == "single" else None
    if event is None or event.source not in STEADY_TONES:
        return None
    ends = (nearest_pitch(event.hz or 1.0), nearest_pitch(event.end_hz or 1.0))
    conclusion = {
        "steady": "The pitch stays.",
        "wobbling": "The pitch swings.",
        "rising": pitch_relation(*ends)[1],
        "falling": pitch_relation(*ends)[1],
    }
    return Finding(str(event.contour), conclusion[str(event.contour)])


def _loudness(truth: Truth, _: Rng) -> Finding | None:
    ramp = truth.events[0].ramp_db if truth.kind in ("single", "noise") else None
    if ramp is None:
        return None
    answer = "growing" if ramp > 0 else "fading" if ramp else "steady"
    ends = {"growing": "The end is louder.", "fading": "The end is softer.", "steady": "No change."}
    return Finding(answer, ends[answer])


def _register(truth: Truth, _: Rng) -> Finding | None:
    event = truth.events[0] if truth.kind in ("single", "repeat") else None
    if event is None or not event.hz or event.contour not in (None, "steady"):
        return None
    name = register(event.hz)
    return Finding(name, f"{hertz(event.hz)} is {name}.") if name else None


def _compare(truth: Truth, _: Rng) -> Finding | None:
    if truth.kind != "pair":
        return None
    first, second = (nearest_pitch(e.hz or 1.0) for e in truth.events)
    return Finding(*pitch_relation(first, second))


def _longer(truth: Truth, _: Rng) -> Finding | None:
    if truth.kind != "pair" or truth.events[0].source not in SUSTAINED:
        return None
    first, second = (length(e) for e in truth.events)
    if max(first, second) < 1.25 * min(first, second):
        return None
    return Finding(*length_relation(first, second))


def _louder(truth: Truth, _: Rng) -> Finding | None:
    levels = [e.level_db for e in truth.events]
    if truth.kind != "pair" or levels[0] == levels[1]:
        return None
    answer = ORDINALS[int(levels[1] > levels[0])]
    return Finding(answer, f"The {answer} is stronger.")


def _count(truth: Truth, _: Rng) -> Finding | None:
    if truth.kind not in ("repeat", "pair", "sequence"):
        return None
    number = str(len(truth.events))
    return Finding(number, f"That makes {number}.")


def _first(truth: Truth, _: Rng) -> Finding | None:
    return Finding(truth.events[0].source) if truth.kind == "sequence" else None


def _last(truth: Truth, _: Rng) -> Finding | None:
    return Finding(truth.events[-1].source) if truth.kind == "sequence" else None


def _order(truth: Truth, _: Rng) -> Finding | None:
    names = ", ".join(e.source for e in truth.events)
    return Finding(names) if truth.kind == "sequence" else None


def _before(truth: Truth, rng: Rng) -> Finding | None:
    if truth.kind != "sequence":
        return None
    early, late = sorted(rng.choice(len(truth.events), 2, replace=False))
    one, other = truth.events[early], truth.events[late]
    claimed = (one, other) if rng.random() < 0.5 else (other, one)
    told = time_relation(*((event.source, event.start) for event in claimed))
    return Finding(*told, (claimed[0].source, claimed[1].source))


def _noisy(truth: Truth, _: Rng) -> Finding | None:
    floor = truth.floor_db
    covered = any(e.source in ("noise", "music") for e in truth.events)
    if floor is None or NOISY_DB < floor < CLEAN_DB or covered:
        return None
    answer = "noisy" if floor <= NOISY_DB else "clean"
    return Finding(answer, f"The background is {floor} dB below the sound.")


def _speech(truth: Truth, _: Rng) -> Finding | None:
    spoken = any(e.source == "speech" for e in truth.events)
    return Finding("yes", "There is a voice.") if spoken else Finding("no", "No voice.")


def _voice(truth: Truth, _: Rng) -> Finding | None:
    said: list[Event] = [e for e in truth.events if e.source == "speech"]
    if not said:
        return None
    height = "low" if said[0].voice == "male" else "high"
    return Finding(str(said[0].voice), f"The voice is {height}.")


FINDERS: dict[str, tuple[tuple[str, ...], Callable[[Truth, Rng], Finding | None]]] = {
    # task -> all its answers (none: they are no list), what is true of a clip
    "source": (SOUNDS, _source),
    "main": (("tone", "bell", "plucked string", "noise", "click", "drum", "speech", "music", "silence"), _main),
    "contour": (("steady", "rising", "falling", "wobbling"), _contour),
    "loudness": (("growing", "fading", "steady"), _loudness),
    "register": (("low", "middle", "high"), _register),
    "compare": (("higher", "lower", "same"), _compare),
    "longer": (ORDINALS, _longer),
    "louder": (ORDINALS, _louder),
    "count": (("1", "2", "3", "4", "5", "6"), _count),
    "first": (ALL_SOUNDS, _first),
    "last": (ALL_SOUNDS, _last),
    "order": ((), _order),
    "before": (YES_NO, _before),
    "noisy": (("clean", "noisy"), _noisy),
    "speech": (YES_NO, _speech),
    "voice": (("male", "female"), _voice),
}
