"""The token loss is a mean over tokens, not over sequences; the gradient is the way down."""

import math

import mlx.core as mx
import mlx.optimizers as optim
import pytest
from mlx.utils import tree_flatten, tree_unflatten

from mlx_audio_r1.train.losses import (
    IGNORE,
    dpo_loss,
    mean_token_loss,
    sft_loss,
    supervised_tokens,
    token_cross_entropy,
)
from tests.train.tiny import batch_of, farthest, gradient, random_piece, tiny_model, with_lora


def test_a_uniform_guess_costs_the_log_of_the_vocabulary():
    assert mean_token_loss(mx.zeros((2, 3, 8)), mx.zeros((2, 3), mx.int32)).item() == pytest.approx(math.log(8))


def test_every_token_weighs_the_same_however_long_its_sequence():
    logits = mx.array([[[0.0, 0.0], [0.0, 0.0], [0.0, 0.0]], [[9.0, -9.0], [0.0, 0.0], [0.0, 0.0]]])
    targets = mx.array([[0, 1, 0], [0, IGNORE, IGNORE]])
    assert supervised_tokens(targets).item() == 4
    assert token_cross_entropy(logits, targets).item() == pytest.approx(3 * math.log(2), rel=1e-5)
    assert mean_token_loss(logits, targets).item() == pytest.approx(0.75 * math.log(2), rel=1e-5)


def test_a_batch_without_targets_costs_nothing():
    assert mean_token_loss(mx.ones((1, 2, 4)), mx.full((1, 2), IGNORE)).item() == 0.0


PIECES = [random_piece(seed, length, 4, weight=weight)
          for seed, length, weight in ((1, 13, 1.0), (2, 6, 1.0), (3, 9, 0.25), (4, 5, 2.0))]


def test_sft_gives_a_sum_and_the_weight_to_divide_it_by():
    """9 + 2 tokens, 5 that count a quarter, one that counts twice."""
    model = tiny_model()
    total, count, _ = sft_loss(model, batch_of([PIECES[:2], PIECES[2:]], unlearnt=4))
    alone = [sft_loss(model, batch_of([[piece]])) for piece in PIECES]
    assert count.item() == 9 + 2 + 5 / 4 + 1 * 2
    assert total.item() == pytest.approx(sum(t.item() for t, _, _ in alone), rel=1e-5)
    plain = sft_loss(model, batch_of([[random_piece(3, 9, 4)]]))[0].item()
    assert alone[2][0].item() == pytest.approx(plain / 4, rel=1e-6)


@pytest.mark.parametrize("cuts", [(1, 2, 3), (2,), (3,)], ids=str)
def test_micro_batches_add_up_to_the_batch(cuts):
    """The token mean of all, whatever the split; a mean of the parts' means would be 34 % off."""
    model = with_lora(tiny_model())
    whole, grads = gradient(model, lambda m: sft_loss(m, batch_of([[p] for p in PIECES]))[0])
    parts = [PIECES[a:b] for a, b in zip((0, *cuts), (*cuts, 4), strict=True)]
    split = [gradient(model, lambda m, part=part: sft_loss(m, batch_of([part]))[0]) for part in parts]
    assert sum(value for value, _ in split) == pytest.approx(whole, rel=1e-6)
    # float32 sums in another order; 3e-6 measured
    assert farthest({name: sum(g[name] for _, g in split) for name in grads}, grads) < 1e-5


LOSSES = {
    "sft": (lambda model, batch: sft_loss(model, batch)[0], {}),
    "dpo": (lambda model, batch: dpo_loss(model, batch)[0], {"reference": mx.array([-30.0, -8, -20, -5])}),
}


@pytest.mark.parametrize("make", [tiny_model, lambda: with_lora(tiny_model())], ids=["full", "LoRA"])
@pytest.mark.parametrize("name", LOSSES)
def test_a_step_against_the_gradient_falls_as_predicted(name, make):
    """To first order by the step times the squared norm; a gradient of zero, or of something else, cannot."""
    loss, extra = LOSSES[name]
    model, batch = make(), batch_of([[p] for p in PIECES], **extra)
    before, grads = gradient(model, lambda m: loss(m, batch))
    square = sum(mx.square(g).sum().item() for g in grads.values())
    step = 0.002 * before / square  # a fall of 0.2 %
    moved = {k: p - step * grads[k] for k, p in tree_flatten(model.trainable_parameters())}
    model.update(tree_unflatten(list(moved.items())))
    # What the second order takes from a fall of 0.2 %: 0.1 % measured.
    assert before - loss(model, batch).item() == pytest.approx(step * square, rel=0.01)


def test_training_on_one_batch_learns_it():
    """Thirty steps take a random model from 5.3 nats a token to next to none."""
    model, batch = tiny_model(), batch_of([[p] for p in PIECES])
    optimizer = optim.AdamW(1e-2)
    for _ in range(30):
        value, grads = gradient(model, lambda m: sft_loss(m, batch)[0] / 14.25)
        optimizer.update(model, tree_unflatten(list(grads.items())))
    assert value < 0.1  # 0.002 measured
