"""Sounds are measured once, encoded once, and found again to the bit; whatever is missing is made again."""

import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest

from mlx_audio_r1.config import patch_count
from mlx_audio_r1.errors import AudioError, DataError, DiskError
from mlx_audio_r1.mel import log_mel
from mlx_audio_r1.prompt import AudioPart
from mlx_audio_r1.train.features import ChunkFiles, FeatureStore, LogMels, encoder_fingerprint
from mlx_audio_r1.train.sounds import Sounds
from tests.train.data_sets import tone, write_wav


@pytest.fixture
def clips(tmp_path):
    """Four sounds of different lengths, 0.3 to 1.2 s."""
    return [AudioPart(str(write_wav(tmp_path / f"{i}.wav", tone(0.3 * i, 300.0 + i)))) for i in range(1, 5)]


def chunks_of(sounds, parts):
    return [chunk for part in parts for chunk in sounds(part).chunks]


def same(a, b):
    return a.dtype == b.dtype and a.shape == b.shape and mx.array_equal(a, b).item()


def straight(r1, chunk):
    """Encoder output without any store."""
    ((_, waveform),) = Sounds().waveforms([chunk])
    return r1.model.audio_features(log_mel(waveform))


# Sounds


def test_a_sound_is_measured_once(clips):
    sounds = Sounds()
    first = sounds(clips[0])
    assert sounds(AudioPart(clips[0].source)) is first
    assert [(c.samples, c.patches) for c in first.chunks] == [(4_800, 4)] and first.seconds == 0.3
    assert first.peak == pytest.approx(0.5, abs=1e-4)  # a step of 16 bits is 3e-5


def test_headers_tell_the_same_lengths_without_decoding(tmp_path):
    path = write_wav(tmp_path / "long.wav", tone(30.01))
    decoded, glanced = Sounds()(AudioPart(str(path))), Sounds(decode=False)(AudioPart(str(path)))
    assert [c.samples for c in glanced.chunks] == [c.samples for c in decoded.chunks] == [400_000, 80_160]
    assert glanced.seconds == decoded.seconds and glanced.digest == ""


def test_equal_sounds_have_equal_digests_and_others_do_not(tmp_path, clips):
    sounds = Sounds()
    copy = AudioPart(Path(clips[0].source).read_bytes())
    assert sounds(copy).digest == sounds(clips[0]).digest != sounds(clips[1]).digest


def test_what_was_measured_is_found_in_the_index(tmp_path, clips):
    index = tmp_path / "cache" / "sounds.jsonl"
    first = [Sounds(index=index)(part) for part in clips]
    torn = index.read_bytes()
    index.write_bytes(b'{"key": 1}\n[]\n\xff\n' + torn[:-20])  # strange lines, and a torn last one
    again = Sounds(index=index)
    assert [again(part) for part in clips] == first
    assert index.read_bytes().count(b"\n") == torn.count(b"\n") + 4  # three strange lines and a torn one
    assert [Sounds(index=index)(part) for part in clips] == first
    path = Path(clips[0].source)
    info = path.stat()
    write_wav(path, tone(0.3, 999.0))
    os.utime(path, ns=(info.st_atime_ns, info.st_mtime_ns))  # as if it were the same file
    assert Sounds(index=index)(clips[0]) == first[0] != Sounds()(clips[0])
    os.utime(path, ns=(info.st_atime_ns, info.st_mtime_ns + 1))
    assert Sounds(index=index)(clips[0]) == Sounds()(clips[0])


def test_other_chunks_are_other_entries_of_the_index(tmp_path, clips):
    index = tmp_path / "sounds.jsonl"
    counts = [len(Sounds(seconds, index=index)(clips[3]).chunks) for seconds in (25.0, 0.5, 25.0)]
    assert counts == [1, 3, 1]


def test_a_file_that_has_changed_is_refused(clips):
    sounds = Sounds()
    chunks = chunks_of(sounds, clips)
    write_wav(Path(clips[1].source), tone(0.6, 999.0))
    with pytest.raises(DataError, match=r"2\.wav: has changed"):
        list(sounds.waveforms(chunks))
    write_wav(Path(clips[0].source), tone(0.0))
    with pytest.raises((DataError, AudioError), match=r"1\.wav"):
        list(sounds.waveforms(chunks))


def test_a_pipe_is_no_sound_of_a_data_set(tmp_path):
    os.mkfifo(tmp_path / "pipe.wav")
    for _ in range(2):  # remembered, not tried again
        with pytest.raises(AudioError, match="a pipe"):
            Sounds()(AudioPart(str(tmp_path / "pipe.wav")))


