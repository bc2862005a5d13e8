"""What an op is held against: cases, their result in numpy's float64, and how far from it the kernel may be.

A file in `proofs/` with the op's name holds a PROOF. The tests run its cases in a simulator, `audio-r1 kernels
--verify` on the GPU at hand, and `--bench` times its shapes. The rule of both: at most twice the error that
the plain operations make in the same dtype.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any

import mlx.core as mx
import numpy as np

from mlx_audio_r1.kernels import proofs as folder
from mlx_audio_r1.kernels.choice import Op

DTYPES = (mx.float32, mx.float16, mx.bfloat16)
EPSILON = {mx.float32: 2.0**-23, mx.float16: 2.0**-10, mx.bfloat16: 2.0**-7}
SIZES = (1, 2, 7, 31, 33, 64, 1500, 4099)
BATCHES = (1, 2, 5)
Array = np.ndarray[Any, Any]
Arrays = tuple[mx.array, ...]


@dataclass(frozen=True)
class Case:
    """Arguments of an op. MLX computes the arrays when they are used, so that a list of cases costs nothing."""

    name: str
    arrays: Arrays
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Verdict:
    """A case of one output, or of one gradient, holds if error <= bound."""

    what: str
    error: float
    bound: float

    @property
    def share(self) -> float:
        """Of what is allowed: up to 1 it holds."""
        return self.error / self.bound if self.bound else math.inf if self.error else 0.0


@dataclass(frozen=True)
class Proof:
    """exact: the op in float64, of a case's arrays and options, a tuple with an array for each output.

    judge: in place of the rule, where the output is no number; of the case and the output, the verdicts.
    gradient: which of the arrays have one. exact_gradient: of the arrays, the cotangents and the options, for
    each such array its gradient in float64 and the largest sum of its terms' sizes; without it the plain
    operations' gradient is the measure.
    """

    op: Op
    cases: Callable[[], Iterable[Case]]
    shapes: Callable[[], Iterable[Case]]  # Step-Audio-R1's
    exact: Callable[..., tuple[Array, ...]] | None = None
    judge: Callable[[Case, mx.array], list[Verdict]] | None = None
    gradient: tuple[int, ...] = ()
    exact_gradient: Callable[..., list[tuple[Array, float]]] | None = None


def proofs() -> dict[str, Proof]:
    """All there are, by the op's name."""
    return {name: import_module(f"{folder.__name__}.{name}").PROOF for name in folder.names()}


def grid(case: Callable[[int, int, mx.Dtype], Case]) -> list[Case]:
    """Every size, batch and dtype."""
    return [case(size, batch, dtype) for size in SIZES for batch in BATCHES for dtype in DTYPES]


def named(size: int, batch: int, dtype: mx.Dtype) -> str:
    return f"{size}x{batch}-{short(dtype)}"


def short(dtype: mx.Dtype) -> str:
    return str(dtype).rpartition(".")[2]


def noise(shape: tuple[int, ...], dtype: mx.Dtype, seed: int, scale: float = 1.0) -> mx.array:
    return (scale * mx.random.normal(shape, key=mx.random.key(seed))).astype(dtype)


def exact(x: mx.array) -> Array:
    """As numpy float64."""
    return np.asarray(x.astype(mx.float32), np.float64)


def error(got: mx.array, want: Array) -> float:
    """The largest difference; infinite for another shape, or where what is not finite is not the same."""
    x = exact(got)
    if x.shape != want.shape:
        return math.inf
    seen = np.isfinite(want)
    if not np.array_equal(x[~seen], want[~seen]) or not np.isfinite(x[seen]).all():
        return math.inf
    return float(np.abs(x[seen] - want[seen]).max(initial=0.0))


def bound(plain: mx.array, want: Array, terms: float = 0.0) -> float:
    """Twice the plain operations' error, which by luck can be less than one rounding of the largest value, or
    of the largest of the terms that it is a sum of."""
    largest = float(np.abs(want[np.isfinite(want)]).max(initial=0.0))
    return max(2 * error(plain, want), EPSILON[plain.dtype] * max(terms, largest))
