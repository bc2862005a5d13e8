"""Functions that forget their insides and compute them again when the gradient comes.

That is `mx.checkpoint`, without its three traps: what a function merely captures gets a gradient of zero, what
it draws at random is something else the second time, and gradients of parameters, which nothing below waits
for, are computed last of all and until then hold what was to be forgotten. So here the parameters of a module
are arguments, random numbers come from a key, and all gradients of a function are computed before any below it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_flatten, tree_unflatten

Function = Callable[[mx.array], mx.array]


def recomputed(module: nn.Module, function: Function) -> Function:
    """`function`, of which only the input is kept for the backward pass.

    Gradients reach its input and the trainable parameters of `module`, which must be all of those that
    `function` uses. Where it draws random numbers it must do so inside `drawing`.
    """
    values, call = explicit(module, function)
    forgetful = mx.checkpoint(call)
    return lambda x: forgetful(*_all_at_once([x, *values]))


@mx.custom_function
def _all_at_once(inputs: list[mx.array]) -> list[mx.array]:
    """The inputs as they are; their gradients, of x and of parameters, are waited for together."""
    return inputs


@_all_at_once.vjp
def _gradients(_: list[mx.array], cotangents: list[mx.array], __: list[mx.array]) -> list[mx.array]:
    d_x, *d_values = cotangents
    return [after(d_x, tuple(d_values)), *d_values]


def explicit(
    module: nn.Module, function: Function, key: mx.array | None = None
) -> tuple[list[mx.array], Callable[..., mx.array]]:
    """The trainable parameters of `module`, and `function` as a function of x and them.

    With a `key` every call draws the same random numbers. The module is left as it was after each, so that no
    traced array stays in it.
    """
    before = module.trainable_parameters()
    flat = tree_flatten(before)
    names = [name for name, _ in flat]

    def call(x: mx.array, *values: mx.array) -> mx.array:
        module.update(tree_unflatten(list(zip(names, values, strict=True))))
        try:
            with drawing(key):
                return function(x)
        finally:
            module.update(before)

    return [value for _, value in flat], call


def after(x: mx.array, *results: tuple[mx.array, ...]) -> mx.array:
    """x, not before the results are there: this keeps one piece of a loop in memory at a time."""
    first = [array for result in results for array in result]
    return mx.depends(x, first) if first else x


@contextmanager
def drawing(key: mx.array | None) -> Iterator[None]:
    """Inside, MLX's random numbers come from `key`; outside, its own stream goes on as if nothing was.

    MLX lets nobody put another key in place of its own, but the key itself can be written: eagerly and
    while a function is traced alike.
    """
    if key is None:
        yield
        return
    before = mx.array(mx.random.state[0])
    mx.random.state[0][:] = key
    try:
        yield
    finally:
        mx.random.state[0][:] = before


def keys(module: nn.Module, count: int) -> list[mx.array | None]:
    """`count` keys from MLX's stream; Nones, and nothing drawn, where no dropout of `module` is on."""
    if not any(isinstance(part, nn.Dropout) and part.training for part in module.modules()):
        return [None] * count
    seed = mx.random.randint(0, 2**31 - 1, (2,)).astype(mx.uint32)
    return list(mx.random.split(seed, count))
