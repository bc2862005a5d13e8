"""MLX's own kernels, from the headers in its wheel: unchanged, and with simdgroup matrices among them."""

from __future__ import annotations

import struct
from typing import Any

import mlx.core as mx
import numpy as np
import pytest

from tests.metalsim import Output, run_header_kernel
from tests.metalsim.headers import header_source
from tests.metalsim.simulate import Simulation

pytestmark = [pytest.mark.long, pytest.mark.usefixtures("simulation")]

NAMES = {mx.float32: "float", mx.float16: "half", mx.bfloat16: "bfloat"}
ROUNDING = {mx.float32: 2e-6, mx.float16: 1e-3, mx.bfloat16: 8e-3}  # of outputs below 1
VOCABULARY = 158_720


def error(got: mx.array, expected: Any) -> float:
    return float(np.abs(np.asarray(got.astype(mx.float32), np.float64) - np.asarray(expected)).max())


def heads(dtype: mx.Dtype, queries: int, keys: int, *, q_heads: int, kv_heads: int,
          size: int) -> list[mx.array]:
    mx.random.seed(0)
    shapes = ((1, q_heads, queries, size), (1, kv_heads, keys, size), (1, kv_heads, keys, size))
    return [mx.random.normal(s).astype(dtype) for s in shapes]


def attention(q: mx.array, k: mx.array, v: mx.array, mask: str | None = None) -> mx.array:
    q, k, v = (x.astype(mx.float32) for x in (q, k, v))
    return mx.fast.scaled_dot_product_attention(q, k, v, scale=q.shape[-1] ** -0.5, mask=mask)


@pytest.mark.parametrize("dtype", NAMES, ids=str)
def test_decode_attention(dtype: mx.Dtype, simulation: Simulation) -> None:
    """Five query heads share a key head: each reads the keys for itself, so they are read five times."""
    q, k, v = heads(dtype, 1, 77, q_heads=10, kv_heads=2, size=64)
    strides = [np.uint64(77 * 64), np.uint64(64)] * 2
    scalars = [np.int32(5), np.int32(77), *strides, np.float32(64**-0.5)]
    got = run_header_kernel(
        header_source("sdpa_vector.h"), "sdpa_vector", f"<{NAMES[dtype]}, 64, 64>",
        {0: q, 1: k, 2: v, 3: Output(q.shape, dtype), **dict(enumerate(scalars, 4))},
        ((10 * 1024, 1, 1), (1024, 1, 1)))[3]
    assert error(got, attention(q, k, v)) < ROUNDING[dtype]
    size, read, _ = simulation.last.traffic["buffer 1"]
    assert read == 5 * size


def matrix_parameters(q: mx.array, k: mx.array, block: tuple[int, int]) -> bytes:
    """AttnParams of steel/attn/params.h."""
    (_, h, ql, d), (_, hk, kl, _) = q.shape, k.shape
    blocks = (-(-ql // block[0]), -(-kl // block[1]))
    whole = (ql // block[0], kl // block[1])
    rest = (ql - whole[0] * block[0], kl - whole[1] * block[1])
    sides = ((h, ql), (hk, kl), (hk, kl), (h, ql))
    strides = [stride for n, length in sides for stride in (n * length * d, length * d, d)]
    sizes = (1, h, d, ql, kl, h // hk)
    return struct.pack("<6if7i12q", *sizes, d**-0.5, *blocks, *whole, *rest, kl - ql, *strides)


@pytest.mark.parametrize(("dtype", "queries", "keys", "causal"), [
    (mx.float32, 64, 64, False), (mx.float16, 70, 90, False), (mx.bfloat16, 45, 77, True)])
def test_attention_by_simdgroup_matrices(dtype: mx.Dtype, queries: int, keys: int, causal: bool) -> None:
    q, k, v = heads(dtype, queries, keys, q_heads=2, kv_heads=1, size=64)
    constants = {"align_Q": queries % 32 == 0, "align_K": keys % 32 == 0, "do_causal": causal}
    got = run_header_kernel(
        header_source("steel/attn/kernels/steel_attention.h"), "attention",
        f"<{NAMES[dtype]}, 32, 32, 64, 64, 4, 1, bool, float>",
        {0: q, 1: k, 2: v, 3: Output(q.shape, dtype), 4: matrix_parameters(q, k, (32, 32))},
        ((-(-queries // 32) * 32, 2 * 4, 1), (32, 4, 1)), constants)[3]
    assert error(got, attention(q, k, v, "causal" if causal else None)) < ROUNDING[dtype]


@pytest.mark.parametrize("dtype", (mx.float32, mx.bfloat16), ids=str)
def test_cross_entropy_over_the_whole_vocabulary(dtype: mx.Dtype) -> None:
    mx.random.seed(0)
    logits, targets = (mx.random.normal((2, VOCABULARY)) * 3).astype(dtype), mx.array([VOCABULARY - 1, 3])
    got = run_header_kernel(
        header_source("cross_entropy.h"), "cross_entropy", f"<{NAMES[dtype]}>",
        {0: logits, 1: targets, 2: Output((2,), mx.float32), 3: np.int32(VOCABULARY)},
        ((2 * 1024, 1, 1), (1024, 1, 1)))[2]
    exact = np.asarray(logits.astype(mx.float32), np.float64)
    expected = np.log(np.exp(exact).sum(-1)) - exact[np.arange(2), np.asarray(targets)]
    assert error(got, expected) < 1e-5
