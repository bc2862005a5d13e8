"""What the tests of kernels share: dtypes, sizes, and errors measured against float64."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import mlx.core as mx
import numpy as np
import pytest

from mlx_audio_r1.kernels.proof import BATCHES, DTYPES, SIZES, bound, error, exact, named, noise

__all__ = ["DTYPES", "ORDERS", "assert_as_good", "cases", "exact", "noise", "off_metal"]
off_metal = pytest.mark.skipif(mx.metal.is_available(), reason="there is Metal here")
ORDERS = ({"order": "forward"}, {"order": "reverse"}, {"order": "random", "seed": 5})

_SHORT = {(7, 2), (33, 5), (1500, 1)}  # of each dtype these run always, the others with -m long


def cases(short: Collection[tuple[int, int]] = _SHORT) -> list[Any]:
    """(size, batch, dtype) of the whole grid."""
    return [
        pytest.param(size, batch, dtype, id=named(size, batch, dtype),
                     marks=[] if (size, batch) in short else pytest.mark.long)
        for size in SIZES for batch in BATCHES for dtype in DTYPES
    ]


def assert_as_good(got: mx.array, plain: mx.array, want: np.ndarray, terms: float = 0.0) -> None:
    """The rule of mlx_audio_r1/kernels/proof.py."""
    assert got.dtype == plain.dtype and got.shape == plain.shape == want.shape
    assert error(got, want) <= bound(plain, want, terms), (error(got, want), error(plain, want))
