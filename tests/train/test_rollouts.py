"""Rollouts are the policy's own choices, scored as training scores them, and survive being killed.

A small random model listens, with an adapter on it that is not zero; one token in twelve ends its replies.
"""

from dataclasses import replace

import mlx.core as mx
import numpy as np
import pytest
from mlx.utils import tree_map

from mlx_audio_r1 import load
from mlx_audio_r1.adapter_config import AdapterConfig, LoRAParameters
from mlx_audio_r1.adapters import attach, disabled
from mlx_audio_r1.errors import TrainingError
from mlx_audio_r1.generate import LOOP_TOKENS, ReplyWriter, Settings
from mlx_audio_r1.models.adapter_layers import adapted
from mlx_audio_r1.tokenizer import Tokenizer
from mlx_audio_r1.train.examples import ExampleMaker
from mlx_audio_r1.train.experience import Experience
from mlx_audio_r1.train.features import FeatureStore
from mlx_audio_r1.train.logprobs import token_logprobs
from mlx_audio_r1.train.policy_losses import compared
from mlx_audio_r1.train.rollout_batch import (
    by_reply,
    completed,
    micro_batches,
    rollout_batch,
    with_logprobs,
)
from mlx_audio_r1.train.rollouts import (
    Rollout,
    RolloutConfig,
    RolloutFile,
    as_policy,
    prompt_embeddings,
    sample_rollouts,
)
from mlx_audio_r1.train.rows import read_rows
from mlx_audio_r1.train.sounds import Sounds
from tests.helpers import random_checkpoint
from tests.train.data_sets import tone, write_rows, write_wav

CONFIG = RolloutConfig(samples=4, max_tokens=14, seed=7, max_rows=6)
STOPS = range(100, 140)


class World:
    """A policy, the prompts it is asked, and where their sounds come from."""

    def __init__(self, folder):
        write_wav(folder / "a.wav", tone(0.7))
        write_wav(folder / "b.wav", tone(1.2, 880))
        rows = [[{"role": "user", "content": text}] for text in ("<audio>What is it?", "Why?", "<audio>Loud?")]
        sounds = [["a.wav"], [], ["b.wav"]]
        data = [{"messages": m, **({"audios": s} if s else {})} for m, s in zip(rows, sounds, strict=True)]
        path = write_rows(folder / "train.jsonl", data)
        checkpoint = random_checkpoint(folder / "model", seed=2)
        r1 = load(checkpoint)
        self.model, self.tokenizer = r1.model, Tokenizer.from_folder(checkpoint, STOPS)
        lora = LoRAParameters(rank=2, scale=2.0, dropout=0.1)
        attach(self.model, AdapterConfig("lora", -1, lora, (), r1.name))
        mx.random.seed(1)
        drawn = tree_map(lambda p: p + 0.1 * mx.random.normal(p.shape), self.model.trainable_parameters())
        self.model.update(drawn)
        self.model.train()
        heard = Sounds(convention=r1.config.length_convention)
        self.features = FeatureStore(self.model, folder / "features", heard)
        maker = ExampleMaker(self.tokenizer, r1.config, heard)
        self.prompts = [maker.prompt(row) for row in read_rows(path)]

    def sample(self, path, config=CONFIG, step=0, prompts=None, judge=None):
        """(the file afterwards, what was sampled now)"""
        prompts = self.prompts if prompts is None else prompts
        file = RolloutFile(path, config, step)
        new = list(sample_rollouts(self.model, self.tokenizer, prompts, self.features, config, file, judge))
        return file, new


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return World(tmp_path_factory.mktemp("world"))


@pytest.fixture(scope="module")
def first(world, tmp_path_factory):
    """(file, rollouts in order) of one phase that nothing disturbed."""
    file, _ = world.sample(tmp_path_factory.mktemp("first") / "rollouts.jsonl")
    return file, file.of(world.prompts, 4)


def ids(rollouts):
    return [r.ids for r in rollouts]


