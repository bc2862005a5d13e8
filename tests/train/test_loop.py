"""The loop learns, logs, and goes on after a stop as if nothing had happened."""

import json

import mlx.core as mx
import mlx.nn as nn
import pytest
from mlx.utils import tree_flatten

from mlx_audio_r1.train.loop import LoopConfig, train
from mlx_audio_r1.train.optim import OptimConfig, muon_and_adamw

STEPS = 30


class Guesser(nn.Module):
    def __init__(self):
        super().__init__()
        self.up, self.down = nn.Linear(4, 16), nn.Linear(16, 1)

    def __call__(self, x):
        return self.down(nn.relu(self.up(x)))


def batches(step):
    x = mx.random.normal((32, 4), key=mx.random.key(step))
    return x, x[:, :1] * x[:, 1:2]


def loss(model, batch):
    x, y = batch
    error = mx.square(model(x) - y).mean()
    return error, {"error": error}


def run(folder, steps=STEPS, model=None, **options):
    mx.random.seed(1)
    model = model or Guesser()
    train(model, muon_and_adamw(OptimConfig(steps=STEPS)), loss, batches,
          LoopConfig(steps, folder, log_every=10, save_every=10), **options)
    return dict(tree_flatten(model.parameters()))


def test_thirty_steps_lower_the_loss(tmp_path):
    run(tmp_path)
    rows = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [10, 20, 30]
    assert rows[-1]["loss"] < 0.8 * rows[0]["loss"]
    assert rows[0]["error"] == rows[0]["loss"]


def test_a_run_that_was_stopped_ends_in_the_same_bits(tmp_path):
    whole = run(tmp_path / "whole")

    def stop(step):
        if step == 20:
            raise KeyboardInterrupt
        return {}

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "halves", on_save=stop)
    resumed = run(tmp_path / "halves")
    assert all(mx.array_equal(whole[name], resumed[name]).item() for name in whole)


def test_a_resumed_log_has_every_step_once(tmp_path):
    run(tmp_path, steps=20)
    run(tmp_path)
    steps = [json.loads(line)["step"] for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert steps == [10, 20, 30]


def test_nothing_half_written_is_left(tmp_path):
    run(tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["log.jsonl", "state.safetensors"]
