"""Sound primitives: each takes a generator where chance is involved and gives float32 at 16 kHz.

Tonal sounds have a root mean square of about 1 before their envelope; levels are set by the caller.
Harmonics above 7.6 kHz are left out, so nothing folds back.
"""

from __future__ import annotations

import numpy as np

from mlx_audio_r1.config import SAMPLE_RATE

Array = np.ndarray
Rng = np.random.Generator

TOP_HZ = 7_600.0
NOISE_SLOPES = {"white": 0.0, "pink": 0.5, "brown": 1.0}  # amplitude falls as f ** -slope
BELL_PARTIALS = (  # ratio to the strike note, amplitude, how much faster than the first it decays
    (1.0, 1.0, 1.0),
    (2.0, 0.6, 1.4),
    (2.76, 0.5, 1.8),
    (4.07, 0.35, 2.5),
    (5.4, 0.25, 3.3),
    (8.93, 0.15, 5.0),
)
TRIADS = {"major": (0, 4, 7), "minor": (0, 3, 7)}


def samples(seconds: float) -> int:
    """Seconds -> samples at 16 kHz."""
    return round(seconds * SAMPLE_RATE)


def seconds_axis(seconds: float) -> Array:
    """(n,) the time of every sample, s."""
    return np.arange(samples(seconds)) / SAMPLE_RATE


def glide(start_hz: float, end_hz: float, seconds: float) -> Array:
    """(n,) frequency in Hz that moves evenly in pitch from start to end."""
    n = samples(seconds)
    return start_hz * (end_hz / start_hz) ** (np.arange(n) / max(n, 1))


def vibrato(hz: float, seconds: float, semitones: float, rate: float) -> Array:
    """(n,) frequency in Hz that swings `semitones` to either side, `rate` times a second."""
    swing = np.sin(2 * np.pi * rate * seconds_axis(seconds))
    return hz * 2 ** (semitones / 12 * swing)


