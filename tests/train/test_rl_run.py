"""`train rl` as a whole: its numbers by hand from what it wrote, and the same bits whatever interrupts it.

A random model that talks (`talker`) counts tones and numbers. Plots are drawn in test_report.py, not here.
"""

import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from mlx.utils import tree_flatten, tree_unflatten

from mlx_audio_r1 import load
from mlx_audio_r1.adapter_config import AdapterConfig, LoRAParameters
from mlx_audio_r1.adapters import attach
from mlx_audio_r1.errors import DataError, TrainingError
from mlx_audio_r1.prompt import audio_parts, render, to_ids
from mlx_audio_r1.train import metrics, state
from mlx_audio_r1.train.config import resolve
from mlx_audio_r1.train.ranks import Ranks
from mlx_audio_r1.train.recipes import RECIPES
from mlx_audio_r1.train.rl import RLCourse
from mlx_audio_r1.train.rl_config import RLConfig
from mlx_audio_r1.train.rollouts import read_rollouts
from mlx_audio_r1.train.rows import read_rows
from mlx_audio_r1.train.run import fine_tune
from mlx_audio_r1.train.watch import Silent
from tests.train.conftest import write_jsonl
from tests.train.talker import CLOSE, STOP, talking_checkpoint, write_questions

TIMES = ("seconds", "tokens_per_second", "peak_memory_gb", "sampled_per_second")
ROUNDING = ("rollout_diff", "rollout_kl", "max_rollout_ratio")  # rows decoded beside others round differently
SMALL = {"iters": 3, "batch_size": 2, "group_size": 4, "max_completion_length": 6, "max_seq_length": 128,
         "steps_per_eval": 2, "save_every": 2, "samples": 1, "learning_rate": 1e-2,
         "critic_updates": 2, "lora_parameters": {"rank": 2}}  # fmt: skip


@pytest.fixture(scope="module")
def talker(tmp_path_factory):
    return talking_checkpoint(tmp_path_factory.mktemp("talker") / "model")


@pytest.fixture(scope="module")
def questions(tmp_path_factory):
    return write_questions(tmp_path_factory.mktemp("questions"))


@pytest.fixture(autouse=True)
def _no_plots(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)


class World:
    """Where runs of one model on one set of questions go."""

    def __init__(self, model, data):
        self.model, self.data = model, data

    def told(self, folder, **given):
        told = {**SMALL, "model": str(self.model), "data": str(self.data), "adapter_path": str(folder), **given}
        return resolve("rl", told, kind=RLConfig)

    def go(self, folder, watch=None, overwrite=False, **given):
        return fine_tune(self.told(folder, **given), RECIPES["rl"], watch, overwrite=overwrite)


@pytest.fixture(scope="module")
def world(talker, questions):
    return World(talker, questions)


@pytest.fixture(scope="module")
def plain(world, tmp_path_factory):
    """The run that others are held against."""
    folder = tmp_path_factory.mktemp("rl") / "adapters"
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "matplotlib", None)
        assert world.go(folder).finished
    return folder


def arrays(folder):
    return mx.load(str(folder / "adapters.safetensors"))


def same(one, two):
    a, b = arrays(one), arrays(two)
    return a.keys() == b.keys() and all(mx.array_equal(a[name], b[name]).item() for name in a)


def curve(folder, without=TIMES):
    return [{k: v for k, v in row.items() if k not in without} for row in metrics.read(folder)]


def steps(folder):
    return [row for row in metrics.read(folder) if "loss" in row]


def rollouts(folder, number, own=""):
    return read_rollouts(folder / "rollouts" / f"{number:07d}{own}.jsonl")


class StopAfter(Silent):
    def __init__(self, steps):
        self.left = steps

    def stop(self):
        self.left -= 1
        return self.left == 0


# ---- what it writes


def test_the_files_of_a_run(plain):
    names = {str(path.relative_to(plain)) for path in plain.rglob("*")}
    assert {"adapters.safetensors", "adapter_config.json", "train_config.json", "metrics.jsonl", "report.html",
            "samples.jsonl", "checkpoints/0000003", "0000003_adapters.safetensors", "rollouts/0000000.jsonl",
            "rollouts/0000002.jsonl", "rollouts/valid-0000000.jsonl", "rollouts/valid-0000003.jsonl"} <= names
    assert "rollouts/0000003.jsonl" not in names
    told = json.loads((plain / "train_config.json").read_text())
    assert told["group_size"] == 4 and set(told["depends_on"]) == {"train.jsonl", "valid.jsonl"}
    samples = [json.loads(line) for line in (plain / "samples.jsonl").read_text().splitlines()]
    assert [line["step"] for line in samples] == [0, 2, 3]
    assert samples[0]["prompt"] == "<audio> How many?" and samples[0]["expected"] == "1"


