"""Kernels with one bug each. The simulator must name it, and must say nothing of the kernel without it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import mlx.core as mx
import pytest

from tests.metalsim import ORDERS, CompileError, SimulationError, options
from tests.metalsim.examples import ROW_SUM, ROWS, elementwise, row_sum, rows
from tests.metalsim.simulate import Simulation

BARRIER = "threadgroup_barrier(mem_flags::mem_threadgroup);"
START = "float sum = 0;"
SUM = "sum = simd_sum(sum);"
WRITE = "if (thread_position_in_threadgroup.x == 0) {\n        out[row] = sum;\n    }"

pytestmark = pytest.mark.usefixtures("simulation")


@dataclass(frozen=True)
class Bug:
    name: str
    finding: str
    edit: tuple[str, str] = ("", "")
    launch: dict[str, Any] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)


def at_start(name: str, finding: str, statement: str, **options: Any) -> Bug:
    return Bug(name, finding, (START, f"{START} {statement}"), options=options)


ROW_SUM_BUGS = (
    Bug("no barrier", "race", (BARRIER, "")),
    Bug("a barrier that fences nothing", "missing_fence", ("mem_threadgroup)", "mem_none)")),
    Bug("a barrier that fences other memory", "missing_fence", ("mem_threadgroup)", "mem_device)")),
    Bug("a barrier of the simdgroup only", "race", ("threadgroup_barrier(", "simdgroup_barrier(")),
    Bug("a read past the end", "out_of_bounds", ("i < N", "i <= N")),
    Bug("a read before the start", "out_of_bounds", ("x[row * N + i]", "x[int(row * N + i) - 1]")),
    Bug("a write past the end", "out_of_bounds", ("out[row]", "out[row + 1]")),
    Bug("a threadgroup array too small", "index_out_of_bounds", ("partial[32]", "partial[3]")),
    Bug("a threadgroup array too small, through a pointer", "out_of_bounds",
        ("partial[32];", "short_[3]; threadgroup float* partial = short_;")),
    Bug("partial sums that nobody wrote", "uninitialised_threadgroup",
        ("lane < simdgroups_per_threadgroup", "true")),
    Bug("a grid too small", "unwritten_output", launch={"grid": (4 * 128, 1, 1)}),
    Bug("each thread writes a value of its own", "race", (WRITE, "out[row] = sum + lane;")),
    Bug("two threadgroups write one element", "race", ("out[row]", "out[row / 2]"), {"output_shapes": [(3,)]}),
    at_start("a return before a barrier", "divergent_barrier",
             "if (thread_position_in_threadgroup.x >= 100) return;"),
    Bug("a barrier in a branch", "divergent_barrier", (BARRIER, f"if (sg == 0) {{ {BARRIER} }}")),
    Bug("two barriers in two branches", "divergent_barrier",
        (BARRIER, f"if (sg == 0) {{ {BARRIER} }} else {{ {BARRIER} }}")),
    Bug("a shuffle mask out of range", "simd_lane_range", (SUM, "sum += simd_shuffle_xor(sum, 32);")),
    Bug("a shuffle from lanes that left", "simd_inactive_lane",
        (SUM, "if (sg == 0 && lane > 15) { return; } sum += simd_shuffle_xor(sum, 16);")),
    Bug("a broadcast of different lanes", "simd_broadcast_divergent",
        (SUM, "sum = simd_broadcast(sum, ushort(lane & 1));")),
    at_start("a write to an input", "write_to_input", "((device float*)x)[0] = 0;"),
    at_start("too much threadgroup memory", "threadgroup_memory",
             "threadgroup float big[8200]; if (lane == 99) { big[0] = 0; }"),
    at_start("a division by zero", "division", "int zero = N - 333; out[row] = 1 / zero;"),
    at_start("a shift by the type's width", "bad_shift", "uint n = 32 + lane; sum += float(lane << n);"),
    at_start("an endless loop of SIMD functions", "runaway", "while (true) { sum = simd_sum(sum) + 1; }",
             max_steps=100_000),
    at_start("an endless loop", "runaway", "for (uint i = 0; i < N; i = 0) { sum += x[i]; }", max_seconds=1),
    at_start("another lane's private memory", "foreign_private",
             "thread float* mine = &sum; threadgroup ulong shared_address[1];"
             " if (lane == 0) { shared_address[0] = as_type<ulong>(mine); } simdgroup_barrier(mem_flags::"
             "mem_threadgroup); sum += *as_type<thread float*>(shared_address[0]);"),
)

ELEMENTWISE_BUGS = (
    Bug("+= by many threads", "race", ("", "out[0] += x[i];"), {"init_value": 0, "output_shapes": [(1,)]}),
    Bug("+= on an output without a start", "uninitialised_output", ("", "out[i] += x[i];")),
    Bug("a read of what another threadgroup writes", "race", ("", "out[i] = x[i] + out[(i + 32) % 64];"),
        {"init_value": 0}),
    Bug("a write after other lanes' second reading", "race",
        ("", "threadgroup float t[32]; uint n = thread_index_in_simdgroup; t[n] = x[i]; float sum = t[n];"
             " simdgroup_barrier(mem_flags::mem_threadgroup); sum += t[5];"
             " simdgroup_barrier(mem_flags::mem_threadgroup);"
             " if (n > 0) { sum += t[5]; } if (n == 31) { t[5] = 7; } out[i] = sum;")),
    Bug("a misaligned vector", "misaligned",
        ("", "float2 v = ((const device float2*)(x + 1))[i / 2]; out[i] = v.x + v.y;"),
        {"grid": (60, 1, 1), "output_shapes": [(60,)]}),
    Bug("an atomic read by plain means", "race",
        ("", "atomic_fetch_add_explicit((device atomic_float*)out, x[i], memory_order_relaxed);"
             " if (i == 40) { out[1] = out[0]; }"), {"init_value": 0, "output_shapes": [(2,)]}),
)

NOT_COMPILED = {
    "double": (START, "double sum = 0;"),
    "std::": (SUM, "sum = std::max(sum, 0.0f);"),
    "assignment to an input": (START, f"{START} x[0] = 1;"),
    "a variable without a value": (START, "float sum;"),
    "a sum over lanes of a bool": (SUM, "sum = simd_sum(sum > 0);"),
}


def test_the_kernel_without_a_bug_has_no_finding(simulation: Simulation) -> None:
    for order in ORDERS:
        with options(order=order, seed=7):
            assert mx.allclose(row_sum(), rows().sum(1), atol=1e-4)
    assert [launch.findings for launch in simulation.launches] == [[], [], []]


@pytest.mark.parametrize("bug", ROW_SUM_BUGS, ids=lambda bug: bug.name)
def test_bug_is_found(bug: Bug) -> None:
    source = ROW_SUM.replace(*bug.edit, 1) if bug.edit[0] else ROW_SUM
    assert source != ROW_SUM or bug.launch
    with pytest.raises(SimulationError) as error, options(lint=False, **bug.options):
        row_sum(source, **bug.launch)
    assert bug.finding in error.value.kinds


@pytest.mark.parametrize("bug", ELEMENTWISE_BUGS, ids=lambda bug: bug.name)
def test_bug_of_an_elementwise_kernel_is_found(bug: Bug) -> None:
    with pytest.raises(SimulationError) as error, options(lint=False):
        elementwise(bug.edit[1], **bug.launch)
    assert bug.finding in error.value.kinds


@pytest.mark.parametrize("edit", NOT_COMPILED.values(), ids=NOT_COMPILED)
def test_what_is_no_metal_does_not_compile(edit: tuple[str, str]) -> None:
    with pytest.raises(CompileError), options(lint=False):
        row_sum(ROW_SUM.replace(*edit, 1))


def test_a_threadgroup_has_1024_threads_at_most() -> None:
    with pytest.raises(ValueError, match="greater than the maximum"):
        row_sum(threadgroup=(2048, 1, 1))


def test_a_fence_of_nothing_gives_the_right_numbers_nevertheless() -> None:
    """Why comparing numbers is not enough."""
    source = ROW_SUM.replace("mem_threadgroup)", "mem_none)")
    with options(lint=False, check=False):
        assert mx.allclose(row_sum(source), rows().sum(1), atol=1e-4)


def test_a_race_does_not_depend_on_the_order() -> None:
    for order in ORDERS:
        with pytest.raises(SimulationError) as error, options(lint=False, order=order):
            row_sum(ROW_SUM.replace("mem_threadgroup)", "mem_none)"))
        assert error.value.kinds == {"missing_fence"}


def test_a_finding_names_both_lines() -> None:
    with pytest.raises(SimulationError) as error, options(lint=False):
        row_sum(ROW_SUM.replace("mem_threadgroup)", "mem_none)"))
    finding = error.value.findings[0]
    assert (finding.where, finding.other) == ("row_sum:14", "row_sum:11")
    assert "partial" in finding.message


def test_equal_values_written_twice_are_counted_not_raised(simulation: Simulation) -> None:
    row_sum(ROW_SUM.replace(WRITE, "out[row] = sum;"))
    assert simulation.last.repeated_writes == ROWS * 127


def test_an_allowed_kind_is_recorded_only(simulation: Simulation) -> None:
    with options(lint=False, allow=frozenset({"missing_fence"})):
        row_sum(ROW_SUM.replace("mem_threadgroup)", "mem_none)"))
    assert [f.kind for f in simulation.last.findings] == ["missing_fence"]
