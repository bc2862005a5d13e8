"""Damaged sound files: only AudioError or finite sound comes out, never a crash, a hang or a flood.

The mutations run in a child process, for a crash inside libsndfile cannot be caught; the child writes
down what it is about to try, so a crash is reported with its seed. Repeat one case with
`python tests/test_audio_fuzz.py SEED 1 /tmp/now`.
"""

import io
import math
import random
import resource
import shutil
import signal
import struct
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile

from mlx_audio_r1 import audio, audio_decode
from mlx_audio_r1.config import MAX_CHUNK_SAMPLES
from mlx_audio_r1.errors import AudioError

SECONDS_A_CASE = 20  # far beyond what any file of this size takes
MEMORY = 3 << 30  # bytes of address space for the child
LONGEST = 3_600  # seconds of sound out of a few kilobytes would be a flood
SEEDS = (
    *((f, s, 1) for f in ("WAV", "WAVEX", "RF64", "W64") for s in ("PCM_16", "FLOAT")),
    *(("WAV", s, 1) for s in ("PCM_U8", "PCM_24", "DOUBLE", "ULAW", "MS_ADPCM", "IMA_ADPCM", "GSM610")),
    *(("WAV", s, 1) for s in ("G721_32", "NMS_ADPCM_16")),
    *(("AIFF", s, 2) for s in ("PCM_16", "PCM_S8", "IMA_ADPCM", "GSM610", "DWVW_16", "FLOAT", "ULAW")),
    *(("CAF", s, 1) for s in ("PCM_16", "ALAC_16", "ALAC_24", "DOUBLE")),
    *(("AU", s, 1) for s in ("PCM_16", "G721_32", "G723_24", "ALAW", "DOUBLE")),
    *(("FLAC", s, c) for s, c in (("PCM_16", 1), ("PCM_24", 2), ("PCM_S8", 6))),
    *(("OGG", s, c) for s, c in (("VORBIS", 1), ("VORBIS", 2), ("OPUS", 1), ("OPUS", 2))),
    *(("MP3", "MPEG_LAYER_III", c) for c in (1, 2)),
    ("NIST", "PCM_16", 1),
    ("NIST", "ULAW", 2),
)
MONO_ONLY = ("GSM610", "G721_32", "NMS_ADPCM_16", "DWVW_16", "IMA_ADPCM", "G723_24")
INTERESTING = (0, 1, 2, 7, 8, 0x7F, 0x80, 0xFF, 0x100, 0x7FFF, 0x8000, 0xFFFF, 0x10000, 0x7FFFFFFF)
INTERESTING += (0x80000000, 0xFFFFFFF8, 0xFFFFFFFF, 44_100, 384_000)


def whole_files() -> list[bytes]:
    """A quarter of a second of noise in every container and sample type."""
    noise = np.random.default_rng(5).standard_normal((2_000, 6)) * 0.1
    files = []
    for container, subtype, channels in SEEDS:
        channels = 1 if subtype in MONO_ONLY else channels
        buffer = io.BytesIO()
        soundfile.write(buffer, noise[:, :channels], 8_000, format=container, subtype=subtype)
        files.append(buffer.getvalue())
    return files


def flip(rng: random.Random, data: bytearray, other: bytes) -> None:
    reach = len(data) if rng.random() < 0.5 else min(len(data), 200)
    for _ in range(rng.choice((1, 1, 2, 4, 16, 64))):
        data[rng.randrange(reach)] ^= 1 << rng.randrange(8)


def cut(rng: random.Random, data: bytearray, other: bytes) -> None:
    del data[rng.randrange(len(data)) :]


def splice(rng: random.Random, data: bytearray, other: bytes) -> None:
    data[rng.randrange(len(data)) :] = other[rng.randrange(len(other)) :]


def put_number(rng: random.Random, data: bytearray, other: bytes) -> None:
    value = rng.choice(INTERESTING) if rng.random() < 0.8 else rng.getrandbits(32)
    form = rng.choice(("<I", ">I", "<H", ">H", "B", "<Q", ">Q"))
    packed = struct.pack(form, value & ((1 << 8 * struct.calcsize(form)) - 1))
    at = rng.randrange(min(len(data), 300))
    data[at : at + len(packed)] = packed


def move(rng: random.Random, data: bytearray, other: bytes) -> None:
    start, to, count = rng.randrange(len(data)), rng.randrange(len(data)), rng.randrange(1, 64)
    piece = data[start : start + count]
    data[to : to + (0 if rng.random() < 0.5 else count)] = piece


def erase(rng: random.Random, data: bytearray, other: bytes) -> None:
    start = rng.randrange(len(data))
    count = min(rng.randrange(1, 256), len(data) - start)
    data[start : start + count] = bytes([rng.choice((0, 0xFF))]) * count


