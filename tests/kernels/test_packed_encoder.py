"""The encoder on its kernels: the goldens, several clips in one pass, and the callers that give it several."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest

from mlx_audio_r1.config import AudioConfig
from mlx_audio_r1.kernels.choice import configured
from mlx_audio_r1.models.audio_encoder import AudioEncoder
from mlx_audio_r1.models.step_audio_r1 import CHUNKS_TOGETHER
from mlx_audio_r1.prompt import AudioPart
from mlx_audio_r1.prompt_cache import PromptCache
from mlx_audio_r1.train.features import FeatureStore
from mlx_audio_r1.train.sounds import Sounds
from tests.kernels.grid import off_metal
from tests.metalsim import options
from tests.metalsim.simulate import Simulation
from tests.test_parity import FEATURES, LOG_MEL, distance
from tests.train.data_sets import tone, write_wav

SHORT = ("s0_50", "quiet")
GOLDENS = ["s0_50", *(pytest.param(clip, marks=[pytest.mark.long, pytest.mark.timeout(900)])
                      for clip in ("quiet", "s3_21", "s25"))]
UNCHECKED = {"check": False}  # several times as fast; the kernels' own tests check
ATTENTION, LAYERS = "packed_attention", 2


class Launches:
    """What ran since, without the trials of a first time."""

    def __init__(self, simulation: Simulation):
        self.simulation, self.before = simulation, len(simulation.launches)

    def count(self, kernel: str) -> int:
        return sum(launch.kernel == kernel for launch in self.simulation.launches[self.before :])


@pytest.mark.parametrize("convention", ["vllm", "hf"])
@pytest.mark.parametrize("clip", GOLDENS)
def test_the_goldens(simulation: Simulation, clip: str, convention: str, tiny: Any, tiny_hf: Any, clips: Any,
                     golden: Any, frontend: Any) -> None:
    r1 = tiny if convention == "vllm" else tiny_hf
    with configured("on"), options(check=clip == "s0_50"):
        r1.encode_audio(clips[clip])  # the kernels are tried
        launches = Launches(simulation)
        got = r1.encode_audio(clips[clip])
        assert launches.count(ATTENTION) == LAYERS
        assert [launches.count(name) for name in ("pool_norm", "log_mel", "log_mel_floor")] == [1, 1, 1]
        assert distance(r1.log_mel(clips[clip]), frontend[f"{clip}.log_mel"]) < LOG_MEL
    assert distance(got, golden[f"{clip}.{convention}.adapter"]) < FEATURES


@pytest.mark.parametrize("convention", ["vllm", "hf"])
def test_clips_of_one_pass_are_each_alone(simulation: Simulation, convention: str, tiny: Any, tiny_hf: Any,
                                          clips: Any) -> None:
    """And one launch a layer attends for all of them."""
    model = (tiny if convention == "vllm" else tiny_hf).model
    mels = [tiny.log_mel(clips[clip]) for clip in ("s0_50", "quiet")]
    mels.append(mels[1][:31])
    with configured("on"), options(**UNCHECKED):
        alone = [model.encode_audio(mel) for mel in mels]
        for order in ([0, 1, 2], [2, 0, 0, 1]):
            model.encode_chunks([mels[i] for i in order])
            launches = Launches(simulation)
            together = model.encode_chunks([mels[i] for i in order])
            assert launches.count(ATTENTION) == LAYERS and launches.count("pool_norm") == 1
            for i, got in zip(order, together, strict=True):
                assert got.shape == alone[i].shape
                # The kernels give the same bits; OpenBLAS may round a product with more rows otherwise: 1e-6.
                assert distance(got, alone[i]) < FEATURES / 10
        assert model.encode_chunks([]) == []


@pytest.mark.parametrize("dtype", [mx.float32, mx.bfloat16], ids=str)
@pytest.mark.parametrize("hidden", [0, 1])
def test_without_the_kernels_a_pass_of_one_is_what_it_was(dtype: mx.Dtype, hidden: int) -> None:
    """To the bit; beside others, as far as matrix products do not round for how many rows there are."""
    encoder = AudioEncoder(AudioConfig(n_audio_state=64, n_audio_head=4, n_audio_layer=2))
    encoder.set_dtype(dtype)
    mels = [mx.random.normal((t, 128), key=mx.random.key(t)).astype(dtype) for t in (3, 52, 323, 77)]
    alone = [encoder(mel[None], masked(len(mel), hidden))[0] for mel in mels]
    for mel, want in zip(mels, alone, strict=True):
        assert mx.array_equal(encoder.packed([mel], hidden)[0], want)
    for got, want in zip(encoder.packed(mels, hidden), alone, strict=True):
        assert distance(got, want) < (1e-5 if dtype == mx.float32 else 0.1)  # of 4, in two layers


def masked(frames: int, hidden: int) -> mx.array:
    rows = (frames + 1) // 2
    return mx.arange(rows) < rows - hidden


@off_metal
def test_off_metal_every_chunk_goes_alone(tiny: Any, clips: Any) -> None:
    """Whatever the switch says."""
    mels = [tiny.log_mel(clips[clip]) for clip in SHORT]
    alone = [tiny.model.audio_encoder(mel[None])[0] for mel in mels]
    with configured("on"):
        for got, want in zip(tiny.model.chunk_features(mels), alone, strict=True):
            assert mx.array_equal(got, want)
        assert list(tiny.model.passes("abc")) == [["a"], ["b"], ["c"]]


def test_a_pass_has_a_limit(simulation: Simulation, tiny: Any) -> None:
    with configured("on"):
        assert list(map(len, tiny.model.passes(range(CHUNKS_TOGETHER + 1)))) == [CHUNKS_TOGETHER, 1]
        assert list(tiny.model.passes([])) == []
    with configured("on,packed_attention=off"):
        assert list(map(len, tiny.model.passes(range(3)))) == [1, 1, 1]


def test_gradients_of_several_clips_are_the_plain_ones(simulation: Simulation) -> None:
    """Where the encoder is trained, its chunks go through it in one pass too."""
    encoder = AudioEncoder(AudioConfig(n_audio_state=16, n_audio_head=2, n_audio_layer=1, n_mels=8))
    mels = [mx.random.normal((t, 8), key=mx.random.key(t)) for t in (9, 14)]

    def gradient(switch: str) -> dict[str, mx.array]:
        def loss(parameters: Any) -> mx.array:
            encoder.update(parameters)
            return sum(mx.sin(x).sum() for x in encoder.packed(mels, 1))

        with configured(switch):
            return mx.grad(loss)(encoder.parameters())

    plain, kernels = gradient("off"), gradient("on")
    for layer in ("query", "key", "value", "out"):
        got, want = (g["blocks"][0]["attn"][layer]["weight"] for g in (kernels, plain))
        assert mx.allclose(got, want, rtol=1e-4, atol=1e-5)  # forward values differ by roundings
    assert mx.allclose(kernels["after_norm"]["weight"], plain["after_norm"]["weight"], rtol=1e-4, atol=1e-5)


def test_sounds_of_a_prompt_are_encoded_together(simulation: Simulation, tiny: Any, clips: Any) -> None:
    parts = [AudioPart(np.array(clips[clip]), 16_000) for clip in (*SHORT, "s0_50")]
    plain = tiny.listen(parts)
    with configured("on"), options(**UNCHECKED):
        tiny.listen(parts)
        launches = Launches(simulation)
        heard = tiny.listen(parts)
        assert launches.count(ATTENTION) == LAYERS
    assert (heard.patches, heard.seconds, heard.digests) == (plain.patches, plain.seconds, plain.digests)
    for got, want in zip(heard.features, plain.features, strict=True):
        assert distance(got, want) < FEATURES


def test_what_a_prompt_cache_has_is_not_encoded_again(simulation: Simulation, tiny: Any, clips: Any) -> None:
    sounds = {"s0_50": np.array(clips["s0_50"]), "silence": np.zeros(4000, np.float32),
              "noise": np.array(clips["quiet"][:5000])}

    def parts(names: Sequence[str]) -> list[AudioPart]:
        return [AudioPart(sounds[name], 16_000) for name in names]

    tiny.prompt_cache = cache = PromptCache("tiny")
    try:
        with configured("on"), options(**UNCHECKED):
            first = tiny.listen(parts(["s0_50", "silence", "s0_50"]))
            assert cache.encoded == 2 and first.features[0] is first.features[2]
            second = tiny.listen(parts(["noise", "s0_50"]))
            assert cache.encoded == 3 and second.features[1] is first.features[0]
    finally:
        tiny.prompt_cache = None


def test_features_of_training_are_encoded_together(simulation: Simulation, tiny: Any, tmp_path: Path) -> None:
    parts = [AudioPart(str(write_wav(tmp_path / f"{i}.wav", tone(0.1 * i, 300.0 + i)))) for i in range(1, 6)]
    sounds, told = Sounds(), []
    chunks = [chunk for part in parts for chunk in sounds(part).chunks]
    plain = FeatureStore(tiny.model, tmp_path / "plain", sounds)
    with configured("on"), options(**UNCHECKED):
        store = FeatureStore(tiny.model, tmp_path / "together", sounds)
        assert store.prepare(chunks, lambda done, total: told.append((done, total))) == 0
        launches = Launches(simulation)
        FeatureStore(tiny.model, tmp_path / "again", sounds).prepare(chunks)
        assert launches.count(ATTENTION) == 2 * LAYERS  # 4 chunks, and 1
    assert told == [(0, 5), (4, 5), (5, 5)] and store.encoded == 5
    for chunk in chunks:
        assert distance(store(chunk), plain(chunk)) < FEATURES
    assert store.encoded == 5