def test_every_step_is_one_row_and_validation_is_where_it_was_asked(plain):
    rows = curve(plain)
    assert [row["step"] for row in rows if "loss" in row] == [1, 2, 3]
    assert [row["step"] for row in rows if "val_reward" in row] == [0, 2, 3]
    assert {"reward", "accuracy", "reasoning", "unparsed", "length", "thinking_length", "truncated", "clipped",
            "entropy", "rollout_diff", "rollout_kl", "max_rollout_ratio", "update_kl", "norm"} <= rows[1].keys()


def test_the_adapter_works_where_it_is_used(plain, world):
    messages = [{"role": "user", "content": "What is 1 and 2 less 1?"}]
    trained, base = load(world.model, adapter_path=plain), load(world.model)
    assert mx.abs(trained.logits(messages) - base.logits(messages)).max().item() > 1e-2


# ---- numbers by hand


def test_rewards_are_equation_7_for_sounds_and_6_for_text(plain):
    solutions = dict(zip("123456", [1, 1, 2, 1, 2, 2], strict=True))
    seen = set()
    for number in range(3):
        for r in rollouts(plain, number):
            text = bytes_of(r)
            right = text.partition("</think>")[2].strip() == str(solutions[r.prompt[-1]])
            reasons = bool(re.search(r"[a-z0-9]", text.partition("</think>")[0])) and "</think>" in text
            text_alone = r.prompt[-1] in "25"
            expected = 0.0 if r.truncated else float(right) if text_alone else 0.8 * right + 0.2 * reasons
            if "<" not in text.replace("</think>", ""):  # else an unused token, which is no plain word
                assert r.reward == pytest.approx(expected), (r, text)
                seen.add((text_alone, r.reward))
    assert {(False, 0.0), (False, 0.2), (True, 0.0)} <= seen and len(seen) >= 4


def bytes_of(r):
    """Its text from its ids alone; the tiny tokenizer has bytes below 256."""
    names = {CLOSE: "</think>", STOP: ""}
    return "".join(names.get(i, chr(i) if 32 <= i < 127 else "<?>") for i in r.ids)


def test_the_numbers_of_a_step_are_those_of_its_rollouts(plain):
    """Eight rollouts: two questions with four replies each."""
    for number, row in enumerate(steps(plain)):
        found = rollouts(plain, number)
        assert len(found) == 8
        thinking = [r.ids.index(CLOSE) + 1 if CLOSE in r.ids else len(r) - (r.ids[-1] == STOP) for r in found]
        expected = {
            "reward": [r.reward for r in found], "length": [len(r.ids) for r in found],
            "accuracy": [r.scores["correct"] for r in found],
            "reasoning": [r.scores["reasoning"] for r in found],
            "truncated": [r.ids[-1] != STOP for r in found], "thinking_length": thinking,
        }  # fmt: skip
        for name, values in expected.items():
            assert row[name] == pytest.approx(np.mean(values)), name


def groups_of(found):
    by_prompt = {}
    for r in sorted(found, key=lambda r: (r.prompt, r.sample)):
        by_prompt.setdefault(r.prompt, []).append(r)
    return by_prompt


def leave_one_out(found):
    """(advantage of a reply by its key), float64."""
    result = {}
    for group in groups_of(found).values():
        rewards = np.array([r.reward for r in group])
        for i, r in enumerate(group):
            result[r.key] = rewards[i] - np.delete(rewards, i).mean()
    return result


def whitened(found):
    """The same with mean 0 and variance 1 over tokens."""
    plain = leave_one_out(found)
    per_token = np.concatenate([np.full(len(r), plain[r.key]) for r in found])
    scale = np.sqrt(per_token.var() + 1e-8)
    return {key: (value - per_token.mean()) / scale for key, value in plain.items()}


