"""From a spectrum to log-mel frames: power, triangular filters, logarithm, floor below the maximum.

It takes two launches, because the floor needs the maximum of the whole chunk, and threadgroups of one launch
do not wait for each other: the first gives the logarithms and a maximum for every FRAMES frames, the second
takes the maximum of these and ends. The gain in time is small: all of it is some 0.1 ms of a chunk's 150 or
more, by an estimate from bytes.

For T frames of B bins and M filters with N weights that are not nought, g = T / FRAMES groups rounded up and
h = T M / SPAN rounded up, as loads and stores ask for them:

    plain    10 launches   power, floor, log10, maximum, subtract, maximum, add, divide and the product with a
             bank of M B weights: reads 8 T B + 8 T B + 4 M B + 20 T M, writes 8 T B + 20 T M, or more
    kernel   2 launches    reads the spectrum once: 8 T B; 4 T N of weights and 12 T M of their places, which
             a cache holds; writes 4 T M + 4 g. Then reads 4 T M + 4 g h, writes 4 T M

float32 alone: the front end computes in nothing else. The transform itself is MLX's own kernel.
"""

from __future__ import annotations

from dataclasses import dataclass

import mlx.core as mx
import numpy as np

from mlx_audio_r1.kernels.choice import Op, register, with_gradient
from mlx_audio_r1.kernels.source import kernel, row_threads

LOG_FLOOR = 1e-10
DYNAMIC_RANGE = 8.0  # decades of log10 power kept below the chunk's maximum
FRAMES = 8           # of a threadgroup of the first launch
THREADS = 256
SPAN = 8 * THREADS   # values of a threadgroup of the second
MAX_BINS = 500       # FRAMES of them are just below 16 KB of threadgroup memory


@dataclass(frozen=True, eq=False)
class Filters:
    """A filter bank (M, B) float32; and of each filter where it is not nought: first bin, end, and where its
    weights begin in `weights`."""

    bank: mx.array
    spans: mx.array    # (M, 3) int32
    weights: mx.array  # (N,) float32

    @classmethod
    def of(cls, bank: mx.array) -> Filters:
        spans, weights, used = [], [], 0
        for row in np.array(bank):
            at = np.flatnonzero(row)
            first, end = (int(at[0]), int(at[-1]) + 1) if at.size else (0, 0)
            spans.append((first, end, used))
            weights.append(row[first:end])
            used += end - first
        return cls(bank, mx.array(np.array(spans, np.int32)), mx.array(np.concatenate(weights)))

    @property
    def kind(self) -> str:
        """What the choice of a kernel depends on."""
        return f"{self.bank.shape[0]}x{self.bank.shape[1]}"


def log_mel_frames(spectrum: mx.array, filters: Filters) -> mx.array:
    """spectrum (T, B) complex64 of one chunk -> (T, M) float32."""
    return OP(spectrum, filters=filters)


def reference(spectrum: mx.array, *, filters: Filters) -> mx.array:
    mel = mx.square(mx.abs(spectrum)) @ filters.bank.T
    logs = mx.log10(mx.maximum(mel, LOG_FLOOR))
    logs = mx.maximum(logs, logs.max() - DYNAMIC_RANGE)
    return (logs + 4.0) / 4.0


def fits(spectrum: mx.array, *, filters: Filters) -> bool:
    return (
        spectrum.dtype == mx.complex64
        and spectrum.ndim == 2
        and spectrum.size > 0
        and spectrum.shape[1] == filters.bank.shape[1] <= MAX_BINS
        and filters.weights.size > 0
    )


def _launch(spectrum: mx.array, *, filters: Filters) -> mx.array:
    frames, bins = spectrum.shape
    mels = filters.bank.shape[0]
    groups, values = -(-frames // FRAMES), frames * mels
    names = ("spectrum", "spans", "weights", "frames", "least")
    logs, maxima = kernel("log_mel", names, ("logs", "maxima"))(
        inputs=[spectrum.view(mx.float32), filters.spans, filters.weights, frames, LOG_FLOOR],
        template=[("BINS", bins), ("MELS", mels), ("FRAMES", FRAMES), ("THREADS", THREADS)],
        grid=(groups * THREADS, 1, 1),
        threadgroup=(THREADS, 1, 1),
        output_shapes=[(frames, mels), (groups,)],
        output_dtypes=[mx.float32, mx.float32],
    )
    threads = row_threads(values, THREADS)
    return kernel("log_mel_floor", ("logs", "maxima", "groups", "values", "range"), ("out",))(
        inputs=[logs, maxima, groups, values, DYNAMIC_RANGE],
        template=[("THREADS", threads), ("SPAN", SPAN)],
        grid=(-(-values // SPAN) * threads, 1, 1),
        threadgroup=(threads, 1, 1),
        output_shapes=[(frames, mels)],
        output_dtypes=[mx.float32],
    )[0]


def traffic(spectrum: mx.array, *, filters: Filters) -> int:
    frames, mels = spectrum.shape[0], filters.bank.shape[0]
    groups, spans = -(-frames // FRAMES), -(-frames * mels // SPAN)
    tables = frames * (filters.weights.nbytes + filters.spans.nbytes)
    return spectrum.nbytes + tables + 12 * frames * mels + 4 * groups * (1 + spans)


def made_up(spectrum: mx.array, **_: Filters) -> list[mx.array]:
    """Noise: silence would show little."""
    real, imaginary = mx.random.normal((2, *spectrum.shape), key=mx.random.key(0))
    return [real + 1j * imaginary]


launch = with_gradient(_launch, reference)
OP = register(Op("log_mel", reference, launch, fits, traffic, made_up))
