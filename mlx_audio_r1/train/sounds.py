"""The sounds of a data set, each decoded once: into which chunks they fall and what these hash to.

What was found is kept in a file under path, size and time of change, so that the next run does not decode
hours of sound again just to know their lengths. The surprise: NumPy alone works here, never MLX, so a
thread may decode ahead of the encoder.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from mlx_audio_r1.audio import chunk_frames, open_stream, pcm_sha256, read_chunks, source_name
from mlx_audio_r1.config import CHUNK_SECONDS, SAMPLE_RATE, patch_count
from mlx_audio_r1.errors import AudioError, DataError
from mlx_audio_r1.files import disk_errors
from mlx_audio_r1.jobs.hearing import damage_noted
from mlx_audio_r1.prompt import AudioPart


@dataclass(frozen=True)
class SoundChunk:
    """Chunk `index` of a sound: samples at 16 kHz, audio patches, and the sha256 of its PCM."""

    source: AudioPart = field(repr=False)
    index: int
    samples: int
    patches: int
    digest: str  # "" when only the header was read


@dataclass(frozen=True)
class Sound:
    """A whole sound. peak: largest absolute sample, full scale is 1. notes: what was damaged in it."""

    chunks: tuple[SoundChunk, ...]
    seconds: float
    peak: float
    notes: tuple[str, ...] = ()

    @property
    def digest(self) -> str:
        """Equal for sounds that are heard alike; "" when only headers were read."""
        digests = [chunk.digest for chunk in self.chunks]
        return hashlib.sha256("".join(digests).encode()).hexdigest() if all(digests) else ""

    @property
    def patches(self) -> list[int]:
        return [chunk.patches for chunk in self.chunks]


class Sounds:
    """Looks sounds up, decoding what it does not know yet.

    convention: of `config.patch_count`. index: JSONL file to remember in, shared by runs. decode: False
    reads headers only, which is quick but finds no damage and gives no digests.
    """

    def __init__(
        self,
        chunk_seconds: float = CHUNK_SECONDS,
        convention: str = "vllm",
        index: Path | None = None,
        decode: bool = True,
    ):
        self.chunk_seconds, self.convention = chunk_seconds, convention
        self._index = _Index(index) if index else None
        self._measure = self._decoded if decode else self._glanced
        self._known: dict[str, Sound | AudioError] = {}

    def __call__(self, part: AudioPart) -> Sound:
        """Raises AudioError, the same one each time."""
        key = source_key(part)
        if key not in self._known:
            try:
                _refuse_special_file(part)
                self._known[key] = self._measure(part)
            except AudioError as error:
                self._known[key] = error
            except OSError as error:  # the disk went away while it was read
                name = source_name(part.source)
                self._known[key] = AudioError(f"{name}: reading failed ({error.strerror or error})")
        found = self._known[key]
        if isinstance(found, AudioError):
            raise found
        return found

    def waveforms(self, chunks: Iterable[SoundChunk]) -> Iterator[tuple[SoundChunk, np.ndarray]]:
        """(chunk, (samples,) float32) of the chunks, each file opened once; in the order of the files.

        Raises AudioError, and DataError where a file is not what it was.
        """
        wanted: dict[str, dict[int, SoundChunk]] = {}
        for chunk in chunks:
            wanted.setdefault(source_key(chunk.source), {})[chunk.index] = chunk
        for of_source in wanted.values():
            with damage_noted():  # it was said when the sound was measured
                yield from self._pieces(of_source)

    def _pieces(self, wanted: dict[int, SoundChunk]) -> Iterator[tuple[SoundChunk, np.ndarray]]:
        source = next(iter(wanted.values())).source
        left = len(wanted)
        chunks = read_chunks(source.source, sample_rate=source.sample_rate, chunk_seconds=self.chunk_seconds)
        for piece in chunks:
            chunk = wanted.get(piece.index)
            if chunk is None:
                continue
            if pcm_sha256([piece]) != chunk.digest:
                break
            yield chunk, piece.waveform
            left -= 1
            if not left:
                return
        raise DataError(f"{source_name(source.source)}: has changed since it was measured; start again")

    def _decoded(self, part: AudioPart) -> Sound:
        if self._index and (known := self._index.get(part, self.chunk_seconds)):
            return self._sound(part, **known)
        pieces, seconds, peak = [], 0.0, 0.0
        with damage_noted() as notes:
            for piece in read_chunks(
                part.source, sample_rate=part.sample_rate, chunk_seconds=self.chunk_seconds
            ):
                pieces.append((len(piece.waveform), pcm_sha256([piece])))
                seconds, peak = piece.end, max(peak, float(np.abs(piece.waveform).max()))
        found = {"pieces": pieces, "seconds": seconds, "peak": peak, "notes": notes}
        if self._index:
            self._index.add(part, self.chunk_seconds, found)
        return self._sound(part, **found)

    def _glanced(self, part: AudioPart) -> Sound:
        with open_stream(part.source, part.sample_rate) as stream:
            rate, frames = stream.sample_rate, stream.frames
            if frames is None:  # the header does not say
                frames = sum(len(block) for block in stream.blocks)
            name = stream.name
        if not frames:
            raise AudioError(f"{name}: no samples in it; record or copy it again")
        step = chunk_frames(rate, self.chunk_seconds)
        lengths = [min(step, frames - at) for at in range(0, frames, step)]
        pieces = [(-(-length * SAMPLE_RATE // rate), "") for length in lengths]
        return self._sound(part, pieces, frames / rate, 1.0, ())

    def _sound(self, part: AudioPart, pieces: Any, seconds: float, peak: float, notes: Any) -> Sound:
        chunks = tuple(
            SoundChunk(part, i, samples, patch_count(samples, self.convention), digest)
            for i, (samples, digest) in enumerate(pieces)
        )
        return Sound(chunks, seconds, peak, tuple(notes))


def source_key(part: AudioPart) -> str:
    """Equal for equal sources: the path, or a hash of the bytes."""
    if isinstance(part.source, bytes):
        return f"sha256:{hashlib.sha256(part.source).hexdigest()}"
    return os.path.abspath(os.fsdecode(part.source))


def _refuse_special_file(part: AudioPart) -> None:
    """A sound of a data set is read more than once, which a pipe does not allow."""
    if isinstance(part.source, bytes):
        return
    try:
        mode = os.stat(part.source).st_mode
    except (OSError, ValueError):
        return  # the reader says it better
    if stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode):
        raise AudioError(f"{source_name(part.source)}: a pipe, not a file; record it to a file first")


class _Index:
    """Measured sounds in a JSONL file, one appended line each; lines that are torn or strange are passed
    over. A file counts as the same while its size and its time of change are."""

    def __init__(self, path: Path):
        self.path = path
        self._known: dict[tuple[Any, ...], dict[str, Any]] = {}
        try:
            lines = path.read_bytes().splitlines()
        except FileNotFoundError:
            lines = []
        for line in lines:
            self._read(line)

    def get(self, part: AudioPart, chunk_seconds: float) -> dict[str, Any] | None:
        key = _file_key(part, chunk_seconds)
        return self._known.get(key) if key else None

    def add(self, part: AudioPart, chunk_seconds: float, found: dict[str, Any]) -> None:
        """Raises DiskError."""
        key = _file_key(part, chunk_seconds)
        if key is None:
            return
        line = json.dumps({"key": key, **found}) + "\n"
        with disk_errors(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with open(self.path, "ab", buffering=0) as file:
                file.write((line if _ends_whole(self.path) else f"\n{line}").encode())
        self._known[key] = found

    def _read(self, line: bytes) -> None:
        try:
            row = json.loads(line)
            path, size, changed, chunk_seconds = row.pop("key")
            pieces = [(int(samples), str(digest)) for samples, digest in row["pieces"]]
            found = {"pieces": pieces, "seconds": float(row["seconds"]), "peak": float(row["peak"]),
                     "notes": [str(note) for note in row["notes"]]}
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            return
        if pieces and all(samples > 0 and len(digest) == 64 for samples, digest in pieces):
            self._known[path, size, changed, chunk_seconds] = found


def _file_key(part: AudioPart, chunk_seconds: float) -> tuple[Any, ...] | None:
    if isinstance(part.source, bytes):
        return None
    try:
        info = os.stat(part.source)
    except (OSError, ValueError):
        return None
    return source_key(part), info.st_size, info.st_mtime_ns, chunk_seconds


def _ends_whole(path: Path) -> bool:
    """Does the file end with a whole line?"""
    with open(path, "rb") as file:
        if not file.seek(0, os.SEEK_END):
            return True
        file.seek(-1, os.SEEK_END)
        return file.read(1) == b"\n"
