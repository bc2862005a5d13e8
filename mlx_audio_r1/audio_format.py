"""Which container the bytes are, and which parts of them to show to libsndfile.

The format is read from the content, never from the file name. The surprise: libsndfile believes
headers, and ends early without a word where they are wrong: an MP3 of varying bit rate without a
Xing tag (a quarter of it comes out), a concatenated MP3 or Ogg, a FLAC with a short sample count, a
WAV whose recorder died before it wrote the length. So a file becomes a list of `Part`s: byte ranges,
with the lying fields overlaid.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import BinaryIO

from mlx_audio_r1.errors import AudioError

READ_AHEAD = 65_536  # bytes fetched at once, and how far junk is searched for an MP3 frame
MAX_JUNK = 4_096  # bytes between MP3 frames, beyond which something is thought to be missing
MAX_SEARCHES = 200  # times the next MP3 frame is looked for, each in READ_AHEAD bytes
MAX_PARTS = 10_000  # streams in one file
MPG123_RESYNC = 1_024  # bytes of junk behind which the decoder gives up
MAX_CHUNKS = 10_000  # RIFF or CAF chunks looked at before the sound
MP3_RUN = 3  # consecutive frame headers that make an MP3 of bytes after junk


@dataclass(frozen=True)
class Kind:
    """A container: its name, ffmpeg's demuxer, a file suffix, and whether libsndfile reads it."""

    name: str
    demuxer: str
    suffix: str
    sndfile: bool = True


WAV, W64, FLAC = Kind("WAV", "wav", ".wav"), Kind("W64", "w64", ".w64"), Kind("FLAC", "flac", ".flac")
OGG, AIFF, CAF = Kind("Ogg", "ogg", ".ogg"), Kind("AIFF", "aiff", ".aiff"), Kind("CAF", "caf", ".caf")
AU, MP3 = Kind("AU", "au", ".au"), Kind("MP3", "mp3", ".mp3")

# libsndfile knows more containers; their readers are old, rarely needed and where its crashes are.
SIGNATURES: tuple[tuple[re.Pattern[bytes], Kind], ...] = tuple(
    (re.compile(pattern, re.DOTALL), kind)
    for pattern, kind in (
        (rb"(RIF[FX]|RF64|BW64)....WAVE", WAV),
        (rb"riff\x2e\x91\xcf\x11", W64),
        (rb"fLaC", FLAC),
        (rb"OggS", OGG),
        (rb"FORM....AIF[FC]", AIFF),
        (rb"caff", CAF),
        (rb"\.snd|dns\.", AU),
        (rb"NIST_1A", Kind("NIST SPHERE", "nistsphere", ".sph")),
        (rb"....(ftyp|moov|mdat)|\0...(wide|free|skip|pnot)", Kind("MP4", "mov", ".m4a", False)),
        (rb"\xff[\xf0\xf1\xf8\xf9]", Kind("AAC", "aac", ".aac", False)),
        (rb"\x1a\x45\xdf\xa3", Kind("WebM/Matroska", "matroska", ".mkv", False)),
        (rb"\x30\x26\xb2\x75\x8e\x66\xcf\x11", Kind("WMA/ASF", "asf", ".wma", False)),
        (rb"#!AMR", Kind("AMR", "amr", ".amr", False)),
        (rb"RIFF....AVI ", Kind("AVI", "avi", ".avi", False)),
        (rb"FLV\x01", Kind("FLV", "flv", ".flv", False)),
        (rb"wvpk", Kind("WavPack", "wv", ".wv", False)),
        (rb"MAC .[\x0c-\x10]", Kind("Monkey's Audio", "ape", ".ape", False)),
        (rb"TTA1", Kind("TTA", "tta", ".tta", False)),
        (rb"\x0b\x77", Kind("AC-3", "ac3", ".ac3", False)),
        (rb"\x00\x00\x01\xba", Kind("MPEG", "mpeg", ".mpg", False)),
        (rb"G.{187}G.{187}G", Kind("MPEG-TS", "mpegts", ".ts", False)),
    )
)


