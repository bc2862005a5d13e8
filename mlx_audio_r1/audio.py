"""Sound -> chunks of at most 25 s: mono float32 at 16 kHz, in the order the official server uses.

Cut at the original rate, average the channels, resample each piece (soxr HQ, what librosa calls
soxr_hq). The surprise: since every chunk is resampled alone, a file that is not at 16 kHz gives other
samples at a cut than the whole file resampled would; the model was served that way. The 479 zeros
and the log-mel follow in mel.py.
"""

from __future__ import annotations

import hashlib
import math
import os
import re
import stat
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from io import BytesIO
from numbers import Real
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import soxr

from mlx_audio_r1.audio_decode import BLOCK_FRAMES, MAX_CHANNELS, Stream, check_shape, decode
from mlx_audio_r1.audio_format import ByteReader
from mlx_audio_r1.config import CHUNK_SECONDS, MAX_CHUNK_SAMPLES, MAX_CHUNK_SECONDS, SAMPLE_RATE
from mlx_audio_r1.errors import AudioError

MIN_CHUNK_SECONDS = 0.1
SPOOL_BYTES = 32 << 20  # a pipe is held in memory up to here, then in a temporary file
MAX_AMPLITUDE = 1e12  # full scale is 1.0; far beyond this the log-mel's power overflows float32


@dataclass(frozen=True, eq=False)
class Chunk:
    """A piece of sound for one pass of the encoder.

    waveform: (n,) float32, mono, 16 kHz, 1 <= n <= 479,680. index counts from 0. start and end are
    seconds in the source, so end - start may differ from n / 16,000 by less than a sample.
    """

    index: int
    start: float
    end: float
    waveform: np.ndarray


def read_chunks(
    source: Any, *, sample_rate: int | None = None, chunk_seconds: float = CHUNK_SECONDS
) -> Iterator[Chunk]:
    """Decode `source` piece by piece; memory holds one chunk, whatever the length of the file.

    source: path, bytes, binary file object (read from where it stands), "-" for stdin, or an array
    (n,) or (n, channels) of floats around [-1, 1] or of 8 to 32-bit integers, with sample_rate in Hz.
    chunk_seconds: longest piece, 0.1 to 29.98. Chunks are never empty and there is at least one.
    Of a damaged file comes what decodes, and a logged warning. Raises AudioError, during iteration.
    """
    _check_chunk_seconds(chunk_seconds)
    with open_stream(source, sample_rate) as stream:
        start, rate = 0, stream.sample_rate
        for index, piece in enumerate(_pieces(stream, chunk_frames(rate, chunk_seconds))):
            end = start + len(piece)
            yield Chunk(index, start / rate, end / rate, resample(piece, rate))
            start = end
        if start == 0:
            raise AudioError(f"{stream.name}: no samples in it; record or copy it again")


def load_audio(
    source: Any, *, sample_rate: int | None = None, chunk_seconds: float = CHUNK_SECONDS
) -> list[Chunk]:
    """All chunks of `source`; arguments and errors as in `read_chunks`."""
    return list(read_chunks(source, sample_rate=sample_rate, chunk_seconds=chunk_seconds))


def duration(source: Any, *, sample_rate: int | None = None) -> float:
    """Seconds of sound: what the header declares, or counted by decoding where it declares nothing.

    Consumes a pipe, and moves a file object. Raises AudioError.
    """
    with open_stream(source, sample_rate) as stream:
        frames = stream.frames
        if frames is None:
            frames = sum(len(block) for block in stream.blocks)
        return frames / stream.sample_rate


def pcm_sha256(chunks: Iterable[Chunk]) -> str:
    """Hex sha256 of every chunk's length (8 bytes) and PCM (float32), both little-endian.

    The lengths are in it because the same sound cut elsewhere gives other features.
    """
    digest = hashlib.sha256()
    for chunk in chunks:
        digest.update(len(chunk.waveform).to_bytes(8, "little"))
        digest.update(np.ascontiguousarray(chunk.waveform, "<f4").data)
    return digest.hexdigest()