def experiences(world, rollouts):
    by_name = {prompt.name: prompt for prompt in world.prompts}
    return [Experience(by_name[r.prompt], r, {"advantages": np.full(len(r), i + 1.0)})
            for i, r in enumerate(rollouts)]  # fmt: skip


# ---- what a rollout is


def test_every_choice_is_kept_the_stop_token_too_and_what_did_not_end_is_marked(world, first):
    _, rollouts = first
    assert [r.key for r in rollouts] == [(p.name, i) for p in world.prompts for i in range(4)]
    stops = world.tokenizer.stop_ids
    ended = [r for r in rollouts if not r.truncated]
    assert 0 < len(ended) < len(rollouts)  # of both kinds there are some
    assert all(r.ids[-1] in stops and not stops & {*r.ids[:-1]} for r in ended)
    cut = [r for r in rollouts if r.truncated]
    assert all(len(r) == 14 and r.finish_reason == "length" and not stops & {*r.ids} for r in cut)
    assert all(len(r.logprobs) == len(r) and r.prompt_tokens > 5 for r in rollouts)
    assert len({*ids(rollouts)}) == len(rollouts)


def test_log_probabilities_are_those_of_the_training_forward(world, first):
    """With sounds in the prompt and an adapter that is not zero; 2e-6 measured."""
    _, rollouts = first
    found = with_logprobs(world.model, experiences(world, rollouts), world.features, 200)
    for r, experience in zip(rollouts, found, strict=True):
        assert np.abs(experience.tokens["logp_old"] - np.array(r.logprobs)).max() < 1e-5
    flat = [np.concatenate(x) for x in ([r.logprobs for r in rollouts], [e.tokens["logp_old"] for e in found])]
    assert compared(*flat)["rollout_ratio"] == pytest.approx(1, abs=1e-5)


def test_without_the_adapter_or_with_another_sound_they_are_others(world, first):
    _, rollouts = first
    mine = experiences(world, rollouts[:4])
    with disabled(world.model):
        base = with_logprobs(world.model, mine, world.features, 500, "logp_reference")
    assert all(np.abs(e.tokens["logp_reference"] - np.array(e.rollout.logprobs)).max() > 0.01 for e in base)
    other = replace(world.prompts[0], sounds=tuple(replace(c, patches=world.prompts[0].sounds[0].patches)
                                                   for c in world.prompts[2].sounds))
    moved = [replace(e, prompt=other) for e in mine]
    found = with_logprobs(world.model, moved, world.features, 500)
    assert all(np.abs(e.tokens["logp_old"] - np.array(e.rollout.logprobs)).max() > 0.01 for e in found)


def test_the_policy_does_not_drop_out_and_trains_on_as_it_was(world, first):
    layer = next(layer for _, layer in adapted(world.model))
    with as_policy(world.model):
        assert not world.model.training and not layer.training
    assert world.model.training and layer.training and layer._settled is None


def test_a_prompt_is_embedded_as_it_is_served(world):
    prompt = world.prompts[0]
    r1_rows = [world.model.audio_adaptor(world.features(c)[None])[0][: c.patches] for c in prompt.sounds]
    served = world.model.embed(mx.array(prompt.ids), r1_rows, world.tokenizer.audio_patch_id)
    assert mx.allclose(prompt_embeddings(world.model, prompt, world.features), served, atol=1e-5)


def test_a_loop_in_the_reasoning_ends_the_reply_and_no_token_is_forced(world):
    writer = ReplyWriter(world.tokenizer, 1, Settings(), thinking_open=True, stop_loops=True)
    written = 0
    while writer.finish_reason is None:
        list(writer.push(5))
        written += 1
    assert writer.finish_reason == "loop" and written == LOOP_TOKENS
    logits = mx.zeros((1, 512))
    assert writer.gate(mx.array([5] * 99), logits) is logits


# ---- seeds


