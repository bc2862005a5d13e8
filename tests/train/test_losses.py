"""The token loss is a mean over tokens, not over sequences."""

import math

import mlx.core as mx
import pytest

from mlx_audio_r1.train.losses import IGNORE, mean_token_loss, supervised_tokens, token_cross_entropy


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
