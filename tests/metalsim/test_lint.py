"""What Apple's compiler refuses is refused here too, although clang's C++ takes it."""

from __future__ import annotations

import mlx.core as mx
import pytest

from tests.metalsim import SimulationError, metal_kernel, options
from tests.metalsim.examples import elementwise
from tests.metalsim.lint import check_tokens

pytestmark = pytest.mark.usefixtures("simulation")

BODY = """
    threadgroup float shared[32];
    uint lane = thread_index_in_simdgroup;
    threadgroup float* p = shared;
    device float* q = out;
    auto r = x + lane;
    p[lane] = r[0];
    threadgroup_barrier(mem_flags::mem_threadgroup);
    q[lane] = simd_sum(p[lane]);
"""
FIRST = "p[lane] = r[0];"
SUMS = mx.full((32,), 32.0)  # of BODY, over ones

REFUSED = {
    "a device pointer in a threadgroup pointer": ("float* p = shared", "float* p = out"),
    "a pointer without an address space": ("threadgroup float* p", "float* p"),
    "a reference without an address space": (FIRST, f"float& z = p[0]; {FIRST}"),
    "a constant pointer to device memory": ("auto r = x", "const constant float* r = x"),
    "a write through const": ("q[lane] =", "x[lane] ="),
    "double": ("uint lane", "double d = 1; uint lane"),
    "a lambda": (FIRST, f"auto f = [&](int i) {{ return i; }}; {FIRST}"),
    "std::": ("r[0]", "std::max(r[0], 0.0f)"),
    "a threadgroup variable with a value": ("shared[32];", "shared[32] = {0};"),
    "max(int, uint), ambiguous": ("r[0];", "r[max(int(lane), lane)];"),
    "max(half, float), ambiguous": ("r[0];", "max(half(1), r[0]);"),
    "what is not ASCII": ("uint lane", "/* \u00d7 */ uint lane"),
    "goto": (FIRST, f"goto end; end: {FIRST}"),
    "a local without a value": (FIRST, "float z; p[lane] = z;"),
    "a sum over lanes of 64 bits": ("simd_sum(p[lane])", "simd_sum(long(p[lane]))"),
    "a vector of eight": ("uint lane", "vec<float, 8> v; uint lane"),
    "an atomic half": ("device float* q = out;", "device float* q = out; threadgroup atomic<half> h[1];"
                                                 " atomic_store_explicit(h, half(0), memory_order_relaxed);"),
    "a C cast of a vector": (FIRST, f"uint2 n = (uint2)as_type<uint2>(float2(1, 2)); p[0] = n.x; {FIRST}"),
    "an array of a size that is not known": (FIRST, f"float z[lane + 1]; z[0] = 1; {FIRST}"),
    "an atomic that orders others":
        (FIRST, f"atomic_load_explicit((device atomic_int*)q, memory_order_acquire); {FIRST}"),
    "matrices without their header": (FIRST, f"simdgroup_float8x8 m = simdgroup_float8x8(0.0f); {FIRST}"),
    "if constexpr, in Metal 3": (FIRST, f"if constexpr (N > 2) {{ {FIRST} }}"),
}
HEADERS = {
    "a helper whose pointer has no address space": "inline float g(float* p) { return p[0]; }\n",
    "a helper that calls itself": "inline int factorial(int n) { return n * factorial(n - 1); }\n",
    "a threadgroup variable of a helper": "inline float g() { threadgroup float t[1]; t[0] = 1; return *t; }\n",
    "a derived class": "struct A {}; struct B : A {};\n",
    "a helper for other memory": "inline float last(threadgroup float* p) { return p[31]; }\n",
}


def launch(body: str, header: str = "") -> mx.array:
    built = metal_kernel(name="lint", input_names=["x"], output_names=["out"], source=body, header=header)
    return built(inputs=[mx.ones((32,))], template=[("N", 3)], grid=(32, 1, 1), threadgroup=(32, 1, 1),
                 output_shapes=[(32,)], output_dtypes=[mx.float32])[0]


@pytest.mark.parametrize("edit", REFUSED.values(), ids=REFUSED)
def test_is_refused(edit: tuple[str, str]) -> None:
    assert edit[0] in BODY
    with pytest.raises(SimulationError) as error:
        launch(BODY.replace(*edit, 1))
    assert error.value.kinds == {"lint"}


@pytest.mark.parametrize("header", HEADERS.values(), ids=HEADERS)
def test_is_refused_in_a_header(header: str) -> None:
    call = "q[lane] = last(out) + " if "last" in header else "q[lane] = "
    with pytest.raises(SimulationError) as error:
        launch(BODY.replace("q[lane] = ", call), header)
    assert error.value.kinds == {"lint"}


def test_what_is_right_is_let_through() -> None:
    assert mx.array_equal(launch(BODY), SUMS)
    helper = "template <typename T> inline T first(const device T* p) { return p[0]; }\n"
    assert mx.array_equal(launch(BODY, helper), SUMS)


def test_matrices_with_their_header_are_let_through() -> None:
    matrix = BODY.replace(FIRST, f"simdgroup_float8x8 m = simdgroup_float8x8(0.0f); {FIRST}")
    assert mx.array_equal(launch(matrix, "#include <metal_simdgroup_matrix>\n"), SUMS)


def test_float_becomes_half_silently_and_bfloat_by_a_cast() -> None:
    elementwise("out[i] = x[i];", mx.float16)
    elementwise("out[i] = static_cast<bfloat16_t>(x[i]);", mx.bfloat16)
    with pytest.raises(SimulationError):
        elementwise("out[i] = x[i];", mx.bfloat16)


def test_if_constexpr_is_right_in_metal_4() -> None:
    body = BODY.replace(FIRST, f"if constexpr (N > 2) {{ {FIRST} }}")
    assert check_tokens(body) and not check_tokens(body, (4, 0))
    with options(metal=(4, 0)):
        launch(body)