def test_the_same_seed_gives_the_same_rollouts_whatever_runs_beside_them(world, first, tmp_path):
    _, rollouts = first
    backwards = list(reversed(world.prompts))
    file, new = world.sample(tmp_path / "a.jsonl", replace(CONFIG, max_rows=2), prompts=backwards)
    assert ids(file.of(world.prompts, 4)) == ids(rollouts)
    assert [r.key for r in new] != [r.key for r in rollouts]  # they were finished in another order
    fewer, _ = world.sample(tmp_path / "b.jsonl", replace(CONFIG, samples=2), prompts=world.prompts[:1])
    assert ids(fewer.of(world.prompts[:1], 2)) == ids(rollouts[:2])


@pytest.mark.parametrize(("config", "step"), [(replace(CONFIG, seed=8), 0), (CONFIG, 1)], ids=["seed", "step"])
def test_another_seed_or_step_gives_others(world, first, tmp_path, config, step):
    file, _ = world.sample(tmp_path / "a.jsonl", config, step, world.prompts[1:2])
    assert not {*ids(file.of(world.prompts[1:2], 4))} & {*ids(first[1])}


# ---- killed


@pytest.mark.parametrize("share", [0.0, 0.01, 0.3, 0.77, 0.999])
def test_a_phase_cut_anywhere_goes_on_to_the_same_set(world, first, tmp_path, share):
    """Also within a line, or within the head; what is whole is not sampled again."""
    done, rollouts = first
    content = done.path.read_bytes()
    left = content[: int(share * len(content))]
    path = tmp_path / "rollouts.jsonl"
    path.write_bytes(left)
    file, new = world.sample(path)
    whole = max(left.count(b"\n") - 1, 0)
    assert len(new) == len(rollouts) - whole
    assert ids(file.of(world.prompts, 4)) == ids(rollouts)
    assert path.read_bytes().startswith(left[: left.rfind(b"\n") + 1])
    assert RolloutFile(path, CONFIG).found == file.found  # and reads back what it wrote


def test_a_loop_left_in_the_middle_keeps_what_was_finished(world, first, tmp_path):
    file = RolloutFile(tmp_path / "rollouts.jsonl", CONFIG)
    left = sample_rollouts(world.model, world.tokenizer, world.prompts, world.features, CONFIG, file)
    for _ in range(5):
        next(left)
    left.close()
    assert world.model.training and len(file.found) == 5
    again, new = world.sample(file.path)
    assert len(new) == 7 and ids(again.of(world.prompts, 4)) == ids(first[1])
    assert world.sample(file.path)[1] == []


def test_rollouts_of_another_phase_are_refused(world, tmp_path):
    path = tmp_path / "rollouts.jsonl"
    RolloutFile(path, CONFIG, step=3, policy="abc")
    with pytest.raises(TrainingError, match=r"another step \(3, now 4\)"):
        RolloutFile(path, CONFIG, step=4, policy="abc")
    with pytest.raises(TrainingError, match="another policy"):
        RolloutFile(path, CONFIG, step=3, policy="def")
    for other in ('{"messages": []}\n', "A letter.\n", "A letter"):
        path.write_text(other)
        with pytest.raises(TrainingError, match="no file of rollouts"):
            RolloutFile(path, CONFIG)
        assert path.read_text() == other


def test_what_is_missing_is_named_and_no_prompt_stands_twice(world, first, tmp_path):
    file = RolloutFile(tmp_path / "rollouts.jsonl", CONFIG)
    with pytest.raises(TrainingError, match=r"sample 0 of train\.jsonl:1 is missing"):
        file.of(world.prompts, 4)
    for i in range(4):
        file.append(replace(first[1][0], sample=i, prompt_tokens=3))
    with pytest.raises(TrainingError, match="another prompt"):
        file.of(world.prompts[:1], 4)
    twice = sample_rollouts(world.model, world.tokenizer, world.prompts * 2, None, CONFIG, file)
    with pytest.raises(TrainingError, match="stands twice"):
        next(twice)


