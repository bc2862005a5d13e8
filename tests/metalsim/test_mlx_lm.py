"""Kernels that are not ours, unchanged: mlx-lm's, held against the same operation written with plain MLX.

Tolerances are absolute: a few roundings of a sum of about 1,000 terms in float32, of the largest value in the
halves.
"""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from mlx.nn.layers.normalization import RMSNorm

from tests.metalsim import ORDERS, SimulationError, options
from tests.metalsim.mlx_lm_modules import mac_module
from tests.metalsim.simulate import Simulation

pytestmark = pytest.mark.usefixtures("simulation")

DTYPES = (mx.float32, mx.float16, mx.bfloat16)
HALVES = {mx.float32: 1e-5, mx.float16: 1e-3, mx.bfloat16: 8e-3}  # a rounding of a value near 1


@pytest.fixture(autouse=True)
def seeded() -> None:
    mx.random.seed(0)


def normal(*shape: int, dtype: mx.Dtype = mx.float32, scale: float = 1.0) -> mx.array:
    return (mx.random.normal(shape) * scale).astype(dtype)


def close(got: mx.array, expected: mx.array, tolerance: float) -> bool:
    return float(mx.abs(got.astype(mx.float32) - expected.astype(mx.float32)).max()) <= tolerance


def delta_inputs(dtype: mx.Dtype, key_size: int = 128, *, per_key_gate: bool = False) -> list[mx.array]:
    """q, k, v, gate, beta, state: 2 clips of 3 steps, 2 key heads, 4 value heads of 16."""
    unit = key_size**-0.5
    gate = mx.random.uniform(0.5, 1, (2, 3, 4, key_size) if per_key_gate else (2, 3, 4))
    return [
        normal(2, 3, 2, key_size, dtype=dtype, scale=unit), normal(2, 3, 2, key_size, dtype=dtype, scale=unit),
        normal(2, 3, 4, 16, dtype=dtype), gate, mx.random.uniform(0, 1, (2, 3, 4)).astype(dtype),
        normal(2, 4, 16, key_size),
    ]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_gated_delta(dtype: mx.Dtype) -> None:
    module, inputs = mac_module("models.gated_delta"), delta_inputs(dtype)
    expected = module.gated_delta_ops(*inputs)
    packed = module.gated_delta_kernel(*inputs)
    assert close(packed[0], expected[0], 4 * HALVES[dtype])
    assert close(packed[1], expected[1], 4 * HALVES[dtype])


def test_gated_delta_in_three_forms_gives_the_same_bits_as_its_documentation_says() -> None:
    module, inputs = mac_module("models.gated_delta"), delta_inputs(mx.float32)
    packed = module.gated_delta_kernel(*inputs)
    for other in (module.gated_delta_kernel_xtree(*inputs), module.gated_delta_kernel_unpacked(*inputs)):
        assert mx.array_equal(packed[0], other[0])
        assert mx.array_equal(packed[1], other[1])


def test_gated_delta_with_a_gate_per_key_dimension() -> None:
    module, inputs = mac_module("models.gated_delta"), delta_inputs(mx.float32, 64, per_key_gate=True)
    for got, expected in zip(module.gated_delta_kernel(*inputs), module.gated_delta_ops(*inputs), strict=True):
        assert close(got, expected, 1e-5)


def test_gated_delta_with_a_mask() -> None:
    module, inputs = mac_module("models.gated_delta"), delta_inputs(mx.float32, 96)
    mask = mx.array([[True, False, True], [True, True, False]])
    got, expected = module.gated_delta_kernel(*inputs, mask), module.gated_delta_ops(*inputs, mask)
    live = mask[..., None, None]  # what stands in masked steps is nobody's
    assert close(mx.where(live, got[0], 0), mx.where(live, expected[0], 0), 1e-5)
    assert close(got[1], expected[1], 1e-5)


@pytest.mark.parametrize("dtype", (mx.float32, mx.bfloat16), ids=str)
def test_state_space_update(dtype: mx.Dtype) -> None:
    module = mac_module("models.ssm")
    x, b, c = (normal(2, 1, *s, dtype=dtype) for s in ((8, 16), (2, 64), (2, 64)))
    inputs = (x, normal(8), b, c, normal(8), normal(2, 1, 8), normal(8), normal(2, 8, 16, 64), (0.001, 100.0))
    got, expected = module.ssm_update_kernel(*inputs), module.ssm_attn(*inputs)
    largest = float(mx.abs(expected[0]).max())
    assert close(got[0], expected[0], 2 * HALVES[dtype] * largest)
    assert close(got[1], expected[1], 1e-5 * float(mx.abs(expected[1]).max()))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_ternary_linear(dtype: mx.Dtype) -> None:
    layer = mac_module("models.bitlinear_layers").BitLinear(256, 64, bias=False, invert_weight_scales=True)
    ternary = np.random.default_rng(0).integers(0, 3, (64, 256))
    packed = (ternary.reshape(4, 16, 256) << np.arange(0, 8, 2)[:, None, None]).sum(0)
    layer.weight, layer.weight_scale = mx.array(packed.astype(np.uint8)), mx.array([1.75]).astype(dtype)
    x = normal(2, 3, 256, dtype=dtype)
    expected = x.astype(mx.float32) @ mx.array((ternary - 1).T.astype(np.float32)) / 1.75
    assert close(layer(x), expected, HALVES[dtype] * float(mx.abs(expected).max()))


def qkv(dtype: mx.Dtype) -> tuple[mx.array, mx.array]:
    """A projection of 6 query, 2 key and as many more heads of 80, and its normed query and key heads."""
    x = normal(2, 5, 16 * 80, dtype=dtype)
    return x, mx.fast.rms_norm(x[..., : 8 * 80].reshape(2, 5, 8, 80), None, 1e-5)