class Forward:
    """log p of a reply by the served model's plain forward, in float64: no code of training."""

    def __init__(self, world, folder=None, step=None, aside=None):
        if folder is not None:
            for name in ("adapter_config.json", f"{step:07d}_adapters.safetensors"):
                (aside / name.removeprefix(f"{step:07d}_")).write_bytes((folder / name).read_bytes())
        self.r1 = load(world.model, adapter_path=aside)
        self.rows = {row.name: row for row in read_rows(world.data / "train.jsonl")}

    def __call__(self, r):
        """(log p of each token, entropy of each prediction)"""
        messages = [turn.message for turn in self.rows[r.prompt].turns]
        heard = self.r1.listen(audio_parts(messages))
        ids = to_ids(render(messages), heard.patches, self.r1.tokenizer)
        assert len(ids) == r.prompt_tokens
        embeddings = self.r1._embed([*ids, *r.ids], heard)
        logits = self.r1.model(mx.array([[*ids, *r.ids]]), input_embeddings=embeddings[None])[0]
        x = np.array(logits[len(ids) - 1 : -1].astype(mx.float32), np.float64)
        x -= x.max(axis=1, keepdims=True)
        p = x - np.log(np.exp(x).sum(axis=1, keepdims=True))
        return p[np.arange(len(r)), list(r.ids)], -(np.exp(p) * p).sum(axis=1)


def test_log_probabilities_at_sampling_are_those_of_an_independent_forward(plain, world, tmp_path):
    """Of the fresh adapter, and of the one that step 3 sampled with."""
    for number, forward in ((0, Forward(world)), (2, Forward(world, plain, 2, tmp_path))):
        row, apart, entropies = steps(plain)[number], [], []
        for r in rollouts(plain, number):
            logp, entropy = forward(r)
            apart.append(np.abs(logp - np.array(r.logprobs)))
            entropies.append(entropy)
        assert np.concatenate(apart).max() < 2e-5
        assert row["rollout_diff"] < 1e-5 and row["rollout_kl"] < 1e-5 and row["max_rollout_ratio"] < 1.0001
        assert row["entropy"] == pytest.approx(np.concatenate(entropies).mean(), rel=1e-4)
        assert row["clipped"] == row["update_kl"] == 0
        assert row["loss"] == pytest.approx(0, abs=1e-5)  # minus the mean of whitened advantages


def test_the_loss_of_two_updates_is_recomputed_by_hand(world, tmp_path):
    """GRPO, equation 3 of arXiv 2402.03300: replies weigh the same, ratios are clipped, KL 0.1 to the start."""
    go = {"algo": "grpo", "kl": 0.1, "updates": 2, "iters": 2, "save_every": 1, "learning_rate": 3e-2}
    world.go(tmp_path / "run", **go)
    (tmp_path / "after").mkdir()
    before, after = Forward(world), Forward(world, tmp_path / "run", 1, tmp_path / "after")
    found = rollouts(tmp_path / "run", 0)
    for row, now in zip(steps(tmp_path / "run"), (before, after), strict=True):
        losses, update, reference, clipped = [], [], [], []
        for group in groups_of(found).values():
            rewards = np.array([r.reward for r in group])
            for r in group:
                advantage = (r.reward - rewards.mean()) / (rewards.std(ddof=1) + 1e-6)
                x = now(r)[0] - before(r)[0]
                ratio = np.exp(x)
                bounded = np.minimum(ratio * advantage, np.clip(ratio, 0.8, 1.2) * advantage)
                k3 = np.exp(-x) - 1 + x
                losses.append(np.mean(-bounded + 0.1 * k3))
                reference.append(k3.mean())
                update.append(np.mean(ratio - 1 - x))
                clipped.append(np.mean((bounded != ratio * advantage) & (advantage != 0)))
        assert row["loss"] == pytest.approx(np.mean(losses), abs=2e-5)
        assert row["reference_kl"] == pytest.approx(np.mean(reference), abs=2e-5)
        assert row["update_kl"] == pytest.approx(np.mean(update), abs=2e-5)
        assert row["clipped"] == pytest.approx(np.mean(clipped), abs=1e-6)
    assert np.mean(clipped) > 0 and np.mean(update) > 1e-4, "the second update is no test"


# ---- what a step learns from


def opened(world, folder, ranks=None, **given):
    """(course, model, batches of step 0) as a run has them."""
    config = world.told(folder, **given)
    r1 = load(config.model)
    course = RLCourse(r1, config, ranks or Ranks(), Silent())
    lora = LoRAParameters(rank=2, scale=2.0, dropout=0.0)
    attach(r1.model, AdapterConfig("lora", -1, lora, (), r1.name), config.seed)
    course.begin()
    r1.model.train()
    return course, r1.model, list(course.batches(0))