def test_a_file_is_opened_once_for_all_its_chunks(tmp_path):
    path = write_wav(tmp_path / "x.wav", tone(2.0, 440.3))
    sounds = Sounds(0.5)
    chunks = sounds(AudioPart(str(path))).chunks
    found = list(sounds.waveforms([chunks[3], chunks[1]]))
    assert [chunk.index for chunk, _ in found] == [1, 3]
    assert all(len(waveform) == 8_000 and waveform.dtype == np.float32 for _, waveform in found)


# Features


def test_features_are_the_encoders_to_the_bit(tiny, tmp_path, clips):
    sounds = Sounds()
    chunks = chunks_of(sounds, clips)
    store = FeatureStore(tiny.model, tmp_path / "f", sounds)
    assert store.prepare(chunks) == 0 and store.encoded == 4
    again = FeatureStore(tiny.model, tmp_path / "f", sounds)
    assert all(same(again(chunk), straight(tiny, chunk)) for chunk in chunks)
    assert again.encoded == 0


@pytest.mark.parametrize("convention", ["vllm", "hf"])
def test_the_adaptor_makes_of_them_what_the_session_hears(tiny, tiny_hf, tmp_path, clips, convention):
    r1 = {"vllm": tiny, "hf": tiny_hf}[convention]
    sounds = Sounds(convention=convention)
    chunks = chunks_of(sounds, clips)
    store = FeatureStore(r1.model, tmp_path / "f", sounds)
    longest = max(store(chunk).shape[0] for chunk in chunks) + 9
    for chunk in chunks:
        features = store(chunk)
        padded = mx.pad(features, [(0, longest - len(features)), (0, 0)])
        rows = r1.model.audio_adaptor(padded[None])[0]
        ((_, waveform),) = sounds.waveforms([chunk])
        heard = r1.model.encode_audio(r1.log_mel(waveform))
        assert heard.shape[0] == chunk.patches == patch_count(chunk.samples, convention)
        assert rows.shape[0] == store.rows(longest) >= chunk.patches
        # Zeros at the end are what the convolution pads with; matrix products of other sizes round
        # differently, a few parts in 1e7.
        assert mx.allclose(rows[: chunk.patches], heard, rtol=1e-5, atol=1e-6).item()


def test_log_mels_have_the_rows_that_encoder_and_adaptor_make(tiny, clips):
    sounds = Sounds()
    mels = LogMels(sounds, 128)
    for chunk in chunks_of(sounds, clips):
        mel = mels(chunk)
        assert mels.rows(mel.shape[0]) == tiny.model.encode_audio(mel).shape[0] == chunk.patches


def test_a_run_that_was_stopped_goes_on_behind_the_last_chunk(tiny, tmp_path, clips):
    sounds = Sounds()
    chunks = chunks_of(sounds, clips)
    told = []

    def stop(done, total):
        told.append((done, total))
        if done == 2:
            raise KeyboardInterrupt

    first = FeatureStore(tiny.model, tmp_path / "f", sounds)
    with pytest.raises(KeyboardInterrupt):
        first.prepare([*chunks, chunks[0]], stop)
    left = tmp_path / "f" / "ab" / "x.part"  # what a kill in the middle of a file leaves
    left.parent.mkdir(exist_ok=True)
    left.write_bytes(b"half")
    os.utime(left, (time.time() - 7_200,) * 2)
    second = FeatureStore(tiny.model, tmp_path / "f", sounds)
    assert not left.exists()
    second.prepare(chunks, lambda done, total: told.append((done, total)))
    assert told == [(0, 4), (1, 4), (2, 4), (2, 4), (3, 4), (4, 4)]
    assert (first.encoded, second.encoded) == (2, 2)


@pytest.mark.parametrize("damage", [
    lambda path, other: path.write_bytes(path.read_bytes()[:-7]),
    lambda path, other: path.write_bytes(b""),
    lambda path, other: path.write_bytes(flipped(path.read_bytes())),
    lambda path, other: path.write_bytes(other.read_bytes()),
])
def test_damaged_files_are_made_again(tiny, tmp_path, clips, damage):
    sounds = Sounds()
    chunks = chunks_of(sounds, clips[:2])
    store = FeatureStore(tiny.model, tmp_path / "f", sounds)
    store.prepare(chunks)
    path, other = (next((tmp_path / "f").rglob(f"{store.key(chunk)}.safetensors")) for chunk in chunks)
    damage(path, other)
    assert same(store(chunks[0]), straight(tiny, chunks[0]))
    assert store.encoded == 3 and same(store(chunks[0]), straight(tiny, chunks[0])) and store.encoded == 3


def flipped(content):
    """One bit of the array changed."""
    return content[:-100] + bytes([content[-100] ^ 1]) + content[-99:]


