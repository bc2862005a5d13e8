"""What the frozen encoder gives for each chunk of sound, computed once and kept on disk by content.

A file's name is a hash of the chunk's PCM, the encoder's own weights and FRONT_END_VERSION, so no other
encoder can be served by it; the arrays stay in the encoder's dtype, so a run that reads them trains to
the bit as one that computes them. The surprise: whatever is missing, damaged or thrown away is just
computed again, so the folder may be deleted at any time.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import tempfile
import time
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import Protocol

import mlx.core as mx
import numpy as np
from mlx.utils import tree_flatten

from mlx_audio_r1.config import FRONT_END_VERSION, SAMPLE_RATE, mel_frames
from mlx_audio_r1.files import disk_errors
from mlx_audio_r1.jobs.ahead import Ahead
from mlx_audio_r1.mel import log_mel
from mlx_audio_r1.models.step_audio_r1 import Model
from mlx_audio_r1.train.sounds import SoundChunk, Sounds

AHEAD_SECONDS = 200.0  # of decoded sound that may wait for the encoder
SHRINK_TO = 0.9  # of the limit, so that not every file beyond it costs a look at all of them
ASIDE = ".part"  # files being written; left behind by a kill, they are removed when they are old
OLD_SECONDS = 3_600.0
HEADER_BYTES = 512  # of a file around its array, about


class Features(Protocol):
    """Where a batch takes its sounds from: chunk -> (E, width), and the rows the adaptor makes of E.

    log_mels: are they log-mels (T, n_mels), which the encoder has still to read?
    """

    log_mels: bool

    def __call__(self, chunk: SoundChunk) -> mx.array: ...

    def rows(self, length: int) -> int: ...


def encoder_fingerprint(model: Model) -> str:
    """Hex sha256 of the encoder as it is in memory: its arrays, and what changes its output beside them."""
    config = model.config
    shape = [config.audio.n_mels, config.audio.n_audio_head, config.length_convention]
    digest = hashlib.sha256(json.dumps(shape).encode())
    for name, array in sorted(tree_flatten(model.audio_encoder.parameters())):
        digest.update(f"{name} {array.shape} {array.dtype}".encode())
        digest.update(_bytes(array))
    return digest.hexdigest()


class FeatureStore:
    """Encoder outputs (E, n_audio_state) of chunks, in a folder of at most `max_bytes`.

    sounds: what decodes again a chunk that is not there. `encoded` counts the chunks that were computed.
    """

    log_mels = False

    def __init__(self, model: Model, folder: str | Path, sounds: Sounds, max_bytes: int = 20 << 30):
        self._model, self._sounds = model, sounds
        self._fingerprint = encoder_fingerprint(model)
        self._files = ChunkFiles(Path(folder), max_bytes)
        self.encoded = 0

    def __call__(self, chunk: SoundChunk) -> mx.array:
        """The features of a chunk. Raises AudioError, DataError and DiskError."""
        found = self._files.read(self.key(chunk))
        if found is None:
            (found,) = self._encode(list(self._sounds.waveforms([chunk])))
        return found

    def rows(self, length: int) -> int:
        """Rows the adaptor makes of E: its convolution has stride 2."""
        return (length + 1) // 2

    def prepare(
        self, chunks: Iterable[SoundChunk], progress: Callable[[int, int], None] = lambda done, total: None
    ) -> int:
        """Compute what is not there yet, decoding ahead of the encoder in a thread.

        progress is told (done, total) in chunks. What the limit has no room for is left to be computed
        whenever it is asked for; the number of these is returned. Kill it at any moment: the next call
        goes on behind the last chunk.
        """
        todo = list({chunk.digest: chunk for chunk in chunks}.values())
        room, left = self._files.max_bytes, 0
        missing = []
        for chunk in todo:
            room -= self._size(chunk)
            if room < 0:
                left += 1
            elif not self._files.touch(self.key(chunk)):
                missing.append(chunk)
        total = len(todo) - left
        done = total - len(missing)
        progress(done, total)
        for together in self._model.passes(self._decoded(missing)):
            self._encode(together)
            done += len(together)
            progress(done, total)
        return left

    def key(self, chunk: SoundChunk) -> str:
        text = json.dumps([self._fingerprint, FRONT_END_VERSION, chunk.digest])
        return hashlib.sha256(text.encode()).hexdigest()

    def _decoded(self, chunks: Sequence[SoundChunk]) -> Iterator[tuple[SoundChunk, np.ndarray]]:
        if not chunks:
            return
        ahead = Ahead(self._sounds.waveforms(chunks), lambda pair: len(pair[1]) / SAMPLE_RATE, AHEAD_SECONDS)
        with closing(ahead):
            yield from ahead

    def _encode(self, sounds: Sequence[tuple[SoundChunk, np.ndarray]]) -> list[mx.array]:
        mels = [log_mel(waveform, self._model.config.audio.n_mels) for _, waveform in sounds]
        made = self._model.chunk_features(mels)
        mx.eval(made)
        for (chunk, _), features in zip(sounds, made, strict=True):
            self.encoded += 1
            self._files.write(self.key(chunk), features)
        return made

    def _size(self, chunk: SoundChunk) -> int:
        audio, dtype = self._model.config.audio, self._model.audio_encoder.conv1.weight.dtype
        return (mel_frames(chunk.samples) + 1) // 2 // 2 * audio.n_audio_state * dtype.size + HEADER_BYTES


class LogMels:
    """Log-mels (T, n_mels) in place of encoder outputs, for a run that trains the encoder too."""

    log_mels = True

    def __init__(self, sounds: Sounds, n_mels: int):
        self._sounds, self._n_mels = sounds, n_mels

    def __call__(self, chunk: SoundChunk) -> mx.array:
        ((_, waveform),) = self._sounds.waveforms([chunk])
        return log_mel(waveform, self._n_mels)

    def rows(self, length: int) -> int:
        """Rows that encoder and adaptor make of T frames."""
        return ((length + 1) // 2 // 2 + 1) // 2


class ChunkFiles:
    """One array a file, fanned out over 256 folders; the one whose last use is oldest goes first.

    A file is written aside and renamed. One that is cut short, changed or under a wrong name counts as
    absent. Several processes may share a folder.
    """

    def __init__(self, folder: Path, max_bytes: int):
        self.folder, self.max_bytes = folder, max_bytes
        with disk_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
        self._held = sum(info.st_size for info, _ in self._all())

    def touch(self, key: str) -> bool:
        """Is there such a file? It counts as used then, and may still turn out to be damaged."""
        try:
            os.utime(self._path(key))
        except FileNotFoundError:
            return False
        except OSError:
            return self._path(key).is_file()
        return True

    def read(self, key: str) -> mx.array | None:
        path = self._path(key)
        try:
            array, metadata = _loaded(path.read_bytes())
            sound = metadata.get("key") == key and metadata.get("crc") == _crc(array)
        except FileNotFoundError:
            return None
        except (OSError, RuntimeError, ValueError, KeyError):
            sound = False
        with suppress(OSError):  # another process may be clearing up as well
            if not sound:
                path.unlink()
                return None
            os.utime(path)
        return array if sound else None

    def write(self, key: str, array: mx.array) -> None:
        """Keep it, unless it alone is beyond the limit. Raises DiskError."""
        path = self._path(key)
        content = io.BytesIO()
        mx.save_safetensors(content, {"features": array}, {"format": "mlx", "key": key, "crc": _crc(array)})
        if len(content.getbuffer()) > self.max_bytes:
            return
        with disk_errors(self.folder):
            path.parent.mkdir(exist_ok=True)
            handle, aside = tempfile.mkstemp(dir=path.parent, suffix=ASIDE)
            try:
                with open(handle, "wb") as file:
                    file.write(content.getbuffer())
                os.replace(aside, path)
            except BaseException:
                Path(aside).unlink(missing_ok=True)
                raise
        self._held += len(content.getbuffer())
        if self._held > self.max_bytes:
            self._shrink(path)

    def _shrink(self, newest: Path) -> None:
        """Remove the files used longest ago until SHRINK_TO of the limit is held; the newest one stays."""
        files = sorted(((i.st_mtime_ns, i.st_size, p) for i, p in self._all()), reverse=True)
        self._held = sum(size for _, size, _ in files)
        files = [file for file in files if file[2] != newest]
        while files and self._held > self.max_bytes * SHRINK_TO:
            _, size, path = files.pop()
            path.unlink(missing_ok=True)
            self._held -= size

    def _all(self) -> Iterator[tuple[os.stat_result, Path]]:
        """(stat, path) of every file; what a kill left half written is removed on the way."""
        for path in self.folder.glob("??/*"):
            with suppress(FileNotFoundError):
                info = path.stat()
                if path.suffix == ".safetensors":
                    yield info, path
                elif path.suffix == ASIDE and info.st_mtime < time.time() - OLD_SECONDS:
                    path.unlink()

    def _path(self, key: str) -> Path:
        return self.folder / key[:2] / f"{key}.safetensors"


def _loaded(content: bytes) -> tuple[mx.array, dict[str, str]]:
    arrays, metadata = mx.load(io.BytesIO(content), format="safetensors", return_metadata=True)
    mx.eval(arrays)
    return arrays["features"], metadata


def _bytes(array: mx.array) -> memoryview:
    return np.ascontiguousarray(np.array(array.reshape(-1).view(mx.uint8))).data


def _crc(array: mx.array) -> str:
    """crc32 over shape, dtype and bytes."""
    start = zlib.crc32(f"{array.shape}{array.dtype}".encode())
    return f"{zlib.crc32(_bytes(array), start):08x}"
