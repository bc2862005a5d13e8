"""The loop learns, logs, and goes on after a stop as if nothing had happened."""

import mlx.core as mx
import mlx.nn as nn
import pytest
from mlx.utils import tree_flatten

from mlx_audio_r1.train import metrics
from mlx_audio_r1.train.loop import train
from mlx_audio_r1.train.optim import OptimConfig, muon_and_adamw
from mlx_audio_r1.train.trainer import LoopConfig

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
          LoopConfig(steps, folder, report_every=10, save_every=10, eval_every=10), **options)
    return dict(tree_flatten(model.parameters()))


def losses(folder):
    return [row for row in metrics.read(folder) if "loss" in row]


def test_thirty_steps_lower_the_loss(tmp_path):
    run(tmp_path)
    rows = losses(tmp_path)
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
    assert [row["step"] for row in losses(tmp_path)] == [10, 20, 30]


def test_what_is_measured_beside_the_loss_stands_in_the_log(tmp_path):
    run(tmp_path, on_save=lambda step: {"seen": step})
    assert [row["seen"] for row in metrics.read(tmp_path) if "seen" in row] == [10, 20, 30]