def learnt(batches, name="advantages"):
    """Values of `name` by (prompt, sample), token by token."""
    found = {}
    for batch in batches:
        owners, used = np.array(batch.owners), np.array(batch.weights) > 0
        values = np.array(batch.targets if name == "targets" else batch.extra[name])
        for i, label in enumerate(batch.names):
            prompt, sample = label.split(" sample ")
            found[prompt, int(sample)] = values[(owners == i) & used]
    return found


@pytest.mark.parametrize(("given", "by_hand"), [({"whiten": False}, leave_one_out), ({}, whitened)])
def test_advantages_are_leave_one_out_and_whitened_over_tokens(world, tmp_path, given, by_hand):
    _, _, batches = opened(world, tmp_path, **given)
    found, expected = learnt(batches), by_hand(rollouts(tmp_path, 0))
    assert found.keys() == expected.keys() and len(found) == 8
    for key, values in found.items():
        assert values == pytest.approx(np.full(len(values), expected[key]), abs=1e-6)
    assert max(map(abs, expected.values())) > 0.1


def test_every_token_of_a_reply_is_an_action_the_stop_token_too(world, tmp_path):
    _, _, batches = opened(world, tmp_path, whiten=False)
    targets, advantages = learnt(batches, "targets"), learnt(batches)
    found = rollouts(tmp_path, 0)
    for r in found:
        assert tuple(targets[r.key]) == r.ids and len(advantages[r.key]) == len(r)
    ended = [r for r in found if r.ids[-1] == STOP and advantages[r.key][-1]]
    assert ended and not any(r.truncated for r in ended)


def gradient(course, model, batches):
    def loss(m):
        sums = [course.loss(m, batch)[:2] for batch in batches]
        return sum(total for total, _ in sums) / sum(count for _, count in sums)

    value, gradients = nn.value_and_grad(model, loss)(model)
    flat = dict(tree_flatten(gradients))
    mx.eval(value, flat)
    return value.item(), flat, lambda: loss(model).item()


@pytest.mark.parametrize("given", [
    {"updates": 2}, {"updates": 2, "algo": "grpo"}, {"updates": 2, "algo": "dapo", "mask_truncated": False},
], ids=["ppo", "grpo", "dapo"])  # fmt: skip
def test_a_step_against_the_gradient_moves_the_loss_by_first_order(world, tmp_path, given):
    course, model, batches = opened(world, tmp_path, **given)
    before, flat, loss = gradient(course, model, batches)
    square = sum(float(mx.square(g).sum()) for g in flat.values())
    assert square > 1e-3
    now, rate = dict(tree_flatten(model.trainable_parameters())), 2e-3 / square
    model.update(tree_unflatten([(name, x - rate * flat[name]) for name, x in now.items()]))
    assert loss() - before == pytest.approx(-rate * square, rel=0.1)


def test_another_prompt_or_another_sound_gives_another_gradient_and_loss(world, tmp_path):
    course, model, batches = opened(world, tmp_path, updates=2, algo="grpo", kl=0.1)
    loss, flat, _ = gradient(course, model, batches)
    asked = [replace(b, ids=mx.where(b.ids == ord("m"), ord("n"), b.ids)) for b in batches]
    heard = [b if b.features is None else replace(b, features=-b.features) for b in batches]
    for other in (asked, heard):
        changed, gradients, _ = gradient(course, model, other)
        assert abs(changed - loss) > 1e-6
        assert max(mx.abs(gradients[name] - g).max().item() for name, g in flat.items()) > 1e-4


def test_a_subset_of_each_group_is_learnt_whose_rewards_vary_most(world, tmp_path):
    _, _, batches = opened(world, tmp_path, train_samples=2, whiten=False)
    found, all_of_them = learnt(batches), rollouts(tmp_path, 0)
    for prompt, group in groups_of(all_of_them).items():
        kept = [r for r in group if r.key in found]
        assert len(kept) == 2
        rewards = [r.reward for r in group]
        assert {r.reward for r in kept} == {min(rewards), max(rewards)}, prompt
        for r in kept:  # against all four
            assert found[r.key] == pytest.approx(leave_one_out(all_of_them)[r.key], abs=1e-6)


@pytest.mark.parametrize("given", [{"mask_truncated": True}, {"reward": {"truncated": "mask"}}])
def test_replies_that_were_cut_off_can_be_left_out(world, tmp_path, given):
    _, _, batches = opened(world, tmp_path, max_completion_length=3, **given)
    found = rollouts(tmp_path, 0)
    assert {r.key for r in found if not r.truncated} == learnt(batches).keys()
    assert 0 < sum(r.truncated for r in found) < 8


