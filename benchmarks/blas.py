"""How much an OpenBLAS in front of MLX's own matters on Linux: one matrix product with and without.

    python benchmarks/blas.py
"""

from __future__ import annotations

import subprocess
import sys

PRODUCT = """
import time, mlx.core as mx
a = mx.random.normal((1024, 1024)); mx.eval(a @ a)
times = []
for _ in range(5):
    start = time.perf_counter(); mx.eval(a @ a); times.append(time.perf_counter() - start)
print(min(times))
"""


def seconds(first: str) -> float:
    """Best of five products of 1024 x 1024 float32 matrices, `first` being what is imported before MLX."""
    done = subprocess.run([sys.executable, "-c", first + PRODUCT], capture_output=True, text=True, check=True)
    return float(done.stdout)


if __name__ == "__main__":
    own, fast = seconds(""), seconds("import mlx_audio_r1")
    print(f"MLX's own {own * 1e3:.1f} ms, with OpenBLAS {fast * 1e3:.1f} ms: {own / fast:.0f} times")
