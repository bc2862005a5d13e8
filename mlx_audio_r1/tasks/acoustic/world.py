"""Clips with known truth: one seed, one clip.

    clip = make_clip(7)
    clip.waveform            # (samples,) float32 at 16 kHz
    clip.truth.events        # what sounds when, at which pitch, how loud, whose voice

Pitches lie within 3 % of the 24 preferred numbers of a decade and times within 0.03 s of a tenth of a
second, so that rounding them in a sentence is never a coin toss.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from mlx_audio_r1.config import SAMPLE_RATE
from mlx_audio_r1.tasks.acoustic import sounds, speech

Rng = np.random.Generator

LENGTHS = (1.0, 1.3, 1.6, 2.0, 2.4, 2.8, 3.3, 3.8, 4.4, 5.0, 6.0)  # s, what clips are cut to
LONG_LENGTHS = (8.0, 10.0)  # s, now and then, for the kinds in LONG_KINDS
LONG_KINDS = frozenset({"speech", "music", "sequence"})
MIN_SECONDS = {"pair": 1.3, "repeat": 1.6, "sequence": 2.0, "music": 2.0}
KINDS = {  # kind -> share of the clips
    "single": 0.20,
    "pair": 0.19,
    "repeat": 0.15,
    "sequence": 0.20,
    "speech": 0.13,
    "music": 0.05,
    "noise": 0.05,
    "silence": 0.03,
}
E24 = (10, 11, 12, 13, 15, 16, 18, 20, 22, 24, 27, 30, 33, 36, 39, 43, 47, 51, 56, 62, 68, 75, 82, 91)
PITCHES = tuple(int(v * s) for s in (1, 10, 100) for v in E24 if 68 <= v * s <= 2000)  # Hz
STEADY_TONES = ("sine tone", "square tone", "sawtooth tone")
SUSTAINED = frozenset({*STEADY_TONES, "noise", "speech", "music"})  # sounds whose end can be heard
SOURCES = ("sine tone", "square tone", "sawtooth tone", "bell", "plucked string", "noise", "click", "drum",
           "speech", "music")  # fmt: skip
CONTOURS = ("steady", "rising", "falling", "wobbling")
RAMPS = (-20, -15, -10, 0, 10, 15, 20)  # dB from the start to the end of a sound
LEVELS = (0, -8, -12, -16)  # dB of one sound of a pair below the other
FLOORS = (5, 10, 15, 25, 40)  # dB of the background below the sounds; 40 stands for 38 and more
LOW_PITCH, HIGH_PITCH = 150.0, 1_800.0  # Hz, the range of tones
TENTH_JITTER, PITCH_JITTER = 0.03, 0.03  # s, ratio
SYNTHETIC_SHARE = 0.2  # of the clips: straight from a synthesiser, without room, microphone and background
FILLING_SHARE = 0.4  # of the single steady tones: from the first sample to the last, with hard edges
PLAIN_SHARE = 0.5  # of the filling ones: one pitch, one level, nothing else
EDGE = 800  # samples, longer than any fade of a tone


@dataclass(frozen=True)
class Event:
    """One sound. Times in s; `hz` at its start and `end_hz` at its end, None where it has no pitch."""

    source: str
    start: float
    end: float
    hz: float | None = None
    end_hz: float | None = None
    contour: str | None = None  # one of CONTOURS, for long tones
    ramp_db: int | None = None  # one of RAMPS, for long steady tones and noise
    level_db: int = 0  # one of LEVELS
    voice: str | None = None  # "male" or "female"


@dataclass(frozen=True)
class Truth:
    """What is in a clip."""

    kind: str
    seconds: float
    events: tuple[Event, ...]
    floor_db: int | None  # one of FLOORS; None where nothing sounds, or noise itself does


@dataclass(frozen=True)
class Clip:
    """(samples,) float32 at 16 kHz in [-1, 1] and its truth."""

    waveform: np.ndarray
    truth: Truth


def make_clip(seed: int | Rng, kind: str | None = None, held_out: bool = False) -> Clip:
    """The clip of this seed; `held_out` takes the voices no training clip has.

    The waveform is the same on every machine with the same NumPy, clips with speech also need the same
    espeak-ng. Without espeak-ng no clip has speech.
    """
    rng = np.random.default_rng(seed)
    kind = kind or _draw_kind(rng)
    canvas = _Canvas(rng, _draw_seconds(rng, kind), held_out)
    PAINTERS[kind](canvas)
    return _record(rng, canvas, kind)


def nearest_pitch(hz: float) -> int:
    """The preferred number next to `hz` in pitch."""
    return min(PITCHES, key=lambda p: abs(math.log(p / hz)))


def tenth(seconds: float) -> float:
    """Rounded to a tenth of a second."""
    return round(max(seconds, 0.0), 1)


class _Canvas:
    """An empty clip that sounds are added to."""

    def __init__(self, rng: Rng, seconds: float, held_out: bool):
        self.rng, self.seconds, self.held_out = rng, seconds, held_out
        self.waveform = np.zeros(sounds.samples(seconds), np.float32)
        self.events: list[Event] = []
        self.plain = False

    def add(self, sound: np.ndarray, event: Event) -> None:
        sounds.mix(self.waveform, sound, event.start, 10 ** (event.level_db / 20))
        self.events.append(event)


def _draw_kind(rng: Rng) -> str:
    names = [k for k in KINDS if k != "speech" or speech.available()]
    weights = np.array([KINDS[k] for k in names])
    return str(rng.choice(names, p=weights / weights.sum()))


def _draw_seconds(rng: Rng, kind: str) -> float:
    if kind in LONG_KINDS and rng.random() < 0.08:
        return float(rng.choice(LONG_LENGTHS))
    fitting = [s for s in LENGTHS if s >= MIN_SECONDS.get(kind, 1.0)]
    weights = np.array([1.0 if s <= 4.0 else 0.4 for s in fitting])
    return float(rng.choice(fitting, p=weights / weights.sum()))


def _draw_pitch(rng: Rng, low: float = LOW_PITCH, high: float = HIGH_PITCH) -> float:
    """A preferred number between the two, off by up to 3 %."""
    fitting = [p for p in PITCHES if low <= p <= high]
    return float(rng.choice(fitting)) * (1 + rng.uniform(-PITCH_JITTER, PITCH_JITTER))


def _jitter(rng: Rng, tenths: int) -> float:
    """Tenths of a second -> s, off by up to 0.03."""
    return max(0.0, tenths / 10 + rng.uniform(-TENTH_JITTER, TENTH_JITTER))


def _spread(rng: Rng, lengths: list[int], seconds: float, gap: int = 1) -> list[int]:
    """Starts in tenths of a second of sounds that long, in order, at least `gap` tenths apart."""
    free = int(seconds * 10) - 1 - sum(lengths) - gap * (len(lengths) - 1)
    cuts = np.sort(rng.integers(0, max(free, 0) + 1, len(lengths)))
    before = np.concatenate([[0], np.cumsum(lengths)[:-1]]) + gap * np.arange(len(lengths))
    return [int(c + b) for c, b in zip(cuts, before, strict=False)]


def _single(canvas: _Canvas) -> None:
    """One tone, bell or string, with a contour and a change of loudness."""
    rng = canvas.rng
    source = str(rng.choice(list(sounds.TONES), p=[0.25, 0.25, 0.25, 0.12, 0.13]))
    length = int(rng.integers(5, min(int(canvas.seconds * 10) - 1, 35)))
    steady = source in STEADY_TONES
    contour = str(rng.choice(CONTOURS)) if steady else "steady"
    ramp = int(rng.choice(RAMPS, p=[0.11, 0.11, 0.11, 0.34, 0.11, 0.11, 0.11])) if steady else None
    at = _spread(rng, [length], canvas.seconds)[0]
    start, end, edge = _jitter(rng, at), _jitter(rng, at + length), 0
    if steady and rng.random() < FILLING_SHARE:
        start, end, edge = 0.0, canvas.seconds, EDGE
        canvas.plain = bool(rng.random() < PLAIN_SHARE)
    if canvas.plain:
        contour, ramp = "steady", 0
    _add_tone(canvas, source, (start, end), contour, ramp, edge)


def _add_tone(
    canvas: _Canvas, source: str, span: tuple[float, float], contour: str, ramp: int | None, edge: int
) -> None:
    """`edge` samples are cut off at both ends, and with them the fades."""
    start, end = span
    hz, end_hz = _draw_contour(canvas.rng, contour)
    curve = sounds.glide(hz, end_hz, end - start)
    if contour == "wobbling":
        semitones, rate = canvas.rng.uniform(0.8, 2.5), canvas.rng.uniform(4.0, 7.0)
        curve = sounds.vibrato(hz, end - start, semitones, rate)
    sound = sounds.TONES[source](canvas.rng, np.pad(curve, edge, mode="edge"))
    sound = sound[edge : len(sound) - edge] * sounds.level_ramp(len(curve), ramp or 0)
    canvas.add(sound, Event(source, start, end, hz, end_hz, contour, ramp))


def _draw_contour(rng: Rng, contour: str) -> tuple[float, float]:
    """Start and end pitch in Hz; a glide spans a quarter to nearly two octaves."""
    if contour not in ("rising", "falling"):
        hz = _draw_pitch(rng)
        return hz, hz
    low = _draw_pitch(rng, high=HIGH_PITCH / 1.5)
    high = _draw_pitch(rng, low=low * 1.25, high=min(low * 3.5, HIGH_PITCH))
    return (low, high) if contour == "rising" else (high, low)


def _pair(canvas: _Canvas) -> None:
    """Two sounds of one timbre that may differ in pitch, length and level."""
    rng = canvas.rng
    source = str(rng.choice(list(sounds.TONES), p=[0.27, 0.25, 0.25, 0.11, 0.12]))
    room = (int(canvas.seconds * 10) - 3) // 2
    lengths = [int(n) for n in rng.integers(3, min(room, 16) + 1, 2)]
    starts = _spread(rng, lengths, canvas.seconds, gap=2)
    first = _draw_pitch(rng)
    second = first * (1 + rng.uniform(-0.01, 0.01)) if rng.random() < 0.33 else _other_pitch(rng, first)
    softer = int(rng.integers(2)) if rng.random() < 0.6 else None
    for i, (at, length, hz) in enumerate(zip(starts, lengths, (first, second), strict=False)):
        level = int(rng.choice(LEVELS[1:])) if i == softer else 0
        start, end = _jitter(rng, at), _jitter(rng, at + length)
        sound = sounds.TONES[source](rng, sounds.glide(hz, hz, end - start))
        canvas.add(sound, Event(source, start, end, hz, hz, level_db=level))


def _other_pitch(rng: Rng, hz: float) -> float:
    """A pitch two preferred numbers or more away, up or down with equal chance where both fit."""
    upward = rng.random() < 0.5
    low, high = (hz * 1.17, min(hz * 3, HIGH_PITCH)) if upward else (max(hz / 3, LOW_PITCH), hz / 1.17)
    if not any(low <= p <= high for p in PITCHES):
        low, high = (max(hz / 3, LOW_PITCH), hz / 1.17) if upward else (hz * 1.17, min(hz * 3, HIGH_PITCH))
    return _draw_pitch(rng, low, high)


def _repeat(canvas: _Canvas) -> None:
    """One short sound, one to six times."""
    rng = canvas.rng
    source = str(rng.choice(["click", "drum", "noise", "bell", "plucked string", *STEADY_TONES]))
    most = min(6, (int(canvas.seconds * 10) - 1) // 4)
    lengths = [2] * int(rng.integers(1, most + 1))
    hz = _draw_pitch(rng)
    gap = int(rng.integers(1, 3))
    for at in _spread(rng, lengths, canvas.seconds, gap):
        _add_short(canvas, source, _jitter(rng, at), rng.uniform(0.1, 0.2), hz)


def _add_short(canvas: _Canvas, source: str, start: float, seconds: float, hz: float) -> None:
    """A short sound; bells and strings ring on for up to half a second."""
    rng = canvas.rng
    if source in sounds.TONES:
        length = seconds if source in STEADY_TONES else 0.5
        sound, pitch = sounds.TONES[source](rng, sounds.glide(hz, hz, length)), hz
    else:
        sound, pitch = _unpitched(rng, source, seconds), None
    end = min(start + len(sound) / SAMPLE_RATE, canvas.seconds)
    canvas.add(sound, Event(source, start, end, pitch, pitch))


def _unpitched(rng: Rng, source: str, seconds: float) -> np.ndarray:
    if source == "noise":
        return sounds.noise_burst(rng, seconds)
    return sounds.click(rng) if source == "click" else sounds.drum(rng)


def _sequence(canvas: _Canvas) -> None:
    """Two or three different sounds, one after the other."""
    rng = canvas.rng
    count = 2 if canvas.seconds < 2.4 or rng.random() < 0.4 else 3
    pool = [s for s in SOURCES if s != "speech" or speech.available()]
    weights = np.array([{"speech": 2.5, "music": 1.3}.get(s, 1.0) for s in pool])
    chosen = rng.choice(pool, count, replace=False, p=weights / weights.sum())
    room = (int(canvas.seconds * 10) - 1 - 2 * (count - 1)) // count
    lengths = [int(n) for n in rng.integers(max(3, room // 2), min(room, 25) + 1, count)]
    for source, at, length in zip(chosen, _spread(rng, lengths, canvas.seconds, gap=2), lengths, strict=False):
        SEQUENCE_PARTS.get(source, _sequence_short)(canvas, str(source), at, length)


def _sequence_short(canvas: _Canvas, source: str, at: int, length: int) -> None:
    seconds = length / 10 if source in SUSTAINED else 0.2
    _add_short(canvas, source, _jitter(canvas.rng, at), seconds, _draw_pitch(canvas.rng))


def _add_speech(canvas: _Canvas, source: str, at: int, length: int) -> None:
    start = _jitter(canvas.rng, at)
    said = speech.speak(canvas.rng, length / 10, canvas.held_out)
    sound = sounds.fades(said.waveform[: sounds.samples(length / 10)], 0.0, 0.03)
    end = min(start + len(sound) / SAMPLE_RATE, canvas.seconds)
    canvas.add(sound, Event(source, start, end, said.hz, said.hz, voice=said.voice))


def _add_music(canvas: _Canvas, source: str, at: int, length: int) -> None:
    start, end = _jitter(canvas.rng, at), _jitter(canvas.rng, at + length)
    canvas.add(sounds.music(canvas.rng, end - start), Event(source, start, end))


SEQUENCE_PARTS: dict[str, Callable[[_Canvas, str, int, int], None]] = {
    "speech": _add_speech,
    "music": _add_music,
}


def _speech(canvas: _Canvas) -> None:
    """Somebody speaks."""
    length = int(canvas.seconds * 10) - int(canvas.rng.integers(1, 4))
    at = int(canvas.rng.integers(0, int(canvas.seconds * 10) - length))
    _add_speech(canvas, "speech", at, length)


def _music(canvas: _Canvas) -> None:
    """A band plays through most of the clip."""
    _add_music(canvas, "music", 0, int(canvas.seconds * 10) - int(canvas.rng.integers(0, 3)))


def _noise(canvas: _Canvas) -> None:
    """Noise that is even, grows or fades."""
    rng = canvas.rng
    room = int(canvas.seconds * 10) - 1
    length = room if rng.random() < 0.5 else int(rng.integers(6, room + 1))
    at = _spread(rng, [length], canvas.seconds)[0]
    start, end = _jitter(rng, at), _jitter(rng, at + length)
    ramp = int(rng.choice(RAMPS, p=[0.11, 0.11, 0.11, 0.34, 0.11, 0.11, 0.11]))
    sound = sounds.fades(sounds.noise(rng, str(rng.choice(list(sounds.NOISE_SLOPES))), end - start), 0.01, 0.02)
    canvas.add(sound * sounds.level_ramp(len(sound), ramp), Event("noise", start, end, ramp_db=ramp))


def _silence(canvas: _Canvas) -> None:
    """Nothing but a floor 65 dB or more below full scale."""


PAINTERS: dict[str, Callable[[_Canvas], None]] = {
    "single": _single,
    "pair": _pair,
    "repeat": _repeat,
    "sequence": _sequence,
    "speech": _speech,
    "music": _music,
    "noise": _noise,
    "silence": _silence,
}


def _record(rng: Rng, canvas: _Canvas, kind: str) -> Clip:
    """Level, room, microphone and background: the canvas as somebody recorded it, or as it is."""
    if canvas.plain or rng.random() < SYNTHETIC_SHARE:
        return _synthetic(rng, canvas, kind)
    x = canvas.waveform * 10 ** (rng.uniform(-32, -12) / 20)
    if rng.random() < 0.2:
        x = _room(rng, x)
    if kind == "silence":
        return _finish(_floor(rng, x, 10 ** (rng.uniform(-95, -65) / 20)), canvas, kind, None)
    loudness = _active_rms(x, canvas.events)
    floor = int(rng.choice(FLOORS, p=[0.12, 0.12, 0.12, 0.14, 0.5]))
    if any(e.source == "noise" for e in canvas.events):
        floor = FLOORS[-1]
    below = rng.uniform(38, 70) if floor == FLOORS[-1] else floor + rng.uniform(-1.5, 1.5)
    x = _floor(rng, x, loudness * 10 ** (-below / 20))
    if rng.random() < 0.2:
        x = _microphone(rng, x)
    return _finish(x, canvas, kind, None if kind == "noise" else floor)


def _synthetic(rng: Rng, canvas: _Canvas, kind: str) -> Clip:
    """What a program writes: any level, nothing between the sounds."""
    x = canvas.waveform * 10 ** (rng.uniform(-30, -3) / 20)
    return _finish(x, canvas, kind, None if kind in ("noise", "silence") else FLOORS[-1])


def _finish(x: np.ndarray, canvas: _Canvas, kind: str, floor: int | None) -> Clip:
    peak = float(np.abs(x).max())
    x = x / peak * 0.99 if peak > 0.99 else x
    return Clip(x.astype(np.float32), Truth(kind, canvas.seconds, tuple(canvas.events), floor))


def _active_rms(x: np.ndarray, events: list[Event]) -> float:
    """Root mean square while something sounds."""
    sounding = sum(max(e.end - e.start, 0.1) for e in events) * SAMPLE_RATE
    return float(np.sqrt((x**2).sum() / max(sounding, 1.0)))


def _floor(rng: Rng, x: np.ndarray, rms: float) -> np.ndarray:
    colour = str(rng.choice(list(sounds.NOISE_SLOPES), p=[0.4, 0.4, 0.2]))
    return x + rms * sounds.noise(rng, colour, len(x) / SAMPLE_RATE)[: len(x)]


def _room(rng: Rng, x: np.ndarray) -> np.ndarray:
    """A reverberant tail of 80-350 ms."""
    n = sounds.samples(rng.uniform(0.08, 0.35))
    tail = rng.standard_normal(n) * np.exp(-6.9 * np.arange(n) / n) * rng.uniform(0.02, 0.06)
    tail[0] = 1.0
    size = 1 << (len(x) + n).bit_length()
    return np.fft.irfft(np.fft.rfft(x, size) * np.fft.rfft(tail, size), size)[: len(x)]


def _microphone(rng: Rng, x: np.ndarray) -> np.ndarray:
    """A roll-off above 3.2-6.5 kHz, as of a telephone or a low sampling rate, and a spectral tilt."""
    frequency = np.fft.rfftfreq(len(x), 1 / SAMPLE_RATE)
    roll_off = 1 / np.sqrt(1 + (frequency / rng.uniform(3_200, 6_500)) ** 8)
    tilt = 10 ** (rng.uniform(-4, 4) * np.log2(np.maximum(frequency, 60) / 1000) / 20)
    return np.fft.irfft(np.fft.rfft(x) * roll_off * tilt, len(x))