# ---- dynamic sampling

CONSTANT = "def good(completions, **columns):\n    return [1.0] * len(completions)\n"


@pytest.fixture
def agreeing(world, tmp_path):
    """Questions without a solution, and a function that likes every reply."""
    rows = [json.loads(line) for line in (world.data / "train.jsonl").read_text().splitlines()]
    for row in rows:
        del row["solution"]
        row["audios"] = [str(world.data / path) for path in row.get("audios", [])]
    write_jsonl(tmp_path / "train.jsonl", rows)
    (tmp_path / "good.py").write_text(CONSTANT)
    return World(world.model, tmp_path)


@pytest.mark.parametrize(("resample", "tried"), [(0, 2), (1, 4), (3, 6)])
def test_where_all_groups_agree_dapo_tries_more_prompts_and_learns_nothing(agreeing, tmp_path, resample, tried):
    folder = tmp_path / "run"
    given = {"algo": "dapo", "reward_functions_file": str(tmp_path / "good.py"), "resample": resample}
    assert agreeing.go(folder, iters=2, **given).finished
    assert len({r.prompt for r in rollouts(folder, 0)}) == tried
    assert [(row["norm"], row["loss"], row["reward"]) for row in steps(folder)] == [(0.0, 0.0, 1.0)] * 2
    assert all(not x.any().item() for name, x in arrays(folder).items() if name.endswith("lora_b"))


def test_enough_groups_that_disagree_need_no_more_prompts(world, tmp_path):
    given = {"algo": "dapo", "mask_truncated": False, "group_size": 8}
    _, _, batches = opened(world, tmp_path, **given)
    found = groups_of(rollouts(tmp_path, 0))
    varied = [prompt for prompt, group in found.items() if len({r.reward for r in group}) > 1]
    assert {prompt for prompt, _ in learnt(batches)} == set(varied)
    assert len(varied) >= 2 or len(found) == 6
    assert len(found) == 2 or len(varied) <= 3


# ---- the user's own rewards

TWO = """
@register_reward_function()
def ends(prompts, completions, answer, types=None):
    assert prompts[0] and types is not None
    return [1.0 if c.endswith("2") else 0.0 for c in completions]

@register_reward_function()
def long(completions, solution=None, **columns):
    return [None if solution and solution[0] == 1 else len(c) / 10 for c in completions]
"""


def test_reward_functions_of_both_signatures_judge_rows_with_and_without_a_solution(world, tmp_path):
    rows = [json.loads(line) for line in (world.data / "train.jsonl").read_text().splitlines()]
    for row, number in zip(rows, range(6), strict=True):
        row["audios"] = [str(world.data / path) for path in row.get("audios", [])]
        if number % 2:
            row["solution"] = None
    write_jsonl(tmp_path / "train.jsonl", rows)
    (tmp_path / "two.py").write_text(TWO)
    given = {"reward_functions_file": str(tmp_path / "two.py"), "reward_weights": '{"ends": 0.5}'}
    World(world.model, tmp_path).go(tmp_path / "run", batch_size=6, iters=1, **given)
    found = rollouts(tmp_path / "run", 0)
    assert len(found) == 24
    for r in found:
        verified = r.prompt[-1] in "135"
        assert ("correct" in r.scores) == verified
        own = sum(value for name, value in r.scores.items() if name.startswith("term_"))
        said = 0.5 * r.scores["function_ends"] + r.scores.get("function_long", 0.0)
        assert r.reward == pytest.approx(own + said)
        assert r.scores["function_ends"] == float(bytes_of(r).endswith("2"))
        assert ("function_long" in r.scores) == (not verified or rows[int(r.prompt[-1]) - 1]["solution"] != 1)
    right = [r.scores["correct"] for r in found if "correct" in r.scores]
    assert steps(tmp_path / "run")[0]["accuracy"] == pytest.approx(np.mean(right))


@pytest.mark.parametrize(("source", "says"), [
    ("def f(completions, **c):\n    return [None] * len(completions)\n", "no solution, and no reward function"),
    ("def f(completions, **c):\n    return ['x'] * len(completions)\n", "expected a number or None"),
    ("def f(completions, **c):\n    return [1 / 0]\n", "ZeroDivisionError"),
])  # fmt: skip
def test_what_a_reward_function_does_wrong_is_one_line(agreeing, tmp_path, source, says):
    (tmp_path / "good.py").write_text(source)
    with pytest.raises((DataError, TrainingError), match=says) as error:
        agreeing.go(tmp_path / "run", reward_functions_file=str(tmp_path / "good.py"))
    assert "\n" not in str(error.value)


