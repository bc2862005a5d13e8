"""DPO: ln 2 at the start, pairs and not tokens, and the reference as it was given."""

import math
from dataclasses import replace

import mlx.core as mx
import numpy as np
import pytest
from mlx.utils import tree_flatten, tree_unflatten

from mlx_audio_r1.errors import TrainingError
from mlx_audio_r1.train.forward import ForwardOptions
from mlx_audio_r1.train.logprobs import sequence_logprobs, token_logprobs
from mlx_audio_r1.train.losses import dpo_loss
from tests.train.tiny import Piece, batch_of, farthest, gradient, random_piece, tiny_model, with_lora

PIECES = [random_piece(seed, length, 4) for seed, length in ((1, 12), (2, 7), (3, 6), (4, 11))]
BATCH = batch_of([PIECES[:2], PIECES[2:]], padding=1, unlearnt=2)


@pytest.fixture(scope="module")
def model():
    return with_lora(tiny_model())


def logprobs(model, batch=BATCH):
    return sequence_logprobs(token_logprobs(model, batch)[0], batch)


def with_reference(reference, batch=BATCH):
    return replace(batch, extra={"reference": mx.array(reference)})


def test_the_loss_is_ln_2_where_the_model_is_the_reference(model):
    total, count, sums = dpo_loss(model, with_reference(logprobs(model)))
    assert count.item() == 2
    assert total.item() == pytest.approx(2 * math.log(2), rel=1e-6)
    assert {name: value.item() for name, value in sums.items()} == {
        "margin": 0, "accuracy": 0, "chosen_reward": 0, "rejected_reward": 0}


def test_the_loss_is_the_formula(model):
    """One margin of 0.5 * (1 - -2) = 1.5 and one of 0.5 * (-3 - 1) = -2."""
    batch = with_reference(logprobs(model) - mx.array([1.0, -2, -3, 1]))
    total, _, sums = dpo_loss(model, batch, beta=0.5)
    assert total.item() == pytest.approx(math.log1p(math.exp(-1.5)) + math.log1p(math.exp(2.0)), rel=1e-5)
    expected = {"margin": -0.5, "accuracy": 1, "chosen_reward": -1, "rejected_reward": -0.5}
    assert {name: value.item() for name, value in sums.items()} == pytest.approx(expected, abs=1e-5)


def test_smoothing_takes_a_share_of_the_labels_for_the_wrong_way_round(model):
    batch = with_reference(logprobs(model) - mx.array([10.0, 0, 0, 0]))
    total, _, _ = dpo_loss(model, batch, label_smoothing=0.25)
    right, wrong = math.log1p(math.exp(-1)), math.log1p(math.exp(1))
    assert total.item() == pytest.approx(0.75 * right + 0.25 * wrong + math.log(2), rel=1e-5)


def test_a_huge_margin_is_no_infinity(model):
    for shift in (-1e6, 1e6):
        batch = with_reference(logprobs(model) + mx.array([shift, 0, 0, 0]))
        value, grads = gradient(model, lambda m, batch=batch: dpo_loss(m, batch)[0])
        assert math.isfinite(value)
        assert all(mx.isfinite(g).all().item() for g in grads.values())


def test_an_identical_pair_has_no_gradient(model):
    piece = PIECES[0]
    batch = batch_of([[piece], [Piece(piece.ids, piece.prompt)]])
    value, grads = gradient(model, lambda m: dpo_loss(m, with_reference([-3.0, -3.0], batch))[0])
    assert value == pytest.approx(math.log(2), rel=1e-6)
    own = gradient(model, lambda m: token_logprobs(m, batch)[0].sum())[1]
    assert max(mx.abs(g).max().item() for g in own.values()) > 1
    assert max(mx.abs(g).max().item() for g in grads.values()) < 1e-6


def test_a_step_raises_the_chosen_over_the_rejected(model):
    reference = logprobs(model)
    _, grads = gradient(model, lambda m: dpo_loss(m, with_reference(reference))[0])
    start = model.trainable_parameters()
    try:
        moved = [(name, p - 1e-3 * grads[name]) for name, p in tree_flatten(start)]
        model.update(tree_unflatten(moved))
        change = np.array(logprobs(model) - reference)
    finally:
        model.update(start)
    assert (change[0::2] - change[1::2] > 0.01).all()


def test_a_reference_from_before_is_the_one_of_now(model):
    """Computed for each reply alone, without its neighbours, and the base inside the loss."""
    base = tiny_model()
    alone = mx.concatenate([logprobs(base, batch_of([[piece]])) for piece in PIECES])
    now = logprobs(base)
    before = gradient(model, lambda m: dpo_loss(m, with_reference(alone))[0])
    online = gradient(model, lambda m: dpo_loss(m, with_reference(now))[0])
    assert before[0] == pytest.approx(online[0], rel=1e-5)
    assert farthest(before[1], online[1]) < 1e-5


def test_options_change_nothing(model):
    batch = with_reference(logprobs(model) - mx.array([4.0, 0, -7, 0]))
    expected = gradient(model, lambda m: dpo_loss(m, batch)[0])
    options = ForwardOptions(checkpoint=True, attention="blockwise", head_chunk=5)
    got = gradient(model, lambda m: dpo_loss(m, batch, options)[0])
    assert got[0] == pytest.approx(expected[0], rel=1e-6)
    assert farthest(got[1], expected[1]) < 1e-5


@pytest.mark.parametrize(
    "batch", [BATCH, with_reference([0.0] * 3), batch_of([PIECES[:1]], reference=mx.zeros(1))]
)
def test_without_a_reference_of_every_reply_there_is_no_dpo(model, batch):
    with pytest.raises(TrainingError, match=r"example 1: DPO takes pairs"):
        dpo_loss(model, batch)
