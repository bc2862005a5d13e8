"""What a checkpointed layer leaves behind: its input, and nothing that the planner does not count."""

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_flatten

from mlx_audio_r1.train.recompute import recomputed

ROWS, WIDTH, INNER = 1_024, 64, 512


class Layer(nn.Module):
    """A linear with a trained factor whose gradient needs what is inside the layer, as LoRA's does."""

    def __init__(self):
        super().__init__()
        self.up, self.down = nn.Linear(WIDTH, INNER, bias=False), nn.Linear(INNER, WIDTH, bias=False)
        self.a, self.b = mx.random.normal((INNER, 2)), mx.random.normal((2, WIDTH))

    def __call__(self, x):
        inner = nn.silu(self.up(x))
        return x + self.down(inner) + inner @ self.a @ self.b


def peak(count: int) -> int:
    """Most bytes of a gradient through `count` layers, MLX waiting for every piece of work."""
    mx.random.seed(0)
    layers = [Layer() for _ in range(count)]
    for layer in layers:
        layer.up.freeze()
        layer.down.freeze()
    whole = nn.Sequential(*layers)

    def loss(model, x):
        for layer in model.layers:
            x = recomputed(layer, layer)(x)
        return mx.square(x).sum()

    x = mx.random.normal((ROWS, WIDTH))
    mx.eval(whole.parameters(), x)
    mx.synchronize()
    mx.clear_cache()
    before, limit = mx.get_active_memory(), mx.set_memory_limit(1)
    mx.reset_peak_memory()
    try:
        gradients = nn.value_and_grad(whole, loss)(whole, x)[1]
        mx.eval(gradients)
    finally:
        mx.set_memory_limit(limit)
    return mx.get_peak_memory() - before - sum(g.nbytes for _, g in tree_flatten(gradients))


def test_a_layer_more_costs_its_input_and_no_more():
    """6 to 20 of them where gradients wait for one another, about 1 where not; 3 leave room for the order
    in which MLX takes what may come in any."""
    assert (peak(24) - peak(4)) / 20 < 3 * ROWS * WIDTH * 4
