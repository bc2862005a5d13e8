"""Sound of every kind becomes the official server's chunks, and what is no sound becomes one line."""

import hashlib
import io
import logging
import math
import os
import shutil
import stat
import struct
import subprocess
import sys
import threading
import tracemalloc
from itertools import pairwise
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
import scipy.signal
import soundfile
import soxr
from hypothesis import given, settings
from hypothesis import strategies as st

from mlx_audio_r1 import audio_decode
from mlx_audio_r1.audio import (
    Chunk,
    chunk_frames,
    duration,
    load_audio,
    pcm_sha256,
    read_chunks,
    resample,
)
from mlx_audio_r1.audio_format import mp3_frame_length
from mlx_audio_r1.config import MAX_CHUNK_SAMPLES, MAX_CHUNK_SECONDS
from mlx_audio_r1.errors import AudioError

DATA = Path(__file__).parent / "data" / "audio"
HAS_CONVERTER = shutil.which("ffmpeg") or os.path.exists(audio_decode.AFCONVERT)
needs_converter = pytest.mark.skipif(not HAS_CONVERTER, reason="needs afconvert or ffmpeg")
needs_ffmpeg = pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="needs ffmpeg")

SAMPLE_TYPES = {  # subtype -> largest error of a 0.5 tone
    "PCM_U8": 2**-7,
    "PCM_16": 2**-15,
    "PCM_24": 2**-23,
    "PCM_32": 2**-24,
    "FLOAT": 0.0,
    "DOUBLE": 0.0,
    "ULAW": 0.02,
    "ALAW": 0.02,
    "MS_ADPCM": 0.03,
    "IMA_ADPCM": 0.06,
    "GSM610": 0.2,
}
CONTAINERS = (
    ("WAV", "PCM_16"),
    ("WAVEX", "PCM_24"),
    ("RF64", "PCM_16"),
    ("W64", "PCM_16"),
    ("AIFF", "PCM_16"),
    ("AIFF", "FLOAT"),
    ("CAF", "PCM_16"),
    ("CAF", "ALAC_16"),
    ("AU", "PCM_16"),
    ("NIST", "PCM_16"),
    ("FLAC", "PCM_16"),
    ("FLAC", "PCM_24"),
    ("OGG", "VORBIS"),
    ("OGG", "OPUS"),
    ("MP3", "MPEG_LAYER_III"),
)


def tone(seconds: float, rate: int = 16_000, channels: int = 1, hertz: float = 440.0) -> np.ndarray:
    """(n, channels) float32, a sine of amplitude 0.5, each channel half as loud as the one before."""
    t = np.arange(round(seconds * rate)) / rate
    wave = 0.5 * np.sin(2 * np.pi * hertz * t)
    return np.stack([wave / 2**c for c in range(channels)], axis=1).astype(np.float32)


def encode(samples: np.ndarray, rate: int = 16_000, container: str = "WAV", subtype: str = "PCM_16", **more):
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, rate, format=container, subtype=subtype, **more)
    return buffer.getvalue()


def joined(chunks: list[Chunk]) -> np.ndarray:
    return np.concatenate([chunk.waveform for chunk in chunks])


