"""Every small change of a kernel is noticed, or it changes nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import mlx.core as mx
import pytest

from tests.metalsim import MutationReport, mutation_test
from tests.metalsim.examples import ROW_SUM, row_sum, rows
from tests.metalsim.mlx_lm_modules import mac_module
from tests.metalsim.mutate import mutants

pytestmark = pytest.mark.usefixtures("simulation")

# After a sum over all lanes every lane holds the same value, so that another lane may write it.
ANY_LANE = ("== 0 to == 1: if (lane == 0) {", "== 0 to == 1: if (thread_position_in_threadgroup.x == 0) {")


EXPLAINED = {
    "combination": (
        "== 0 to == 1: if (lane == 0) {",              # any lane, as above
        "> to >=: if (TG > 32) {",                     # TG is not 32 at this size
        "< to <=: for (int i = 0; i < R; i++) {",      # the last loop: past R, d < D is false
    ),
    "delta": ("== 0 to == 1: if (lane_in_row == 0) {",),  # any lane of a row
}


def test_every_barrier_fence_comparison_and_index_is_mutated() -> None:
    found = sorted(m.operator for m in mutants(ROW_SUM))
    assert found == sorted([
        "drop barrier", "fence nothing", "barrier of the simdgroup only", "< to <=", "< to <=", "== to !=",
        "== to !=", "== 0 to == 1", "== 0 to == 1", "drop the sum over lanes", "drop the sum over lanes",
        "+= to =", "+= to =", "index + 1", "index + 1", "index + 1", "index + 1"])


def test_sizes_and_template_arguments_are_not_mutated() -> None:
    sizes = "threadgroup float a[4], b[8];\nvec<float, 4> v;\nfloat x[N][M], y = 0, z[2];\n// y < z[1]\n"
    assert not list(mutants(sizes))
    assert len(list(mutants("float x = y[0], z = y[x[1]];\n"))) == 3


def test_an_index_in_an_index_is_two() -> None:
    made = [m.text for m in mutants("out[order[i]] = x[i];")]
    assert made == ["out[(order[i]) + 1] = x[i];", "out[order[(i) + 1]] = x[i];", "out[order[i]] = x[(i) + 1];"]


def test_no_mutant_survives_but_the_explained() -> None:
    report = mutation_test(lambda: [row_sum()], [rows().sum(1)], tolerance=1e-4)
    assert report.unexplained(ANY_LANE) == []
    assert report.killed == len(list(mutants(ROW_SUM))) - len(ANY_LANE) - len(report.invalid)


def test_an_explanation_of_no_survivor_is_named() -> None:
    assert MutationReport().unexplained(["index + 1: x[i]"]) == ["no survivor: index + 1: x[i]"]


def test_a_kernel_that_is_wrong_already_is_no_subject() -> None:
    with pytest.raises(AssertionError, match="as it is"):
        mutation_test(lambda: [row_sum()], [rows().sum(1) + 1], tolerance=1e-4)


def normal(*shape: int) -> mx.array:
    return mx.random.normal(shape)


def combination() -> tuple[Callable[[], list[mx.array]], list[mx.array]]:
    experts, weights, scale = normal(3, 4, 1000), mx.random.uniform(0, 1, (3, 4)), normal(1000)
    combine = mac_module("kernels.post_expert_norm_combine").post_expert_norm_combine
    expected = (mx.fast.rms_norm(experts * scale, None, 1e-5) * weights[..., None]).sum(1)
    return lambda: [combine(experts, weights, norm_weight=scale, eps=1e-5)], [expected]


def delta() -> tuple[Callable[[], list[mx.array]], list[mx.array]]:
    module = mac_module("models.gated_delta")
    inputs: list[Any] = [normal(2, 5, 2, 128) * 0.1, normal(2, 5, 2, 128) * 0.1, normal(2, 5, 4, 16),
                         mx.random.uniform(0.5, 1, (2, 5, 4)), mx.random.uniform(0, 1, (2, 5, 4)),
                         normal(2, 4, 16, 128)]
    return lambda: list(module.gated_delta_kernel(*inputs)), list(module.gated_delta_ops(*inputs))


@pytest.mark.long
@pytest.mark.timeout(900)
@pytest.mark.parametrize("subject", (combination, delta), ids=lambda subject: subject.__name__)
def test_mutants_of_mlx_lm_s_kernels(subject: Callable[[], Any]) -> None:
    mx.random.seed(0)
    run, expected = subject()
    report = mutation_test(run, expected, tolerance=1e-4)
    assert report.unexplained(EXPLAINED[subject.__name__]) == []

