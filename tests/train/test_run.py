"""A run as a whole: from rows to an adapter that is used, resumed, refused."""

import json
import math
import os
import random
import signal
import subprocess
import sys
import time

import mlx.core as mx
import pytest
from mlx.utils import tree_flatten

from mlx_audio_r1 import load
from mlx_audio_r1.errors import ConfigError, DataError, TrainingError
from mlx_audio_r1.train import metrics
from mlx_audio_r1.train.config import resolve
from mlx_audio_r1.train.recipes import RECIPES
from mlx_audio_r1.train.run import Silent, fine_tune
from tests.train.conftest import write_jsonl

TIMES = ("seconds", "tokens_per_second", "peak_memory_gb")
SMALL = {"iters": 6, "batch_size": 3, "steps_per_report": 2, "steps_per_eval": 3, "save_every": 2, "samples": 0,
         "learning_rate": 2e-2, "lora_parameters": {"rank": 4}}  # fmt: skip


def go(base, data, folder, mode="sft", watch=None, overwrite=False, **given):
    told = {**SMALL, "model": str(base), "data": str(data), "adapter_path": str(folder), **given}
    return fine_tune(resolve(mode, told), RECIPES[mode], watch, overwrite=overwrite)


def arrays(folder):
    return mx.load(str(folder / "adapters.safetensors"))


def same(one, two):
    a, b = arrays(one), arrays(two)
    return a.keys() == b.keys() and all(mx.array_equal(a[name], b[name]).item() for name in a)


def curve(folder):
    return [{k: v for k, v in row.items() if k not in TIMES} for row in metrics.read(folder)]


class StopAfter(Silent):
    def __init__(self, steps):
        self.left = steps

    def stop(self):
        self.left -= 1
        return self.left == 0


@pytest.fixture(scope="module")
def plain(base, tones, tmp_path_factory):
    """The run that others are held against."""
    folder = tmp_path_factory.mktemp("run") / "adapters"
    go(base, tones, folder, samples=2)
    return folder


def test_the_files_of_a_run(plain):
    names = {path.name for path in plain.iterdir()}
    assert {"adapters.safetensors", "adapter_config.json", "train_config.json", "metrics.jsonl",
            "samples.jsonl", "report.html", "checkpoints", "0000002_adapters.safetensors",
            "0000006_adapters.safetensors"} <= names  # fmt: skip
    kept = json.loads((plain / "adapter_config.json").read_text())
    assert kept["fine_tune_type"] == "lora" and kept["lora_parameters"]["rank"] == 4
    told = json.loads((plain / "train_config.json").read_text())
    assert told["batch_size"] == 3 and len(told["depends_on"]["train.jsonl"]) == 64


def test_it_learns_and_the_loss_is_the_models(base, tones, plain):
    rows = curve(plain)
    losses = [row["val_loss"] for row in rows if "val_loss" in row]
    assert [row["step"] for row in rows if "val_loss" in row] == [0, 3, 6]
    assert losses[-1] < 0.9 * losses[0]


def test_the_adapter_works_where_it_is_used(base, plain, tones):
    clip = tones / "clips" / "0.wav"
    messages = [{"role": "user", "content": [{"type": "audio", "audio": str(clip)},
                                             {"type": "text", "text": "Is it low or high?"}]}]  # fmt: skip
    with_adapter, without = load(base, adapter_path=plain), load(base)
    assert mx.abs(with_adapter.logits(messages) - without.logits(messages)).max().item() > 0.1


def test_the_same_clips_are_answered_before_and_after(plain):
    lines = [json.loads(line) for line in (plain / "samples.jsonl").read_text().splitlines()]
    assert [(line["step"], line["where"]) for line in lines] == [
        (0, "valid.jsonl:1"), (0, "valid.jsonl:3"), (6, "valid.jsonl:1"), (6, "valid.jsonl:3"),
    ]  # fmt: skip
    assert lines[0]["prompt"] == "<audio> Is it low or high?" and lines[0]["expected"] == "low"


# ---- resuming


@pytest.mark.parametrize("options", [
    {"lora_parameters": {"rank": 4, "dropout": 0.3}},
    {"fine_tune_type": "dora", "optimizer": "muon"},
    {"fine_tune_type": "full", "grad_accumulation_steps": 2},
    {"train_adaptor": True, "pack": True, "max_seq_length": 256,
     "lr_schedule": {"name": "cosine_decay", "warmup": 2, "arguments": [5e-3, 8]}},
], ids=["dropout", "dora", "full", "schedule"])  # fmt: skip
def test_a_run_that_was_stopped_ends_in_the_same_bits(base, tones, tmp_path, options):
    go(base, tones, tmp_path / "one", **options)
    outcome = go(base, tones, tmp_path / "two", watch=StopAfter(3), **options)
    assert (outcome.steps, outcome.finished) == (3, False)
    outcome = go(base, tones, tmp_path / "two", **options)
    assert (outcome.steps, outcome.finished) == (6, True)
    assert same(tmp_path / "one", tmp_path / "two")
    assert curve(tmp_path / "one") == curve(tmp_path / "two")


