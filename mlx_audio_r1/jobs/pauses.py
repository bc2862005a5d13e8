"""Where a recording is quiet, by its energy alone.

Levels are dBFS of 20 ms frames. A frame counts as sound when it stands above the noise floor around it
(the lowest 10 % of the neighbouring minute) and near enough to the loudest sound of the recording. The
surprise: steady noise or music counts as sound throughout, since energy cannot tell it from speech;
whatever is in doubt is kept.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from mlx_audio_r1.config import SAMPLE_RATE

FRAME_SAMPLES = 320
FRAMES_PER_SECOND = SAMPLE_RATE // FRAME_SAMPLES  # 50
SILENT_DB = -100.0  # what digital silence is written as
FAINTEST_DB = -75.0  # below this nothing counts as sound; dither and coders' noise lie near -90
ABOVE_FLOOR_DB = 6.0  # sound stands this far above the floor ...
BELOW_LOUDEST_DB = 12.0  # ... unless it lies within this of the loudest
HYSTERESIS_DB = 3.0  # a sound ends this far below where it began
FLOOR_BLOCK = 10 * FRAMES_PER_SECOND
FLOOR_NEIGHBOURS = 3  # blocks on either side whose floor may be taken
SHORTEST_SOUND = 3  # frames: a shorter one is a click
PADDING = 15  # frames kept around a sound: soft onsets and ends
SHORTEST_SILENCE = 2 * FRAMES_PER_SECOND  # frames: shorter pauses stay in
PAUSE = 5  # quiet frames on either side that make a cut a pause
CUT_SMOOTHING = 11  # frames averaged to find the quietest place
LATER_DB = 3.0  # what a place at the end may be louder than one at the beginning, to cut less often


@dataclass(frozen=True, eq=False)
class Soundscape:
    """levels: (n,) dBFS of every frame; quiet: (n,) bool, below the threshold around it; sounds:
    [start, end) frames of everything to listen to, in order, with the pauses between dropped."""

    levels: np.ndarray
    quiet: np.ndarray
    sounds: list[tuple[int, int]]

    @property
    def silent_frames(self) -> int:
        """Frames that no sound covers."""
        return len(self.levels) - sum(end - start for start, end in self.sounds)


def levels(blocks: Iterable[np.ndarray]) -> np.ndarray:
    """Waveform in blocks of any size, 16 kHz -> (ceil(samples / 320),) dBFS; DC does not count."""
    found, rest = [], np.empty(0, np.float32)
    for block in blocks:
        rest = np.concatenate([rest, block])
        whole = len(rest) // FRAME_SAMPLES * FRAME_SAMPLES
        found.append(_decibels(rest[:whole].reshape(-1, FRAME_SAMPLES)))
        rest = rest[whole:]
    if len(rest):
        found.append(_decibels(rest[None]))
    return np.concatenate(found) if found else np.empty(0)


def _decibels(frames: np.ndarray) -> np.ndarray:
    power = frames.astype(np.float64).var(axis=1)
    return np.maximum(10 * np.log10(np.maximum(power, 1e-30)), SILENT_DB)


def soundscape(level: np.ndarray) -> Soundscape:
    """(n,) dBFS -> what is sound and what is not."""
    if not len(level):
        return Soundscape(level, np.empty(0, bool), [])
    begin = np.minimum(_floor(level) + ABOVE_FLOOR_DB, np.quantile(level, 0.999) - BELOW_LOUDEST_DB)
    begin = np.maximum(begin, FAINTEST_DB)
    sounds = [
        (start, end)
        for start, end in _runs(level > begin - HYSTERESIS_DB)
        if (level[start:end] > begin[start:end]).any() and end - start >= min(SHORTEST_SOUND, len(level))
    ]
    return Soundscape(level, level <= begin - HYSTERESIS_DB, _join_near(sounds, len(level)))


def _floor(level: np.ndarray) -> np.ndarray:
    """(n,) noise floor around every frame: the lowest of the neighbouring blocks' 10 % quantiles."""
    blocks = [np.quantile(level[i : i + FLOOR_BLOCK], 0.1) for i in range(0, len(level), FLOOR_BLOCK)]
    padded = np.pad(blocks, FLOOR_NEIGHBOURS, mode="edge")
    lowest = np.lib.stride_tricks.sliding_window_view(padded, 2 * FLOOR_NEIGHBOURS + 1).min(axis=1)
    return np.repeat(lowest, FLOOR_BLOCK)[: len(level)]


def _runs(mask: np.ndarray) -> list[tuple[int, int]]:
    edges = np.flatnonzero(np.diff(np.concatenate([[False], mask, [False]])))
    return [(int(start), int(end)) for start, end in edges.reshape(-1, 2)]


def _join_near(sounds: list[tuple[int, int]], length: int) -> list[tuple[int, int]]:
    """Sounds with their padding; those with a short pause between them become one."""
    joined: list[tuple[int, int]] = []
    for start, end in ((max(0, s - PADDING), min(length, e + PADDING)) for s, e in sounds):
        if joined and start - joined[-1][1] < SHORTEST_SILENCE:
            joined[-1] = (joined[-1][0], end)
        else:
            joined.append((start, end))
    return joined


def quietest(scape: Soundscape, start: int, end: int) -> tuple[int, bool]:
    """The best frame to cut at in [start, end), and whether there is a pause."""
    kernel = np.full(CUT_SMOOTHING, 1 / CUT_SMOOTHING)
    reach = CUT_SMOOTHING // 2
    around = scape.levels[max(0, start - reach) : end + reach]
    smooth = np.convolve(around, kernel, mode="same")[start - max(0, start - reach) :][: end - start]
    at = start + int(np.argmin(smooth - np.linspace(0, LATER_DB, len(smooth))))
    return at, bool(scape.quiet[max(0, at - PAUSE) : at + PAUSE].all())
