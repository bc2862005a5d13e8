"""A value function learns what is coming, and the policy whose base it shares does not change by a bit."""

import mlx.core as mx
import mlx.optimizers as optim
import numpy as np
import pytest
from mlx.utils import tree_flatten, tree_map

from mlx_audio_r1.adapter_config import AdapterConfig, LoRAParameters
from mlx_audio_r1.adapters import adapter_arrays, attach
from mlx_audio_r1.errors import CheckpointError, TrainingError
from mlx_audio_r1.train.advantages import explained_variance
from mlx_audio_r1.train.examples import Example
from mlx_audio_r1.train.experience import Experience
from mlx_audio_r1.train.rollout_batch import with_logprobs
from mlx_audio_r1.train.rollouts import Rollout
from mlx_audio_r1.train.values import Critic, ValueHead
from mlx_audio_r1.train.wearing import wearing
from tests.train.tiny import tiny_model

BUDGET = 120  # tokens: the experiences make several micro-batches


def policy(dropout=0.0):
    """With an adapter that is not zero."""
    model = tiny_model(layers=2)
    attach(model, AdapterConfig("lora", -1, LoRAParameters(rank=4, scale=2.0, dropout=dropout)))
    mx.random.seed(3)
    model.update(tree_map(lambda p: p + 0.05 * mx.random.normal(p.shape), model.trainable_parameters()))
    mx.eval(model.parameters())
    return model


def experience(i):
    """Replies to an odd prompt are worth 1, to an even one 0."""
    draw = np.random.default_rng(i)
    prompt = np.array([7 if i % 2 else 8, 3, *draw.integers(10, 97, 2)], np.int32)
    ids = tuple(draw.integers(10, 97, int(draw.integers(1, 9))).tolist())
    reply = Rollout(0, f"p{i}", 0, 4, ids, (-1.0,) * len(ids), "stop", "", "", float(i % 2))
    returns = np.full(len(ids), float(i % 2))
    return Experience(Example(prompt, np.zeros(4, np.float32), f"p{i}"), reply,
                      {"advantages": returns, "returns": returns})  # fmt: skip


EXPERIENCES = [experience(i) for i in range(12)]


def explained(critic):
    values = critic.of(EXPERIENCES, None, BUDGET)
    assert [len(v) for v in values] == [len(e.rollout) for e in EXPERIENCES]
    returns = [e.tokens["returns"] for e in EXPERIENCES]
    return explained_variance(np.concatenate(values), np.concatenate(returns))


def same(a, b):
    return a.keys() == b.keys() and all(mx.array_equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize("lora", [False, True], ids=["head", "lora"])
def test_a_critic_learns_what_is_coming_and_leaves_the_policy_as_it_was(lora):
    model = policy(dropout=0.1)
    model.train()
    before = dict(tree_flatten(model.parameters()))
    critic = Critic(model, lora=lora)
    optimizer = optim.AdamW(3e-3)
    assert explained(critic) == 0  # a fresh one says 0 everywhere
    told = [critic.learn(EXPERIENCES, None, optimizer, BUDGET) for _ in range(15)]
    assert told[0]["value_loss"] == pytest.approx(0.5 * np.mean(np.concatenate(
        [e.tokens["returns"] for e in EXPERIENCES])))  # fmt: skip
    assert told[-1]["value_loss"] < 0.5 * told[0]["value_loss"]
    assert explained(critic) > 0.5  # 0.92 measured for both
    assert same(dict(tree_flatten(model.parameters())), before) and model.training
    assert critic.lora is lora


def test_only_the_critics_own_adapter_moves_its_values():
    """The head's values follow the policy's hidden states; those of lora do not."""
    model = policy()
    critics = {lora: Critic(model, lora=lora) for lora in (False, True)}
    for critic in critics.values():
        critic.learn(EXPERIENCES, None, optim.SGD(0.3), BUDGET)
    before = {lora: np.concatenate(critic.of(EXPERIENCES, None, BUDGET)) for lora, critic in critics.items()}
    model.update(tree_map(lambda p: p + 0.1, model.trainable_parameters()))
    after = {lora: np.concatenate(critic.of(EXPERIENCES, None, BUDGET)) for lora, critic in critics.items()}
    assert np.abs(before[False] - after[False]).max() > 1e-3
    assert (before[True] == after[True]).all()


def test_the_adapters_change_places_within_a_block_also_when_it_fails():
    model = policy()
    critic = Critic(model, lora=True)
    for _ in range(2):  # at the first the head is zero and gives the adapter no gradient
        critic.learn(EXPERIENCES, None, optim.SGD(0.3), BUDGET)
    mine = adapter_arrays(model)
    assert len(with_logprobs(model, EXPERIENCES, None, BUDGET)) == 12
    with pytest.raises(ZeroDivisionError), critic.worn():
        worn = adapter_arrays(model)
        raise ZeroDivisionError
    assert not same(worn, mine) and same(adapter_arrays(model), mine)


def test_a_reference_may_be_the_policy_as_it_was():
    model = policy()
    began = adapter_arrays(model)
    before = with_logprobs(model, EXPERIENCES, None, BUDGET)
    model.update(tree_map(lambda p: p + 0.1, model.trainable_parameters()))
    now = adapter_arrays(model)
    with wearing(model, began):
        then = with_logprobs(model, before, None, BUDGET, "logp_reference")
    assert all((e.tokens["logp_reference"] == e.tokens["logp_old"]).all() for e in then)
    assert same(adapter_arrays(model), now) and not same(now, began)
    began.popitem()
    with pytest.raises(CheckpointError, match="another adapter: tensor"), wearing(model, began):
        pass
    assert same(adapter_arrays(model), now)


def test_a_step_is_one_of_all_micro_batches_together():
    """Equal to float32 rounding, however they are cut."""
    pair = []
    for budget in (40, 10_000):
        critic = Critic(policy(), lora=True, seed=4)
        told = [critic.learn(EXPERIENCES, None, optim.SGD(0.3), budget) for _ in range(3)]
        pair.append((critic.arrays(), [t["value_loss"] for t in told]))
    (a, losses), (b, others) = pair
    assert losses == pytest.approx(others, rel=1e-5)
    assert max(mx.abs(a[name] - b[name]).max().item() for name in a) < 1e-5


def test_a_restored_critic_goes_on_to_the_bit():
    model = policy()
    critic, optimizer = Critic(model, lora=True), optim.AdamW(1e-2)
    critic.learn(EXPERIENCES, None, optimizer, BUDGET)
    kept, state = critic.arrays(), tree_map(lambda x: x, optimizer.state)
    told = critic.learn(EXPERIENCES, None, optimizer, BUDGET), critic.arrays()
    again, optimizer = Critic(policy(), lora=True, seed=9), optim.AdamW(1e-2)
    again.restore(kept)
    with again.worn():
        optimizer.init(again.trained())
    optimizer.state = state
    assert again.learn(EXPERIENCES, None, optimizer, BUDGET) == told[0]
    assert same(again.arrays(), told[1])


def test_arrays_of_another_critic_are_refused_and_lora_needs_an_adapter():
    with pytest.raises(TrainingError, match="another critic"):
        Critic(policy()).restore(Critic(policy(), lora=True).arrays())
    with pytest.raises(CheckpointError, match="no adapter"):
        Critic(tiny_model(layers=1), lora=True)


def test_a_head_is_the_same_for_the_same_seed():
    a, b, c = (ValueHead(8, 4, seed) for seed in (1, 1, 2))
    assert mx.array_equal(a.inner.weight, b.inner.weight) and not mx.array_equal(a.inner.weight, c.inner.weight)
