"""The bytes of a sound file -> blocks of samples at their own rate.

libsndfile decodes what it knows; the rest goes to `afconvert` on macOS or to `ffmpeg`. The surprise:
nothing is ever cut without a word. A file that ends before its header says, or that turns to garbage,
gives what decoded and a warning on this module's logger; one that gives nothing is an AudioError.
"""

from __future__ import annotations

import logging
import os
import re
import selectors
import shutil
import struct
import subprocess
import tempfile
from collections.abc import Generator, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from mlx_audio_r1.audio_format import ByteReader, Kind, Part, plan, sniff
from mlx_audio_r1.errors import AudioError

MIN_SAMPLE_RATE, MAX_SAMPLE_RATE = 4_000, 384_000  # Hz
MAX_CHANNELS = 32
BLOCK_FRAMES = 16_384
STALL_SECONDS = 60  # without a byte from ffmpeg it counts as hung
CONVERT_SECONDS = 1_800  # for one whole file through afconvert
AFCONVERT = "/usr/bin/afconvert"
DATA_LENGTHS = re.compile(r"^ *(?:data|SSND|Data Size|Riff size|riff) +: (\d+) \(should be (\d+)\)", re.M)
UNKNOWN_LENGTHS = (range(0x7FFFEF00, 0x80001000), range(0xFFFFEF00, 1 << 33))  # what streams write

_log = logging.getLogger(__name__)


@dataclass
class Stream:
    """Sound being decoded: `blocks` yields (n, channels) float32. frames: declared, None if unknown."""

    name: str
    sample_rate: int
    channels: int
    frames: int | None
    blocks: Iterator[np.ndarray]


def decode(reader: ByteReader, path: Path | None, stack: ExitStack) -> Stream:
    """The sound in a file's bytes; what it needs open is closed by `stack`.

    path: where a program can open the same bytes, if anywhere. Raises AudioError.
    """
    if reader.size == 0:
        raise AudioError(f"{reader.name}: the file is empty; record or copy it again")
    kind, start = sniff(reader)
    reason = ""
    if kind.sndfile:
        try:
            return _open_sndfile(reader, plan(reader, kind, start), stack)
        except _Unreadable as error:
            reason = str(error)
    return _open_external(reader, kind, path, reason, stack)


class _Unreadable(AudioError):
    """One decoder refused; another may not."""


def check_shape(name: str, sample_rate: int, channels: int) -> None:
    """Raises AudioError for a rate or a channel count that nobody means."""
    if not MIN_SAMPLE_RATE <= sample_rate <= MAX_SAMPLE_RATE:
        raise AudioError(
            f"{name}: a sample rate of {sample_rate} Hz; "
            f"{MIN_SAMPLE_RATE} to {MAX_SAMPLE_RATE} Hz are read, resample it first"
        )
    if not 1 <= channels <= MAX_CHANNELS:
        raise AudioError(
            f"{name}: {channels} channels; 1 to {MAX_CHANNELS} are mixed down, extract the ones you want"
        )


# libsndfile


class _Forward(soundfile.SoundFile):
    """Reads forward only: soundfile seeks after every read, which restarts compressed decoders."""

    def seekable(self) -> bool:
        return False


class _Window:
    """The file object libsndfile reads one `Part` through."""

    def __init__(self, reader: ByteReader, part: Part):
        self._reader, self._part = reader, part
        self._length = part.end - part.start
        self._shown = self._length * 64 + (1 << 20) if part.endless else self._length
        self._position = 0
        self.error: BaseException | None = None  # an exception cannot cross libsndfile

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = 0) -> int:
        position = offset + (0, self._position, self._shown)[whence]
        self._position = min(max(0, position), 1 << 62)  # what a hostile header asks for fits an int64
        return self._position

    def readinto(self, buffer: Any) -> int:
        try:
            data = self._at(self._position, len(buffer))
        except BaseException as error:
            self.error = error
            return 0
        buffer[: len(data)] = data
        self._position += len(data)
        return len(data)

    read = readinto  # soundfile asks for the name, and calls readinto

    def _at(self, position: int, count: int) -> bytes:
        if self._part.endless and position >= self._shown - 128:
            return bytes(min(count, max(0, self._shown - position)))  # mpg123 looks for ID3v1 there
        count = min(count, self._length - position)
        data = self._reader.at(self._part.start + position, count) if count > 0 else b""
        for at, patch in self._part.overlay:
            if at < position + len(data) and position < at + len(patch):
                data = _overlay(data, at - position, patch)
        return data


def _overlay(data: bytes, at: int, patch: bytes) -> bytes:
    patch, at = patch[max(0, -at) :], max(0, at)
    patch = patch[: len(data) - at]
    return data[:at] + patch + data[at + len(patch) :]


def _open_sndfile(reader: ByteReader, parts: list[Part], stack: ExitStack) -> Stream:
    opened = _open_part(reader, parts[0], stack)
    sound = opened[0]
    frames = _declared(sound, parts[0]) if len(parts) == 1 else None
    blocks = _decode_parts(reader, parts, opened, stack)
    return Stream(reader.name, sound.samplerate, sound.channels, frames, blocks)


