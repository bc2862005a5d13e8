"""Log-mel frames of a spectrum in float64."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache

import mlx.core as mx
import numpy as np

from mlx_audio_r1.kernels.log_mel import DYNAMIC_RANGE, LOG_FLOOR, OP, Filters
from mlx_audio_r1.kernels.proof import SIZES, Array, Case, Proof, noise


@cache
def triangles(mels: int, bins: int) -> Filters:
    """Narrow below and wide above, as those of a mel scale; some too narrow to hold a bin."""
    edges = (bins - 1) * np.linspace(0, 1, mels + 2) ** 1.7
    at = np.arange(bins)
    rising = (at - edges[:-2, None]) / (edges[1:-1] - edges[:-2])[:, None]
    falling = (edges[2:, None] - at) / (edges[2:] - edges[1:-1])[:, None]
    return Filters.of(mx.array(np.clip(np.minimum(rising, falling), 0, None).astype(np.float32)))


def case(frames: int, filters: Filters, name: str = "", decades: float = 1.0) -> Case:
    """A spectrum whose bins are decades apart; where it is many, most are below the floor."""
    bins = filters.bank.shape[1]
    loud = 10 ** (decades * noise((frames, bins), mx.float32, 3))
    spectrum = loud * (noise((frames, bins), mx.float32, 1) + 1j * noise((frames, bins), mx.float32, 2))
    return Case(name or f"{frames} frames", (spectrum,), {"filters": filters})


def cases() -> Iterator[Case]:
    for mels, bins in ((128, 201), (80, 201), (5, 33), (3, 7)):
        for frames in SIZES:
            for decades in (0.5, 3.0):
                name = f"{frames} frames, {mels} of {bins}, {decades:g} decades"
                yield case(frames, triangles(mels, bins), name, decades)
    yield Case("silence", (mx.zeros((50, 201), mx.complex64),), {"filters": triangles(128, 201)})
    yield strided()
    yield from shapes()


def strided() -> Case:
    x = noise((201, 80), mx.float32, 1).astype(mx.complex64)
    return Case("slices and transposes", (x.T[::3],), {"filters": triangles(128, 201)})


def shapes() -> Iterator[Case]:
    for seconds in (3, 25):
        yield case(100 * seconds + 2, triangles(128, 201), f"{seconds} s")


def reference64(spectrum: mx.array, *, filters: Filters) -> tuple[Array]:
    power = np.abs(np.array(spectrum).astype(np.complex128)) ** 2
    mel = power @ np.array(filters.bank).astype(np.float64).T
    logs = np.log10(np.maximum(mel, LOG_FLOOR))
    return ((np.maximum(logs, logs.max() - DYNAMIC_RANGE) + 4) / 4,)


PROOF = Proof(OP, cases, shapes, reference64)
