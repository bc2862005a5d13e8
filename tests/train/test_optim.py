"""Which parameter goes to which optimizer, and what the schedule says."""

import mlx.core as mx
import pytest

from mlx_audio_r1.train.optim import OptimConfig, is_matrix, muon_and_adamw, schedule


@pytest.mark.parametrize(
    ("path", "shape", "expected"),
    [
        ("language_model.model.layers.0.mlp.up_proj.weight", (8, 4), True),
        ("audio_encoder.conv1.weight", (8, 3, 4), True),
        ("language_model.model.embed_tokens.weight", (8, 4), False),
        ("audio_encoder.positional_embedding.weight", (8, 4), False),
        ("heads.weight", (8, 4), False),
        ("audio_encoder.after_norm.weight", (8,), False),
    ],
)
def test_muon_takes_matrices_only(path, shape, expected):
    assert is_matrix(path, mx.zeros(shape)) is expected


def test_the_schedule_rises_holds_and_falls_to_its_floor():
    config = OptimConfig(steps=100, warmup=10, hold=0.5, floor=0.1)
    rate = schedule(config, 2.0)
    values = [rate(mx.array(step)).item() for step in (0, 9, 50, 75, 100, 200)]
    assert values == pytest.approx([0.2, 2.0, 2.0, 1.1, 0.2, 0.2], rel=1e-5)


def test_a_matrix_moves_by_an_orthogonal_step():
    optimizer = muon_and_adamw(OptimConfig(steps=10, matrix_rate=1.0, warmup=1))
    parameters = {"layer": {"weight": mx.zeros((4, 4))}}
    gradient = {"layer": {"weight": mx.diag(mx.array([8.0, 4.0, 2.0, 1.0]))}}
    moved = optimizer.apply_gradients(gradient, parameters)["layer"]["weight"]
    singular = mx.linalg.svd(moved, stream=mx.cpu)[1]
    assert singular.min().item() > 0.5 and singular.max().item() < 1.5
