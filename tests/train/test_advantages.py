"""Advantages against loops written out, and the identities that the paper's settings give."""

import itertools

import numpy as np
import pytest

from mlx_audio_r1.errors import TrainingError
from mlx_audio_r1.train.advantages import (
    at_the_end,
    explained_variance,
    gae,
    group_advantages,
    informative,
    most_varied,
    whiten,
)


def looped(rewards, values, gamma, lam, after):
    """The sum of the definition: A_t = sum over l of (gamma lam)^l delta_(t+l)."""
    ahead = [*values[1:], after]
    deltas = [r + gamma * n - v for r, n, v in zip(rewards, ahead, values, strict=True)]
    n = len(deltas)
    return [sum((gamma * lam) ** (u - t) * deltas[u] for u in range(t, n)) for t in range(n)]


@pytest.mark.parametrize(("gamma", "lam"), [(1, 1), (0.99, 0.95), (0.9, 0), (0, 0.5), (1, 0.5)])
@pytest.mark.parametrize("after", [0.0, 0.7])
@pytest.mark.parametrize("length", [1, 2, 9])
def test_gae_is_the_discounted_sum_of_what_surprised(gamma, lam, after, length):
    draw = np.random.default_rng(length)
    rewards, values = draw.normal(size=(2, length))
    advantages, returns = gae(rewards, values, gamma=gamma, lam=lam, after=after)
    assert advantages == pytest.approx(looped(rewards, values, gamma, lam, after), abs=1e-12)
    assert returns == pytest.approx(advantages + values, abs=1e-12)


def test_with_the_papers_settings_the_advantage_is_reward_less_value():
    values = np.random.default_rng(0).normal(size=20)
    advantages, returns = gae(at_the_end(0.8, 20), values)
    assert advantages == pytest.approx(0.8 - values, abs=1e-12)
    assert returns == pytest.approx(np.full(20, 0.8), abs=1e-12)


def test_tokens_that_were_no_choice_are_passed_over():
    """The others get what they would get if those were not there."""
    draw = np.random.default_rng(1)
    rewards, values = draw.normal(size=(2, 7))
    mask = np.array([1, 0, 0, 1, 1, 0, 1], bool)
    rewards[~mask] = 0.0
    advantages, returns = gae(rewards, values, mask, gamma=0.9, lam=0.8)
    alone = gae(rewards[mask], values[mask], gamma=0.9, lam=0.8)
    assert (advantages[mask] == alone[0]).all() and (returns[mask] == alone[1]).all()
    assert not advantages[~mask].any() and not returns[~mask].any()


def test_a_reward_on_a_masked_last_token_reaches_the_choice_before_it():
    advantages, _ = gae(np.array([0.0, 0.0, 1.0]), np.zeros(3), np.array([True, True, False]))
    assert advantages.tolist() == [1, 1, 0]


def test_a_truncated_reply_may_be_worth_what_was_still_to_come_and_an_ended_one_is_not():
    values = np.array([0.2, 0.4])
    ended, _ = gae(np.zeros(2), values)
    truncated, returns = gae(np.zeros(2), values, after=0.5)
    assert ended == pytest.approx([-0.2, -0.4]) and truncated == pytest.approx([0.3, 0.1])
    assert returns == pytest.approx([0.5, 0.5])


REWARDS = [1.0, 0.2, 0.0, 0.8, 0.2, 0.2]
PROMPTS = ["a", "b", "a", "a", "b", "b"]


def test_each_baseline_by_hand():
    by_hand = {
        "leave_one_out": [1 - 0.4, 0, 0 - 0.9, 0.8 - 0.5, 0, 0],
        "mean": [0.4, 0, -0.6, 0.2, 0, 0],
        "mean_std": [0.4 / 0.529150, 0, -0.6 / 0.529150, 0.2 / 0.529150, 0, 0],
        "none": REWARDS,
    }
    for baseline, expected in by_hand.items():
        assert group_advantages(REWARDS, PROMPTS, baseline) == pytest.approx(expected, abs=1e-5), baseline


def test_a_group_that_agrees_has_no_advantage_to_the_bit():
    """0.2 seven times has a mean that is not 0.2 in floating point."""
    for baseline in ("leave_one_out", "mean", "mean_std"):
        assert not group_advantages([0.2] * 7, ["a"] * 7, baseline).any()


def test_one_sample_has_no_group_and_a_reward_must_be_a_number():
    with pytest.raises(TrainingError, match=r"x\.jsonl:3: one sample"):
        group_advantages([1.0], ["x.jsonl:3"], "leave_one_out")
    with pytest.raises(TrainingError, match="a reward of b"):
        group_advantages([1.0, float("nan")], ["a", "b"], "none")
    with pytest.raises(TrainingError, match="choose from leave_one_out"):
        group_advantages([1.0], ["a"], "median")


def test_whitened_tokens_have_mean_0_and_variance_1_over_the_step_however_it_is_shared():
    draw = np.random.default_rng(2)
    replies = [draw.normal(3, 2, size=n) for n in (3, 40, 11)]
    masks = [draw.random(len(a)) < 0.7 for a in replies]
    white = whiten(replies, masks)
    flat = np.concatenate([a[m] for a, m in zip(white, masks, strict=True)])
    assert flat.mean() == pytest.approx(0, abs=1e-12) and flat.var() == pytest.approx(1, abs=1e-6)
    assert all((a[~m] == b[~m]).all() for a, b, m in zip(white, replies, masks, strict=True))
    chosen = np.concatenate([a[m] for a, m in zip(replies, masks, strict=True)])
    totals = iter([[len(chosen), chosen.sum()], [np.square(chosen - chosen.mean()).sum()]])
    share = whiten(replies[:1], masks[:1], add=lambda _: np.array(next(totals)))  # as one of several ranks
    assert share[0] == pytest.approx(white[0], abs=1e-12)


def test_whitening_nothing_gives_nothing():
    assert whiten([]) == []
    assert not whiten([np.zeros(4)])[0].any()


def test_explained_variance():
    returns = np.array([0.0, 1.0, 1.0, 0.0])
    assert explained_variance(returns, returns) == 1
    assert explained_variance(np.full(4, 0.3), returns) == 0
    assert explained_variance(1 - returns, returns) == -3
    assert explained_variance(returns, np.ones(4)) == 0


def test_groups_that_agree_are_not_informative():
    assert informative(REWARDS, PROMPTS) == [0, 2, 3]
    assert informative([1, 1], ["a", "a"]) == []


@pytest.mark.parametrize("seed", range(5))
def test_the_most_varied_subset_is_the_best_of_all(seed):
    rewards = np.random.default_rng(seed).normal(size=8).round(1)
    for count in (1, 2, 3, 5, 8, 9):
        chosen = most_varied(rewards, count)
        best = max(np.var(rewards[list(c)]) for c in itertools.combinations(range(8), min(count, 8)))
        assert len(chosen) == min(count, 8) and np.var(rewards[chosen]) == pytest.approx(best)
