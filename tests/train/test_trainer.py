"""The loop: one division, exact resume, nothing lost, whatever ends it."""

import json
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optim
import pytest
from mlx.utils import tree_flatten

from mlx_audio_r1.errors import TrainingError
from mlx_audio_r1.train import metrics, state
from mlx_audio_r1.train.optim import build_optimizer
from mlx_audio_r1.train.ranks import Ranks
from mlx_audio_r1.train.trainer import Hooks, LoopConfig, Trainer

STEPS = 24
TIMES = ("seconds", "tokens_per_second", "peak_memory_gb")  # of a row: not the same from run to run


class Guesser(nn.Module):
    """Dropout makes every step draw random numbers."""

    def __init__(self, dropout=0.2):
        super().__init__()
        self.up, self.drop, self.down = nn.Linear(4, 16), nn.Dropout(dropout), nn.Linear(16, 1)

    def __call__(self, x):
        return self.down(self.drop(nn.relu(self.up(x))))


def rows(step, count=12):
    x = mx.random.normal((count, 4), key=mx.random.key(step))
    return x, x[:, :1] * x[:, 1:2]


def whole(step):
    return [rows(step)]


def ragged(step):
    """The same rows in micro-batches of 5, 4 and 3."""
    x, y = rows(step)
    return [(x[a:b], y[a:b]) for a, b in ((0, 5), (5, 9), (9, 12))]


def squares(model, batch):
    x, y = batch
    errors = mx.square(model(x) - y)
    return errors.sum(), mx.array(float(errors.size)), {"tokens": mx.array(float(errors.size))}


def trainer(folder, optimizer="adamw", steps=STEPS, batches=whole, hooks=None, dropout=0.2, loss=squares,
            rate=1e-2, **config):
    mx.random.seed(1)
    rate = optim.join_schedules([optim.linear_schedule(0.0, rate, 4), optim.cosine_decay(rate, 40)], [4])
    config = {"report_every": 5, "save_every": 4, "eval_every": 100, **config}
    return Trainer(Guesser(dropout), build_optimizer(optimizer, rate, {}), loss, batches,
                   LoopConfig(steps, folder, **config), hooks)


def weights(run):
    return dict(tree_flatten(run.model.parameters()))


def same(a, b):
    return all(mx.array_equal(a[name], b[name]).item() for name in a)


def curve(folder):
    return [{k: v for k, v in row.items() if k not in TIMES} for row in metrics.read(folder)]


def after(seen, count):
    """A stop hook: true from the `count`-th step on."""

    def stop():
        seen.append(1)
        return len(seen) >= count

    return Hooks(stop=stop)


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
@pytest.mark.parametrize("compiled", [False, True])
def test_a_stopped_run_ends_in_the_bits_of_one_that_was_not(tmp_path, optimizer, compiled):
    one = trainer(tmp_path / "one", optimizer, compiled=compiled)
    assert one.run() == STEPS
    for stop in (7, 6):  # at steps 7 and 13, neither of which ends a window of the log
        trainer(tmp_path / "two", optimizer, compiled=compiled, hooks=after([], stop)).run()
    two = trainer(tmp_path / "two", optimizer, compiled=compiled)
    assert two.run() == STEPS
    assert same(weights(one), weights(two))
    assert curve(tmp_path / "one") == curve(tmp_path / "two")


def test_a_finished_run_is_left_alone(tmp_path):
    first = trainer(tmp_path)
    first.run()
    before = (tmp_path / "metrics.jsonl").read_bytes()
    again = trainer(tmp_path, batches=lambda step: 1 / 0)
    assert again.run() == STEPS
    assert same(weights(first), weights(again)) and (tmp_path / "metrics.jsonl").read_bytes() == before


def test_micro_batches_of_different_sizes_give_the_gradient_of_the_whole(tmp_path):
    """The mean of means would be off by tens of percent; float32 sums in another order by 1e-6."""
    one = trainer(tmp_path / "one", dropout=0.0, batches=whole)
    two = trainer(tmp_path / "two", dropout=0.0, batches=ragged)
    one.run(), two.run()
    difference = [mx.abs(a - b).max().item() for a, b in zip(weights(one).values(), weights(two).values(),
                                                             strict=True)]  # fmt: skip
    assert max(difference) < 1e-5