def test_the_same_seed_gives_the_same_bits_and_another_one_others(base, tones, plain, tmp_path):
    go(base, tones, tmp_path / "again")
    go(base, tones, tmp_path / "other", seed=1)
    assert same(plain, tmp_path / "again") and not same(plain, tmp_path / "other")


def test_more_steps_go_on_from_a_finished_run(base, tones, plain, tmp_path):
    go(base, tones, tmp_path / "short", iters=4)
    go(base, tones, tmp_path / "short", iters=6)
    assert same(plain, tmp_path / "short")


def test_a_preference_run_goes_on_with_the_reference_it_began_with(base, pairs, tmp_path):
    options = {"mode": "dpo", "batch_size": 2}
    go(base, pairs, tmp_path / "one", **options)
    go(base, pairs, tmp_path / "two", watch=StopAfter(3), **options)
    reference = (tmp_path / "two" / "reference.safetensors").read_bytes()
    go(base, pairs, tmp_path / "two", **options)
    assert (tmp_path / "two" / "reference.safetensors").read_bytes() == reference
    assert same(tmp_path / "one", tmp_path / "two") and curve(tmp_path / "one") == curve(tmp_path / "two")


def test_killed_again_and_again_it_ends_in_the_same_bits(base, tones, plain, tmp_path):
    kill_until_done(base, tones, tmp_path / "run", kills=2)
    assert same(plain, tmp_path / "run") and curve(plain) == curve(tmp_path / "run")


@pytest.mark.long
def test_killed_twenty_times_it_ends_in_the_same_bits(base, tones, tmp_path):
    go(base, tones, tmp_path / "one", iters=120, save_every=3)
    kill_until_done(base, tones, tmp_path / "two", kills=20, iters=120, save_every=3)
    assert same(tmp_path / "one", tmp_path / "two") and curve(tmp_path / "one") == curve(tmp_path / "two")


def kill_until_done(base, data, folder, kills, **given):
    """The program as people start it, killed at random moments behind its next checkpoint, then left alone."""
    dice = random.Random(3)
    told = {**SMALL, **given}
    args = ["train", "sft", "--model", str(base), "--data", str(data), "--adapter-path", str(folder), "--iters",
            str(told["iters"]), "--batch-size", "3", "--steps-per-report", "2", "--steps-per-eval", "3",
            "--save-every", str(told["save_every"]), "--samples", "0", "--learning-rate", "2e-2", "--rank", "4",
            ]  # fmt: skip
    command = [sys.executable, "-c", "from mlx_audio_r1.cli.main import main; main()", *args]
    for _ in range(kills):
        before = newest(folder)
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while newest(folder) == before:
            assert process.poll() is None, "it ended by itself: nothing was killed"
            time.sleep(0.002)
        time.sleep(dice.uniform(0.0, 0.1))
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    done = subprocess.run(command, capture_output=True, text=True, timeout=250, check=False)
    assert done.returncode == 0 and done.stdout == f"{folder}\n", done.stderr


def newest(folder):
    """Name of the last checkpoint, whole or half made."""
    return max((path.name for path in (folder / "checkpoints").glob("*")), default="")


# ---- DPO


def test_the_first_preference_loss_is_ln_2(base, pairs, tmp_path):
    """Adapter fresh, so policy and reference are one model: sigmoid(0); float32 sums of some -100 nats."""
    go(base, pairs, tmp_path, mode="dpo", batch_size=2)
    rows = curve(tmp_path)
    assert rows[0]["val_loss"] == pytest.approx(math.log(2), abs=1e-5)
    assert rows[0]["val_margin"] == pytest.approx(0.0, abs=1e-4)
    assert rows[-1]["val_loss"] < math.log(2) and rows[-1]["val_accuracy"] == 1.0


def test_dpo_after_sft_is_held_against_the_model_it_starts_from(base, pairs, plain, tmp_path):
    go(base, pairs, tmp_path, mode="dpo", batch_size=2, resume_adapter_file=str(plain / "adapters.safetensors"))
    assert curve(tmp_path)[0]["val_loss"] == pytest.approx(math.log(2), abs=1e-5)


