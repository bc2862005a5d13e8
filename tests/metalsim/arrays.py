"""MLX's arrays as numpy's and back; bfloat16 travels as uint16, bool as uint8."""

from __future__ import annotations

from math import prod
from typing import Any

import mlx.core as mx
import numpy as np

from tests.metalsim.launch import Array
from tests.metalsim.signature import dtype_name

_NUMPY: dict[str, np.dtype[Any]] = {"bfloat16": np.dtype(np.uint16), "bool": np.dtype(np.uint8)}


def numpy_dtype(name: str) -> np.dtype[Any]:
    return _NUMPY.get(name) or np.dtype(name)


def to_numpy(value: Any) -> tuple[Array, str]:
    """The array (with MLX's strides where numpy can share them), and the name of its dtype."""
    x = value if isinstance(value, mx.array) else mx.array(value)
    name = dtype_name(x.dtype)
    if name == "bfloat16":
        return np.asarray(x.view(mx.uint16)), name
    return np.asarray(x.astype(mx.uint8) if name == "bool" else x), name


def to_mlx(array: Array, name: str) -> mx.array:
    x = mx.array(array)
    if name == "bfloat16":
        return x.view(mx.bfloat16)
    return x.astype(mx.bool_) if name == "bool" else x


def filled(shape: tuple[int, ...], name: str, value: float | None) -> Array:
    if value is not None and name == "bfloat16":
        return to_numpy(mx.full(shape, value, mx.bfloat16))[0]
    return np.full(shape, value or 0, numpy_dtype(name))


def spanned(x: Array) -> Array:
    """The memory that a view spans, from its first element to its last, as one flat array."""
    if x.flags.c_contiguous:
        return x
    if min(x.strides) < 0:
        raise NotImplementedError("negative strides")
    last = sum((n - 1) * s for n, s in zip(x.shape, x.strides, strict=True)) // x.itemsize
    return np.lib.stride_tricks.as_strided(x, (last + 1 if prod(x.shape) else 0,), (x.itemsize,)).copy()