def test_another_encoder_is_never_served(tiny, tiny_hf, tmp_path, clips):
    from mlx.utils import tree_map

    from mlx_audio_r1.models.step_audio_r1 import Model

    changed = Model(tiny.config)
    changed.update(tiny.model.parameters())
    changed.audio_encoder.blocks[0].attn.query.bias = changed.audio_encoder.blocks[0].attn.query.bias + 1e-6
    half = Model(tiny.config)
    half.update(tree_map(lambda x: x.astype(mx.bfloat16), tiny.model.parameters()))
    heads = Model(tiny.config)
    heads.update(tiny.model.parameters())
    heads.config = replace(tiny.config, audio=replace(tiny.config.audio, n_audio_head=2))
    models = [tiny.model, changed, half, heads, tiny_hf.model]
    assert len({encoder_fingerprint(model) for model in models}) == 5
    sounds = Sounds()
    (chunk,) = sounds(clips[0]).chunks
    found = [FeatureStore(model, tmp_path / "f", sounds)(chunk) for model in models[:3]]
    assert found[2].dtype == mx.bfloat16 and not same(found[0], found[1])


def test_the_decoder_and_the_adaptor_do_not_matter(tiny):
    from mlx_audio_r1.models.step_audio_r1 import Model

    other = Model(tiny.config)
    other.audio_encoder.update(tiny.model.audio_encoder.parameters())
    assert encoder_fingerprint(other) == encoder_fingerprint(tiny.model)


def test_what_does_not_fit_is_computed_when_it_is_asked_for(tiny, tmp_path, clips):
    sounds = Sounds()
    chunks = chunks_of(sounds, clips)  # 8, 15, 23 and 30 rows of 64 float32
    store = FeatureStore(tiny.model, tmp_path / "f", sounds, max_bytes=12_000)
    assert store.prepare(chunks) == 2 and store.encoded == 2
    assert all(same(store(chunk), straight(tiny, chunk)) for chunk in chunks)
    assert store.encoded == 4


# Files


def key(n):
    return f"{n:02x}" * 32


def array(n):
    return mx.full((10, 10), n, mx.bfloat16)


def size_of_one(folder):
    ChunkFiles(folder, 10_000).write(key(0), array(0))
    (path,) = folder.rglob("*.safetensors")
    return path.stat().st_size


def held_in(folder):
    return sum(path.stat().st_size for path in folder.rglob("*.safetensors"))


def test_the_file_used_longest_ago_goes_first(tmp_path):
    limit = int(4.5 * size_of_one(tmp_path / "one"))
    files = ChunkFiles(tmp_path / "f", limit)
    for n in range(4):
        files.write(key(n), array(n))
        os.utime(files._path(key(n)), (100 + n, 100 + n))
    assert same(files.read(key(0)), array(0)) and files.touch(key(1))  # used now
    files.write(key(4), array(4))  # five would be more than the limit; 0.9 of it has room for four
    assert [n for n in range(5) if files.touch(key(n))] == [0, 1, 3, 4]
    assert not files.touch(key(9)) and files.read(key(9)) is None


def test_every_process_keeps_the_limit(tmp_path):
    limit = int(4.5 * size_of_one(tmp_path / "one"))
    for n in range(12):
        ChunkFiles(tmp_path / "f", limit).write(key(n), array(n))
        assert held_in(tmp_path / "f") <= limit
    ChunkFiles(tmp_path / "small", 10).write(key(0), array(0))
    assert held_in(tmp_path / "small") == 0
    one = ChunkFiles(tmp_path / "f", limit)
    for n in range(12, 24):
        one.write(key(n), array(n))
        assert held_in(tmp_path / "f") <= limit


def test_a_folder_that_cannot_be_written_is_said(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DiskError, match="file"):
        ChunkFiles(tmp_path / "file", 1_000)
    files = ChunkFiles(tmp_path / "f", 10_000)
    (tmp_path / "f" / key(1)[:2]).write_text("")  # in the place of a folder
    with pytest.raises(DiskError):
        files.write(key(1), array(1))


def test_the_process_ends_well_after_decoding_ahead(tmp_path, clips):
    code = (
        "import sys\nfrom mlx_audio_r1 import load\nfrom mlx_audio_r1.prompt import AudioPart\n"
        "from mlx_audio_r1.train.features import FeatureStore\nfrom mlx_audio_r1.train.sounds import Sounds\n"
        "sounds, model = Sounds(), load().model\n"
        "chunks = [c for path in sys.argv[2:] for c in sounds(AudioPart(path)).chunks]\n"
        "print(FeatureStore(model, sys.argv[1], sounds).prepare(chunks))\n"
    )
    paths = [str(tmp_path / "f"), *(part.source for part in clips)]
    done = subprocess.run([sys.executable, "-c", code, *paths], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "0\n"), done.stderr