def test_rows_without_a_solution_are_refused_where_no_function_judges(agreeing, tmp_path):
    with pytest.raises(DataError, match=r"train\.jsonl:1: no solution to check a reply against"):
        agreeing.go(tmp_path / "run")


# ---- the critic


def explained(world, folder, **given):
    given = {"value": "head", "iters": 1, "critic_learning_rate": 1e-2, "steps_per_eval": 9, **given}
    world.go(folder, **given)
    return steps(folder)[0]


def test_a_warmed_up_critic_explains_rewards_from_the_first_step(world, plain, tmp_path):
    cold = explained(world, tmp_path / "cold")
    old = plain / "rollouts/0000000.jsonl"
    warm = explained(world, tmp_path / "warm", critic_rollouts=str(old), critic_warmup=40,
                     critic_learning_rate=3e-2)
    assert cold["value_explained"] == 0 and warm["value_explained"] > 0.3
    assert warm["value_loss"] < 0.7 * cold["value_loss"]


def test_a_checkpoint_that_a_kill_left_half_made_does_not_spare_the_warm_up(world, plain, tmp_path):
    given = {"critic_rollouts": str(plain / "rollouts/0000000.jsonl"), "critic_warmup": 5}
    one = explained(world, tmp_path / "one", **given)
    (tmp_path / "two" / state.FOLDER / state.ASIDE).mkdir(parents=True)
    (tmp_path / "two" / "train_config.json").write_text((tmp_path / "one" / "train_config.json").read_text())
    two = explained(world, tmp_path / "two", **given)
    assert two["value_loss"] == one["value_loss"] and two["value_explained"] == one["value_explained"]


def test_rollouts_of_other_questions_warm_nothing_up(world, tmp_path):
    (tmp_path / "old.jsonl").write_text('{"rollouts": 1}\n')
    with pytest.raises(TrainingError, match="no judged rollout of a prompt of this data"):
        explained(world, tmp_path / "run", critic_rollouts=str(tmp_path / "old.jsonl"))


# ---- the same bits


def test_the_same_seed_gives_the_same_bits_and_another_one_others(world, plain, tmp_path):
    world.go(tmp_path / "again")
    world.go(tmp_path / "other", seed=1)
    assert same(plain, tmp_path / "again") and curve(plain) == curve(tmp_path / "again")
    assert not same(plain, tmp_path / "other")


WAYS = {
    "dropout": {"lora_parameters": {"rank": 2, "dropout": 0.2}},
    "lora": {"value": "lora", "updates": 3, "iters": 5, "kl": 0.1, "critic_learning_rate": 1e-2,
             "lora_parameters": {"rank": 2, "dropout": 0.2}},
    "head": {"value": "head", "critic_learning_rate": 1e-2, "algo": "dapo", "resample": 1},
}  # fmt: skip


@pytest.fixture(scope="module", params=WAYS)
def way(request, world, tmp_path_factory):
    """(settings, the undisturbed run)"""
    folder = tmp_path_factory.mktemp(request.param) / "one"
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "matplotlib", None)
        world.go(folder, **WAYS[request.param])
    return WAYS[request.param], folder


def test_a_run_that_was_stopped_ends_in_the_same_bits(world, way, tmp_path):
    """With three updates a batch, in the middle of the second batch."""
    given, one = way
    after = 4 if "updates" in given else 2
    outcome = world.go(tmp_path, watch=StopAfter(after), **given)
    assert (outcome.steps, outcome.finished) == (after, False)
    assert world.go(tmp_path, **given).finished
    assert same(one, tmp_path) and curve(one) == curve(tmp_path)


class Interrupted(Exception):
    pass


class BreakIn(Silent):
    """Leaves at the `at`-th rollout of the run that is sampled for learning."""

    def __init__(self, at):
        self.left = at

    def counting(self, what, done, total):
        self.left -= what in ("rollouts", "more rollouts")
        if self.left == 0:
            raise Interrupted