def _open_part(reader: ByteReader, part: Part, stack: ExitStack) -> tuple[_Forward, _Window]:
    window = _Window(reader, part)
    try:
        sound = stack.enter_context(_Forward(window))
    except soundfile.SoundFileError as error:
        _reraise(window)
        raise _Unreadable(f"{reader.name}: libsndfile: {_reason(error)}") from None
    _reraise(window)
    return sound, window


def _declared(sound: soundfile.SoundFile, part: Part) -> int | None:
    if part.endless or part.frames is not None or sound.frames >= 1 << 62:
        return part.frames
    return sound.frames


def _decode_parts(
    reader: ByteReader, parts: list[Part], opened: tuple[_Forward, _Window], stack: ExitStack
) -> Iterator[np.ndarray]:
    rate = opened[0].samplerate
    for index, part in enumerate(parts):
        if index:
            try:
                opened = _open_part(reader, part, stack)
            except _Unreadable as error:
                _log.warning("%s; left out from byte %d to %d", error, part.start, part.end)
                continue
        sound, window = opened
        if sound.samplerate != rate:
            raise AudioError(f"{reader.name}: its sample rate changes; convert it to WAV first")
        check_shape(reader.name, rate, sound.channels)
        decoded = yield from _decode_part(sound, window)
        note = _missing(sound, part, *decoded)
        if note and decoded[0] == 0 and len(parts) == 1:
            raise AudioError(f"{reader.name}: nothing in it decodes ({note}); export it again")
        if note:
            _log.warning("%s: %s", reader.name, note)
        sound.close()


def _decode_part(sound: _Forward, window: _Window) -> Generator[np.ndarray, None, tuple[int, str]]:
    """Yields blocks; returns the frames decoded, and the error that ended it, if one did."""
    decoded, stopped = 0, ""
    while not stopped:
        block = np.full((BLOCK_FRAMES, sound.channels), np.nan, np.float32)
        count, stopped = _fill(sound, window, block)
        if count == 0:
            break
        decoded += count
        yield block[:count]
    return decoded, stopped


def _missing(sound: _Forward, part: Part, decoded: int, stopped: str) -> str:
    """What a person should know of a part that did not decode as declared; empty when all is well."""
    declared = _declared(sound, part)
    note = stopped or part.note or _short_of_header(sound.extra_info)
    if not note and declared in (None, decoded):
        return ""
    length = "" if declared in (None, decoded) else f"declared {declared / sound.samplerate:.3f} s, "
    reason = f" ({note})" if note else ""
    return f"{length}decoded {decoded / sound.samplerate:.3f} s{reason}"


def _fill(sound: _Forward, window: _Window, block: np.ndarray) -> tuple[int, str]:
    """(frames read into `block`, which comes full of NaN; what ended the reading, if an error did)."""
    try:
        count, stopped = len(sound.read(out=block)), ""
    except soundfile.SoundFileError as error:
        # What was decoded before the error is there, its count is not.
        missing = np.flatnonzero(np.isnan(block[:, -1]))
        count, stopped = int(missing[0]) if missing.size else len(block), _reason(error)
    _reraise(window)
    return count, stopped


def _reraise(window: _Window) -> None:
    if window.error is not None:
        raise window.error


def _reason(error: soundfile.SoundFileError) -> str:
    if getattr(error, "code", 0) == 29:  # libsndfile calls it "Unspecified internal error"
        return "it ends inside a frame, or with bytes that are no sound"
    text = getattr(error, "error_string", str(error))
    return " ".join(re.sub(r"^(Internal error|Error) ?: ", "", text).rstrip(".").split())


def _short_of_header(log: str) -> str:
    """What libsndfile's log says of a file that is shorter than its header, or not read to its end."""
    for declared, actual in DATA_LENGTHS.findall(log):
        if int(declared) > int(actual) + 64 and not any(int(declared) in r for r in UNKNOWN_LENGTHS):
            return f"its header declares {declared} bytes, {actual} are there"
    if re.search(r"Unknown chunk marker .*(Exiting|Resynching)", log):
        return "unreadable bytes after the sound"
    return ""


# Programs


def _open_external(reader: ByteReader, kind: Kind, path: Path | None, reason: str, stack: ExitStack) -> Stream:
    converters = []
    if os.path.exists(AFCONVERT):
        converters.append(_afconvert)
    if shutil.which("ffmpeg"):
        converters.append(_ffmpeg)
    if not converters:
        raise AudioError(
            f"{reason or f'{reader.name}: {kind.name}'}; this needs afconvert (part of macOS) "
            "or ffmpeg: install ffmpeg, or convert it to WAV"
        )
    copy = _as_plain_file(reader, kind, path, stack)
    for converter in converters:
        try:
            return converter(reader.name, copy, kind, stack)
        except _Unreadable as error:
            reason = f"{reason}; {str(error).removeprefix(reader.name + ': ')}" if reason else str(error)
    raise AudioError(f"{reason}; check that the file is whole, or convert it to WAV")


