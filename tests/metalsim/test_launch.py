"""A launch gives what Metal would, and counts what it moved."""

from __future__ import annotations

from typing import Any

import mlx.core as mx
import numpy as np
import pytest

from tests.metalsim import ORDERS, SimulationError, Traffic, metal_kernel, options, simulated
from tests.metalsim.examples import COLUMNS, ROWS, elementwise, row_sum, rows
from tests.metalsim.simulate import Simulation

pytestmark = pytest.mark.usefixtures("simulation")


def run(source: str, inputs: list[Any], shape: tuple[int, ...], dtype: mx.Dtype = mx.float32,
        **changes: Any) -> mx.array:
    """One thread an element of the output."""
    keep = {k: changes.pop(k) for k in ("ensure_row_contiguous", "header", "compile_options") if k in changes}
    names = [f"in{i}" for i in range(len(inputs))]
    built = metal_kernel(name="run", input_names=names, output_names=["out"],
                         source=f"uint i = thread_position_in_grid.x;\n{source}", **keep)
    size = int(np.prod(shape))
    call: dict[str, Any] = {"grid": (size, 1, 1), "threadgroup": (min(size, 64), 1, 1)}
    return built(inputs=inputs, output_shapes=[shape], output_dtypes=[dtype], **{**call, **changes})[0]


def test_every_byte_of_the_rows_is_read_once(simulation: Simulation) -> None:
    row_sum()
    assert simulation.last.traffic == {
        "x": Traffic(size=4 * ROWS * COLUMNS, read=4 * ROWS * COLUMNS, written=0),
        "out": Traffic(size=4 * ROWS, read=0, written=4 * ROWS),
    }
    assert simulation.count("row_sum") == 1
    assert simulation.last.threadgroup_bytes == 128
    assert "thread_position_in_threadgroup" in simulation.kernels["row_sum"].source


def test_orders_are_different_orders() -> None:
    """The last to write an element is another one in each order."""
    last = []
    for order in ORDERS:
        with options(order=order, seed=3, lint=False, allow=frozenset({"race"})):
            last.append(int(elementwise("out[0] = x[i];", size=1)[0]))
    assert last[:2] == [63, 0]
    assert last[2] not in (0, 63)


def test_a_seed_is_one_order() -> None:
    def last(seed: int) -> float:
        with options(order="random", seed=seed, lint=False, allow=frozenset({"race"})):
            return float(elementwise("out[0] = x[i];", size=1)[0])

    assert [last(seed) for seed in range(6)] == [last(seed) for seed in range(6)]
    assert len({last(seed) for seed in range(6)}) > 2


def test_groups_at_the_edge_of_the_grid_are_smaller() -> None:
    source = "out[i] = threads_per_threadgroup.x + 1000 * dispatch_threads_per_threadgroup.x;"
    sizes = run(source, [], (40,), mx.int32, threadgroup=(32, 1, 1))
    assert sizes.tolist() == [32032] * 32 + [32008] * 8


def test_shape_strides_and_offset_of_a_slice() -> None:
    base = mx.arange(60).reshape(5, 12)
    x = base[1::2, 3:9:2]
    source = "out[i] = in0[i / 3 * in0_strides[0] + i % 3 * in0_strides[1]] + 0 * in0_shape[0] + 0 * in0_ndim;"
    for contiguous in (True, False):
        assert run(source, [x], (2, 3), mx.int32, ensure_row_contiguous=contiguous).tolist() == x.tolist()


@pytest.mark.parametrize("dtype", (mx.float32, mx.float16, mx.bfloat16, mx.int8, mx.uint32, mx.int64, mx.bool_),
                         ids=str)
def test_dtypes_pass_through(dtype: mx.Dtype) -> None:
    x = mx.arange(9).astype(dtype)
    assert mx.array_equal(run("out[i] = in0[i];", [x], (9,), dtype), x)


def test_python_scalars_are_references() -> None:
    assert run("out[i] = in0 * in1 + (in2 ? 1 : 0);", [2, 1.5, True], (1,)).tolist() == [4.0]