class ByteReader:
    """Random access to a seekable binary file; position 0 is where the file stood."""

    def __init__(self, file: BinaryIO, name: str):
        self.name = name
        self._file = file
        self._block, self._block_at = b"", 0
        self._origin = self._call(file.tell)
        self._call(file.seek, 0, 2)
        self.size = max(0, self._call(file.tell) - self._origin)

    def at(self, position: int, count: int) -> bytes:
        """`count` bytes from `position` on; fewer where the file ends. Raises AudioError."""
        first = position - self._block_at
        if first < 0 or first + count > len(self._block):
            self._block = self._fetch(position, max(count, READ_AHEAD))
            self._block_at, first = position, 0
        return self._block[first : first + count]

    def _fetch(self, position: int, count: int) -> bytes:
        self._call(self._file.seek, self._origin + position)
        pieces = []
        while count > 0 and (piece := self._call(self._file.read, count)):
            pieces.append(bytes(piece))
            count -= len(piece)
        return b"".join(pieces)

    def _call(self, method: Callable, *args: int):
        try:
            return method(*args)
        except (OSError, ValueError, EOFError) as error:
            raise AudioError(f"{self.name}: reading failed ({error}); copy it first") from None


@dataclass(frozen=True)
class Part:
    """One stream inside a file, as libsndfile gets to see it.

    start, end: byte range in the file. overlay: (position in the part, bytes) to show instead.
    endless: show a size without an end, for what libsndfile estimates the length by size.
    frames: what the header declares, where the overlay hides it. note: what is known to be wrong.
    """

    start: int
    end: int
    overlay: tuple[tuple[int, bytes], ...] = ()
    endless: bool = False
    frames: int | None = None
    note: str = ""


def sniff(reader: ByteReader) -> tuple[Kind, int]:
    """The container of a file and the position its bytes begin at, behind ID3 tags and junk.

    Raises AudioError for what is no known sound.
    """
    start = _after_id3(reader)
    head = reader.at(start, 1024)
    for pattern, kind in SIGNATURES:
        if pattern.match(head):
            return kind, start
    if _is_mp3(reader, start):
        return MP3, start
    frame = _find_mp3(reader, start, start + READ_AHEAD)
    if frame is not None:
        return MP3, frame
    raise AudioError(f"{reader.name}: {_describe(head)}; give WAV, FLAC, MP3, Ogg, AIFF or M4A")


def plan(reader: ByteReader, kind: Kind, start: int) -> list[Part]:
    """The parts of a file to decode one after the other; at least one."""
    planners = {WAV: _plan_wav, AU: _plan_au, CAF: _plan_caf}
    planners |= {FLAC: _plan_flac, MP3: _plan_mp3, OGG: _plan_ogg}
    parts = planners.get(kind, _plan_whole)(reader, start)
    if len(parts) > MAX_PARTS:
        raise AudioError(f"{reader.name}: more than {MAX_PARTS} streams in one file; split it")
    return parts


def _describe(head: bytes) -> str:
    if not head:
        return "nothing but tags, no sound"
    text = head[:24].decode("utf-8", "ignore")
    if text and all(c.isprintable() or c.isspace() for c in text):
        return f"not sound but text, beginning with {text!r}"
    return f"no sound format known here (first bytes {head[:8].hex(' ')})"


def _after_id3(reader: ByteReader) -> int:
    position = 0
    while (head := reader.at(position, 10))[:3] == b"ID3" and len(head) == 10:
        a, b, c, d = (byte & 0x7F for byte in head[6:10])
        position += 10 + (a << 21 | b << 14 | c << 7 | d) + (10 if head[5] & 0x10 else 0)
        zeros = reader.at(position, READ_AHEAD)
        position += len(zeros) - len(zeros.lstrip(b"\0"))
    return position


def _plan_whole(reader: ByteReader, start: int) -> list[Part]:
    return [Part(start, reader.size)]


# WAV, AU, CAF, FLAC: a length field that means "unknown" or is too short


def _plan_wav(reader: ByteReader, start: int) -> list[Part]:
    order = ">" if reader.at(start, 4) == b"RIFX" else "<"
    for position, name, size in _chunks(reader, start + 12, order + "I"):
        if name == b"data":
            unwritten = size == 0 and not _chunk_follows(reader, position + 8, order)
            overlay = ((position + 4 - start, b"\xff" * 4),) if unwritten else ()
            return [Part(start, reader.size, overlay)]
    return [Part(start, reader.size)]


def _chunk_follows(reader: ByteReader, position: int, order: str) -> bool:
    head = reader.at(position, 8)
    if len(head) < 8:
        return True
    name, size = struct.unpack(order + "4sI", head)
    return all(32 <= byte < 127 for byte in name) and position + 8 + size <= reader.size


def _plan_au(reader: ByteReader, start: int) -> list[Part]:
    unwritten = reader.at(start + 8, 4) == b"\0" * 4
    return [Part(start, reader.size, ((8, b"\xff" * 4),) if unwritten else ())]


