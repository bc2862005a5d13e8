"""A kernel tried on made-up inputs: does it compile, does it agree with the plain operations, which is faster.

The surprise: MLX compiles a kernel when its result is computed, long after the call, so that what does not
compile has to be found out before. The inputs are made up because the given ones may be tracers without values.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import mlx.core as mx

if TYPE_CHECKING:
    from mlx_audio_r1.kernels.choice import Op

REPEATS = 5  # timings of each side, the least counts
BURST = 4    # calls in one timing
# Of the largest value. Both sides may be off by some roundings of their dtype, in sums of thousands of terms;
# a kernel that a device gets wrong is off by as much as the values are.
LOOSE = {mx.float32: 1e-3, mx.float16: 2e-2, mx.bfloat16: 1e-1}
Arrays = tuple[mx.array, ...]


@dataclass(frozen=True)
class Trial:
    """why: what is wrong with the kernel here, or None. compile_ms: the first call less a later one."""

    why: str | None
    compile_ms: float | None = None
    compiles: bool = True


def tried(op: Op, arrays: Arrays, options: Mapping[str, Any]) -> Trial:
    """Run the kernel on made-up inputs of these shapes. MLX raises RuntimeError for what does not compile,
    ValueError for a threadgroup that is too large for it, RuntimeError again for what memory does not hold."""
    try:
        inputs = made_up(op, arrays, options)
        mx.eval(inputs)
        first = seconds(op.launch, inputs, options)
        later = seconds(op.launch, inputs, options)
        got = outputs(op.launch(*inputs, **options))
        mx.eval(got)
        why = disagreement(got, outputs((op.measure or op.reference)(*inputs, **options)))
    except (RuntimeError, ValueError) as error:
        return Trial(reason(error), compiles=False)
    return Trial(why, max(0.0, first - later) * 1000)


def reason(error: Exception) -> str:
    """In one line: what a compiler says to its first error, or the beginning."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    return next((line for line in lines if "error" in line), " ".join(lines[:2]))[:300]


def outputs(result: Any) -> tuple[mx.array, ...]:
    return (result,) if isinstance(result, mx.array) else tuple(result)


def made_up(op: Op, arrays: Arrays, options: Mapping[str, Any]) -> list[mx.array]:
    """Of the same shapes and dtypes: the op's own, or normal numbers, and noughts for whole ones."""
    if op.made_up is not None:
        return list(op.made_up(*arrays, **options))
    return [normal(x, seed=i) if mx.issubdtype(x.dtype, mx.inexact) else mx.zeros(x.shape, x.dtype)
            for i, x in enumerate(arrays)]


def normal(x: mx.array, scale: float = 1.0, seed: int = 0) -> mx.array:
    return (scale * mx.random.normal(x.shape, key=mx.random.key(seed))).astype(x.dtype)


def disagreement(got: Sequence[mx.array], plain: Sequence[mx.array]) -> str | None:
    """How two results differ by more than roundings, or None."""
    for at, (x, y) in enumerate(zip(got, plain, strict=True)):
        if x.shape != y.shape or x.dtype != y.dtype:
            return f"output {at} is {x.dtype} {x.shape}, not {y.dtype} {y.shape}"
        apart, size = (float(value) for value in _apart(x, y))
        if not apart <= LOOSE.get(x.dtype, 0.0) * size:
            return f"output {at} is off by {apart:.3g}, of values up to {size:.3g}"
    return None


def _apart(x: mx.array, y: mx.array) -> tuple[mx.array, mx.array]:
    """The largest difference, and the largest value where it is finite. Equal infinities are not apart, and
    what is no number is apart from all."""
    x, y = x.astype(mx.float32), y.astype(mx.float32)
    apart = mx.where(x == y, 0.0, mx.where(mx.isnan(x - y), mx.inf, mx.abs(x - y)))
    return apart.max(), mx.where(mx.isfinite(y), mx.abs(y), 0.0).max()


def times(op: Op, inputs: Sequence[mx.array], options: Mapping[str, Any],
          repeats: int = REPEATS) -> tuple[float, float]:
    """Seconds of a call of the plain operations and of the kernel: the least of some, in turns, so that a
    device that warms up favours neither. The first of each is not counted."""
    sides = (op.reference, op.launch)
    columns = zip(*[[seconds(side, inputs, options, BURST) for side in sides] for _ in range(repeats + 1)][1:],
                  strict=True)
    plain, kernel = (min(column) / BURST for column in columns)
    return plain, max(kernel, 1e-9)


def seconds(side: Callable[..., Any], inputs: Sequence[mx.array], options: Mapping[str, Any],
            calls: int = 1) -> float:
    start = time.perf_counter()
    mx.eval([side(*inputs, **options) for _ in range(calls)])
    return time.perf_counter() - start
