"""The policy loss is PPO's: what is clipped, what it weighs, and REINFORCE where nothing has moved."""

from dataclasses import replace

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from mlx.utils import tree_flatten, tree_unflatten

from mlx_audio_r1.errors import TrainingError
from mlx_audio_r1.train.batch import as_tree, of_tree
from mlx_audio_r1.train.logprobs import token_logprobs
from mlx_audio_r1.train.policy_losses import (
    ALGORITHMS,
    PolicyLoss,
    clipped_ratio,
    compared,
    k3,
    of_logprobs,
    policy_loss,
    value_loss,
)
from tests.train.tiny import batch_of, farthest, gradient, random_piece, tiny_model, with_lora

PIECES = [random_piece(seed, length, 4) for seed, length in ((1, 13), (2, 6), (3, 9), (4, 5))]  # 9 2 5 1 learnt
LEARNT, UNLEARNT = 17, 3
PLAIN = PolicyLoss(entropy=False)


def values(seed, scale=1.0):
    drawn = scale * np.random.default_rng(seed).standard_normal(LEARNT)
    return mx.array(np.concatenate([drawn, np.zeros(UNLEARNT)]), mx.float32)


def batch_with(rows=None, **extra):
    extra = {"advantages": values(5), "logp_rollout": mx.zeros(LEARNT + UNLEARNT), **extra}
    return batch_of(rows or [PIECES[:2], PIECES[2:]], padding=2, unlearnt=UNLEARNT, **extra)


@pytest.fixture(scope="module")
def model():
    return tiny_model()


@pytest.fixture(scope="module")
def logp(model):
    found, _ = token_logprobs(model, batch_with(), entropy=False)
    mx.eval(found)
    return found


# ---- nothing has moved


def test_at_ratio_1_the_gradient_is_that_of_reinforce_with_a_baseline_to_the_bit(model):
    batch = batch_with()

    def reinforce(m):
        logp, _ = token_logprobs(m, batch, entropy=False)
        return -(batch.extra["advantages"] * logp * batch.weights).sum()

    _, ours = gradient(model, lambda m: policy_loss(m, batch, PLAIN)[0])
    _, theirs = gradient(model, reinforce)
    assert ours.keys() == theirs.keys()
    assert all(mx.array_equal(ours[name], theirs[name]) for name in ours)


def test_no_advantage_no_gradient(model):
    batch = batch_with(advantages=mx.zeros(LEARNT + UNLEARNT))
    _, grads = gradient(model, lambda m: policy_loss(m, batch)[0])
    assert all(not g.any() for g in grads.values())


def test_a_prompt_that_changes_changes_the_loss_and_its_tokens_have_none(model, logp):
    other = replace(PIECES[0], ids=[*PIECES[0].ids[:1], 51, *PIECES[0].ids[2:]])
    old = {"logp_old": logp}
    before = policy_loss(model, batch_with(**old), PLAIN)[0].item()
    after = policy_loss(model, batch_with([[other, PIECES[1]], PIECES[2:]], **old), PLAIN)[0].item()
    assert abs(after - before) > 1e-3
    learnt = [*range(3, 12), 16, 17, *range(24, 29), 33]  # the tokens before those of the replies
    assert batch_with().positions.tolist()[:LEARNT] == learnt


# ---- the clip


RATIOS = [0.5, 0.7999, 0.8001, 1.0, 1.1999, 1.2001, 2.0, 40.0]
COUNTED = {
    1.0: [0.5, 0.7999, 0.8001, 1.0, 1.1999, 1.2, 1.2, 1.2],  # good: worth no more than 1.2
    -1.0: [0.8, 0.8, 0.8001, 1.0, 1.1999, 1.2001, 2.0, 40.0],  # bad: no less than 0.8
}


