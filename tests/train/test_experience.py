"""Who gets the credit: group or value function, what is left out, and that order does not matter."""

from dataclasses import replace

import numpy as np
import pytest

from mlx_audio_r1.errors import TrainingError
from mlx_audio_r1.train.examples import Example
from mlx_audio_r1.train.experience import credited
from mlx_audio_r1.train.policy_losses import ALGORITHMS, Algorithm
from mlx_audio_r1.train.rollouts import Rollout

PROMPTS = [Example(np.array([1, 2], np.int32), np.zeros(2, np.float32), name) for name in ("a:1", "a:2")]
# prompt, tokens, reward, how it ended; the second prompt's replies agree
REPLIES = [("a:1", 3, 1.0, "stop"), ("a:1", 1, 0.2, "stop"), ("a:1", 6, 0.0, "length"), ("a:1", 2, 0.8, "stop"),
           ("a:2", 4, 0.2, "stop"), ("a:2", 2, 0.2, "stop")]  # fmt: skip
ROLLOUTS = [Rollout(0, name, i, 2, (5,) * n, (-1.0,) * n, reason, "", "", reward)
            for i, (name, n, reward, reason) in enumerate(REPLIES)]  # fmt: skip
PLAIN = Algorithm()


def kept(experiences):
    return [e.rollout.sample for e in experiences]


def test_a_group_credits_every_token_of_a_reply_alike():
    found = credited(PROMPTS, ROLLOUTS, PLAIN)
    assert kept(found) == [0, 1, 2, 3, 4, 5]
    assert [len(e.tokens["advantages"]) for e in found] == [3, 1, 6, 2, 4, 2]
    assert [e.tokens["advantages"][0] for e in found] == pytest.approx(
        [1 - 1 / 3, 0.2 - 0.6, 0 - 2 / 3, 0.8 - 0.4, 0, 0])  # fmt: skip
    assert all(np.ptp(e.tokens["advantages"]) == 0 and (e.tokens["returns"] == e.rollout.reward).all()
               for e in found)  # fmt: skip
    assert found[4].prompt is PROMPTS[1] and len(found[4]) == 6


def test_values_credit_every_token_with_what_it_changed():
    values = [np.linspace(0, 0.5, n) for _, n, *_ in REPLIES]
    found = credited(PROMPTS, ROLLOUTS, PLAIN, values)
    for e, v, (*_, reward, _) in zip(found, values, REPLIES, strict=True):
        assert e.tokens["advantages"] == pytest.approx(reward - v)
        assert e.tokens["returns"] == pytest.approx(np.full(len(v), reward)) and (e.tokens["values"] == v).all()
    short = credited(PROMPTS, ROLLOUTS, PLAIN, values, gamma=0.9, lam=0.5)[3]
    assert short.tokens["advantages"] == pytest.approx([0.9 * 0.5 - 0 + 0.45 * (0.8 - 0.5), 0.8 - 0.5])


def test_the_papers_ppo_whitens_over_tokens():
    found = credited(PROMPTS, ROLLOUTS, ALGORITHMS["ppo"])
    flat = np.concatenate([e.tokens["advantages"] for e in found])
    assert flat.mean() == pytest.approx(0, abs=1e-12) and flat.std() == pytest.approx(1, abs=1e-6)


def test_what_teaches_nothing_or_was_cut_off_is_left_out_where_asked():
    assert kept(credited(PROMPTS, ROLLOUTS, replace(PLAIN, drop_agreeing=True))) == [0, 1, 2, 3]
    assert kept(credited(PROMPTS, ROLLOUTS, replace(PLAIN, mask_truncated=True))) == [0, 1, 3, 4, 5]
    dapo = credited(PROMPTS, ROLLOUTS, ALGORITHMS["dapo"])
    assert kept(dapo) == [0, 1, 3]
    std = np.std([1, 0.2, 0, 0.8], ddof=1)  # what was cut off still counts in its group
    assert dapo[0].tokens["advantages"] == pytest.approx(np.full(3, 0.5 / std), rel=1e-5)
    assert credited(PROMPTS, ROLLOUTS[4:], ALGORITHMS["dapo"]) == []


def test_a_subset_of_each_prompt_keeps_its_advantages_against_all():
    found = credited(PROMPTS, ROLLOUTS, PLAIN, per_prompt=2)
    assert kept(found)[:2] == [0, 2] and len(found) == 4
    assert found[0].tokens["advantages"][0] == pytest.approx(1 - 1 / 3)


def test_credit_follows_the_reply_whatever_the_order():
    found = {e.rollout.sample: e.tokens["advantages"][0] for e in credited(PROMPTS, ROLLOUTS[::-1], PLAIN)}
    assert found == {e.rollout.sample: e.tokens["advantages"][0] for e in credited(PROMPTS, ROLLOUTS, PLAIN)}


def test_a_rollout_without_a_reward_is_named():
    with pytest.raises(TrainingError, match="sample 1 of a:1 has no reward"):
        credited(PROMPTS, [ROLLOUTS[0], replace(ROLLOUTS[1], reward=None)], PLAIN)
