"""A recording -> windows the model hears one at a time, and pieces the encoder takes.

A window is cut in a pause. Where sound runs on without one, it is cut at the quietest place of its
second half and the next window hears the last seconds again, so that no word is lost. Long silences
are in no window. Positions are frames of 20 ms.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from mlx_audio_r1.jobs.pauses import FRAME_SAMPLES, FRAMES_PER_SECOND, Soundscape, quietest

LONGEST_GAP = 10 * FRAMES_PER_SECOND  # a longer silence ends a window


@dataclass(frozen=True)
class Window:
    """pieces: [start, end) frames, in order. overlap: frames at its start the window before ends with."""

    pieces: tuple[tuple[int, int], ...]
    overlap: int = 0

    @property
    def start(self) -> int:
        return self.pieces[0][0]

    @property
    def end(self) -> int:
        return self.pieces[-1][1]

    @property
    def frames(self) -> int:
        return sum(end - start for start, end in self.pieces)


def plan(scape: Soundscape, longest: float, piece: float, overlap: float) -> list[Window]:
    """Windows of at most `longest` seconds of sound, in pieces of at most `piece` seconds; `overlap`
    seconds, at most a quarter of a window, are heard twice where there is no pause to cut in."""
    most, again = frames(longest), min(frames(overlap), frames(longest) // 4)
    windows: list[list[tuple[int, int, int]]] = []
    for start, end in scape.sounds:
        for part in _parts(scape, start, end, most, again):
            if not windows or part[2] or not _fits(windows[-1], part, most):
                windows.append([])
            windows[-1].append(part)
    return [
        Window(
            tuple(p for start, end, _ in parts for p in cut(scape, start, end, frames(piece))),
            parts[0][2],
        )
        for parts in windows
    ]


def frames(seconds: float) -> int:
    """Whole frames in so many seconds."""
    return int(seconds * FRAMES_PER_SECOND + 1e-6)


def _fits(parts: list[tuple[int, int, int]], part: tuple[int, int, int], most: int) -> bool:
    used = sum(end - start for start, end, _ in parts)
    return used + part[1] - part[0] <= most and part[0] - parts[-1][1] < LONGEST_GAP


def _parts(
    scape: Soundscape, start: int, end: int, most: int, again: int
) -> Iterator[tuple[int, int, int]]:
    """(start, end, overlap) of at most `most` frames each."""
    overlap = 0
    while end - start > most:
        at, pause = _cut_at(scape, start, end, most)
        yield start, at, overlap
        overlap = 0 if pause else min(again, at - start)
        start = at - overlap
    yield start, end, overlap


def cut(scape: Soundscape, start: int, end: int, most: int) -> Iterator[tuple[int, int]]:
    """[start, end) in pieces of at most `most` frames, cut where it is quietest."""
    while end - start > most:
        at, _ = _cut_at(scape, start, end, most)
        yield start, at
        start = at
    yield start, end


def _cut_at(scape: Soundscape, start: int, end: int, most: int) -> tuple[int, bool]:
    """A place in the second half of what may be taken, that does not leave a crumb behind."""
    last = min(start + most, end - most // 4)
    return quietest(scape, max(start + most // 2, start + 1), last + 1)


def cut_out(blocks: Iterable[np.ndarray], windows: Iterable[Window]) -> Iterator[list[np.ndarray]]:
    """The waveforms of each window's pieces; of the recording only about a window is held at a time."""
    tape = _Tape(blocks)
    for window in windows:
        tape.forget(window.start * FRAME_SAMPLES)
        whole = tape.read(window.end * FRAME_SAMPLES)
        first = window.start * FRAME_SAMPLES
        yield [
            whole[start * FRAME_SAMPLES - first : end * FRAME_SAMPLES - first].copy()
            for start, end in window.pieces
        ]


class _Tape:
    """Blocks of samples that are read forward and forgotten."""

    def __init__(self, blocks: Iterable[np.ndarray]):
        self._blocks = iter(blocks)
        self._held = np.empty(0, np.float32)
        self._start = 0  # the sample that _held begins with

    def forget(self, before: int) -> None:
        """Drop samples up to `before`, those not yet decoded included."""
        while self._start + len(self._held) <= before and (block := next(self._blocks, None)) is not None:
            self._start += len(self._held)
            self._held = block
        drop = min(len(self._held), before - self._start)
        self._held, self._start = self._held[drop:], self._start + drop

    def read(self, end: int) -> np.ndarray:
        """Samples from what is not forgotten up to `end`, or to the end of the recording."""
        held = [self._held]
        length = len(self._held)
        while self._start + length < end and (block := next(self._blocks, None)) is not None:
            held.append(block)
            length += len(block)
        self._held = np.concatenate(held)
        return self._held[: end - self._start]