def test_bfloat_and_half_round_each_operation() -> None:
    for dtype, name in ((mx.float16, "half"), (mx.bfloat16, "bfloat")):
        x = mx.random.normal((64,), key=mx.random.key(1)).astype(dtype)
        got = run(f"out[i] = {name}(in0[i] * in0[i]) + in0[i];", [x], (64,), dtype)
        assert mx.array_equal(got, x * x + x)


def test_simd_functions() -> None:
    """Against their definition, over lanes 0 to 31 that hold their square."""
    lanes = np.arange(32)
    values = lanes * lanes
    expected = {
        "simd_sum(v)": np.full(32, values.sum()), "simd_max(v)": np.full(32, 961), "simd_min(v)": np.zeros(32),
        "simd_shuffle_xor(v, 5)": values[lanes ^ 5], "simd_broadcast(v, 7)": np.full(32, 49),
        "simd_shuffle(v, ushort(31 - lane))": values[::-1],
        "simd_shuffle_rotate_down(v, 3)": np.roll(values, -3),
        "simd_shuffle_and_fill_up(v, -1, 2)": np.r_[-1, -1, values[:-2]],
        "simd_prefix_inclusive_sum(v)": values.cumsum(), "quad_sum(v)": values.reshape(8, 4).sum(1).repeat(4),
        "int(simd_ballot(lane % 2 == 1).any())": np.ones(32), "int(simd_all(lane < 31))": np.zeros(32),
        "simd_prefix_exclusive_sum(v)": values.cumsum() - values,
    }
    lane = "int lane = thread_index_in_simdgroup; int v = lane * lane;\n"
    source = lane + "".join(f"out[{32 * k} + lane] = {call};\n" for k, call in enumerate(expected))
    got = run(source, [], (len(expected), 32), mx.int32, grid=(32, 1, 1))
    for row, (call, want) in zip(np.asarray(got), expected.items(), strict=True):
        assert row.tolist() == want.tolist(), call


def test_atomics_add_up_in_every_order() -> None:
    add = "atomic_fetch_add_explicit(&out[i % 2], 1, memory_order_relaxed);"
    built = metal_kernel(name="count", input_names=[], output_names=["out"], atomic_outputs=True,
                         source=f"uint i = thread_position_in_grid.x;\n{add}")
    for order in ORDERS:
        with options(order=order):
            counts = built(inputs=[], output_shapes=[(2,)], output_dtypes=[mx.int32], grid=(200, 1, 1),
                           threadgroup=(64, 1, 1), init_value=0)[0]
        assert counts.tolist() == [100, 100]


def test_tables_structs_and_atomics_of_a_threadgroup() -> None:
    header = "constant float table[2] = {1, 10};\nstruct Pair { float a; int b; };\n"
    source = """
        threadgroup Pair pairs[64];
        threadgroup atomic_uint count[1];
        if (i == 0) { atomic_store_explicit(count, 0u, memory_order_relaxed); }
        pairs[thread_index_in_threadgroup].a = table[i % 2];
        pairs[thread_index_in_threadgroup].b = 3;
        threadgroup_barrier(mem_flags::mem_threadgroup);
        atomic_fetch_add_explicit(count, 1u, memory_order_relaxed);
        threadgroup_barrier(mem_flags::mem_threadgroup);
        threadgroup Pair& other = pairs[63 - i];
        bool odd = any(isnan(float2(i % 2 == 1 ? NAN : 0.0f, 1)));
        out[i] = other.a + other.b + float(atomic_load_explicit(count, memory_order_relaxed)) + (odd ? 100 : 0);
    """
    x = run(source, [mx.zeros(8)], (64,), header=header)
    assert x.tolist() == [77 if i % 2 == 0 else 168 for i in range(64)]


def test_vectors_are_built_and_swizzled() -> None:
    source = "float2 a = float2(1, 2); float4 v = float4(a, 3, float(i));" \
             " vec<float, 4> w = vec<float, 4>(v.wzyx); out[i] = dot(w, float4(1, 10, 100, 1000));"
    assert run(source, [], (2,)).tolist() == [1230.0, 1231.0]
    source = "int4 n = static_cast<int4>(float4(1.5, 2.5, 3.5, i)); out[i] = n.x + n.y + n.z + n.w;"
    assert run(source, [], (2,), mx.int32).tolist() == [6, 7]