def chunk_frames(sample_rate: int, chunk_seconds: float = CHUNK_SECONDS) -> int:
    """Samples at the original rate that a chunk holds; resampled they fit 479,680."""
    wanted = int(chunk_seconds * sample_rate + 1e-6)
    return max(1, min(wanted, MAX_CHUNK_SAMPLES * sample_rate // SAMPLE_RATE))


def resample(waveform: np.ndarray, sample_rate: int) -> np.ndarray:
    """(n,) float32 at `sample_rate` Hz -> (ceil(n * 16000 / sample_rate),) float32 at 16 kHz.

    soxr rounds the length to the nearest; like librosa, the missing sample is set to zero.
    """
    if sample_rate == SAMPLE_RATE:
        return waveform
    length = -(-len(waveform) * SAMPLE_RATE // sample_rate)
    resampled = soxr.resample(waveform, sample_rate, SAMPLE_RATE, "HQ")[:length]
    return np.pad(resampled, (0, length - len(resampled)))


def _check_chunk_seconds(chunk_seconds: float) -> None:
    if not MIN_CHUNK_SECONDS <= chunk_seconds <= MAX_CHUNK_SECONDS:
        raise AudioError(
            f"chunk_seconds {chunk_seconds}: give {MIN_CHUNK_SECONDS} to {MAX_CHUNK_SECONDS} s; "
            "the encoder takes no more"
        )


def _pieces(stream: Stream, step: int) -> Iterator[np.ndarray]:
    """Mono (n,) pieces of exactly `step` samples, and a shorter last one if any are left."""
    held, count, decoded = [], 0, 0
    for block in stream.blocks:
        mono = _mono(block)
        _check_samples(mono, decoded, stream)
        decoded += len(mono)
        while count + len(mono) >= step:
            head, mono = mono[: step - count], mono[step - count :]
            yield np.concatenate([*held, head])
            held, count = [], 0
        held.append(mono)
        count += len(mono)
    if count:
        yield np.concatenate(held)


def _mono(block: np.ndarray) -> np.ndarray:
    """(n, channels) -> (n,) float32: the mean, as librosa's to_mono."""
    if block.shape[1] == 1:
        return block[:, 0]
    with np.errstate(over="ignore", invalid="ignore"):
        return block.mean(axis=1)


def _check_samples(mono: np.ndarray, decoded: int, stream: Stream) -> None:
    sane = np.abs(mono) <= MAX_AMPLITUDE
    if not sane.all():
        at = int(np.argmin(sane))
        raise AudioError(
            f"{stream.name}: sample {mono[at]} at {(decoded + at) / stream.sample_rate:.3f} s; "
            "the file is damaged, export it again"
        )


# Sources


@contextmanager
def open_stream(source: Any, sample_rate: int | None = None) -> Iterator[Stream]:
    """Open any source for decoding; files and child processes end with the block.

    source: path, bytes, binary file object (read from where it stands, not closed), "-" for stdin, or
    an array (n,) or (n, channels), float or integer; sample_rate in Hz goes with arrays alone.
    Raises AudioError.
    """
    with ExitStack() as stack:
        stream = _open(source, sample_rate, stack)
        check_shape(stream.name, stream.sample_rate, stream.channels)
        yield stream


def _open(source: Any, sample_rate: int | None, stack: ExitStack) -> Stream:
    if not _is_bytes_source(source):
        return _open_array(source, sample_rate)
    if sample_rate is not None:
        raise AudioError(f"{source_name(source)}: sample_rate goes with arrays; a file states its own")
    file, name, path = _open_bytes(source, stack)
    return decode(ByteReader(file, name), path, stack)


def source_name(source: Any) -> str:
    """What error messages call a source: the path, or <bytes>, <file>, <stdin>, <array>."""
    if isinstance(source, str | os.PathLike) and source != "-":
        name = os.fsdecode(source)
    elif isinstance(source, str):
        name = "<stdin>"
    elif isinstance(source, bytes | bytearray | memoryview):
        name = "<bytes>"
    else:
        label = getattr(source, "name", None)
        kind = "<file>" if hasattr(source, "read") else "<array>"
        name = label if isinstance(label, str) and kind == "<file>" else kind
    name = name if len(name) <= 300 else f"{name[:200]}…{name[-60:]}"
    return name if name.isprintable() else ascii(name)


def _is_bytes_source(source: Any) -> bool:
    kinds = str | os.PathLike | bytes | bytearray | memoryview
    return isinstance(source, kinds) or hasattr(source, "read")


def _open_bytes(source: Any, stack: ExitStack) -> tuple[BinaryIO, str, Path | None]:
    """(seekable file, name for messages, path when there is one a program can open)."""
    name = source_name(source)
    if isinstance(source, bytes | bytearray | memoryview):
        return BytesIO(source), name, None
    if source == "-" and isinstance(source, str):
        return _spool(_stdin(), name, stack), name, None
    if isinstance(source, str | os.PathLike):
        path = os.fsdecode(source)
        file = stack.enter_context(_open_path(path, name))
        return (file, name, Path(path)) if file.seekable() else (_spool(file, name, stack), name, None)
    return _open_file(source, name, stack), name, None


def _open_file(source: Any, name: str, stack: ExitStack) -> BinaryIO:
    try:
        text = isinstance(source.read(0), str)
        seekable = hasattr(source, "tell") and hasattr(source, "seekable") and source.seekable()
    except (OSError, ValueError) as error:
        raise AudioError(f"{name}: not open for reading ({error}); open it with mode 'rb'") from None
    if text:
        raise AudioError(f"{name}: gives text, not bytes; open it with mode 'rb'")
    return source if seekable else _spool(source, name, stack)


def _stdin() -> BinaryIO:
    buffer = getattr(sys.stdin, "buffer", None)
    if buffer is None or buffer.isatty():
        raise AudioError("<stdin>: nothing is piped in; use `command < clip.wav` or give a path")
    return buffer


def _open_path(path: str, name: str) -> BinaryIO:
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]+://", path):
        raise AudioError(f"{name}: URLs are not fetched; download the file and give its path")
    try:
        mode = os.stat(path).st_mode
        if stat.S_ISDIR(mode):
            raise AudioError(f"{name}: a directory; give a file in it")
        if stat.S_ISCHR(mode) or stat.S_ISBLK(mode):
            raise AudioError(f"{name}: a device, not a file; record it to a file first")
        return open(path, "rb")
    except FileNotFoundError:
        raise AudioError(f"{name or repr(name)}: no such file; check the path") from None
    except PermissionError:
        raise AudioError(f"{name}: no permission to read it; check its owner and mode") from None
    except (OSError, ValueError) as error:
        raise AudioError(f"{name}: cannot be opened ({getattr(error, 'strerror', error)})") from None


def _spool(file: Any, name: str, stack: ExitStack) -> BinaryIO:
    spool = stack.enter_context(tempfile.SpooledTemporaryFile(SPOOL_BYTES))  # noqa: SIM115
    try:
        while data := file.read(1 << 20):
            spool.write(data)
    except (OSError, ValueError, EOFError) as error:
        raise AudioError(f"{name}: reading failed ({error}); save it to a file first") from None
    spool.seek(0)
    return spool


# Arrays


def _open_array(source: Any, sample_rate: int | None) -> Stream:
    samples = _as_numpy(source)
    scale = _scaler(samples.dtype)
    rate = _whole_rate(sample_rate)
    if samples.ndim not in (1, 2):
        raise AudioError(f"<array>: shape {samples.shape}; give (samples,) or (samples, channels)")
    samples = samples.reshape(len(samples), -1) if samples.size else np.empty((0, 1), np.float32)
    if samples.shape[1] > MAX_CHANNELS:
        raise AudioError(
            f"<array>: shape {samples.shape} means {samples.shape[1]} channels, at most {MAX_CHANNELS} "
            "are mixed down; arrays are (samples, channels), transpose it if it is not"
        )
    blocks = (scale(samples[i : i + BLOCK_FRAMES]) for i in range(0, len(samples), BLOCK_FRAMES))
    return Stream("<array>", rate, samples.shape[1], len(samples), blocks)


def _as_numpy(source: Any) -> np.ndarray:
    if "bfloat16" in str(getattr(source, "dtype", "")):
        raise AudioError("<array>: bfloat16 has no NumPy type; convert it to float32 first")
    try:
        samples = np.asarray(source)
    except (TypeError, ValueError, RuntimeError, BufferError) as error:
        reason = " ".join(str(error).split())
        raise AudioError(f"<array>: NumPy cannot read it ({reason}); give a NumPy array") from None
    if samples.dtype == object:
        kind = type(source).__name__
        raise AudioError(f"<array>: a {kind} is no sound; give a path, bytes, a file or an array")
    return samples


def _whole_rate(sample_rate: Any) -> int:
    if sample_rate is None:
        raise AudioError("<array>: no sample rate; give sample_rate= in Hz")
    number = isinstance(sample_rate, Real) and not isinstance(sample_rate, bool)
    if not number or not math.isfinite(sample_rate) or sample_rate != int(sample_rate):
        raise AudioError(f"<array>: sample_rate {sample_rate!r} is no whole number of Hz")
    return int(sample_rate)


def _scaler(dtype: np.dtype) -> Callable[[np.ndarray], np.ndarray]:
    """Floats as they are, integers by their range: int16 / 2**15, (uint8 - 128) / 128."""
    if dtype.kind == "f":
        return _float32
    if dtype.kind in "iu" and dtype.itemsize <= 4:
        half = float(1 << (8 * dtype.itemsize - 1))
        middle = half if dtype.kind == "u" else 0.0
        return lambda block: _float32((block.astype(np.float64) - middle) / half)
    raise AudioError(f"<array>: {dtype} samples; give float32, int16 or int32 (or a path, or bytes)")


def _float32(block: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore"):  # infinity is refused further on, with its place
        return block.astype(np.float32)
