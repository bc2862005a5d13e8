"""A small correct kernel that tests break: the sum of each row, a threadgroup a row."""

from __future__ import annotations

from typing import Any

import mlx.core as mx

from tests.metalsim.kernel import metal_kernel

ROWS, COLUMNS, THREADS = 5, 333, 128

ROW_SUM = """
    threadgroup float partial[32];
    uint lane = thread_index_in_simdgroup, sg = simdgroup_index_in_threadgroup;
    uint row = threadgroup_position_in_grid.x;
    float sum = 0;
    for (uint i = thread_position_in_threadgroup.x; i < N; i += threads_per_threadgroup.x) {
        sum += x[row * N + i];
    }
    sum = simd_sum(sum);
    if (lane == 0) {
        partial[sg] = sum;
    }
    threadgroup_barrier(mem_flags::mem_threadgroup);
    sum = simd_sum(lane < simdgroups_per_threadgroup ? partial[lane] : 0.0f);
    if (thread_position_in_threadgroup.x == 0) {
        out[row] = sum;
    }
"""


def rows() -> mx.array:
    return mx.random.normal((ROWS, COLUMNS), key=mx.random.key(0))


def row_sum(source: str = ROW_SUM, **changes: Any) -> mx.array:
    """Run the kernel, or what a test made of it."""
    built = metal_kernel(name="row_sum", input_names=["x"], output_names=["out"], source=source)
    call: dict[str, Any] = dict(
        inputs=[rows()], template=[("N", COLUMNS)], grid=(ROWS * THREADS, 1, 1), threadgroup=(THREADS, 1, 1),
        output_shapes=[(ROWS,)], output_dtypes=[mx.float32])
    return built(**{**call, **changes})[0]


def elementwise(source: str, dtype: mx.Dtype = mx.float32, size: int = 64, **changes: Any) -> mx.array:
    """Run `source` once for each of 64 values x, in two threadgroups."""
    built = metal_kernel(name="elementwise", input_names=["x"], output_names=["out"],
                         source=f"uint i = thread_position_in_grid.x;\n{source}")
    call: dict[str, Any] = dict(
        inputs=[mx.arange(64).astype(mx.float32)], grid=(64, 1, 1), threadgroup=(32, 1, 1),
        output_shapes=[(size,)], output_dtypes=[dtype])
    return built(**{**call, **changes})[0]
