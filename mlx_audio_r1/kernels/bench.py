"""How fast kernels and plain operations are at the shapes of Step-Audio-R1, on the device at hand."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import mlx.core as mx

from mlx_audio_r1.kernels.choice import Op
from mlx_audio_r1.kernels.proof import Case
from mlx_audio_r1.kernels.trial import times

REPEATS = 15


@dataclass(frozen=True)
class Row:
    """Seconds of one call; bytes: what the kernel's loads and stores ask for, the formula of its docstring."""

    op: str
    shape: str
    plain: float
    kernel: float
    bytes: int

    @property
    def ratio(self) -> float:
        return self.plain / self.kernel

    @property
    def gigabytes_a_second(self) -> float:
        return self.bytes / self.kernel / 1e9

    def share(self, bandwidth: float | None) -> float | None:
        """Of the device's GB/s; above 1 where a cache answers, None where it is not known."""
        return self.gigabytes_a_second / bandwidth if bandwidth else None


def bench(op: Op, shapes: Iterable[Case]) -> Iterator[Row]:
    """A row for each shape. op: with the plain operations that the kernel is to be measured by."""
    for case in shapes:
        mx.eval(case.arrays)
        plain, kernel = times(op, case.arrays, case.options, REPEATS)
        yield Row(op.name, case.name, plain, kernel, op.bytes(*case.arrays, **case.options))
