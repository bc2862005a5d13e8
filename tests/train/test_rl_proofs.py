"""Short versions of the proofs under benchmarks/mgrd: what rewards teach the embedded model, and what not.

The cold starts are adapters that benchmarks/mgrd/starts.py makes.
"""

from pathlib import Path

import numpy as np
import pytest

from benchmarks.mgrd.common import (
    HELD_OUT,
    TRAIN,
    Questions,
    RLCourse,
    ShuffledRewards,
    curve,
    measure,
    reinforce,
    write_questions,
)

DATA = Path(__file__).parents[1] / "data"
TASKS, STEPS, PROMPTS, SAMPLES = ("register", "source", "loudness"), 8, 8, 6
SIZE = {"batch_size": PROMPTS, "group_size": SAMPLES, "learning_rate": 3e-3, "lora_parameters": {"rank": 4}}


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    return tmp_path_factory.mktemp("proofs")


@pytest.fixture(scope="module")
def questions(work):
    return write_questions(work / "train", Questions(TASKS, PROMPTS * STEPS, TRAIN))


@pytest.fixture(scope="module")
def held_out(work):
    return write_questions(work / "held-out", Questions(TASKS, 36, HELD_OUT))


@pytest.fixture(scope="module")
def before(work, held_out):
    """Of a model that hears what nano hears, and often concludes wrongly from it."""
    return measure(work, DATA / "start-muddled", held_out, 0)


def rewarded(work, questions, start, name, course=RLCourse, seed=0, steps=STEPS, **given):
    return reinforce(work, questions, DATA / start, name, seed, steps, course, **SIZE, **given)


# Reward on clips never trained on, before 0.60; after 10 steps PPO 0.86, 0.87 and 0.87 (seeds 0 to 2),
# with shuffled rewards 0.66 and 0.58 (seeds 0 and 1). 8 steps are enough for the margins.


def test_rewards_teach_what_holds_for_other_clips(work, questions, held_out, before):
    after = measure(work, rewarded(work, questions, "start-muddled", "ppo"), held_out, 0)
    assert after["reward"] > before["reward"] + 0.13
    assert after["accuracy"] > before["accuracy"] + 0.13


def test_shuffled_rewards_teach_nothing(work, questions, held_out, before):
    after = measure(work, rewarded(work, questions, "start-muddled", "shuffled", ShuffledRewards), held_out, 0)
    assert after["reward"] < before["reward"] + 0.11


@pytest.mark.parametrize("paid, reasons", [({}, True), ({"correct": 1.0, "reasoning": 0.0}, False)],
                         ids=["equation 7", "right alone"])  # fmt: skip
def test_the_format_reward_holds_the_reasoning(work, questions, paid, reasons):
    """Where length costs a little, in both; half of the replies reason when it begins."""
    cost = {"length": "linear", "length_weight": 0.2, "length_limit": 64, "length_free": 0}  # 0.1 for a note
    run = rewarded(work, questions, "start-half-direct", f"format-{reasons}", steps=6,
                   reward=cost | paid)  # fmt: skip
    found = curve(run, "reasoning", "thinking_length")
    share, tokens = (float(np.mean(found[name][-2:])) for name in found if name != "step")
    assert 0.25 < found["reasoning"][0] < 0.75
    # Seeds 0 and 1: 1.0 and 36 tokens in both with equation 7, 0.0 and 4 (of no note) without
    assert (share > 0.85 and tokens > 25) if reasons else (share < 0.2 and tokens < 10)
