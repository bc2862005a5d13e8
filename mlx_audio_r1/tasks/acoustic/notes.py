"""What a careful listener writes down before answering anything: every sound, when, how high, how loud.

    evidence(truth)  # "1 square tone at 0.2 for 0.4 s, 300 Hz; 2 at 1.0 for 0.9 s, 200 Hz, -8 dB."

The note is the same whatever is asked, so every question teaches all of it. It leaves out what nobody
can be asked about a clip of that kind, because every word costs.
"""

from __future__ import annotations

from mlx_audio_r1.tasks.acoustic.world import SUSTAINED, Event, Truth, nearest_pitch, tenth

SPOKEN_BY = {"male": "man speaking", "female": "woman speaking"}
_UNCOUNTED = frozenset({"noise", "music", "speech"})


def evidence(truth: Truth) -> str:
    """The sounds in order as one sentence; times in s to a tenth."""
    if not truth.events:
        return "No sound above the floor."
    parts = []
    before = None
    for number, event in enumerate(truth.events, start=1):
        name = "" if event.source == before else f" {event.source}"
        parts.append(f"{number}{name} at {tenth(event.start):.1f}{_details(truth.kind, number, event)}")
        before = event.source
    return "; ".join(parts) + "."


def describe(truth: Truth) -> str:
    """One sentence for a listener who asked nothing."""
    if not truth.events:
        return "Almost silence."
    first = truth.events[0]
    if truth.kind == "sequence":
        return _sentence(", then ".join(article(e.source) for e in truth.events))
    if len(truth.events) > 1:
        return _sentence(f"{len(truth.events)} sounds: {first.source}")
    return _sentence(article(SPOKEN_BY.get(first.voice or "", first.source)) + _movement(first))


def hertz(hz: float) -> str:
    return f"{nearest_pitch(hz)} Hz"


def length(event: Event) -> float:
    """s to a tenth, as the rounded times give it."""
    return tenth(tenth(event.end) - tenth(event.start))


def article(noun: str) -> str:
    if noun in _UNCOUNTED:
        return noun
    return f"an {noun}" if noun[0] in "aeiou" else f"a {noun}"


def _details(kind: str, number: int, event: Event) -> str:
    lasting = kind not in ("sequence", "repeat") and event.source in SUSTAINED
    text = f" for {length(event):.1f} s" if lasting else ""
    if event.source == "speech" or kind in ("single", "pair") or (kind == "repeat" and number == 1):
        text += _pitch(event)
    if event.ramp_db is not None:
        text += f", {_ramp(event.ramp_db)}"
    return f"{text}, {event.level_db} dB" if event.level_db else text


def _pitch(event: Event) -> str:
    if not event.hz or not event.end_hz:
        return ""
    if event.contour in ("rising", "falling"):
        return f", {nearest_pitch(event.hz)} to {hertz(event.end_hz)}"
    return f", {hertz(event.hz)}" + (" swinging" if event.contour == "wobbling" else "")


def _ramp(decibels: int) -> str:
    return "even" if not decibels else f"{'up' if decibels > 0 else 'down'} {abs(decibels)} dB"


def _sentence(text: str) -> str:
    return text[0].upper() + text[1:] + "."


def _movement(event: Event) -> str:
    if event.source == "speech" or not event.hz or not event.end_hz:
        return ""
    if event.contour in ("rising", "falling"):
        return f" {event.contour} from {nearest_pitch(event.hz)} to {hertz(event.end_hz)}"
    return f" {'wobbling around' if event.contour == 'wobbling' else 'at'} {hertz(event.hz)}"