def test_a_slice_need_not_be_aligned_for_vectors() -> None:
    source = "float2 v = ((const device float2*)in0)[i]; out[i] = v.x + v.y;"
    x = [mx.arange(16).astype(mx.float32)]
    assert run(source, x, (8,)).tolist() == [4.0 * i + 1 for i in range(8)]
    with pytest.raises(SimulationError, match="misaligned"), options(misalign=1):
        run(source, x, (8,))


def test_fast_functions_can_be_made_inexact() -> None:
    x = mx.random.uniform(0, 4, (64,), key=mx.random.key(2))
    exact = run("out[i] = fast::exp(in0[i]);", [x], (64,))
    with options(fast_ulps=1):
        rough = run("out[i] = fast::exp(in0[i]);", [x], (64,))
    assert not mx.array_equal(exact, rough)
    assert mx.allclose(exact, rough, rtol=1e-6)


def test_products_and_sums_can_be_contracted() -> None:
    x = [mx.random.normal((64,), key=mx.random.key(k)) for k in range(3)]
    exact = run("out[i] = in0[i] * in1[i] + in2[i];", x, (64,))
    with options(contract="fast"):
        contracted = run("out[i] = in0[i] * in1[i] + in2[i];", x, (64,))
    assert mx.array_equal(exact, x[0] * x[1] + x[2])
    assert mx.array_equal(contracted, run("out[i] = fma(in0[i], in1[i], in2[i]);", x, (64,)))
    assert not mx.array_equal(exact, contracted)


def test_denormals_are_flushed_or_not() -> None:
    tiny = [mx.array([1e-38])]
    assert run("out[i] = in0[i] * 0.1f;", tiny, (1,)).tolist() == [0.0]
    with options(flush_denormals=False):
        assert run("out[i] = in0[i] * 0.1f;", tiny, (1,)).tolist() != [0.0]


def test_gradients_go_through_a_kernel_with_its_own_vjp() -> None:
    @mx.custom_function
    def squared(x: mx.array) -> mx.array:
        return run("out[i] = in0[i] * in0[i];", [x], x.shape)

    square: Any = squared

    @square.vjp  # type: ignore[untyped-decorator]
    def _(x: mx.array, cotangent: mx.array, output: mx.array) -> mx.array:
        return run("out[i] = 2 * in0[i] * in1[i];", [x, cotangent], x.shape)

    x = mx.array([1.0, -2.0, 3.0])
    assert mx.grad(lambda x: square(x).sum())(x).tolist() == [2.0, -4.0, 6.0]


def test_compiled_functions_run_their_kernels() -> None:
    double = mx.compile(lambda x: run("out[i] = 2 * in0[i];", [x + 1], x.shape))
    assert double(mx.array([1.0, 2.0])).tolist() == [4.0, 6.0]


def test_mlx_is_itself_again_after_the_block() -> None:
    inside = mx.fast.metal_kernel
    with simulated():
        assert mx.metal.is_available()
    assert mx.fast.metal_kernel is inside  # the fixture's, which goes on


def test_an_error_of_the_call_is_mlx_s_own() -> None:
    with pytest.raises(ValueError, match=r"Expected `inputs` to have size 1 but got size 0"):
        row_sum(inputs=[])
    with pytest.raises(ValueError, match="at least one output"):
        metal_kernel(name="none", input_names=[], output_names=[], source="")


def test_what_metal_cannot_bind_is_refused() -> None:
    with pytest.raises(ValueError, match="Metal binds 31"):
        run("out[i] = in0;", [1.0] * 31, (1,))
    with pytest.raises(ValueError, match="float64"):
        run("out[i] = in0[0];", [mx.zeros((8,), dtype=mx.float64)], (1,))


def test_empty_inputs_can_be_given() -> None:
    assert run("out[i] = float(in0_shape[0]);", [mx.zeros((0, 3))], (1,)).tolist() == [0.0]


def test_the_sum_is_right_after_an_error() -> None:
    with pytest.raises(SimulationError), options(lint=False):
        elementwise("out[i + 64] = x[i];")
    assert mx.allclose(row_sum(), rows().sum(1), atol=1e-4)