def _plan_caf(reader: ByteReader, start: int) -> list[Part]:
    for position, name, size in _chunks(reader, start + 8, ">q"):
        if name == b"data":
            rest = struct.pack(">q", reader.size - position - 12)
            return [Part(start, reader.size, ((position + 4 - start, rest),) if size == -1 else ())]
    return [Part(start, reader.size)]


def _chunks(reader: ByteReader, position: int, size_format: str) -> Iterator[tuple[int, bytes, int]]:
    """(position, name, size) of the chunks from `position` on; RIFF pads to even lengths."""
    width = 4 + struct.calcsize(size_format)
    for _ in range(MAX_CHUNKS):
        head = reader.at(position, width)
        if len(head) < width:
            return
        size = struct.unpack(size_format, head[4:])[0]
        yield position, head[:4], size
        if size < 0:
            return
        position += width + size + (size & 1 if width == 8 else 0)


def _plan_flac(reader: ByteReader, start: int) -> list[Part]:
    """Hide STREAMINFO's 36-bit sample count, so that decoding runs to the end of the bytes."""
    field = reader.at(start + 21, 5)
    if reader.at(start + 4, 1)[:1] not in (b"\x00", b"\x80") or len(field) < 5:
        return [Part(start, reader.size)]
    frames = int.from_bytes(field, "big") & ((1 << 36) - 1)
    overlay = (21, bytes([field[0] & 0xF0]) + b"\0" * 4)
    return [Part(start, reader.size, (overlay,), frames=frames or None)]


# MP3

