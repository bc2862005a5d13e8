"""QKV bias, rotary positions and layout, against float64, mx.fast.rope and the decoder's own attention."""

from __future__ import annotations

from typing import Any

import mlx.core as mx
import numpy as np
import pytest

from mlx_audio_r1.kernels import qkv_rope as op
from mlx_audio_r1.kernels.proofs.qkv_rope import OPTIONS as GIVEN
from mlx_audio_r1.kernels.proofs.qkv_rope import case, reference64
from tests.kernels.grid import DTYPES, ORDERS, assert_as_good, cases, exact, noise
from tests.metalsim import mutation_test, options
from tests.metalsim.simulate import Simulation

HEADS, KV_HEADS, BASE = GIVEN["heads"], GIVEN["kv_heads"], GIVEN["base"]
Arrays = tuple[mx.array, ...]


def arrays(batch: int, length: int, dtype: mx.Dtype, dims: int = 8) -> Arrays:
    return case(length, batch, dtype, dims).arrays


def rotated(*given: mx.array) -> tuple[np.ndarray, ...]:
    return reference64(*given, **GIVEN)


def assert_good(got: Any, given: Arrays) -> None:
    for triple in zip(got, op.reference(*given, **GIVEN), rotated(*given), strict=True):
        assert_as_good(*triple)


@pytest.mark.parametrize(("size", "batch", "dtype"), cases())
def test_as_good_as_plain_operations(simulation: Simulation, size: int, batch: int, dtype: mx.Dtype) -> None:
    given = arrays(batch, size, dtype)
    for order in ORDERS:
        with options(**order):
            assert_good(op.launch(*given, **GIVEN), given)
        assert simulation.last.findings == []


@pytest.mark.parametrize("dims", [2, 6, 64, 128])
@pytest.mark.parametrize("at", [0, 1, 4098, 30_000])
def test_head_sizes_and_positions(simulation: Simulation, dims: int, at: int) -> None:
    qkv, bias, offset = arrays(2, 1, mx.float32, dims)
    given = (qkv, bias, offset + at)
    for got, want in zip(op.launch(*given, **GIVEN), rotated(*given), strict=True):
        angle = (at + 8) * 2.0**-22  # an angle in float32 is off by so much
        assert np.abs(exact(got) - want).max() < 4 * max(angle, 2.0**-22)


@pytest.mark.parametrize("length", [1, 9])
def test_bytes_are_those_of_the_docstring(simulation: Simulation, length: int) -> None:
    dims, batch = 16, 2
    op.launch(*arrays(batch, length, mx.float16, dims), **GIVEN)
    traffic, positions = simulation.last.traffic, batch * length
    assert traffic["qkv"].read == traffic["bias"].read == positions * (HEADS + 2 * KV_HEADS) * dims * 2
    assert traffic["offset"].read == 4 * positions * (HEADS + KV_HEADS) * dims // 2
    assert traffic["frequencies"].read == 2 * traffic["offset"].read
    assert traffic["queries"].written == positions * HEADS * dims * 2
    assert traffic["keys"].written == traffic["values"].written == positions * KV_HEADS * dims * 2
    assert simulation.count("qkv_rope") == 1


@pytest.mark.parametrize("at", [0, 32_000, 65_535])
def test_far_into_a_context(simulation: Simulation, at: int) -> None:
    """Where an angle in float32 is off by up to 0.004."""
    qkv, bias, offset = arrays(2, 5, mx.float32, 64)
    given, options = (qkv, bias, offset + at), {**GIVEN, "base": 1e4}
    for got, want in zip(op.launch(*given, **options), reference64(*given, **options), strict=True):
        assert np.abs(exact(got) - want).max() < 4e-6  # some roundings of values up to 5


def test_slices_and_transposes(simulation: Simulation) -> None:
    qkv = noise((4, 40, 6), mx.float32, 1).transpose(2, 0, 1)[::2]
    given = qkv, noise((80,), mx.float32, 2)[::2], mx.arange(7, dtype=mx.int32)[1:4]
    assert_good(op.launch(*given, **GIVEN), given)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_gradients_are_the_reference_s(simulation: Simulation, dtype: mx.Dtype) -> None:
    qkv, bias, offset = arrays(2, 3, dtype)

    def gradients(side: Any) -> Any:
        def loss(qkv: mx.array, bias: mx.array) -> mx.array:
            return sum(mx.sin(x.astype(mx.float32)).sum() for x in side(qkv, bias, offset, **GIVEN))

        return mx.grad(loss, argnums=(0, 1))(qkv, bias)

    for got, want in zip(gradients(op.launch), gradients(op.reference), strict=True):
        assert mx.allclose(got, want, rtol=1e-5 if dtype == mx.float32 else 3e-2, atol=1e-2)


def test_it_is_what_the_decoder_s_attention_does(simulation: Simulation) -> None:
    """mlx-lm's Qwen2: three projections, reshaped, transposed, turned."""
    from mlx_lm.models import qwen2

    sizes = {"hidden_size": 24, "num_attention_heads": 3, "num_key_value_heads": 1, "intermediate_size": 8,
             "num_hidden_layers": 1, "rms_norm_eps": 1e-6, "vocab_size": 8, "rope_theta": BASE}
    attention = qwen2.Attention(qwen2.ModelArgs(model_type="qwen2", **sizes))
    x, parts = noise((1, 4, 24), mx.float32, 5), (attention.q_proj, attention.k_proj, attention.v_proj)
    qkv = x @ mx.concatenate([p.weight for p in parts]).T
    got = op.launch(qkv, mx.concatenate([p.bias for p in parts]), mx.array([6], mx.int32), **GIVEN)
    for part, out, turned in zip(parts, got, (True, True, False), strict=True):
        want = part(x).reshape(1, 4, -1, 8).transpose(0, 2, 1, 3)
        assert mx.allclose(out, attention.rope(want, offset=6) if turned else want, atol=1e-5)


def test_what_does_not_fit() -> None:
    qkv, bias, offset = arrays(2, 3, mx.float32)
    assert op.fits(qkv, bias, offset, **GIVEN)
    assert not op.fits(qkv, bias[1:], offset, **GIVEN)
    assert not op.fits(qkv, bias, offset[:1], **GIVEN)
    assert not op.fits(qkv, bias, offset.astype(mx.int64), **GIVEN)
    assert not op.fits(qkv[:, :0], bias, offset, **GIVEN)
    assert not op.fits(qkv[..., :15], bias[:15], offset, **GIVEN)  # heads of 3


def test_off_metal_the_reference_runs() -> None:
    given = arrays(2, 3, mx.float32)
    for got, want in zip(op.qkv_rope(*given, **GIVEN), op.reference(*given, **GIVEN), strict=True):
        assert mx.array_equal(got, want)


EQUIVALENT: list[str] = []


@pytest.mark.long
def test_every_break_of_it_is_noticed() -> None:
    given = arrays(2, 3, mx.float32)
    report = mutation_test(lambda: op._launch(*given, **GIVEN), op.reference(*given, **GIVEN), tolerance=1e-4)
    assert report.killed >= 10
    assert report.unexplained(EQUIVALENT) == []
