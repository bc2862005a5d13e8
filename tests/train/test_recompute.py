"""What is computed again is what was computed: parameters, random numbers, loop variables."""

import mlx.core as mx
import mlx.nn as nn
import pytest
from mlx.utils import tree_flatten

from mlx_audio_r1.train.recompute import after, drawing, keys, recomputed


def draws():
    return mx.random.uniform(shape=(3,)).tolist()


def test_inside_numbers_come_from_the_key_and_outside_nothing_happened():
    mx.random.seed(1)
    expected = [draws(), draws()]
    mx.random.seed(1)
    first = draws()
    with drawing(mx.random.key(7)):
        inside = draws()
    assert [first, draws()] == expected
    mx.random.seed(7)
    assert inside == draws()


def test_an_error_inside_gives_the_stream_back():
    mx.random.seed(1)
    expected = draws()
    mx.random.seed(1)
    with pytest.raises(ZeroDivisionError), drawing(mx.random.key(7)):
        draws()
        _ = 1 / 0
    assert draws() == expected


def test_keys_are_drawn_only_where_a_dropout_is_on():
    module = nn.Sequential(nn.Linear(2, 2), nn.Dropout(0.5)).eval()
    before = mx.random.state[0].tolist()
    assert keys(module, 3) == [None] * 3
    assert mx.random.state[0].tolist() == before
    module.train()
    drawn = [tuple(key.tolist()) for key in [*keys(module, 3), *keys(module, 3)]]
    assert len(set(drawn)) == 6


def test_a_dropout_is_found_in_a_module_that_is_itself_not_training():
    """As where an adapter is put on a model that was set to evaluate."""
    module = nn.Sequential(nn.Linear(2, 2)).eval()
    module.layers.append(nn.Dropout(0.5))
    assert not module.training
    assert keys(module, 1)[0] is not None


def test_parameters_get_the_gradient_that_a_checkpoint_would_lose():
    module, x = nn.Linear(3, 3), mx.arange(3.0)
    mx.eval(module.parameters())

    def loss(forget):
        function = recomputed(module, module) if forget else module
        return mx.square(function(x)).sum()

    (_, grads), (_, expected) = (nn.value_and_grad(module, loss)(flag) for flag in (True, False))
    for (_, ours), (_, theirs) in zip(tree_flatten(grads), tree_flatten(expected), strict=True):
        assert mx.allclose(ours, theirs)
        assert mx.abs(theirs).max().item() > 0


def test_no_array_of_a_trace_stays_in_the_module():
    module, x = nn.Linear(3, 3), mx.arange(3.0)
    weight = module.weight
    mx.eval(mx.grad(lambda x: recomputed(module, module)(x).sum())(x))
    assert module.weight is weight


def test_a_loop_may_reuse_its_variables():
    """mx.checkpoint runs a function again when the loop is over: a lambda would see the last value thrice."""
    nothing = nn.Module()

    def scaled(factor):
        return lambda x: factor * x * x

    def loss(x):
        return sum(recomputed(nothing, scaled(factor))(x[i]) for i, factor in enumerate((1.0, 2.0, 3.0)))

    assert mx.grad(loss)(mx.array([1.0, 2.0, 3.0])).tolist() == [2, 8, 18]


def test_after_changes_no_value():
    x = mx.arange(3.0)
    assert mx.array_equal(after(x, (x + 1, x + 2)), x)
    assert after(x) is x
