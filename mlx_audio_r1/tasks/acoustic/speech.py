"""Speech with a known voice, from espeak-ng where it is installed.

The surprise: without espeak-ng the world still works, it only has no clips with speech. Some voices
are never used unless `held_out` is asked for, so that a table can be made with unheard speakers.
"""

from __future__ import annotations

import io
import shutil
import subprocess
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import soundfile
import soxr

from mlx_audio_r1.config import SAMPLE_RATE

MALE = ["m1", "m2", "m3", "m4", "m5", "m6", "m7", "m8", "Alex", "Andy", "Denis", "Diogo", "Gene", "Hugo",
    "Lee", "Marco", "Mario", "Michael", "Mike", "adam", "antonio", "benjamin", "boris", "caleb", "david",
    "ed", "edward", "john", "max", "paul", "pedro", "quincy", "rob", "robert", "travis", "victor"]
FEMALE = ["f1", "f2", "f3", "f4", "f5", "Alicia", "Andrea", "Annie", "anika", "aunty", "belinda",
    "linda", "shelby", "steph", "steph2", "steph3"]
HELD_OUT = frozenset(["m4", "Michael", "quincy", "robert", "f3", "linda", "steph2", "Annie"])
ACCENTS = ("en-us", "en-us", "en-us", "en-gb", "en-gb-x-rp", "en-gb-scotland", "en-gb-x-gbcwmd")
PITCH_SETTINGS = {"male": (20, 60), "female": (45, 80)}  # espeak-ng's 0-99
MEASURED_HZ = {"male": (70.0, 150.0), "female": (165.0, 320.0)}  # outside, the voice is drawn again
WORDS = ["yes", "no", "stop", "go", "left", "right", "up", "down", "red", "green", "blue", "dog", "cat",
    "water", "music", "house", "morning", "letter", "window", "seven", "eleven", "people", "coffee",
    "summer", "yellow", "mountain", "river", "paper"]
SENTENCES = (
    "the quick brown fox jumps over the lazy dog",
    "please call me back tomorrow morning",
    "I left the keys on the kitchen table",
    "there are many people in the street",
    "can you open the window for a moment",
    "the train to the city leaves at noon",
    "my brother works in a small office",
    "a long time ago in a far country",
    "put the book back on the shelf",
    "it was a cold and windy evening",
    "she bought fresh bread and apples",
    "we should meet again next week",
    "the children are playing in the garden",
    "he never answers his phone",
    "turn left at the second corner",
    "the water in the lake is very clear",
    "my favourite colour is dark blue",
    "they built a bridge over the river",
    "nobody knows where the cat went",
    "all the lights in the house were off",
    "what a lovely day",
    "this is bad news",
    "did you hear that",
    "good morning everyone",
    "I am happy today",
    "you did great",
    "wait a minute",
    "never mind",
)


@dataclass(frozen=True)
class Utterance:
    """A spoken phrase at 16 kHz, unit root mean square, its speaker and its measured pitch."""

    waveform: np.ndarray
    voice: str  # "male" or "female"
    hz: float  # median fundamental


@lru_cache(maxsize=1)
def available() -> bool:
    """True where espeak-ng is installed."""
    return shutil.which("espeak-ng") is not None


def speak(rng: np.random.Generator, seconds: float, held_out: bool = False) -> Utterance:
    """A phrase of about `seconds` or less, by a voice whose measured pitch fits its label."""
    for _ in range(20):
        voice = "male" if rng.random() < 0.5 else "female"
        x = _vary(rng, _synthesise(rng, voice, _phrase(rng, seconds), held_out))
        hz = fundamental(x)
        low, high = MEASURED_HZ[voice]
        if low <= hz <= high:
            return Utterance((x / np.sqrt(np.mean(x**2))).astype(np.float32), voice, hz)
    raise RuntimeError("espeak-ng gave no usable voice in 20 trials; is the installation complete?")


def fundamental(x: np.ndarray, low: float = 60.0, high: float = 400.0) -> float:
    """Median fundamental in Hz over the voiced 40 ms frames, by autocorrelation; 0 where none is."""
    window = 640
    if len(x) < window:
        return 0.0
    frames = np.lib.stride_tricks.sliding_window_view(x, window)[::160] * np.hanning(window)
    power = (frames**2).mean(axis=1)
    correlation = np.fft.irfft(np.abs(np.fft.rfft(frames, 2048)) ** 2)[:, :window]
    taper = np.fft.irfft(np.abs(np.fft.rfft(np.hanning(window), 2048)) ** 2)[:window]
    correlation = correlation / (correlation[:, :1] + 1e-9) / (taper / taper[0] + 1e-3)
    first, last = int(SAMPLE_RATE / high), int(SAMPLE_RATE / low)
    part = correlation[:, first:last]
    best = part.max(axis=1)
    # The shortest peak that is nearly the best: the best itself may be an octave too low.
    peak = np.zeros(part.shape, bool)
    peak[:, 1:-1] = (part[:, 1:-1] >= part[:, :-2]) & (part[:, 1:-1] >= part[:, 2:])
    lag = first + (peak & (part >= 0.9 * best[:, None])).argmax(axis=1)
    voiced = (best > 0.5) & (power > 0.05 * power.max())
    return float(np.median(SAMPLE_RATE / lag[voiced])) if voiced.any() else 0.0


def _phrase(rng: np.random.Generator, seconds: float) -> str:
    if seconds < 0.9:
        return str(rng.choice(WORDS))
    if seconds < 1.4:
        return " ".join(rng.choice(WORDS, 2))
    phrase = str(rng.choice(SENTENCES))
    if seconds > 3.2:
        phrase += ", " + str(rng.choice(SENTENCES))
    return phrase


def _synthesise(rng: np.random.Generator, voice: str, text: str, held_out: bool) -> np.ndarray:
    pool = [v for v in (MALE if voice == "male" else FEMALE) if (v in HELD_OUT) == held_out]
    pitch = int(rng.integers(*PITCH_SETTINGS[voice]))
    speed = int(rng.integers(120, 220))
    name = f"{rng.choice(ACCENTS)}+{rng.choice(pool)}"
    command = ["espeak-ng", "-v", name, "-p", str(pitch), "-s", str(speed), "--stdout", text]
    wav = subprocess.run(command, capture_output=True, check=True).stdout
    x, rate = soundfile.read(io.BytesIO(wav), dtype="float32")
    return _trim(soxr.resample(x, rate, SAMPLE_RATE))


def _vary(rng: np.random.Generator, x: np.ndarray) -> np.ndarray:
    """Half the time a smaller or larger head: formants, pitch and speed move together."""
    if rng.random() < 0.5:
        return x
    return soxr.resample(x, SAMPLE_RATE, SAMPLE_RATE * rng.uniform(0.92, 1.1))


def _trim(x: np.ndarray) -> np.ndarray:
    loud = np.flatnonzero(np.abs(x) > 0.02 * np.abs(x).max())
    return x[max(0, loud[0] - 40) : loud[-1] + 80]