def test_a_run_that_broke_off_while_sampling_ends_in_the_same_bits(world, way, tmp_path):
    given, one = way
    with pytest.raises(Interrupted):
        world.go(tmp_path, watch=BreakIn(11), **given)
    written = rollouts(tmp_path, 1)
    assert 0 < len(written) < 8, "nothing was cut off"
    world.go(tmp_path, **given)
    assert same(one, tmp_path)
    assert curve(one, (*TIMES, *ROUNDING)) == curve(tmp_path, (*TIMES, *ROUNDING))
    for number in range(len({p.name for p in (one / "rollouts").glob("0*.jsonl")})):
        chosen = [{r.key: (r.ids, r.reward) for r in rollouts(folder, number)} for folder in (one, tmp_path)]
        assert chosen[0] == chosen[1]


def test_the_critic_and_its_optimizer_are_part_of_a_checkpoint(world, tmp_path):
    world.go(tmp_path, value="lora", iters=1, critic_learning_rate=1e-2)
    kept = mx.load(str(tmp_path / "checkpoints/0000001/beside.safetensors"))
    starts = {name.partition(".")[0] for name in kept}
    assert starts == {"head", "adapter", "optimizer"}
    assert int(kept["optimizer.step"]) == 2  # critic_updates
    policy = arrays(tmp_path)
    assert any(mx.abs(x - policy[name.removeprefix("adapter.")]).max().item() > 1e-3 for name, x in kept.items()
               if name.endswith("lora_b") and not name.startswith("optimizer"))  # fmt: skip


@pytest.mark.parametrize("name", ["beside.safetensors", "trainer_state.json"])
def test_a_damaged_checkpoint_is_passed_over_and_said(world, tmp_path, name):
    given = {"value": "head", "critic_learning_rate": 1e-2, "save_every": 1, "steps_per_eval": 9}
    world.go(tmp_path, **given)
    before, rows = arrays(tmp_path), curve(tmp_path)
    mx.eval(before)
    path = tmp_path / "checkpoints/0000003" / name
    path.write_bytes(path.read_bytes()[:-3] + b"???")
    warned = Warned()
    world.go(tmp_path, watch=warned, **given)
    assert len(warned.said) == 1 and "0000003" in warned.said[0]
    after = arrays(tmp_path)
    assert all(mx.array_equal(before[key], after[key]).item() for key in before) and curve(tmp_path) == rows


class Warned(Silent):
    def __init__(self):
        self.said = []

    def warn(self, text):
        self.said.append(text)


def test_more_steps_go_on_from_a_finished_run(world, plain, tmp_path):
    world.go(tmp_path, iters=2)
    world.go(tmp_path, iters=3)
    assert same(plain, tmp_path) and [row["step"] for row in steps(tmp_path)] == [1, 2, 3]


def test_overwrite_begins_anew_with_other_rollouts(world, tmp_path):
    world.go(tmp_path, iters=2)
    with pytest.raises(TrainingError, match="the run there has seed 0, not 1: give the same"):
        world.go(tmp_path, iters=1, seed=1)
    world.go(tmp_path, iters=1, seed=1, overwrite=True)
    assert sorted(path.name for path in (tmp_path / "rollouts").glob("0*")) == ["0000000.jsonl"]
    assert json.loads((tmp_path / "rollouts/0000000.jsonl").read_text().splitlines()[0])["seed"] == 1
    assert [row["step"] for row in steps(tmp_path)] == [1]


def test_kept_arrays_that_cannot_be_read_are_named(world, tmp_path):
    given = {"updates": 3, "iters": 3, "algo": "grpo"}
    world.go(tmp_path, watch=StopAfter(1), **given)
    (tmp_path / "rollouts/0000000.safetensors").write_bytes(b"torn")
    with pytest.raises(TrainingError, match=r"0000000\.safetensors: the first update of its batch left it"):
        world.go(tmp_path, **given)


# ---- killed

PROGRAM = "import sys; sys.modules['matplotlib'] = None; from mlx_audio_r1.cli.main import main; main()"


def command(world, folder, **given):
    told = {name: value for name, value in {**SMALL, **given}.items() if name != "lora_parameters"}
    told |= {"model": world.model, "data": world.data, "adapter_path": folder, "rank": 2}
    return ["train", "rl", *(f"--{name.replace('_', '-')}={value}" for name, value in told.items())]


def start(args):
    return subprocess.Popen([sys.executable, "-c", PROGRAM, *args], stdout=subprocess.DEVNULL,
                            stderr=subprocess.DEVNULL)  # fmt: skip


def finish(args):
    done = subprocess.run([sys.executable, "-c", PROGRAM, *args], capture_output=True, text=True, timeout=250,
                          check=False)  # fmt: skip
    assert done.returncode == 0, done.stderr


