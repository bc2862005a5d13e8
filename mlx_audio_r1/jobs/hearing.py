"""Recordings -> clips for the model, by NumPy alone, so that a thread can do it ahead.

A recording is one clip, cut as `ask` cuts it; or, for transcripts, windows cut in its pauses. For these
the file is decoded twice: once for its levels, once for its sound, so that hours of it are never held.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np

from mlx_audio_r1.audio import Chunk, read_chunks
from mlx_audio_r1.config import CHUNK_SECONDS
from mlx_audio_r1.errors import AudioError, AudioR1Error, PromptError
from mlx_audio_r1.jobs.pauses import FRAMES_PER_SECOND, levels, soundscape
from mlx_audio_r1.jobs.sources import Item
from mlx_audio_r1.jobs.windows import Window, cut_out, plan

ALL_SILENCE = "nothing but silence: there is nothing to write down"


@dataclass(frozen=True)
class Cutting:
    """How recordings are cut. Seconds. window: longest stretch the model hears at once, None for all of
    it, silence included."""

    piece: float = CHUNK_SECONDS
    window: float | None = None
    overlap: float = 0.0
    limit: float | None = None  # a longer recording is refused
    fits: float | None = None  # what the context holds, when a recording is heard as a whole


@dataclass(frozen=True)
class Recording:
    """What is known of a file once it was read. clips: how many there are, 0 when all is silence."""

    item: Item
    duration: float
    silence_skipped: float
    clips: int
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Clip:
    """A stretch of a recording. pieces: seconds in it; waveforms: 16 kHz, one a piece. overlap: seconds
    at its start that the clip before ends with."""

    recording: Recording
    index: int
    pieces: tuple[tuple[float, float], ...]
    waveforms: tuple[np.ndarray, ...]
    overlap: float = 0.0

    @property
    def seconds(self) -> float:
        return sum(end - start for start, end in self.pieces)


@dataclass(frozen=True)
class Broken:
    """A recording that cannot be heard, and why."""

    item: Item
    error: AudioR1Error


def hear(items: list[Item], cutting: Cutting) -> Iterator[Clip | Broken]:
    """Every clip of every recording, in order. One that is all silence gives a Clip without pieces."""
    for item in items:
        if item.error:
            yield Broken(item, AudioError(item.error))
            continue
        try:
            yield from _whole(item, cutting) if cutting.window is None else _windows(item, cutting)
        except AudioR1Error as error:
            yield Broken(item, error)
        except OSError as error:  # the disk went away while it was read
            yield Broken(item, AudioError(f"{item.path}: reading failed ({error.strerror or error})"))


def cost(heard: Clip | Broken) -> float:
    """Seconds of sound held in memory; at least one, so that the number is bounded too."""
    return max(1.0, heard.seconds) if isinstance(heard, Clip) else 1.0


def _whole(item: Item, cutting: Cutting) -> Iterator[Clip]:
    with damage_noted() as notes:
        chunks = list(_chunks(item, cutting, cutting.piece))
    recording = Recording(item, chunks[-1].end, 0.0, 1, tuple(notes))
    pieces = tuple((round(c.start, 3), round(c.end, 3)) for c in chunks)
    yield Clip(recording, 0, pieces, tuple(c.waveform for c in chunks))


def _windows(item: Item, cutting: Cutting) -> Iterator[Clip]:
    ends: list[float] = []
    with damage_noted() as notes:
        scape = soundscape(levels(c.waveform for c in _chunks(item, cutting, CHUNK_SECONDS, ends.append)))
    windows = plan(scape, cutting.window or ends[-1], cutting.piece, cutting.overlap)
    skipped = scape.silent_frames / FRAMES_PER_SECOND
    if not windows:
        yield Clip(Recording(item, ends[-1], ends[-1], 0, (*notes, ALL_SILENCE)), 0, (), ())
        return
    recording = Recording(item, ends[-1], skipped, len(windows), tuple(notes))
    with damage_noted():
        blocks = (c.waveform for c in _chunks(item, cutting, CHUNK_SECONDS))
        for index, (window, waveforms) in enumerate(zip(windows, cut_out(blocks, windows), strict=True)):
            yield _clip(recording, index, window, waveforms)


def _clip(recording: Recording, index: int, window: Window, waveforms: list[np.ndarray]) -> Clip:
    ends = ((s / FRAMES_PER_SECOND, min(e / FRAMES_PER_SECOND, recording.duration)) for s, e in window.pieces)
    pieces = tuple((round(start, 3), round(end, 3)) for start, end in ends)
    return Clip(recording, index, pieces, tuple(waveforms), window.overlap / FRAMES_PER_SECOND)


def _chunks(
    item: Item, cutting: Cutting, seconds: float, note_end: Callable[[float], None] = lambda end: None
) -> Iterator[Chunk]:
    source = item.path if item.content is None else item.content
    for chunk in read_chunks(source, chunk_seconds=seconds):
        if cutting.limit is not None and chunk.end > cutting.limit:
            raise AudioError(f"{item.path}: longer than the limit of {cutting.limit:g} s; "
                             "raise --limit-seconds or cut it")
        if cutting.fits is not None and chunk.end > cutting.fits:  # before hours of it are in memory
            raise PromptError(f"{item.path}: longer than the context: at most {cutting.fits:.0f} seconds fit; "
                              "cut it, or use --task transcribe, which hears it in windows")
        note_end(chunk.end)
        yield chunk


@contextmanager
def damage_noted() -> Iterator[list[str]]:
    """Collects what the decoder warns of in this thread, in place of printing it."""
    notes: list[str] = []
    handler = _Notes(notes, threading.get_ident())
    logger = logging.getLogger("mlx_audio_r1")
    logger.addHandler(handler)
    try:
        yield notes
    finally:
        logger.removeHandler(handler)


class _Notes(logging.Handler):
    def __init__(self, notes: list[str], thread: int):
        super().__init__(logging.WARNING)
        self._notes, self._thread = notes, thread

    def emit(self, record: logging.LogRecord) -> None:
        if record.thread == self._thread:
            self._notes.append(record.getMessage())