@pytest.mark.parametrize("sign", COUNTED)
def test_the_clip_limits_one_side_for_each_sign_of_the_advantage(sign):
    ratio, A = mx.array(RATIOS), mx.full((len(RATIOS),), 1.5 * sign)
    counted, grads = mx.value_and_grad(lambda r: clipped_ratio(r, A, PLAIN).sum())(ratio)
    assert clipped_ratio(ratio, A, PLAIN).tolist() == pytest.approx(COUNTED[sign], rel=1e-6)
    alive = [r == pytest.approx(c, rel=1e-6) for r, c in zip(RATIOS, COUNTED[sign], strict=True)]
    assert grads.tolist() == alive and counted.item() == pytest.approx(sum(COUNTED[sign]), rel=1e-6)


def test_the_clip_is_the_minimum_of_both_products():
    """Equation 7 of the PPO paper as it stands there."""
    draw = np.random.default_rng(0)
    r, A = np.exp(draw.normal(0, 0.5, 1000)), draw.normal(size=1000)
    asymmetric = PolicyLoss(clip_low=0.2, clip_high=0.28)
    ours = A * np.array(clipped_ratio(mx.array(r), mx.array(A), asymmetric))
    assert ours == pytest.approx(np.minimum(r * A, np.clip(r, 0.8, 1.28) * A), rel=1e-5)
    dual = A * np.array(clipped_ratio(mx.array(r), mx.array(A), PolicyLoss(dual_clip=2.0)))
    plain = np.minimum(r * A, np.clip(r, 0.8, 1.2) * A)
    assert dual == pytest.approx(np.where(A < 0, np.maximum(plain, 2.0 * A), plain), rel=1e-5)


def test_clipped_tokens_have_no_gradient_and_are_counted(logp):
    """Old log-probabilities put half of the tokens at a ratio of 1.5, the others at 0.5."""
    batch = batch_with()
    high = mx.arange(LEARNT + UNLEARNT) % 2 == 0
    batch.extra["logp_old"] = logp - mx.where(high, np.log(1.5), np.log(0.5))
    total, grads = mx.value_and_grad(lambda x: of_logprobs(x, None, batch, PLAIN)[0])(logp)
    A = batch.extra["advantages"]
    dead = mx.where(high, A > 0, A < 0)
    expected = mx.where(dead, 0.0, -A * mx.where(high, 1.5, 0.5)) * batch.weights
    assert mx.allclose(grads, expected, rtol=1e-5)
    sums = of_logprobs(logp, None, batch, PLAIN)[2]
    assert sums["clipped"].item() == (dead & (batch.weights > 0)).sum().item()
    limited = mx.where(dead, mx.where(high, 1.2, 0.8), mx.where(high, 1.5, 0.5))
    assert total.item() == pytest.approx(-(A * limited * batch.weights).sum().item(), rel=1e-5)


def test_a_log_ratio_out_of_all_bounds_stays_finite(logp):
    batch = batch_with(logp_old=logp - 200)
    total, grads = mx.value_and_grad(lambda x: of_logprobs(x, None, batch, PLAIN)[0])(logp)
    assert np.isfinite(total.item()) and mx.isfinite(grads).all() and not grads.any()


# ---- what a token weighs


def by_hand(logp, batch, settings):
    """The three aggregations as loops over replies, at ratio 1."""
    A, owners = np.array(batch.extra["advantages"]), np.array(batch.owners)
    replies = [-A[:LEARNT][owners[:LEARNT] == i] for i in range(4)]
    if settings.aggregation == "token":
        return sum(r.sum() for r in replies) / LEARNT
    if settings.aggregation == "sequence":
        return np.mean([r.mean() for r in replies])
    return np.mean([r.sum() / settings.longest for r in replies])