@pytest.mark.parametrize("dtype", (mx.float32, mx.bfloat16), ids=str)
def test_norm_of_queries_and_keys(dtype: mx.Dtype) -> None:
    x, normed = qkv(dtype)
    q, k = mac_module("kernels.qk_norm").qk_norm(
        x, n_heads=6, n_kv_heads=2, head_dim=80, eps=1e-5, query_scale=0.3)
    assert close(q, normed[..., :6, :].astype(mx.float32) * 0.3, 2 * HALVES[dtype])
    assert close(k, normed[..., 6:, :], 4 * HALVES[dtype])


@pytest.mark.parametrize("dtype", (mx.float32, mx.bfloat16), ids=str)
def test_norm_and_rotation_of_queries_and_keys(dtype: mx.Dtype) -> None:
    x, normed = qkv(dtype)

    def rotated(heads: mx.array) -> mx.array:
        turned = mx.fast.rope(heads.swapaxes(1, 2), 80, traditional=True, base=1e4, scale=1.0, offset=3)
        return turned.swapaxes(1, 2)

    q, k = mac_module("kernels.qk_norm_rope").qk_norm_rope(
        x, n_heads=6, n_kv_heads=2, head_dim=80, eps=1e-5, query_scale=0.3, rope_base=1e4, offset=3)
    assert close(q, rotated((normed[..., :6, :].astype(mx.float32) * 0.3).astype(dtype)), 2 * HALVES[dtype])
    assert close(k, rotated(normed[..., 6:, :]), 4 * HALVES[dtype])


@pytest.mark.parametrize("dtype", (mx.float32, mx.bfloat16), ids=str)
def test_norm_and_gate_of_a_strided_input(dtype: mx.Dtype) -> None:
    x = normal(2, 5, 3, 48, dtype=dtype).swapaxes(1, 2)
    gate = normal(2, 5, 3 * 48, dtype=dtype)
    got = mac_module("kernels.rms_norm_sigmoid_gate").rms_norm_sigmoid_gate(x, gate, eps=1e-5)
    normed = mx.fast.rms_norm(x.astype(mx.float32), None, 1e-5).swapaxes(1, 2).reshape(2, 5, 3 * 48)
    assert close(got, normed * mx.sigmoid(gate.astype(mx.float32)), 2 * HALVES[dtype])


def test_norm_add_norm() -> None:
    norm = RMSNorm(1000, 1e-5)
    norm.weight = normal(1000)
    branch, stream, alpha, beta = normal(3, 1000), normal(3, 1000), normal(1000), normal(1000)
    added, normed = mac_module("kernels.norm_add_norm").norm_add_norm(
        branch, stream, alpha=alpha, beta=beta, post_weight=None, post_eps=1e-6, next_norm=norm)
    expected = alpha * stream + beta * mx.fast.rms_norm(branch, None, 1e-6)
    assert close(added, expected, 1e-5)
    assert close(normed, mx.fast.rms_norm(expected, norm.weight, 1e-5), 1e-5)


def test_norm_and_combination_of_experts() -> None:
    experts, weights, scale = normal(3, 4, 1000), mx.random.uniform(0, 1, (3, 4)), normal(1000)
    got = mac_module("kernels.post_expert_norm_combine").post_expert_norm_combine(
        experts, weights, norm_weight=scale, eps=1e-5)
    expected = (mx.fast.rms_norm(experts * scale, None, 1e-5) * weights[..., None]).sum(1)
    assert close(got, expected, 1e-5)


def test_routing_to_experts() -> None:
    logits, bias = normal(5, 100), normal(100)
    chosen, weights = mac_module("kernels.expert_routing").expert_routing(
        logits, bias, top_k=6, multiplier=1.3, score_eps=1e-6, route_scale=2.0)
    scores = mx.sigmoid(logits * 1.3)
    expected = mx.argsort(-(scores + bias), axis=-1)[:, :6]
    picked = mx.take_along_axis(scores, expected, -1)
    assert mx.array_equal(chosen.astype(mx.int32), expected.astype(mx.int32))
    assert close(weights, picked / (picked.sum(-1, keepdims=True) + 1e-6) * 2, 1e-5)


@pytest.mark.parametrize("order", ORDERS)
def test_every_order_gives_the_same_bits(order: Any) -> None:
    experts, weights, scale = normal(3, 4, 1000), mx.random.uniform(0, 1, (3, 4)), normal(1000)
    combine = mac_module("kernels.post_expert_norm_combine").post_expert_norm_combine
    forward = combine(experts, weights, norm_weight=scale, eps=1e-5)
    with options(order=order, seed=11):
        assert mx.array_equal(combine(experts, weights, norm_weight=scale, eps=1e-5), forward)


@pytest.mark.skipif(version("mlx-lm") != "0.32.2", reason="mlx-lm 0.32.2 has the race, issue #1700 there")
def test_the_race_in_mlx_lm_s_kl_loss_is_found(simulation: Simulation) -> None:
    """What its users reported as wrong losses, and what its pull request #1714 mends."""
    q, p = normal(1, 4096), normal(1, 4096)
    with pytest.raises(SimulationError) as error, options(lint=False):
        mac_module("tuner.losses")._kl_forward_kernel(
            inputs=[q, p], output_shapes=[(1,)], output_dtypes=[mx.float32],
            template=[("T", mx.float32), ("V", 4096)], grid=(1024, 1, 1), threadgroup=(1024, 1, 1))
    assert {"race", "missing_fence"} <= error.value.kinds
    assert all("shared" in finding.message for finding in error.value.findings)