def test_the_learning_rate_loss_and_counts_are_logged(tmp_path):
    trainer(tmp_path).run()
    found = metrics.read(tmp_path)
    assert [row["step"] for row in found] == [5, 10, 15, 20, 24]
    assert found[0]["tokens"] == 5 * 12 and found[-1]["tokens"] == 4 * 12
    assert found[-1]["loss"] < found[0]["loss"]
    assert 0 < found[-1]["learning_rate"] < 1e-2 and found[0]["norm"] > 0


def test_evaluation_runs_at_the_start_on_its_beat_and_at_the_end(tmp_path):
    seen = []
    hooks = Hooks(evaluate=lambda step: seen.append(step) or {"val_loss": 1.0})
    trainer(tmp_path, eval_every=10, hooks=hooks).run()
    assert seen == [0, 10, 20, 24]
    assert [row["step"] for row in metrics.read(tmp_path) if "val_loss" in row] == seen


def test_dropout_is_off_while_a_model_is_measured(tmp_path):
    modes = []
    run = trainer(tmp_path, steps=2)
    run.hooks = Hooks(evaluate=lambda step: modes.append(run.model.training) or {})
    run.run()
    assert modes == [False, False] and run.model.training is False


def test_a_loss_that_is_no_number_stops_before_it_reaches_the_weights(tmp_path):
    class Bad(list):
        names = ("train.jsonl:7",)

    def batches(step):
        x, y = rows(step)
        return [Bad((x, y * math.nan))] if step == 6 else [(x, y)]

    run = trainer(tmp_path, batches=batches)
    with pytest.raises(TrainingError, match=r"step 7: the loss is nan \(rows train.jsonl:7\); the 6 steps"):
        run.run()
    good = trainer(tmp_path / "good", steps=6)
    good.run()
    assert same(weights(run), weights(good))
    assert run.checkpoints.all()[-1].name == "0000006"


def test_a_step_without_anything_to_learn_is_said(tmp_path):
    def nothing(model, batch):
        return model(batch[0]).sum() * 0, mx.array(0.0), {}

    with pytest.raises(TrainingError, match="step 1: nothing to learn"):
        trainer(tmp_path, loss=nothing).run()


# ---- checkpoints


def test_the_last_checkpoints_are_kept(tmp_path):
    run = trainer(tmp_path, keep=2)
    run.run()
    assert [p.name for p in run.checkpoints.all()] == ["0000020", "0000024"]
    assert sorted(p.name for p in run.checkpoints.all()[0].iterdir()) == [
        "adapters.safetensors", "optimizer_state.safetensors", "trainer_state.json",
    ]  # fmt: skip


@pytest.mark.parametrize("name", [state.ADAPTER, state.OPTIMIZER, state.TRAINER])
@pytest.mark.parametrize("damage", ["cut", "flipped", "gone"])
def test_a_damaged_checkpoint_is_named_and_the_one_before_it_used(tmp_path, name, damage):
    one = trainer(tmp_path / "one")
    one.run()
    trainer(tmp_path / "two", hooks=after([], 14)).run()
    newest = state.Checkpoints(tmp_path / "two").all()[-1]
    hurt(newest / name, damage)
    two = trainer(tmp_path / "two")
    two.run()
    assert len(two.damaged) == 1 and str(newest) in two.damaged[0]
    assert same(weights(one), weights(two)) and curve(tmp_path / "one") == curve(tmp_path / "two")


