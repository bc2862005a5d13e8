"""What the tests of kernels share: dtypes, sizes, and errors measured against float64."""

from __future__ import annotations

from typing import Any

import mlx.core as mx
import numpy as np
import pytest

DTYPES = (mx.float32, mx.float16, mx.bfloat16)
EPSILON = {mx.float32: 2.0**-23, mx.float16: 2.0**-10, mx.bfloat16: 2.0**-7}
SIZES = (1, 2, 7, 31, 33, 64, 1500, 4099)
BATCHES = (1, 2, 5)
ORDERS = ({"order": "forward"}, {"order": "reverse"}, {"order": "random", "seed": 5})

_SHORT = {(7, 2), (33, 5), (1500, 1)}  # of each dtype these run always, the others with -m long


def cases() -> list[Any]:
    """(size, batch, dtype) of the whole grid."""
    return [
        pytest.param(size, batch, dtype, id=f"{size}x{batch}-{str(dtype).rpartition('.')[2]}",
                     marks=[] if (size, batch) in _SHORT else pytest.mark.long)
        for size in SIZES for batch in BATCHES for dtype in DTYPES
    ]


def noise(shape: tuple[int, ...], dtype: mx.Dtype, seed: int, scale: float = 1.0) -> mx.array:
    return (scale * mx.random.normal(shape, key=mx.random.key(seed))).astype(dtype)


def exact(x: mx.array) -> np.ndarray:
    """As numpy float64."""
    return np.asarray(x.astype(mx.float32), np.float64)


def error(got: mx.array, want: np.ndarray) -> float:
    assert np.isfinite(exact(got)).all()
    return float(np.abs(exact(got) - want).max(initial=0.0))


def assert_as_good(got: mx.array, plain: mx.array, want: np.ndarray, terms: float = 0.0) -> None:
    """At most twice the plain operations' error, which by luck can be less than one rounding of the largest
    value, or of the largest of the terms that it is a sum of."""
    assert got.dtype == plain.dtype and got.shape == plain.shape == want.shape
    rounding = EPSILON[got.dtype] * max(terms, float(np.abs(want).max(initial=0.0)))
    assert error(got, want) <= max(2 * error(plain, want), rounding), (error(got, want), error(plain, want))