def fades(x: Array, attack: float, release: float) -> Array:
    """Linear ramps at both ends, s, so that nothing clicks."""
    a, b = min(samples(attack), len(x) // 3), min(samples(release), len(x) // 2)
    envelope = np.ones(len(x), np.float32)
    envelope[:a] = np.linspace(0, 1, a, endpoint=False)
    envelope[len(x) - b :] = np.linspace(1, 0, b)
    return (x * envelope).astype(np.float32)


def level_ramp(n: int, decibels: float) -> Array:
    """(n,) gain that moves evenly by `decibels`; the louder end is 1."""
    curve = np.linspace(min(-decibels, 0.0), min(decibels, 0.0), n)
    return (10 ** (curve / 20)).astype(np.float32)


def harmonics(frequency: Array, amplitudes: dict[int, float]) -> Array:
    """Sum of sines at whole multiples of a moving frequency, unit root mean square."""
    phase = 2 * np.pi * np.cumsum(frequency) / SAMPLE_RATE
    highest = frequency.max() if len(frequency) else 1.0
    kept = {k: a for k, a in amplitudes.items() if k == 1 or k * highest < TOP_HZ}
    x = sum(a * np.sin(k * phase) for k, a in kept.items())
    return (x / np.sqrt(sum(a * a for a in kept.values()) / 2)).astype(np.float32)


def sine(rng: Rng, frequency: Array) -> Array:
    return _soft_ends(rng, harmonics(frequency, {1: 1.0}))


def square(rng: Rng, frequency: Array) -> Array:
    """Odd harmonics, amplitude 1 / k."""
    return _soft_ends(rng, harmonics(frequency, {k: 1 / k for k in range(1, 28, 2)}))


def sawtooth(rng: Rng, frequency: Array) -> Array:
    """All harmonics, amplitude 1 / k."""
    return _soft_ends(rng, harmonics(frequency, {k: 1 / k for k in range(1, 28)}))


def bell(rng: Rng, frequency: Array) -> Array:
    """Inharmonic partials that ring out, the high ones first."""
    hz, n = float(frequency[0]), len(frequency)
    t = np.arange(n) / SAMPLE_RATE
    decay = rng.uniform(0.35, 0.9)
    x = np.zeros(n)
    for ratio, amplitude, speed in BELL_PARTIALS:
        if hz * ratio < TOP_HZ:
            x += amplitude * np.sin(2 * np.pi * hz * ratio * t) * np.exp(-t * speed / decay)
    return fades(1.4 * x, 0.0025, 0.02)


def plucked_string(rng: Rng, frequency: Array) -> Array:
    """Slightly stretched harmonics, each decaying faster than the one below."""
    hz, n = float(frequency[0]), len(frequency)
    t = np.arange(n) / SAMPLE_RATE
    damping, pick = rng.uniform(2.0, 5.0), rng.uniform(0.15, 0.4)
    x = np.zeros(n)
    for k in range(1, 16):
        if hz * k < TOP_HZ:
            amplitude = abs(np.sin(np.pi * k * pick)) / k
            partial = np.sin(2 * np.pi * hz * k * t * (1 + 2e-4 * k * k))
            x += amplitude * partial * np.exp(-t * damping * (0.55 + 0.45 * k))
    return fades(2.2 * x, 0.002, 0.02)


TONES = {  # source -> synthesiser of (generator, frequency curve)
    "sine tone": sine,
    "square tone": square,
    "sawtooth tone": sawtooth,
    "bell": bell,
    "plucked string": plucked_string,
}


def noise(rng: Rng, colour: str, seconds: float) -> Array:
    """White, pink or brown noise of unit root mean square."""
    n = max(samples(seconds), 2)
    x = rng.standard_normal(n).astype(np.float32)
    slope = NOISE_SLOPES[colour]
    if slope:
        frequency = np.maximum(np.fft.rfftfreq(n, 1 / SAMPLE_RATE), 30.0)
        x = np.fft.irfft(np.fft.rfft(x) * (frequency / 1000) ** -slope, n)
    return (x / x.std()).astype(np.float32)


def noise_burst(rng: Rng, seconds: float) -> Array:
    """A piece of white or pink noise with soft ends."""
    colour = "white" if rng.random() < 0.6 else "pink"
    return fades(0.9 * noise(rng, colour, seconds), 0.006, 0.02)


def click(rng: Rng) -> Array:
    """A burst of 4-12 ms that dies at once."""
    x = noise(rng, "white", rng.uniform(0.004, 0.012))
    return (2.5 * x * np.exp(-np.arange(len(x)) / (len(x) / 4))).astype(np.float32)


def drum(rng: Rng) -> Array:
    """A falling thump of 45-130 Hz with a little noise at the stroke."""
    seconds = rng.uniform(0.12, 0.25)
    t = seconds_axis(seconds)
    pitch = rng.uniform(45, 75) + rng.uniform(60, 130) * np.exp(-t * rng.uniform(25, 45))
    body = np.sin(2 * np.pi * np.cumsum(pitch) / SAMPLE_RATE) * np.exp(-t * rng.uniform(12, 22))
    stroke = noise(rng, "white", seconds)[: len(t)] * np.exp(-t * 90) * rng.uniform(0.1, 0.5)
    return fades(2.4 * (body + stroke), 0.001, 0.01)


def chord(rng: Rng, source: str, root_hz: float, quality: str, seconds: float) -> Array:
    """Three notes of one timbre at once."""
    notes = [root_hz * 2 ** (k / 12) for k in TRIADS[quality]]
    return sum(TONES[source](rng, glide(hz, hz, seconds)) for hz in notes) / 1.7


def music(rng: Rng, seconds: float) -> Array:
    """A small band: chords, a bass, a melody on a scale and mostly drums; unit root mean square."""
    x = np.zeros(samples(seconds), np.float32)
    beat, root = 60 / rng.uniform(80, 170), 110 * 2 ** (rng.integers(0, 14) / 12)
    pad, lead = rng.choice(["square tone", "sawtooth tone", "plucked string", "bell", "sine tone"], 2)
    drums = rng.random() < 0.7
    for index in range(int(np.ceil(seconds / beat))):
        start = index * beat
        if index % 4 == 0:
            _harmony(rng, x, start, beat, root, pad)
        _melody(rng, x, start, beat, root, lead)
        if drums:
            _drum_beat(rng, x, start, beat)
    return fades(x / (x.std() + 1e-6), 0.01, 0.05)


def mix(x: Array, sound: Array, start: float, gain: float = 1.0) -> None:
    """Add `sound` into `x` at `start` seconds, in place; what does not fit is cut."""
    at = samples(start)
    n = max(0, min(len(sound), len(x) - at))
    x[at : at + n] += gain * sound[:n]


def _soft_ends(rng: Rng, x: Array) -> Array:
    return fades(x, rng.uniform(0.005, 0.03), rng.uniform(0.01, 0.05))


def _note(rng: Rng, source: str, hz: float, seconds: float) -> Array:
    return TONES[source](rng, glide(hz, hz, seconds))


def _harmony(rng: Rng, x: Array, start: float, beat: float, root: float, source: str) -> None:
    base = root * 2 ** (rng.choice([0, 5, 7, 9]) / 12)
    held = min(4 * beat, 2.5)
    mix(x, chord(rng, source, base * 2, str(rng.choice(list(TRIADS))), held), start, 0.4)
    mix(x, _note(rng, "sawtooth tone", base, held), start, 0.35)


def _melody(rng: Rng, x: Array, start: float, beat: float, root: float, source: str) -> None:
    parts = 2 if rng.random() < 0.4 else 1
    for part in range(parts):
        if rng.random() < 0.8:
            hz = root * 4 * 2 ** (rng.choice([0, 2, 4, 5, 7, 9, 12]) / 12)
            mix(x, _note(rng, source, hz, 0.9 * beat / parts), start + part * beat / parts, 0.6)


def _drum_beat(rng: Rng, x: Array, start: float, beat: float) -> None:
    mix(x, drum(rng), start, 0.7)
    if rng.random() < 0.6:
        mix(x, fades(noise(rng, "white", 0.05), 0.001, 0.04), start + beat / 2, 0.5)