def hurt(path, damage):
    data = path.read_bytes()
    if damage == "gone":
        path.unlink()
    elif damage == "cut":
        path.write_bytes(data[: len(data) // 2])
    else:
        path.write_bytes(data[:-9] + bytes([data[-9] ^ 1]) + data[-8:] if path.suffix != ".json" else b"\xff")


def test_nothing_but_damaged_checkpoints_is_no_fresh_start(tmp_path):
    trainer(tmp_path, keep=1).run()
    hurt(state.Checkpoints(tmp_path).all()[0] / state.ADAPTER, "cut")
    with pytest.raises(TrainingError, match=r"no checkpoint can be read.*--overwrite"):
        trainer(tmp_path).run()


def test_a_checkpoint_of_another_model_is_refused(tmp_path):
    trainer(tmp_path, steps=4).run()
    other = trainer(tmp_path)
    other.model.up = nn.Linear(4, 8)
    with pytest.raises(TrainingError, match=r"of another run: up\.\w+ differs"):
        other.run()


def test_a_full_disk_is_one_line_and_leaves_the_last_checkpoint(tmp_path):
    run(tmp_path / "two", "--steps", "4")
    before = saved(tmp_path / "two")
    run(tmp_path / "two", "--limit", "1200", expect=1, says="the disk is full; make room and run")
    assert saved(tmp_path / "two") == before
    run(tmp_path / "two")
    trainer(tmp_path / "one").run()
    assert saved(tmp_path / "two") == saved(tmp_path / "one")


# ---- killed

DRIVER = Path(__file__).with_name("trainer_driver.py")


def run(folder, *args, expect=0, says=""):
    done = subprocess.run([sys.executable, str(DRIVER), str(folder), *args], capture_output=True, text=True,
                          timeout=120, check=False)  # fmt: skip
    assert done.returncode == expect and says in done.stderr, done.stderr


def saved(folder):
    last = state.Checkpoints(folder).all()[-1]
    return {p.name: p.read_bytes() for p in last.iterdir() if p.suffix == ".safetensors"}


def test_killed_anywhere_it_ends_in_the_same_bits(tmp_path):
    """SIGKILL before every operation on files in turn, later each time, in one run that goes on."""
    one = trainer(tmp_path / "one", steps=8)
    one.run()
    kills = 0
    while True:
        args = [str(DRIVER), str(tmp_path / "two"), "--steps", "8", "--die-at", str(9 + 5 * kills)]
        done = subprocess.run([sys.executable, *args], capture_output=True, text=True, timeout=120, check=False)
        if done.returncode == 0:
            break
        assert done.returncode == -signal.SIGKILL, done.stderr
        kills += 1
        assert kills < 40, "it does not get on"
    assert kills >= 3
    assert saved(tmp_path / "one") == saved(tmp_path / "two")
    assert curve(tmp_path / "one") == curve(tmp_path / "two")


@pytest.mark.long
def test_killed_at_random_moments_it_ends_in_the_same_bits(tmp_path):
    import random

    one = trainer(tmp_path / "one", steps=400)
    one.run()
    dice = random.Random(5)
    for _ in range(20):
        process = subprocess.Popen([sys.executable, str(DRIVER), str(tmp_path / "two"), "--steps", "400"])
        time.sleep(dice.uniform(0.3, 1.6))
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    run(tmp_path / "two", "--steps", "400")
    assert saved(tmp_path / "one") == saved(tmp_path / "two")
    assert curve(tmp_path / "one") == curve(tmp_path / "two")


# ---- several processes


def test_two_ranks_give_the_gradient_of_the_whole_batch(tmp_path):
    """Ranks hold 7 and 5 rows of every step; sums in another order differ by 1e-6."""
    one = trainer(tmp_path / "one", dropout=0.0)
    one.run()
    launch(tmp_path / "two", "--ranks")
    last = mx.load(str(state.Checkpoints(tmp_path / "two").all()[-1] / state.ADAPTER))
    assert max(mx.abs(last[name] - value).max().item() for name, value in weights(one).items()) < 1e-5
    assert [row["loss"] for row in curve(tmp_path / "one")] == pytest.approx(
        [row["loss"] for row in curve(tmp_path / "two")], rel=1e-5)  # fmt: skip
    records = json.loads((tmp_path / "two" / "seen.json").read_text())
    assert records == {"0": 7, "1": 5}


def launch(folder, *args):
    folder.mkdir()
    mlx_launch = Path(sys.executable).with_name("mlx.launch")
    done = subprocess.run(
        [str(mlx_launch), "-n", "2", "--backend", "ring", "--python", sys.executable, str(DRIVER), str(folder),
         *args], capture_output=True, text=True, timeout=120, check=False)  # fmt: skip
    assert done.returncode == 0, done.stderr


def test_alone_every_sum_is_what_it_was():
    alone = Ranks()
    tree = {"a": mx.array([1.0, 2.0])}
    assert alone.first and alone.size == 1
    assert alone.total(tree) is tree and alone.add(tree) is tree and alone.share(tree) is tree