MP3_KBPS = {  # (MPEG-1, layer) -> kbit/s by bit rate index 1 to 14
    (True, 1): (32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448),
    (True, 2): (32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (True, 3): (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (False, 1): (32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),
    (False, 2): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
    (False, 3): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}


def mp3_frame_length(header: bytes) -> int:
    """Bytes of the MPEG audio frame (ISO 11172-3) these four bytes begin; 0 when they begin none."""
    if len(header) < 4 or header[0] != 0xFF or header[1] < 0xE0:
        return 0
    version, layer = header[1] >> 3 & 3, 4 - (header[1] >> 1 & 3)
    bit_rate, rate, padding = header[2] >> 4, header[2] >> 2 & 3, header[2] >> 1 & 1
    if version == 1 or layer == 4 or bit_rate in (0, 15) or rate == 3:
        return 0
    bits = MP3_KBPS[version == 3, layer][bit_rate - 1] * 1000
    hertz = (44_100, 48_000, 32_000)[rate] >> {3: 0, 2: 1, 0: 2}[version]
    if layer == 1:
        return (12 * bits // hertz + padding) * 4
    return (72 if layer == 3 and version != 3 else 144) * bits // hertz + padding


def _mp3_format(header: bytes) -> tuple[int, int, bool]:
    """Version and layer, rate, and whether it is mono: what cannot change inside one stream."""
    return header[1] & 0xFE, header[2] & 0x0C, header[3] >> 6 == 3


def _is_mp3_run(reader: ByteReader, position: int, run: int) -> bool:
    """Whether `run` frames of one format follow each other from `position` on."""
    first = reader.at(position, 4)
    for _ in range(run):
        header = reader.at(position, 4)
        length = mp3_frame_length(header)
        if not length or _mp3_format(header) != _mp3_format(first):
            return False
        position += length
    return True


def _find_mp3(reader: ByteReader, start: int, end: int) -> int | None:
    """The first position in [start, end) where MP3_RUN frames begin."""
    for match in re.finditer(rb"\xff[\xe0-\xff]", reader.at(start, end - start)):
        if _is_mp3_run(reader, start + match.start(), MP3_RUN):
            return start + match.start()
    return None


def _is_mp3(reader: ByteReader, start: int) -> bool:
    length = mp3_frame_length(reader.at(start, 4))
    return bool(length) and (_is_mp3_run(reader, start, 2) or start + length + 4 > reader.size)


@dataclass
class _Mp3Run:
    """Frames of one format, one after the other; tag_frames is None without a Xing or VBRI tag."""

    start: int
    end: int
    first: bytes
    tag_frames: int | None
    frames: int = 0

    def is_like(self, header: bytes) -> bool:
        return _mp3_format(header) == _mp3_format(self.first)

    def takes(self, header: bytes, position: int) -> bool:
        """Whether the decoder goes on with this frame by itself."""
        return self.is_like(header) and position - self.end < MPG123_RESYNC


def _plan_mp3(reader: ByteReader, start: int) -> list[Part]:
    """A part for every file that was put into this one, as far as their frames tell."""
    runs = list(_mp3_runs(reader, start))
    if not runs:
        return _plan_whole(reader, start)
    following = [run.start for run in runs[1:]] + [reader.size]
    return [_mp3_part(reader, run, after) for run, after in zip(runs, following, strict=True)]


def _mp3_part(reader: ByteReader, run: _Mp3Run, following: int) -> Part:
    """A tag that tells the truth is kept: it says how much padding the encoder added."""
    note = _mp3_note(reader, run, following)
    if run.tag_frames is None:
        return Part(run.start, run.end, endless=True, note=note)
    if run.tag_frames and run.frames <= run.tag_frames + 1:
        return Part(run.start, run.end, note=note)
    return Part(run.start + mp3_frame_length(run.first), run.end, endless=True, note=note)


def _mp3_note(reader: ByteReader, run: _Mp3Run, following: int) -> str:
    head = reader.at(run.end, 11)
    if mp3_frame_length(head) and run.is_like(head) and following == reader.size:
        return "the last MP3 frame is incomplete"
    if following - run.end < MAX_JUNK or re.match(rb"ID3|TAG|APETAGEX|LYRICSBEGIN", head):
        return ""
    return f"{following - run.end} bytes from {run.end} on are no MP3 frames"


def _mp3_runs(reader: ByteReader, position: int) -> Iterator[_Mp3Run]:
    """The runs from `position` on, the first frame. A new one begins at a tag frame, at a change of
    format and behind 1 kB of junk: there libsndfile would end without a word."""
    run, searches = None, 0
    while position < reader.size and searches < MAX_SEARCHES:
        frame = reader.at(position, 64)
        length = mp3_frame_length(frame)
        if not _is_next_frame(reader, position, length, run):
            searches += 1
            end = min(position + 1 + READ_AHEAD, reader.size)
            position = _find_mp3(reader, position + 1, end) or end
            continue
        tag_frames = _mp3_tag(frame)
        if run is None or tag_frames is not None or not run.takes(frame, position):
            if run is not None:
                yield run
            run = _Mp3Run(position, position, frame[:4], tag_frames)
        position += length
        run.end, run.frames = position, run.frames + 1
    if run is not None:
        yield run


def _is_next_frame(reader: ByteReader, position: int, length: int, run: _Mp3Run | None) -> bool:
    """A whole frame, and one of another format only when a second one follows."""
    if not length or position + length > reader.size:
        return False
    return run is None or run.is_like(reader.at(position, 4)) or _is_mp3_run(reader, position, 2)


def _mp3_tag(frame: bytes) -> int | None:
    """Frames that a Xing, Info or VBRI tag declares, 0 when it leaves them out; None without a tag."""
    mpeg1, mono = frame[1] >> 3 & 3 == 3, frame[3] >> 6 == 3
    at = 4 + {(True, False): 32, (True, True): 17, (False, False): 17, (False, True): 9}[mpeg1, mono]
    if frame[at : at + 4] in (b"Xing", b"Info") and frame[at + 4 : at + 7] == b"\0\0\0":
        return int.from_bytes(frame[at + 8 : at + 12], "big") if frame[at + 7] & 1 else 0
    if frame[36:42] == b"VBRI\0\1":
        return int.from_bytes(frame[50:54], "big")
    return None


# Ogg


def _plan_ogg(reader: ByteReader, start: int) -> list[Part]:
    """One part for each link of a chain; a last page without the end mark is noted."""
    links, ended, previous_begins = [], False, False
    for position, flags in _ogg_pages(reader, start):
        begins = bool(flags & 2)
        if begins and not previous_begins:
            links.append(position)
        previous_begins, ended = begins, bool(flags & 4)
    starts = [start, *links[1:]]
    note = "" if ended else "the last Ogg page is missing"
    ends = [*starts[1:], reader.size]
    return [Part(a, b, note=note if b == reader.size else "") for a, b in zip(starts, ends, strict=True)]


def _ogg_pages(reader: ByteReader, position: int) -> Iterator[tuple[int, int]]:
    """(position, header flags) of every whole page."""
    while position < reader.size:
        head = reader.at(position, 27 + 255)
        if head[:4] != b"OggS" or len(head) < 27:
            skipped = reader.at(position + 1, READ_AHEAD).find(b"OggS")
            position += READ_AHEAD - 3 if skipped < 0 else skipped + 1
            continue
        length = 27 + head[26] + sum(head[27 : 27 + head[26]])
        if position + length <= reader.size:
            yield position, head[5]
        position += length