@pytest.mark.parametrize("aggregation", ["token", "sequence", "constant"])
def test_aggregations_by_hand_and_over_micro_batches(model, logp, aggregation):
    settings = replace(PLAIN, aggregation=aggregation, longest=9)
    batch = batch_with()
    total, count, sums = of_logprobs(logp, None, batch, settings)
    assert count.item() == (LEARNT if aggregation == "token" else 4)
    assert (total / count).item() == pytest.approx(by_hand(logp, batch, settings), rel=1e-5)
    A, mu = batch.extra["advantages"], batch.extra["logp_rollout"]
    parts = []
    for cut, pieces in ((slice(0, 11), PIECES[:2]), (slice(11, 17), PIECES[2:])):
        one = batch_of([[p] for p in pieces], advantages=A[cut], logp_rollout=mu[cut])
        parts.append(policy_loss(model, one, settings))
    assert sum(c.item() for _, c, _ in parts) == count.item()
    assert sum(t.item() for t, _, _ in parts) == pytest.approx(total.item(), rel=1e-5)
    together = {name: max if name.startswith("max_") else sum for name in sums}
    for name, value in sums.items():
        whole = together[name](s[name].item() for *_, s in parts)
        assert whole == pytest.approx(value.item(), rel=1e-4, abs=1e-6), name


def test_statistics_are_means_of_tokens(model, logp):
    shift = values(6, 0.1)
    batch = batch_with(logp_rollout=logp + shift)
    x = -np.array(shift, np.float64)[:LEARNT]
    _, count, sums = policy_loss(model, batch, PolicyLoss())
    largest = sums.pop("max_rollout_ratio").item()
    means = {name: (value / count).item() for name, value in sums.items()}
    entropy = token_logprobs(model, batch)[1][:LEARNT].mean().item()
    assert means == pytest.approx({
        "clipped": 0, "entropy": entropy, "rollout_diff": np.abs(x).mean(), "update_kl": 0,
        "rollout_kl": (np.exp(x) - 1 - x).mean(),
    }, rel=1e-3)  # fmt: skip
    told = compared(batch.extra["logp_rollout"], logp, batch.weights)
    assert told == pytest.approx({
        "rollout_diff": means["rollout_diff"], "rollout_kl": means["rollout_kl"],
        "rollout_ratio": np.exp(np.abs(x).max()),
    }, rel=1e-3)  # fmt: skip
    assert told["rollout_ratio"] == pytest.approx(largest, rel=1e-5)


def test_equal_log_probabilities_compare_as_equal():
    same = mx.array([-1.0, -2.0])
    assert compared(same, same) == {"rollout_diff": 0, "rollout_kl": 0, "rollout_ratio": 1}
    assert compared(same, same, mx.zeros(2))["rollout_ratio"] == 1


# ---- its terms


def test_truncated_importance_weights_scale_the_tokens_and_have_no_gradient(logp):
    mu = logp - mx.array([np.log(3.0), np.log(0.5)] * 10)
    batch = batch_with(logp_rollout=mu)
    _, grads = mx.value_and_grad(lambda x: of_logprobs(x, None, batch, replace(PLAIN, tis_cap=2.0))[0])(logp)
    expected = -batch.extra["advantages"] * mx.array([2.0, 0.5] * 10) * batch.weights
    assert mx.allclose(grads, expected, rtol=1e-5)
    even = of_logprobs(logp, None, batch_with(logp_rollout=logp), replace(PLAIN, tis_cap=2.0))[2]
    assert even["tis"].item() == LEARNT  # all of them 1


def test_k3_is_the_divergence_on_average_and_never_negative():
    p, q = np.array([0.5, 0.3, 0.2]), np.array([0.2, 0.2, 0.6])
    each = np.array(k3(mx.log(mx.array(p)), mx.log(mx.array(q))))
    assert (each >= 0).all() and (p * each).sum() == pytest.approx((p * np.log(p / q)).sum(), rel=1e-5)