def prepend(rng: random.Random, data: bytearray, other: bytes) -> None:
    tag = b"ID3\x04\0\0" + bytes(rng.randrange(128) for _ in range(4))
    data[:0] = rng.choice((tag, b"ID3\x03\0\0\0\0\0\x05hello", rng.randbytes(99), bytes(500)))


MUTATIONS = (flip, flip, cut, splice, put_number, put_number, move, erase, prepend)


def mutant(seed: int, files: list[bytes]) -> bytes:
    """The same bytes for the same seed, on every machine with the same libsndfile."""
    rng = random.Random(seed)
    data = bytearray(rng.choice(files))
    for _ in range(rng.choice((1, 1, 2, 3))):
        if data:  # a cut may leave nothing
            rng.choice(MUTATIONS)(rng, data, rng.choice(files))
    return bytes(data)


def try_one(data: bytes) -> tuple[str, float]:
    """("refused" or "read", seconds of sound); raises for anything that should not come out."""
    seconds = 0.0
    try:
        for chunk in audio.read_chunks(data):
            waveform = chunk.waveform
            assert waveform.dtype == np.float32 and waveform.ndim == 1
            assert 1 <= len(waveform) <= MAX_CHUNK_SAMPLES and np.isfinite(waveform).all()
            seconds += chunk.end - chunk.start
            assert seconds < LONGEST, "a flood of samples"
        assert 0 <= audio.duration(data) < math.inf
    except AudioError as error:
        assert "\n" not in str(error) and str(error).startswith("<bytes>: "), str(error)
        assert "reading failed" not in str(error), str(error)
        return "refused", seconds
    return "read", seconds


def child(first: int, count: int, diary: str) -> None:
    """Try `count` seeds from `first` on; the diary names the one under way."""
    if sys.platform == "linux":
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    audio_decode.AFCONVERT = ""
    files, tally, slowest = whole_files(), {"refused": 0, "read": 0}, (0.0, 0)
    with open(diary, "wb", buffering=0) as now:
        for seed in range(first, first + count):
            now.seek(0)
            now.write(f"{seed:12d}".encode())
            signal.alarm(SECONDS_A_CASE)  # its default action ends the process: even a hang in C ends
            started = time.perf_counter()
            tally[try_one(mutant(seed, files))[0]] += 1
            slowest = max(slowest, (time.perf_counter() - started, seed))
    signal.alarm(0)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // (1 if sys.platform == "darwin" else 1024)
    print(f"{tally} slowest {slowest[0]:.3f} s (seed {slowest[1]}), peak {peak}")


def run_child(first: int, count: int, tmp_path: Path) -> str:
    diary = tmp_path / "now"
    command = [sys.executable, "-X", "faulthandler", __file__, str(first), str(count), str(diary)]
    environment = {"PATH": "", "PYTHONPATH": str(Path(__file__).parent.parent), "OPENBLAS_NUM_THREADS": "1"}
    result = subprocess.run(command, capture_output=True, text=True, errors="replace", env=environment)
    seed = diary.read_text().strip() if diary.exists() else "none"
    assert result.returncode == 0, f"seed {seed}: exit {result.returncode}\n{result.stderr[-3000:]}"
    return result.stdout


def test_thousands_of_damaged_files_give_sound_or_an_audio_error(tmp_path):
    summary = run_child(0, 4_000, tmp_path)
    assert "'refused'" in summary and "'read'" in summary


@pytest.mark.long
@pytest.mark.timeout(3_600)
@pytest.mark.parametrize("block", range(8))
def test_tens_of_thousands_of_damaged_files_give_sound_or_an_audio_error(block, tmp_path):
    run_child(1_000_000 + block * 10_000, 10_000, tmp_path)


def test_random_bytes_and_text_are_refused(monkeypatch):
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr(audio_decode, "AFCONVERT", "")
    rng = random.Random(3)
    for size in (1, 2, 3, 11, 12, 43, 44, 100, 4_096):
        for data in (rng.randbytes(size), bytes(size), b"\xff" * size, b"RIFF" * size, b"OggS" * size):
            assert try_one(data)[0] == "refused"


@pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="needs ffmpeg")
def test_damaged_m4a_gives_sound_or_an_audio_error():
    whole = (Path(__file__).parent / "data" / "audio" / "tone.m4a").read_bytes()
    outcomes = set()
    for seed in range(16):
        rng = random.Random(seed)
        data = bytearray(whole)
        rng.choice((flip, cut, put_number, erase))(rng, data, whole)
        data[4:8] = b"ftyp"  # so that ffmpeg is what refuses it
        outcomes.add(try_one(bytes(data))[0])
    assert outcomes == {"refused", "read"}


if __name__ == "__main__":
    child(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3])
