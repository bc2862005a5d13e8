"""Stage A's labels say what the clip's truth says, patch by patch, and a few steps learn something."""

import json

import mlx.core as mx
import numpy as np
import pytest
from mlx.utils import tree_flatten

from mlx_audio_r1.config import AudioConfig
from mlx_audio_r1.mel import log_mel
from mlx_audio_r1.nano import listen
from mlx_audio_r1.nano.clips import Clips
from mlx_audio_r1.nano.cpu_speed import cpu_speed
from mlx_audio_r1.tasks.acoustic.world import SOURCES, Event, Truth, make_clip
from mlx_audio_r1.train.losses import IGNORE
from mlx_audio_r1.train.optim import OptimConfig

GLIDE = Truth("single", 2.0, (Event("sine tone", 0.5, 1.5, 220.0, 880.0, "rising", 10),), 40)
TINY = AudioConfig(n_audio_state=32, n_audio_head=2, n_audio_layer=1, llm_dim=32, adaptor_width=32)


def columns(truth):
    frames = 202 if truth.seconds == 2.0 else 102
    table = listen.labels(truth, np.full((frames, 128), -1.0))
    return dict(zip(listen.HEADS, table.T, strict=False))


def clips(count):
    """Of one length, so that the step is traced once."""
    drawn = (make_clip(seed, "single") for seed in range(1000))
    made = [clip for _, clip in zip(range(count), (c for c in drawn if c.truth.seconds == 1.3), strict=False)]
    return Clips([np.array(log_mel(c.waveform)) for c in made], [c.truth for c in made])


def test_patches_of_a_sound_know_all_of_it():
    table = columns(GLIDE)
    assert len(table["source"]) == 25
    inside = table["source"] == 1 + SOURCES.index("sine tone")
    assert np.flatnonzero(inside).tolist() == list(range(6, 19))
    expected = {"start_second": 0, "start_tenth": 5, "end_second": 1, "end_tenth": 5, "order": 1, "last": 2,
                "contour": 1, "ramp": 4, "length": 10}  # fmt: skip
    for name, value in expected.items():
        assert set(table[name][inside].tolist()) == {value}, name


def test_patches_outside_are_asked_nothing_about_it():
    table = columns(GLIDE)
    outside = table["source"] == 0
    assert set(table["pitch"][outside].tolist()) == {IGNORE}
    assert set(table["order"][outside].tolist()) == {0}


def test_levels_are_asked_where_there_is_another_sound_to_compare():
    tones = (Event("bell", 0.2, 0.6, 300.0, 300.0), Event("bell", 1.0, 1.6, 300.0, 300.0, level_db=-8))
    pair, sequence = (columns(Truth(kind, 2.0, tones, 40))["level"] for kind in ("pair", "sequence"))
    assert set(pair.tolist()) == {IGNORE, 0, 1} and set(sequence.tolist()) == {IGNORE}


def test_the_pitch_now_follows_the_glide():
    now = columns(GLIDE)["pitch_now"]
    now = now[now != IGNORE]
    assert (np.diff(now.astype(int)) >= 0).all() and now[-1] - now[0] > 10


def test_the_fast_functions_give_the_same_loss_and_gradient():
    mx.random.seed(0)
    model, batch = listen.Listener(TINY), listen.batches(clips(12), 0)(0)
    gradient = mx.value_and_grad(lambda p: listen.listening_loss(model.update(p), batch)[0])
    plain, plain_gradient = gradient(model.trainable_parameters())
    with cpu_speed():
        fast, fast_gradient = gradient(model.trainable_parameters())
    assert fast.item() == pytest.approx(plain.item(), rel=1e-5)
    pairs = zip(tree_flatten(plain_gradient), tree_flatten(fast_gradient), strict=False)
    assert all(mx.allclose(one, other, atol=1e-5).item() for (_, one), (_, other) in pairs)


def test_thirty_steps_lower_the_loss(tmp_path, monkeypatch):
    monkeypatch.setattr(listen, "BATCH_FRAMES", 1000)
    sounds = clips(24)
    listen.learn_to_listen(TINY, sounds, sounds, tmp_path, OptimConfig(steps=40, warmup=5))
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    losses = [row["loss"] for row in rows if "loss" in row]
    assert losses[-1] < 0.85 * losses[0]
    accuracy = next(row for row in rows if "source" in row)
    assert set(listen.HEADS) <= set(accuracy) and accuracy["second"] > 0.3