def refused(source, **options) -> str:
    with pytest.raises(AudioError) as caught:
        load_audio(source, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.fixture
def no_converter(monkeypatch):
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr(audio_decode, "AFCONVERT", "/nonexistent/afconvert")


@pytest.fixture
def warnings_of(caplog):
    caplog.set_level(logging.WARNING, "mlx_audio_r1")
    return lambda: [record.getMessage() for record in caplog.records]


# ---- what is read


@pytest.mark.parametrize(("subtype", "tolerance"), SAMPLE_TYPES.items())
def test_eleven_sample_types_of_wav(subtype, tolerance):
    wave = tone(0.5)
    (chunk,) = load_audio(encode(wave, subtype=subtype))
    assert chunk.waveform.dtype == np.float32
    settled = slice(200, 8_000)  # the adaptive ones need a moment
    assert np.abs(chunk.waveform[settled] - wave[settled, 0]).max() <= tolerance


@pytest.mark.parametrize(("container", "subtype"), CONTAINERS)
def test_containers_by_content_under_a_wrong_name(container, subtype, tmp_path):
    path = tmp_path / "clip.xyz"
    path.write_bytes(encode(tone(0.5), container=container, subtype=subtype))
    (chunk,) = load_audio(path)
    assert len(chunk.waveform) == 8_000
    assert (chunk.index, chunk.start, chunk.end) == (0, 0.0, 0.5)
    assert np.corrcoef(chunk.waveform, tone(0.5)[:, 0])[0, 1] > 0.98


def test_an_mp3_named_wav_is_read(tmp_path):
    path = tmp_path / "clip.wav"
    path.write_bytes(encode(tone(1.0, 24_000), 24_000, "MP3", "MPEG_LAYER_III"))
    assert len(joined(load_audio(path))) == 16_000


def test_sixteen_bit_samples_are_exact():
    pcm = np.array([-32768, -1, 0, 1, 32767], np.int16)
    (chunk,) = load_audio(encode(pcm))
    assert chunk.waveform.tolist() == [-1.0, -1 / 32768, 0.0, 1 / 32768, 32767 / 32768]


def test_big_endian_wav():
    data = encode(tone(0.1), endian="BIG")
    assert data[:4] == b"RIFX"
    assert np.array_equal(joined(load_audio(data)), joined(load_audio(encode(tone(0.1)))))


def test_float_beyond_full_scale_and_denormals_pass_unchanged():
    wave = np.array([1.5, -40_000.0, 1e-42, 0.0], np.float32)
    (chunk,) = load_audio(encode(wave, subtype="FLOAT"))
    assert np.array_equal(chunk.waveform, wave)


def test_path_string_bytes_file_object_and_memoryview_agree(tmp_path):
    data = encode(tone(0.3, 22_050, 2), 22_050)
    path = tmp_path / "clip.wav"
    path.write_bytes(data)
    with path.open("rb") as file, path.open("rb", buffering=0) as raw:
        sources = (path, str(path), data, bytearray(data), memoryview(data), io.BytesIO(data), file, raw)
        digests = {pcm_sha256(read_chunks(source)) for source in sources}
        assert not file.closed
    assert len(digests) == 1


def test_a_file_object_is_read_from_where_it_stands():
    file = io.BytesIO(b"header of something else" + encode(tone(0.1)))
    file.seek(24)
    assert len(joined(load_audio(file))) == 1_600


def test_stdin_is_a_pipe(monkeypatch):
    script = "from mlx_audio_r1.audio import load_audio; print(*(len(c.waveform) for c in load_audio('-')))"
    command = [sys.executable, "-c", script]
    result = subprocess.run(command, input=encode(tone(25.5, 8_000), 8_000), capture_output=True, check=True)
    assert result.stdout.split() == [b"400000", b"8000"]


def test_stdin_without_a_pipe(monkeypatch):
    monkeypatch.setattr(sys, "stdin", None)
    assert refused("-").startswith("<stdin>: nothing is piped in")


def test_a_named_pipe(tmp_path):
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    writer = threading.Thread(target=fifo.write_bytes, args=(encode(tone(0.1)),))
    writer.start()
    assert len(joined(load_audio(fifo))) == 1_600
    writer.join()


@pytest.mark.parametrize("name", ["-i.wav", "a\nb.wav", "file:x.wav", "ä %s 音.wav", "|true"])
def test_awkward_file_names(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path(name).write_bytes(encode(tone(0.1)))
    assert len(joined(load_audio(name))) == 1_600


# ---- arrays


@pytest.mark.parametrize(
    ("samples", "expected"),
    [
        (np.array([0.5, -2.0], np.float32), [0.5, -2.0]),
        (np.array([0.5, -0.25], np.float64), [0.5, -0.25]),
        (np.array([0.5, -0.25], np.float16), [0.5, -0.25]),
        (np.array([-32768, 16384], np.int16), [-1.0, 0.5]),
        (np.array([-(2**31), 2**30], np.int32), [-1.0, 0.5]),
        (np.array([-128, 64], np.int8), [-1.0, 0.5]),
        (np.array([0, 128, 192], np.uint8), [-1.0, 0.0, 0.5]),
        (np.array([0, 32768], np.uint16), [-1.0, 0.0]),
        (np.array([[1.0, 0.0], [0.5, 0.5]], np.float32), [0.5, 0.5]),
        (np.array([1.0, 2.0, 3.0, 4.0], np.float32)[::2], [1.0, 3.0]),
        (mx.array([0.5, -0.25]), [0.5, -0.25]),
        (mx.array([0.5, -0.25], dtype=mx.float16), [0.5, -0.25]),
        ([0.5, -0.25], [0.5, -0.25]),
    ],
)
def test_arrays_are_scaled_by_their_type(samples, expected):
    (chunk,) = load_audio(samples, sample_rate=16_000)
    assert chunk.waveform.tolist() == expected
    assert chunk.waveform.dtype == np.float32


def test_a_chunk_is_no_view_of_the_array():
    samples = np.zeros(10, np.float32)
    (chunk,) = load_audio(samples, sample_rate=16_000)
    samples[:] = 1
    assert not chunk.waveform.any()


@pytest.mark.parametrize(
    ("samples", "rate", "words"),
    [
        (np.zeros(9, np.float32), None, "no sample rate"),
        (np.zeros(9, np.float32), 0, "0 Hz"),
        (np.zeros(9, np.float32), -16_000, "-16000 Hz"),
        (np.zeros(9, np.float32), 10**9, "1000000000 Hz"),
        (np.zeros(9, np.float32), 44_100.5, "no whole number"),
        (np.zeros(9, np.float32), float("nan"), "no whole number"),
        (np.zeros(9, np.float32), "16000", "no whole number"),
        (np.zeros(9, np.float32), True, "no whole number"),
        (np.zeros(0, np.float32), 16_000, "no samples"),
        (np.zeros((5, 0), np.float32), 16_000, "no samples"),
        (np.zeros((2, 16_000), np.float32), 16_000, "transpose"),
        (np.zeros((9, 64), np.float32), 16_000, "64 channels"),
        (np.zeros((2, 2, 2), np.float32), 16_000, "shape (2, 2, 2)"),
        (np.float32(1), 16_000, "shape ()"),
        (np.zeros(9, np.int64), 16_000, "int64 samples"),
        (np.zeros(9, bool), 16_000, "bool samples"),
        (np.zeros(9, complex), 16_000, "complex128 samples"),
        (np.array(["a"]), 16_000, "<U1 samples"),
        (np.array([0.0, np.nan]), 16_000, "sample nan at 0.000 s"),
        (np.array([0.0, np.inf]), 16_000, "sample inf"),
        (np.array([0.0, 1e300]), 16_000, "sample inf"),
        (np.full((2, 2), 3e38, np.float32), 16_000, "sample inf"),
        (mx.zeros(9, dtype=mx.bfloat16), 16_000, "bfloat16"),
        ([[0.0], [0.0, 1.0]], 16_000, "NumPy cannot read it"),
        (None, None, "a NoneType is no sound"),
        ({"array": [0.0]}, 16_000, "a dict is no sound"),
    ],
)
def test_arrays_that_are_refused(samples, rate, words):
    message = refused(samples, sample_rate=rate)
    assert message.startswith("<array>: ") and words in message


def test_a_rate_for_a_file_is_refused():
    assert "sample_rate goes with arrays" in refused(encode(tone(0.1)), sample_rate=16_000)


# ---- chunks


@pytest.mark.parametrize(
    ("frames", "rate", "lengths"),
    [
        (1, 16_000, [1]),
        (400_000, 16_000, [400_000]),  # 25 s, one piece
        (400_001, 16_000, [400_000, 1]),
        (800_000, 16_000, [400_000, 400_000]),  # 50 s: the client's third slice is empty, here it is not made
        (800_016, 16_000, [400_000, 400_000, 16]),  # 50.001 s
        (1_200_005, 48_000, [400_000, 2]),  # 25.0001 s
        (1_102_500, 44_100, [400_000]),
        (1_102_501, 44_100, [400_000, 1]),
        (200_000, 8_000, [400_000]),
        (200_001, 8_000, [400_000, 2]),
        (275_625 * 3, 11_025, [400_000] * 3),
    ],
)
def test_pieces_of_at_most_25_seconds(frames, rate, lengths):
    chunks = load_audio(np.zeros(frames, np.float32), sample_rate=rate)
    assert [len(chunk.waveform) for chunk in chunks] == lengths
    assert [chunk.index for chunk in chunks] == list(range(len(lengths)))
    assert [chunk.start for chunk in chunks] == [25.0 * i for i in range(len(lengths))]
    assert chunks[-1].end == frames / rate


@pytest.mark.parametrize("rate", [8_000, 11_025, 16_000, 22_050, 44_056, 44_100, 47_999, 48_000, 192_000])
def test_the_longest_chunk_fits_the_encoder(rate):
    frames = chunk_frames(rate, MAX_CHUNK_SECONDS)
    assert MAX_CHUNK_SAMPLES - math.ceil(16_000 / rate) <= -(-frames * 16_000 // rate) <= MAX_CHUNK_SAMPLES
    chunks = load_audio(np.zeros(frames + 1, np.int8), sample_rate=rate, chunk_seconds=MAX_CHUNK_SECONDS)
    assert len(chunks) == 2 and len(chunks[0].waveform) <= MAX_CHUNK_SAMPLES


@given(rate=st.integers(4_000, 384_000), seconds=st.floats(0.1, MAX_CHUNK_SECONDS))
def test_no_rate_and_chunk_length_exceeds_the_encoder(rate, seconds):
    frames = chunk_frames(rate, seconds)
    assert 1 <= frames <= seconds * rate + 1e-6
    assert -(-frames * 16_000 // rate) <= MAX_CHUNK_SAMPLES


@pytest.mark.parametrize("seconds", [0, -1, 0.05, 29.99, 30, float("nan"), float("inf")])
def test_chunk_seconds_out_of_range(seconds):
    assert "give 0.1 to 29.98 s" in refused(encode(tone(0.1)), chunk_seconds=seconds)


@settings(max_examples=40, deadline=None)
@given(frames=st.integers(1, 60_000), block=st.integers(1, 9_000), seconds=st.floats(0.1, 3.0))
def test_every_sample_is_in_exactly_one_chunk(frames, block, seconds):
    samples = (np.arange(frames) % 32_749).astype(np.int16)
    chunks = load_audio(samples, sample_rate=16_000, chunk_seconds=seconds)
    assert np.array_equal(joined(chunks) * 32_768, samples)
    assert all(a.end == b.start for a, b in pairwise(chunks))


def test_cut_first_then_mean_then_resample():
    samples = np.random.default_rng(0).standard_normal((int(1.3 * 44_100), 2)).astype(np.float32)
    chunks = load_audio(samples, sample_rate=44_100, chunk_seconds=1.0)
    for chunk, piece in zip(chunks, (samples[:44_100], samples[44_100:]), strict=True):
        mono = (piece[:, 0] + piece[:, 1]) / 2
        assert np.array_equal(chunk.waveform, soxr.resample(mono, 44_100, 16_000, "HQ"))


@pytest.mark.parametrize("channels", [1, 2, 6, 32])
def test_channels_are_averaged(channels):
    wave = tone(0.1, channels=channels)
    (chunk,) = load_audio(encode(wave, subtype="FLOAT"))
    expected = wave.astype(np.float64).mean(axis=1)
    assert np.abs(chunk.waveform - expected).max() < 1e-7


@pytest.mark.parametrize("channels", [33, 64])
def test_more_than_32_channels_are_refused(channels):
    message = refused(encode(np.zeros((10, channels))))
    assert f"{channels} channels; 1 to 32" in message


# ---- resampling


@pytest.mark.parametrize("rate", [8_000, 11_025, 22_050, 24_000, 32_000, 44_100, 48_000, 96_000, 192_000])
def test_a_resampled_tone_is_the_tone_at_16_khz(rate):
    (chunk,) = load_audio(tone(1.0, rate, hertz=1_000), sample_rate=rate)
    assert len(chunk.waveform) == 16_000
    inner = slice(2_000, -2_000)
    assert np.abs(chunk.waveform - tone(1.0, hertz=1_000)[:, 0])[inner].max() < 1e-4


@pytest.mark.parametrize(("rate", "up", "down"), [(48_000, 1, 3), (44_100, 160, 441), (8_000, 2, 1)])
def test_resampling_agrees_with_scipy_below_the_cut_off(rate, up, down):
    low = scipy.signal.firwin(401, 3_000, fs=rate)
    noise = np.convolve(np.random.default_rng(1).standard_normal(rate), low, "same").astype(np.float32)
    mine = resample(noise, rate)
    window = scipy.signal.firwin(64 * max(up, down) + 1, 0.95 / max(up, down))
    other = scipy.signal.resample_poly(noise.astype(np.float64), up, down, window=window)
    inner = slice(500, -500)
    assert np.abs(mine - other)[inner].max() < 0.01 * np.abs(other).max()


def test_what_is_above_8_khz_is_removed():
    (chunk,) = load_audio(tone(1.0, 48_000, hertz=9_000), sample_rate=48_000)
    assert np.abs(chunk.waveform[1_000:-1_000]).max() < 1e-4


def test_16_khz_is_left_as_it_is():
    wave = tone(0.2)[:, 0]
    assert np.array_equal(load_audio(wave, sample_rate=16_000)[0].waveform, wave)


@settings(max_examples=60, deadline=None)
@given(rate=st.integers(4_000, 384_000), frames=st.integers(1, 3_000))
def test_lengths_are_rounded_up(rate, frames):
    waveform = resample(np.ones(frames, np.float32), rate)
    assert waveform.shape == (-(-frames * 16_000 // rate),) and waveform.dtype == np.float32
    assert np.isfinite(waveform).all()


# ---- nothing is cut silently: files on which libsndfile alone would stop early


def seconds(source) -> float:
    return sum(chunk.end - chunk.start for chunk in read_chunks(source))


def with_flac_count(data: bytes, count: int) -> bytes:
    word = int.from_bytes(data[18:26], "big") >> 36 << 36 | count
    return data[:18] + word.to_bytes(8, "big") + data[26:]


def test_a_vbr_mp3_without_a_tag_is_read_to_its_end(warnings_of):
    assert soundfile.info(DATA / "vbr_without_tag.mp3").duration < 0.5  # libsndfile's estimate
    assert seconds(DATA / "vbr_without_tag.mp3") == pytest.approx(3.056, abs=0.001)
    assert duration(DATA / "vbr_without_tag.mp3") == pytest.approx(3.056, abs=0.001)
    assert warnings_of() == []


def test_an_mp3_with_a_true_tag_has_its_padding_removed(warnings_of):
    data = encode(tone(2.0, 44_100), 44_100, "MP3", "MPEG_LAYER_III")
    assert seconds(data) == 2.0 == duration(data)
    assert warnings_of() == []


def test_concatenated_mp3s_are_read_to_the_end():
    data = encode(tone(2.0, 44_100), 44_100, "MP3", "MPEG_LAYER_III")
    assert soundfile.info(io.BytesIO(data + data)).duration == 2.0
    assert seconds(data + data + data) == 6.0


def mp3(rate: int, channels: int) -> bytes:
    return encode(tone(2.0, rate, channels), rate, "MP3", "MPEG_LAYER_III")


def test_an_mp3_that_turns_from_mono_to_stereo_is_read_to_the_end():
    assert seconds(mp3(44_100, 1) + mp3(44_100, 2) + mp3(44_100, 1)) == 6.0


def test_an_mp3_that_changes_its_rate_is_refused():
    assert "its sample rate changes" in refused(mp3(44_100, 1) + mp3(48_000, 1))


def test_an_mp3_whose_tag_declares_too_little_is_read_to_the_end():
    data = bytearray(mp3(44_100, 1))
    at = data.index(b"Xing" if b"Xing" in data else b"Info")
    data[at + 8 : at + 12] = (20).to_bytes(4, "big")
    assert soundfile.info(io.BytesIO(data)).duration < 0.6
    assert 2.0 <= seconds(bytes(data)) < 2.1


@pytest.mark.parametrize("length", [10, 900, 3_000, 200_000])
def test_an_mp3_with_junk_in_the_middle(length, warnings_of):
    data = mp3(44_100, 1)
    assert seconds(data + b"\1" * length + data) == 4.0
    assert len(warnings_of()) == (length > 4_096)


def test_an_mp3_with_an_incomplete_last_frame(warnings_of):
    data = (DATA / "vbr_without_tag.mp3").read_bytes()
    assert 3.0 < seconds(data[:-20]) < seconds(data)
    assert warnings_of() == ["<bytes>: decoded 3.030 s (the last MP3 frame is incomplete)"]


@pytest.mark.parametrize("junk", [b"junk" * 250, bytes(3_000), b"ID3\x04\0\0\0\0\x10\0" + bytes(2_048)])
def test_an_mp3_behind_junk(junk):
    assert seconds(junk + encode(tone(1.0, 44_100), 44_100, "MP3", "MPEG_LAYER_III")) == 1.0


@pytest.mark.parametrize("tail", [b"TAG" + b"title".ljust(125), b"APETAGEX" + bytes(90_000), bytes(999)])
def test_tags_behind_an_mp3_are_no_sound(tail, warnings_of):
    for data in ((DATA / "vbr_without_tag.mp3").read_bytes(), mp3(44_100, 2)):
        assert seconds(data + tail) == seconds(data)
    assert warnings_of() == []


def test_an_id3_tag_before_flac():
    assert seconds(b"ID3\x03\0\0\0\0\0\x05hello" + encode(tone(1.0), container="FLAC")) == 1.0


@pytest.mark.parametrize("subtype", ["VORBIS", "OPUS"])
def test_a_chained_ogg_is_read_to_the_end(subtype, warnings_of):
    data = encode(tone(1.0), container="OGG", subtype=subtype)
    assert soundfile.info(io.BytesIO(data + data)).duration == 1.0
    assert seconds(data + data + data) == 3.0
    assert warnings_of() == []


@pytest.mark.parametrize("length", [60, 3_000])
def test_a_chain_whose_second_link_is_broken_keeps_the_first(length, warnings_of):
    data = encode(tone(1.0), container="OGG", subtype="VORBIS")
    assert seconds(data + data[:length]) == 1.0
    assert len(warnings_of()) == 1


def test_a_chain_that_changes_its_rate_is_refused():
    data = encode(tone(1.0), container="OGG", subtype="VORBIS")
    other = encode(tone(1.0, 44_100), 44_100, container="OGG", subtype="VORBIS")
    assert "its sample rate changes" in refused(data + other)


@pytest.mark.parametrize("count", [0, 16_000, 2**36 - 1])
def test_a_flac_whose_count_is_wrong_is_read_to_the_end(count, warnings_of):
    assert seconds(with_flac_count(encode(tone(3.0), container="FLAC"), count)) == 3.0
    assert len(warnings_of()) == (count != 0)


@pytest.mark.parametrize("size", [0, 0xFFFFFFFF, 0x7FFFFFFF, 0x7FFFF000, 0x80000000])
def test_a_wav_whose_length_was_never_written_is_read_to_the_end(size, warnings_of):
    data = encode(tone(1.0))
    assert data[36:40] == b"data"
    assert seconds(data[:40] + struct.pack("<I", size) + data[44:]) == 1.0
    assert warnings_of() == []


def test_an_au_whose_length_was_never_written_is_read_to_the_end():
    data = encode(tone(1.0), container="AU")
    assert seconds(data[:8] + bytes(4) + data[12:]) == 1.0


def test_a_caf_whose_length_was_never_written_is_read_to_the_end():
    data = encode(tone(1.0), container="CAF")
    at = data.index(b"data") + 4
    assert seconds(data[:at] + b"\xff" * 8 + data[at + 8 :]) == 1.0


@pytest.mark.parametrize(
    ("container", "subtype"),
    [
        ("WAV", "PCM_16"),
        ("RF64", "PCM_16"),
        ("W64", "PCM_16"),
        ("AIFF", "PCM_16"),
        ("AU", "PCM_16"),
        ("FLAC", "PCM_16"),
        ("OGG", "VORBIS"),
        ("OGG", "OPUS"),
        ("MP3", "MPEG_LAYER_III"),
    ],
)
def test_half_a_file_gives_what_is_there_and_a_warning(container, subtype, warnings_of, tmp_path):
    noise = np.random.default_rng(2).standard_normal(64_000) * 0.1
    data = encode(noise, container=container, subtype=subtype)
    path = tmp_path / "half"
    path.write_bytes(data[: len(data) // 2])
    assert 0.5 < seconds(path) < 2.3
    (warning,) = warnings_of()
    assert warning.startswith(f"{path}: ") and "decoded" in warning


def test_a_damaged_flac_gives_the_part_before_the_damage(warnings_of):
    noise = np.random.default_rng(2).standard_normal(64_000) * 0.1
    data = bytearray(encode(noise, container="FLAC"))
    data[len(data) // 2] ^= 0x55
    assert 1.5 < seconds(bytes(data)) < 2.1
    (warning,) = warnings_of()
    assert warning.startswith("<bytes>: declared 4.000 s, decoded ")


def test_sound_behind_a_data_chunk_that_is_too_short_is_reported(warnings_of):
    data = encode(np.random.default_rng(2).standard_normal(16_000) * 0.1)
    assert seconds(data[:40] + struct.pack("<I", 16_000) + data[44:]) == 0.5
    assert warnings_of() == ["<bytes>: decoded 0.500 s (unreadable bytes after the sound)"]


def test_chunks_behind_the_data_are_no_damage(warnings_of):
    data = encode(tone(1.0)) + b"LIST" + struct.pack("<I", 8) + b"INFOabcd"
    assert seconds(data) == 1.0
    assert warnings_of() == []


def test_a_wrong_length_of_the_whole_file_is_no_damage(warnings_of):
    data = encode(tone(1.0))
    assert seconds(data[:4] + struct.pack("<I", 10**6) + data[8:]) == 1.0
    assert warnings_of() == []


def test_mp3_frame_lengths():
    assert mp3_frame_length(bytes.fromhex("fffb9064")) == 417  # MPEG-1 layer III, 128 kbit/s, 44.1 kHz
    assert mp3_frame_length(bytes.fromhex("fffb9264")) == 418  # padded
    assert mp3_frame_length(bytes.fromhex("fff36844")) == 216  # MPEG-2, 48 kbit/s, 16 kHz
    assert mp3_frame_length(bytes.fromhex("fffda404")) == 576  # layer II, 192 kbit/s, 48 kHz
    for wrong in ("fff1", "fff19064", "fffbf064", "fffb0064", "fffb9c64", "ffeb9064", "00000000"):
        assert mp3_frame_length(bytes.fromhex(wrong)) == 0


# ---- programs


@needs_converter
@pytest.mark.parametrize("name", ["tone.m4a", "song.wav", "-i.m4a", "a\nb.m4a", "concat:x|y.m4a"])
def test_m4a_under_any_name(name, tmp_path, monkeypatch, warnings_of):
    monkeypatch.chdir(tmp_path)
    shutil.copy(DATA / "tone.m4a", f"./{name}")
    (chunk,) = load_audio(name)
    assert 1.0 <= len(chunk.waveform) / 16_000 < 1.05
    assert 0.4 < np.abs(chunk.waveform).max() < 0.6
    spectrum = np.abs(np.fft.rfft(chunk.waveform[:16_000]))
    assert spectrum.argmax() == 440
    assert warnings_of() == []


@needs_converter
def test_m4a_from_bytes_equals_m4a_from_a_path():
    path = DATA / "tone.m4a"
    assert pcm_sha256(load_audio(path.read_bytes())) == pcm_sha256(load_audio(path))
    assert duration(path) == pytest.approx(1.02, abs=0.03)


@needs_ffmpeg
def test_webm_goes_to_ffmpeg():
    assert len(joined(load_audio(DATA / "tone.webm"))) == 16_000


@needs_ffmpeg
def test_a_truncated_m4a_is_refused_or_reported(warnings_of):
    data = (DATA / "tone.m4a").read_bytes()
    assert "ffmpeg: moov atom not found" in refused(data[:2_000])


@needs_ffmpeg
def test_a_playlist_in_disguise_reaches_no_other_file(tmp_path):
    secret = tmp_path / "secret.wav"
    secret.write_bytes(encode(tone(1.0)))
    playlist = tmp_path / "clip.m4a"
    playlist.write_text(f"#EXTM3U\n#EXTINF:1,\nfile://{secret}\n")
    assert "not sound but text" in refused(playlist)
    playlist.write_bytes(b"\0\0\0\x18ftyp#EXTM3U\n" + f"#EXTINF:1,\nfile://{secret}\n".encode())
    assert "ffmpeg" in refused(playlist)


def test_without_a_converter_the_error_names_both(no_converter):
    message = refused(DATA / "tone.m4a")
    assert message.startswith(f"{DATA / 'tone.m4a'}: MP4; ")
    assert "afconvert" in message and "install ffmpeg" in message


def test_without_a_converter_libsndfile_s_reason_is_kept(no_converter):
    message = refused(encode(tone(0.1))[:30])
    assert "No 'data' chunk marker" in message and "ffmpeg" in message


def script(path: Path, lines: str) -> Path:
    path.write_text(f"#!/bin/sh\n{lines}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


def test_afconvert_is_asked_for_a_float_caf(tmp_path, monkeypatch):
    answer = tmp_path / "answer.caf"
    answer.write_bytes(encode(tone(1.0, 44_100, 2), 44_100, "CAF", "FLOAT"))
    fake = script(
        tmp_path / "afconvert", f'[ "$1 $2 $3 $4" = "-f caff -d LEF32" ] && [ -s "$5" ] && cp {answer} "$6"'
    )
    monkeypatch.setattr(audio_decode, "AFCONVERT", str(fake))
    assert np.array_equal(joined(load_audio(DATA / "tone.m4a")), joined(load_audio(answer)))


@needs_ffmpeg
def test_what_afconvert_refuses_goes_to_ffmpeg(tmp_path, monkeypatch):
    fake = script(tmp_path / "afconvert", "echo 'Error: typ?' >&2; exit 1")
    monkeypatch.setattr(audio_decode, "AFCONVERT", str(fake))
    assert len(joined(load_audio(DATA / "tone.webm"))) == 16_000
    message = refused((DATA / "tone.m4a").read_bytes()[:2_000])
    assert "afconvert: Error: typ?; ffmpeg: moov atom" in message


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ("exit 3", "no message"),
        ("echo broken >&2; exit 1", "ffmpeg: broken"),
        ("echo something that is no AU file at all", "not 32-bit float AU"),
        ("exec sleep 5", "ffmpeg hung"),
    ],
)
def test_ffmpeg_that_misbehaves(answer, words, tmp_path, monkeypatch):
    script(tmp_path / "ffmpeg", answer)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    monkeypatch.setattr(audio_decode, "AFCONVERT", "")
    monkeypatch.setattr(audio_decode, "STALL_SECONDS", 0.5)
    assert words in refused(DATA / "tone.m4a")


def test_ffmpeg_that_fails_halfway_is_reported(tmp_path, monkeypatch, warnings_of):
    answer = tmp_path / "answer.au"
    answer.write_bytes(encode(tone(1.0), container="AU", subtype="FLOAT"))
    script(tmp_path / "ffmpeg", f"cat {answer}; echo '[aac @ 0x1] bad frame' >&2; exit 1")
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    monkeypatch.setattr(audio_decode, "AFCONVERT", "")
    assert np.array_equal(joined(load_audio(DATA / "tone.m4a")), tone(1.0)[:, 0])
    assert warnings_of() == [f"{DATA / 'tone.m4a'}: not all of it decoded (bad frame)"]


def test_an_abandoned_iterator_stops_its_program(tmp_path, monkeypatch):
    answer = tmp_path / "answer.au"
    answer.write_bytes(encode(tone(3.0), container="AU", subtype="FLOAT"))
    script(tmp_path / "ffmpeg", f"echo $$ > {tmp_path}/pid; cat {answer}; exec sleep 60")
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    monkeypatch.setattr(audio_decode, "AFCONVERT", "")
    chunks = read_chunks(DATA / "tone.m4a", chunk_seconds=1.0)
    next(chunks)
    chunks.close()
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)


# ---- what is refused


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("/nonexistent/clip.wav", "/nonexistent/clip.wav: no such file"),
        ("", "'': no such file"),
        (".", ".: a directory"),
        ("/dev/null", "/dev/null: a device"),
        ("https://example.org/clip.wav", "https://example.org/clip.wav: URLs are not fetched; download"),
        ("s3://bucket/clip.wav", "URLs are not fetched"),
        ("a\0b", "'a\\x00b': cannot be opened"),
        ("x" * 5_000, "cannot be opened (File name too long)"),
        (b"", "<bytes>: the file is empty"),
        (io.BytesIO(), "<file>: the file is empty"),
        (b"R", "<bytes>: not sound but text, beginning with 'R'"),
        (b"hello, this is a text\n" * 99, "not sound but text, beginning with 'hello, this is a text"),
        ("ein langer Text ohne Ton ".encode("utf-16") * 9, "no sound format known here (first bytes ff fe"),
        (bytes(4_096), "no sound format known here (first bytes 00 00"),
        (b"\x89PNG\r\n\x1a\n" + bytes(99), "no sound format known here"),
        (b"ID3\x04\0\0\0\0\0\x0a" + bytes(10), "nothing but tags"),
        (io.StringIO("text"), "<file>: gives text, not bytes"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, io.IOBase) else repr(value)[:30],
)
def test_sources_that_are_no_sound(source, words):
    assert words in refused(source)


def test_a_text_file_named_wav(tmp_path):
    path = tmp_path / "clip.wav"
    path.write_text("version https://git-lfs.github.com/spec/v1\n")
    assert refused(path).startswith(f"{path}: not sound but text, beginning with 'version https://git-lfs")


def test_files_that_are_closed_or_written(tmp_path):
    with (tmp_path / "clip.wav").open("wb") as file:
        assert "not open for reading" in refused(file)
    assert "not open for reading" in refused(file)


def test_a_file_that_fails_while_it_is_read():
    class Failing(io.BytesIO):
        def read(self, count=-1):
            if self.tell() > 0:
                raise OSError("input/output error")
            return super().read(count if count <= 0 else min(count, 1_000))

    assert "reading failed (input/output error)" in refused(Failing(encode(tone(2.0))))


def test_control_c_while_libsndfile_reads_is_not_swallowed():
    class Interrupted(io.BytesIO):
        def read(self, count=-1):
            if self.tell() > 100_000:
                raise KeyboardInterrupt
            return super().read(count)

    with pytest.raises(KeyboardInterrupt):
        load_audio(Interrupted(encode(tone(10.0))))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_without_permission(tmp_path):
    path = tmp_path / "clip.wav"
    path.write_bytes(encode(tone(0.1)))
    path.chmod(0)
    assert refused(path).startswith(f"{path}: no permission")


@pytest.mark.parametrize("length", [44, 45])
def test_a_wav_without_samples(length):
    assert "<bytes>: " in refused(encode(tone(0.1))[:length])
    assert "no samples" in refused(encode(np.zeros((0, 1))))


def test_nan_and_infinity_in_a_file_are_refused_with_their_place():
    wave = tone(1.0)
    wave[8_000] = np.nan
    assert "<bytes>: sample nan at 0.500 s" in refused(encode(wave, subtype="FLOAT"))
    wave[8_000] = np.inf
    assert "sample inf at 0.500 s" in refused(encode(wave, subtype="DOUBLE"))


@pytest.mark.parametrize("rate", [0, 1, 3_999, 384_001, 2**31 - 1])
def test_absurd_rates(rate):
    data = encode(tone(0.1))
    message = refused(data[:24] + struct.pack("<I", rate) + data[28:])
    assert "Hz" in message or "libsndfile" in message


def test_a_header_that_declares_two_billion_samples_allocates_nothing():
    data = with_flac_count(encode(tone(0.5), container="FLAC"), 2**36 - 1)
    tracemalloc.start()
    assert seconds(data) == 0.5
    assert tracemalloc.get_traced_memory()[1] < 8 << 20
    tracemalloc.stop()


# ---- memory, duration, digest


def sparse_wav(path: Path, seconds: int, rate: int, channels: int, width: int) -> Path:
    """A WAV of zero bytes that takes no room on the disk."""
    size = seconds * rate * channels * width
    head = struct.pack("<4sI4s4sIHHIIHH4sI", b"RIFF", size + 36, b"WAVE", b"fmt ", 16, 1, channels, rate,
                       rate * channels * width, channels * width, 8 * width, b"data", size)  # fmt: skip
    with path.open("wb") as file:
        file.write(head)
        file.truncate(len(head) + size)
    return path


def peak_of_reading(path: Path, expected_seconds: float) -> int:
    tracemalloc.start()
    total = count = 0
    for chunk in read_chunks(path):
        total, count = total + len(chunk.waveform), count + 1
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert total == expected_seconds * 16_000 and count == math.ceil(expected_seconds / 25)
    return peak


def test_twenty_minutes_of_48_khz_stereo_need_the_memory_of_a_chunk(tmp_path):
    path = sparse_wav(tmp_path / "long.wav", 20 * 60, 48_000, 2, 2)
    assert peak_of_reading(path, 1_200) < 24 << 20  # the file is 230 MB, as float32 461 MB


@pytest.mark.long
def test_three_hours_need_the_memory_of_a_chunk(tmp_path):
    path = sparse_wav(tmp_path / "long.wav", 3 * 3_600, 48_000, 2, 2)
    assert peak_of_reading(path, 10_800) < 24 << 20


def test_duration_is_declared_or_counted():
    assert duration(encode(tone(2.5, 22_050), 22_050)) == 2.5
    assert duration(np.zeros(24_000), sample_rate=48_000) == 0.5
    assert duration(with_flac_count(encode(tone(1.0), container="FLAC"), 0)) == 1.0
    with pytest.raises(AudioError):
        duration("/nonexistent/clip.wav")


def test_the_digest_is_of_lengths_and_pcm():
    wave = np.array([0.5, -1.0, 0.25], np.float32)
    one = [Chunk(0, 0.0, 1.0, wave)]
    assert pcm_sha256(one) == hashlib.sha256(struct.pack("<Q3f", 3, *wave)).hexdigest()
    two = [Chunk(0, 0.0, 1.0, wave[:2]), Chunk(1, 0.0, 1.0, wave[2:])]
    assert pcm_sha256(two) != pcm_sha256(one)