# ---- the same by other ways


@pytest.mark.parametrize("options", [
    {"compile": True}, {"grad_checkpoint": False}, {"attention": "blockwise"},
], ids=["compiled", "kept", "blockwise"])  # fmt: skip
def test_time_and_memory_settings_do_not_change_what_is_learnt(base, tones, plain, tmp_path, options):
    """Other orders of float32 sums; Adam's division makes 1e-6 of the gradient some 1e-4 of a step."""
    go(base, tones, tmp_path, **options)
    one, two = arrays(plain), arrays(tmp_path)
    assert max(mx.abs(one[name] - two[name]).max().item() for name in one) < 2e-4
    losses = [[row["loss"] for row in curve(folder) if "loss" in row] for folder in (plain, tmp_path)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


def test_the_encoder_can_be_trained_too(base, tones, tmp_path):
    go(base, tones, tmp_path, train_encoder=True, train_adaptor=True, iters=2)
    changed = arrays(tmp_path)
    before = dict(tree_flatten(load(base).model.parameters()))
    name = "audio_encoder.conv1.weight"
    assert mx.abs(changed[name] - before[name]).max().item() > 1e-4


def test_a_trained_encoder_starts_from_the_loss_of_the_frozen_one(base, tones, plain, tmp_path):
    go(base, tones, tmp_path, train_encoder=True, iters=1)
    assert curve(tmp_path)[0]["val_loss"] == pytest.approx(curve(plain)[0]["val_loss"], rel=1e-5)


def test_a_quantised_base_is_adapted_as_it_is(base, tones, tmp_path):
    from mlx_audio_r1.convert import Recipe, convert

    convert(str(base), tmp_path / "q4", Recipe(quantize=True, bits=4, group_size=32))
    go(tmp_path / "q4", tones, tmp_path / "run")
    losses = [row["val_loss"] for row in curve(tmp_path / "run") if "val_loss" in row]
    assert losses[-1] < 0.9 * losses[0]


# ---- refused


def test_what_would_be_another_run_is_refused_by_name(base, tones, plain):
    with pytest.raises(TrainingError, match="has batch_size 3, not 2: give the same"):
        go(base, tones, plain, batch_size=2)


def test_other_data_are_refused(base, tones, tmp_path):
    rows = [json.loads(line) for line in (tones / "train.jsonl").read_text().splitlines()]
    for row in rows:
        row["audios"] = [str(tones / path) for path in row["audios"]]
    write_jsonl(tmp_path / "train.jsonl", rows)
    go(base, tmp_path, tmp_path / "run", iters=1)
    write_jsonl(tmp_path / "train.jsonl", rows[:-1])
    with pytest.raises(TrainingError, match=r"train\.jsonl is not what the run there began with"):
        go(base, tmp_path, tmp_path / "run", iters=2)
    assert go(base, tmp_path, tmp_path / "run", iters=2, overwrite=True).finished


def test_an_adapter_that_no_run_made_is_not_written_over(base, tones, tmp_path):
    (tmp_path / "adapters.safetensors").write_bytes(b"precious")
    with pytest.raises(TrainingError, match="holds an adapter of another making"):
        go(base, tones, tmp_path)
    assert (tmp_path / "adapters.safetensors").read_bytes() == b"precious"


@pytest.mark.parametrize(("given", "error", "says"), [
    ({"data": ""}, DataError, "no data: give --data"),
    ({"data": "nowhere"}, DataError, "nowhere: no such folder"),
    ({"max_seq_length": 16}, DataError, "longer than max_seq_length 16"),
    ({"lora_parameters": {"keys": ["self_attn.nope"]}}, ConfigError, "nope"),
    ({"compile": True, "train_encoder": True}, TrainingError, "compile"),
])  # fmt: skip
def test_what_cannot_be_done_is_one_line_before_anything_is_written(base, tones, tmp_path, given, error, says):
    with pytest.raises(error, match=says) as found:
        go(base, given.pop("data", tones), tmp_path / "run", **given)
    assert "\n" not in str(found.value)
    assert not (tmp_path / "run" / "adapters.safetensors").exists()


def test_preferences_are_not_for_sft_nor_the_other_way_round(base, tones, pairs, tmp_path):
    with pytest.raises(DataError, match=r"train\.jsonl:1: has a rejected reply"):
        go(base, pairs, tmp_path / "a")
    with pytest.raises(DataError, match=r"train\.jsonl:1: has no rejected reply"):
        go(base, tones, tmp_path / "b", mode="dpo")
