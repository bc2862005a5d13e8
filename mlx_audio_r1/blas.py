"""On Linux, put an OpenBLAS in front of MLX's own.

MLX's CPU back end calls `cblas_*` through the dynamic linker; the BLAS in its Linux wheel is many times
slower than OpenBLAS (benchmarks/blas.py). A library loaded with global symbols *before* `mlx.core` wins.
Nothing happens on macOS, and nothing is said when none is found: `audio-r1 info` gives the hint.
"""

from __future__ import annotations

import ctypes
import ctypes.util
import glob
import sys

_PATTERNS = (
    "/usr/lib/*-linux-gnu/openblas*/libopenblas.so.0",
    "/usr/lib/*-linux-gnu/libopenblas.so.0",
    "/usr/lib64/libopenblas*.so.0",
    "/usr/lib/libopenblas.so*",
)

loaded: str | None = None  # path of the library in use, for `audio-r1 info`


def preload() -> str | None:
    """Load the first OpenBLAS found; its path, or None. Call before importing mlx.core."""
    global loaded
    if loaded is None and sys.platform == "linux" and "mlx.core" not in sys.modules:
        loaded = next(filter(_load, _candidates()), None)
    return loaded


def _candidates() -> list[str]:
    paths = [path for pattern in _PATTERNS for path in sorted(glob.glob(pattern))]
    return paths or [name for name in [ctypes.util.find_library("openblas")] if name]


def _load(path: str) -> bool:
    try:
        return hasattr(ctypes.CDLL(path, mode=ctypes.RTLD_GLOBAL), "cblas_sgemm")
    except OSError:
        return False