def kill(process):
    os.kill(process.pid, signal.SIGKILL)
    process.wait()


def test_killed_while_it_samples_it_ends_in_the_same_bits(world, plain, tmp_path):
    args = command(world, tmp_path)
    process, file = start(args), tmp_path / "rollouts/0000001.jsonl"
    while not (file.exists() and file.read_bytes().count(b"\n") > 1):
        assert process.poll() is None, "it ended by itself: nothing was killed"
        time.sleep(0.0005)
    kill(process)
    assert not (tmp_path / "rollouts/0000002.jsonl").exists()
    finish(args)
    assert same(plain, tmp_path)
    assert curve(plain, (*TIMES, *ROUNDING)) == curve(tmp_path, (*TIMES, *ROUNDING))


@pytest.mark.long
@pytest.mark.timeout(1_200)
@pytest.mark.parametrize("given", [
    {"updates": 3, "kl": 0.1}, {"value": "lora", "critic_learning_rate": 1e-2},
], ids=["updates", "lora"])  # fmt: skip
def test_killed_twenty_times_it_ends_in_the_same_bits(world, tmp_path, given):
    given = {"iters": 90, "save_every": 3, "steps_per_eval": 10, "learning_rate": 1e-3, **given}
    world.go(tmp_path / "one", **given)
    args, dice = command(world, tmp_path / "two", **given), random.Random(5)
    for _ in range(20):
        seen = newest(tmp_path / "two")
        process = start(args)
        while newest(tmp_path / "two") == seen:
            assert process.poll() is None, "it ended by itself: nothing was killed"
            time.sleep(0.002)
        time.sleep(dice.uniform(0.0, 0.5))
        kill(process)
    finish(args)
    assert same(tmp_path / "one", tmp_path / "two")
    leave = (*TIMES, *ROUNDING)
    assert curve(tmp_path / "one", leave) == curve(tmp_path / "two", leave)


def newest(folder):
    return max((path.name for path in (folder / "checkpoints").glob("*")), default="")


# ---- two processes


def launch(args):
    driver = Path(__file__).with_name("rl_driver.py")
    mlx_launch = Path(sys.executable).with_name("mlx.launch")
    done = subprocess.run(
        [str(mlx_launch), "-n", "2", "--backend", "ring", "--python", sys.executable, str(driver), *args],
        capture_output=True, text=True, timeout=120, check=False)  # fmt: skip
    assert done.returncode == 0 and "Traceback" not in done.stderr, done.stderr


@pytest.mark.parametrize("given", [
    pytest.param({"updates": 2, "kl": 0.1}, marks=pytest.mark.long), {"algo": "dapo", "resample": 0},
], ids=["ppo", "dapo"])  # fmt: skip
def test_two_processes_take_the_step_of_one(world, tmp_path, given):
    """SGD: a difference of parameters is one of gradients. In dapo a process may have nothing to learn."""
    given = {"optimizer": "sgd", "learning_rate": 0.5, "clip_norm": 0, "iters": 2, **given}
    world.go(tmp_path / "one", **given)
    launch(command(world, tmp_path / "two", **given))
    one, two = arrays(tmp_path / "one"), arrays(tmp_path / "two")
    assert max(mx.abs(one[name] - two[name]).max().item() for name in one) < 1e-5
    assert max(mx.abs(x).max().item() for name, x in one.items() if name.endswith("lora_b")) > 1e-2
    own = [rollouts(tmp_path / "two", 0, part) for part in ("", ".rank1")]
    assert {r.prompt for r in own[0]}.isdisjoint(r.prompt for r in own[1])
    assert {(r.key, r.ids) for r in own[0] + own[1]} == {(r.key, r.ids) for r in rollouts(tmp_path / "one", 0)}
    for a, b in zip(curve(tmp_path / "one"), curve(tmp_path / "two"), strict=True):
        assert a == pytest.approx(b, rel=1e-3, abs=2e-5)


class Two(Ranks):
    size = 2


@pytest.mark.parametrize(("given", "says"), [
    ({"value": "lora"}, "value lora learns on one process: take value group with mlx.launch"),
    ({"value": "head"}, "value head learns on one process"),
    ({"batch_size": 1}, "1 prompts a step for 2 processes: raise --batch-size"),
])  # fmt: skip
def test_what_two_processes_cannot_do_is_refused(world, tmp_path, given, says):
    with pytest.raises(TrainingError, match=says):
        RLCourse(load(world.model), world.told(tmp_path, **given), Two(), Silent())