def test_the_reference_pulls_back_without_any_advantage(model, logp):
    settings = replace(PLAIN, kl=0.5)
    none = mx.zeros(LEARNT + UNLEARNT)
    batch = batch_with(advantages=none, logp_reference=logp + values(7, 0.3))
    slope = mx.grad(lambda x: of_logprobs(x, None, batch, settings)[0])(logp)
    d = batch.extra["logp_reference"] - logp
    assert mx.allclose(slope, 0.5 * (1 - mx.exp(d)) * batch.weights, atol=1e-5)
    at_home = batch_with(advantages=none, logp_reference=logp)
    assert not mx.grad(lambda x: of_logprobs(x, None, at_home, settings)[0])(logp).any()


@pytest.mark.parametrize("name", ["advantages", "logp_rollout", "logp_reference"])
def test_what_is_missing_is_named(model, name):
    batch = batch_with()
    batch.extra.pop(name, None)
    with pytest.raises(TrainingError, match=f"example 1: the policy loss needs {name}"):
        policy_loss(model, batch, replace(PLAIN, kl=0.1))


# ---- gradients


@pytest.mark.parametrize("make", [tiny_model, lambda: with_lora(tiny_model())], ids=["full", "LoRA"])
@pytest.mark.parametrize("name", ALGORITHMS)
def test_a_step_against_the_gradient_falls_as_predicted(name, make):
    """To first order; a policy loss whose log-probabilities are data has a gradient of zero."""
    model = make()
    base, _ = token_logprobs(model, batch_with(), entropy=False)
    batch = batch_with(logp_old=base, logp_reference=base + values(8, 0.5))
    mx.eval(batch.extra)
    settings = replace(ALGORITHMS[name].loss, longest=13)

    def loss(m):
        total, count, _ = policy_loss(m, batch, settings)
        return total / count

    before, grads = gradient(model, loss)
    square = sum(mx.square(g).sum().item() for g in grads.values())
    step = 2e-4 / square**0.5
    moved = {k: p - step * grads[k] for k, p in tree_flatten(model.trainable_parameters())}
    model.update(tree_unflatten(list(moved.items())))
    # the second order takes up to 3 % of a fall of this size, float32 rounding up to 2 %
    assert before - loss(model).item() == pytest.approx(step * square, rel=0.1)


def test_compiled_and_packed_batches_give_the_same(model):
    settings = replace(ALGORITHMS["grpo"].loss, kl=0.0)
    packed, apart = batch_with(), batch_with([[p] for p in PIECES])
    _, expected = gradient(model, lambda m: policy_loss(m, packed, settings)[0])
    _, separate = gradient(model, lambda m: policy_loss(m, apart, settings)[0])
    assert farthest(separate, expected) < 1e-5
    step = nn.value_and_grad(model, of_tree(lambda m, b: policy_loss(m, b, settings)))
    (total, count, _), grads = mx.compile(lambda tree: step(model, tree), inputs=[model.state])(as_tree(packed))
    assert count.item() == 4 and np.isfinite(total.item())
    assert farthest(dict(tree_flatten(grads)), expected) < 1e-5


# ---- values


def test_the_value_loss_and_its_clip_by_hand():
    v, R = mx.array([0.0, 0.5, 0.9, 5.0]), mx.array([1.0, 1.0, 0.0, 0.0])
    old, weights = mx.array([0.5, 0.4, 0.3, 0.0]), mx.array([1.0, 1.0, 1.0, 0.0])
    assert value_loss(v, R, weights)[0].item() == pytest.approx(0.5 * (1 + 0.25 + 0.81))
    assert value_loss(v, R, weights)[1].item() == 3
    clipped, _ = value_loss(v, R, weights, old, clip=0.2)  # 0.3 and 0.5 are nearer to the goal than v is
    assert clipped.item() == pytest.approx(0.5 * (1 + 0.25 + 0.81))
    near, _ = value_loss(mx.array([0.9]), mx.array([1.0]), mx.ones(1), mx.array([0.5]), clip=0.2)
    assert near.item() == pytest.approx(0.5 * 0.09)  # counted as 0.7: it moved farther than it may