def test_rewards_are_written_with_the_rollout(world, tmp_path):
    def judge(prompt, rollout):
        return replace(rollout, reward=len(rollout) / 10, scores={"length": float(len(rollout))})

    few = replace(CONFIG, samples=2)
    _, new = world.sample(tmp_path / "rollouts.jsonl", few, prompts=world.prompts[1:2], judge=judge)
    read = RolloutFile(tmp_path / "rollouts.jsonl", few).of(world.prompts[1:2], 2)
    assert {r.key: r for r in new} == {r.key: r for r in read}
    assert all(r.reward == len(r) / 10 and r.scores == {"length": len(r)} for r in read)


@pytest.mark.parametrize("fault", [{"ids": []}, {"logprobs": [0.0]}, {"ids": "ab"}])
def test_a_rollout_that_was_never_written_like_this_is_not_read(first, fault):
    values = first[1][0].as_dict()
    assert Rollout.from_dict(values) == first[1][0]
    with pytest.raises((ValueError, TypeError)):
        Rollout.from_dict({**values, **fault})


# ---- as a batch


def test_a_batch_learns_the_replies_id_by_id_and_nothing_of_the_prompts(world, first):
    rollouts = first[1][2:7]
    mine = experiences(world, rollouts)
    batch = rollout_batch(mine, world.features)
    flat = np.array(batch.ids).reshape(-1)
    learnt = np.array(batch.weights) > 0
    targets, positions = np.array(batch.targets)[learnt], np.array(batch.positions)[learnt]
    assert targets.tolist() == [token for r in rollouts for token in r.ids]
    assert (flat[positions + 1] == targets).all()
    assert all(positions[0] % batch.ids.shape[1] == len(e.prompt) - 1
               for e, positions in zip(mine, np.split(positions, np.cumsum([len(r) for r in rollouts])[:-1]),
                                       strict=True))  # fmt: skip
    owners = np.array(batch.owners)[learnt]
    assert np.array(batch.extra["advantages"])[learnt].tolist() == (owners + 1.0).tolist()
    assert not np.array(batch.extra["advantages"])[~learnt].any()
    assert [tuple(np.float32(x)) for x in by_reply(batch.extra["logp_rollout"], mine)] == [
        tuple(np.float32(r.logprobs)) for r in rollouts]
    assert batch.names[0] == "train.jsonl:1 sample 2" and batch.examples == 5
    assert completed(mine[0]).learnt == len(rollouts[0])


def test_another_prompt_gives_other_log_probabilities(world, first):
    """Completions are scored behind their prompts."""
    (mine,) = experiences(world, first[1][4:5])
    prompt = world.prompts[1]
    other = replace(prompt, ids=np.where(prompt.ids == prompt.ids[3], 9, prompt.ids))
    world.model.eval()
    pair = [token_logprobs(world.model, rollout_batch([e]))[0] for e in (mine, replace(mine, prompt=other))]
    world.model.train()
    assert mx.abs(pair[0] - pair[1]).max().item() > 0.01


def test_micro_batches_hold_neighbours_in_length_within_the_budget_and_ranks_share_them():
    lengths = [10, 300, 40, 33, 64, 5, 31]
    batches = micro_batches(lengths, 130)
    assert batches == [[5, 0, 6], [3, 2], [4], [1]]  # 300 tokens are more than fit, and go alone
    shares = [micro_batches(lengths, 130, rank=rank, world=2) for rank in range(2)]
    assert shares == [[[5, 0, 6], [4]], [[3, 2], [1]]]


def test_log_probabilities_that_are_no_numbers_end_the_phase(tmp_path):
    """They would be written, and the update would spread them over every weight."""
    broken = World(tmp_path)
    weight = broken.model.language_model.model.norm.weight
    broken.model.language_model.model.norm.weight = mx.full(weight.shape, float("nan"))
    with pytest.raises(TrainingError, match=r"train\.jsonl:\d: log-probabilities that are no numbers"):
        broken.sample(tmp_path / "rollouts.jsonl")
    assert '"ids"' not in (tmp_path / "rollouts.jsonl").read_text()