def _as_plain_file(reader: ByteReader, kind: Kind, path: Path | None, stack: ExitStack) -> Path:
    """A name of our own choice and the right suffix, so that a file's name cannot be an option."""
    try:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="audio-r1-"))
        copy = Path(folder) / f"input{kind.suffix}"
        if path is not None:
            copy.symlink_to(path.absolute())
        else:
            _copy(reader, copy)
    except OSError as error:
        raise AudioError(f"{reader.name}: no temporary file ({error.strerror}); make room") from None
    return copy


def _copy(reader: ByteReader, path: Path) -> None:
    with path.open("wb") as out:
        for position in range(0, reader.size, 1 << 20):
            out.write(reader.at(position, min(1 << 20, reader.size - position)))


def _afconvert(name: str, copy: Path, kind: Kind, stack: ExitStack) -> Stream:
    out = copy.with_name("output.caf")
    command = [AFCONVERT, "-f", "caff", "-d", "LEF32", str(copy), str(out)]
    try:
        subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, check=True, timeout=CONVERT_SECONDS
        )
    except subprocess.CalledProcessError as error:
        raise _Unreadable(f"{name}: afconvert: {_first_line(error.stderr, copy)}") from None
    except (OSError, subprocess.TimeoutExpired) as error:
        raise _Unreadable(f"{name}: afconvert did not finish ({type(error).__name__})") from None
    reader = ByteReader(stack.enter_context(out.open("rb")), name)
    found, start = sniff(reader)
    return _open_sndfile(reader, plan(reader, found, start), stack)


def _ffmpeg(name: str, copy: Path, kind: Kind, stack: ExitStack) -> Stream:
    """Stream 32-bit float through a pipe, as AU: its header is 24 bytes and needs no length."""
    command = ["ffmpeg", "-nostdin", "-hide_banner", "-v", "error", "-protocol_whitelist", "file,pipe"]
    command += ["-f", kind.demuxer, "-i", f"file:{copy}", "-map", "0:a:0", "-vn", "-sn", "-dn"]
    command += ["-c:a", "pcm_f32be", "-f", "au", "pipe:1"]
    program = _Program(name, command, stack)
    header = program.read(24)
    if len(header) < 24:
        raise _Unreadable(f"{name}: ffmpeg: {_first_line(program.finish()[1], copy)}")
    offset, _, encoding, rate, channels = struct.unpack(">5I", header[4:])
    if header[:4] != b".snd" or encoding != 6:
        raise _Unreadable(f"{name}: ffmpeg: an answer that is not 32-bit float AU")
    program.read(offset - 24)
    return Stream(name, rate, channels, None, _ffmpeg_blocks(program, channels, copy))


def _ffmpeg_blocks(program: _Program, channels: int, copy: Path) -> Iterator[np.ndarray]:
    while data := program.read(BLOCK_FRAMES * channels * 4):
        whole = len(data) - len(data) % (channels * 4)
        yield np.frombuffer(data[:whole], ">f4").reshape(-1, channels).astype(np.float32)
    code, complaint = program.finish()
    if code or complaint:
        _log.warning("%s: not all of it decoded (%s)", program.name, _first_line(complaint, copy))


class _Program:
    """A child process and exact reads from its stdout, with a limit on its silence."""

    def __init__(self, name: str, command: list[str], stack: ExitStack):
        self.name = name
        self._errors = stack.enter_context(tempfile.TemporaryFile())  # noqa: SIM115
        try:
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=self._errors
            )
        except OSError as error:
            raise _Unreadable(f"{name}: {command[0]} does not start ({error.strerror})") from None
        stack.callback(self._stop)
        self._selector = stack.enter_context(selectors.DefaultSelector())
        self._selector.register(self._process.stdout, selectors.EVENT_READ)

    def read(self, count: int) -> bytes:
        """`count` bytes, fewer at the end. Raises AudioError when nothing comes for a minute."""
        pieces = []
        while count > 0:
            if not self._selector.select(STALL_SECONDS):
                raise AudioError(f"{self.name}: ffmpeg hung; convert it to WAV first")
            piece = os.read(self._process.stdout.fileno(), min(count, 1 << 20))
            if not piece:
                break
            pieces.append(piece)
            count -= len(piece)
        return b"".join(pieces)

    def finish(self) -> tuple[int, bytes]:
        """(exit status, the beginning of stderr), after stdout has ended."""
        try:
            code = self._process.wait(STALL_SECONDS)
        except subprocess.TimeoutExpired:
            raise AudioError(f"{self.name}: ffmpeg hung; convert it to WAV first") from None
        self._errors.seek(0)
        return code, self._errors.read(1 << 16)

    def _stop(self) -> None:
        self._process.kill()
        self._process.stdout.close()
        self._process.wait()


def _first_line(text: bytes, copy: Path) -> str:
    lines = [line.strip() for line in text.decode("utf-8", "replace").splitlines() if line.strip()]
    line = re.sub(r"^(\[[^]]*\] )+", "", lines[0]) if lines else "no message"
    line = line.replace(f"file:{copy}", "it").replace(str(copy), "it")
    line = line.removeprefix("it: ").rstrip(".")[:200]
    return line if line.isprintable() else ascii(line)
