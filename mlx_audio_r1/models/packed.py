"""Linears that read the same input, side by side in one matrix: one launch in place of two or three.

Queries, keys and values of an attention, gate and up of an MLP. Each linear keeps its arrays under their
names, so that files, adapters, training and fusing see no difference: they have become views of the one
matrix, and there is no second copy. The surprise: nothing tells a pack that a linear has changed, so it looks
at every call, and stands in only for the very linears, with the very arrays, that it was made of.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from itertools import accumulate
from typing import Any

import mlx.core as mx
import mlx.nn as nn
from mlx_lm.models import qwen2

Parts = Sequence[tuple[nn.Module, tuple[str, ...]]]  # a module, and the names of its linears
QKV, GATE_UP = ("q_proj", "k_proj", "v_proj"), ("gate_proj", "up_proj")
PLAIN = (nn.Linear, nn.QuantizedLinear)


class Pack:
    """Some linears of one module as one. `whole` gives the outputs of all, in their order."""

    def __init__(self, owner: nn.Module, names: Sequence[str]):
        self._linears = {name: owner[name] for name in names}
        linears = list(self._linears.values())
        self.whole = copy(linears[0])
        for array in list(self.whole):
            parts = [linear[array] for linear in linears]
            self.whole[array] = mx.concatenate(parts)
            ends = [*accumulate(len(part) for part in parts)]
            for linear, view in zip(linears, mx.split(self.whole[array], ends[:-1]), strict=True):
                linear[array] = view
        self._made_of = [(linear, name, x) for linear in linears for name, x in linear.items()]

    @property
    def arrays(self) -> list[mx.array]:
        return [*self.whole.values(), *(x for _, _, x in self._made_of)]

    def is_adapted(self, owner: nn.Module) -> bool:
        """Does `owner` have an adapter around one of them? It may be taken off again."""
        return any(owner[name].get("linear") is linear for name, linear in self._linears.items())

    def holds(self, owner: nn.Module) -> bool:
        """Does `owner` have these linears, and they the arrays that it was made of?"""
        return all(owner[name] is linear for name, linear in self._linears.items()) and all(
            linear.get(name) is x for linear, name, x in self._made_of
        )


def pack(decoder: qwen2.Qwen2Model) -> None:
    """Lay the linears of every layer side by side, where they go together.

    Each pack is computed before the next, so that memory holds one of them twice and no more. Linears that were
    packed and have changed since are packed anew.
    """
    for layer in decoder.layers:
        for owner, names in _parts(layer):
            if whole(owner) is None and _go_together([owner[name] for name in names]):
                _keep(owner, Pack(owner, names))
                mx.eval(owner._pack.arrays)
                mx.clear_cache()  # or what the linears had before would stay there


def whole(owner: nn.Module) -> nn.Module | None:
    """The one linear for those of `owner`; None where there is none or it no longer is the same."""
    pack = getattr(owner, "_pack", None)
    if pack is None or pack.is_adapted(owner):
        return None
    if not pack.holds(owner):
        _keep(owner, None)  # it would hold the old weights in memory
        return None
    return pack.whole


def times(linear: nn.Module, x: mx.array) -> mx.array:
    """x W^T without the bias, float32 for float32 x."""
    if not isinstance(linear, nn.QuantizedLinear):
        return x @ linear.weight.T
    return mx.quantized_matmul(
        x, linear.weight, scales=linear.scales, biases=linear.get("biases"), transpose=True,
        group_size=linear.group_size, bits=linear.bits, mode=linear.mode,
    )  # fmt: skip


def _parts(layer: nn.Module) -> Parts:
    """Queries, keys and values only where the kernel behind them knows the rotation."""
    attention = [(layer.self_attn, QKV)] if _is_plain(layer.self_attn.rope) else []
    return [*attention, (layer.mlp, GATE_UP)]


def _is_plain(rope: nn.Module) -> bool:
    return type(rope) is nn.RoPE and not rope.traditional and rope.scale == 1.0


def _go_together(linears: Sequence[nn.Module]) -> bool:
    return type(linears[0]) in PLAIN and all(_form(linear) == _form(linears[0]) for linear in linears)


def _form(linear: nn.Module) -> Any:
    """What linears must have in common: the kind, the quantisation, and arrays alike but for their rows."""
    quantised = [getattr(linear, name, None) for name in ("group_size", "bits", "mode")]
    arrays = {name: (x.dtype, x.shape[1:]) for name, x in linear.items() if isinstance(x, mx.array)}
    return type(linear), quantised, arrays


def _keep(owner: nn.Module, pack: Pack | None) -> None:
    """Beside the parameters: not trained, saved, cast or listed."""
    object.__setattr__(owner, "_pack", pack)
