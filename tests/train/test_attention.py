"""Blockwise attention is attention: every size, every mask, values and gradients."""

import mlx.core as mx
import numpy as np
import pytest

from mlx_audio_r1.train.attention import BLOCKS, SCORES, TrainingAttention, block_size, blockwise, plain

SIZES = [1, 2, 7, 31, 33, 64, 257]
HEADS = {"one kv head": (5, 1), "grouped": (6, 2), "no groups": (3, 3)}
# Sums of up to 257 float32 products in another order; 1.0e-6 measured.
FP32 = 4e-6
# Products rounded to 8 bits of mantissa; 8.5e-3 measured, against the same values in float32, for MLX's own
# attention and 8.3e-3 for the blocks.
BF16 = 1.5e-2


def distance(a, b):
    """Largest difference, over the largest value of b where that is above 1."""
    return (mx.abs(a - b).max() / mx.maximum(mx.abs(b).max(), 1)).item()


def samples_of(kind, T):
    """(2, T): what the two rows hold."""
    cut, end = T // 3, T - T // 4
    row = {
        "one": [0] * T,
        "packed": [0] * cut + [1] * (T - cut),
        "padded": [0] * end + [-1] * (T - end),
        "packed and padded": [0] * cut + [1] * (end - cut) + [-1] * (T - end),
    }[kind]
    return mx.array([row, [2] * T], mx.int32)


def inputs(T, heads=4, kv_heads=2, D=8, dtype=mx.float32):
    q, k, v, w = (mx.random.normal((2, n, T, D), key=mx.random.key(i)).astype(dtype)
                  for i, n in enumerate((heads, kv_heads, kv_heads, heads)))
    return q, k, v, w


def spelled_out(q, k, v, scale, samples):
    """Attention in float64, one query at a time."""
    q, k, v = (np.array(x.astype(mx.float32), np.float64) for x in (q, k, v))
    samples, output = np.array(samples), np.zeros(q.shape)
    for b, h, t in np.ndindex(q.shape[:3]):
        keys = [s for s in range(t + 1) if samples[b, s] == samples[b, t] >= 0]
        if keys:
            g = h // (q.shape[1] // k.shape[1])
            scores = k[b, g, keys] @ q[b, h, t] * scale
            weights = np.exp(scores - scores.max())
            output[b, h, t] = weights @ v[b, g, keys] / weights.sum()
    return mx.array(output.astype(np.float32))


def with_gradients(way, q, k, v, w):
    """Output, and gradients of its product with w."""
    grads = mx.grad(lambda q, k, v: (way(q, k, v) * w).sum().astype(mx.float32), argnums=(0, 1, 2))(q, k, v)
    return [x.astype(mx.float32) for x in (way(q, k, v), *grads)]


@pytest.mark.parametrize("kind", ["one", "packed", "padded", "packed and padded"])
@pytest.mark.parametrize("T", [1, 7, 33])
@pytest.mark.parametrize("way", [plain, blockwise])
def test_both_ways_are_attention_spelled_out(way, T, kind):
    q, k, v, _ = inputs(T, 6, 2)
    samples = samples_of(kind, T)
    assert distance(way(q, k, v, 0.3, samples), spelled_out(q, k, v, 0.3, samples)) < FP32


@pytest.mark.parametrize("heads", HEADS.values(), ids=HEADS)
@pytest.mark.parametrize("T", SIZES)
def test_blockwise_equals_plain_with_blocks_that_do_not_divide(T, heads):
    q, k, v, w = inputs(T, *heads)
    for kind, block in (("one", 5), ("packed", 16), ("padded", 30), ("packed and padded", 100)):
        samples = samples_of(kind, T)
        expected = with_gradients(lambda *x, s=samples: plain(*x, 0.35, s), q, k, v, w)
        got = with_gradients(lambda *x, s=samples, b=block: blockwise(*x, 0.35, s, b), q, k, v, w)
        assert max(map(distance, got, expected)) < FP32, kind


@pytest.mark.parametrize("T", [7, 64, 257])
def test_blockwise_in_bfloat16_is_as_near_to_float32_as_mlx(T):
    q, k, v, w = inputs(T, dtype=mx.bfloat16)
    samples = samples_of("packed and padded", T)
    exact = with_gradients(lambda *x: plain(*x, 0.35, samples), *(x.astype(mx.float32) for x in (q, k, v, w)))
    for way in (lambda *x: plain(*x, 0.35, samples), lambda *x: blockwise(*x, 0.35, samples, 30)):
        assert max(map(distance, with_gradients(way, q, k, v, w), exact)) < BF16


@pytest.mark.parametrize("way", [plain, blockwise])
def test_padding_gets_zeros_and_no_gradient_is_nan(way):
    q, k, v, w = inputs(9)
    samples = mx.array([[-1] * 9, [0] * 4 + [-1] * 5], mx.int32)  # a row of padding alone, too
    output, *grads = with_gradients(lambda *x: way(*x, 0.3, samples), q, k, v, w)
    padding = mx.array((np.array(samples) < 0)[:, None, :, None])
    assert mx.where(padding, mx.abs(output), 0).max().item() == 0
    for grad in grads:
        assert mx.where(padding, mx.abs(grad), 0).max().item() == 0
        assert mx.isfinite(grad).all().item()


@pytest.mark.parametrize("way", [plain, blockwise])
def test_an_example_sees_nothing_of_its_neighbours(way):
    q, k, v, w = inputs(20)
    samples = mx.array([[0] * 8 + [1] * 12] * 2, mx.int32)
    alone = with_gradients(lambda *x: way(*x, 0.3, samples[:, 8:]), *(x[:, :, 8:] for x in (q, k, v, w)))
    beside = with_gradients(lambda *x: way(*x, 0.3, samples), q, k, v, w)
    assert max(distance(a[:, :, 8:], b) for a, b in zip(beside, alone, strict=True)) < FP32


def test_the_cache_object_chooses_the_way():
    q, k, v, _ = inputs(12)
    samples = samples_of("packed", 12)
    for flag, way in ((False, plain), (True, blockwise)):
        got = TrainingAttention(samples, flag).attend(q, k, v, 0.3, None)
        assert mx.array_equal(got, way(q, k, v, 0.3, samples))


def test_a_block_keeps_its_scores_within_bounds():
    assert [block_size(T) for T in (1, 1024, 2048, 4096, 8192, 65536)] == [512, 512, 256, 128, 64, 64]
    assert all(block_size(T) * T <= SCORES for T in range(BLOCKS[1] * 2, SCORES // BLOCKS[0], 97))


def peak(way, T):
    """Bytes above the inputs that output and gradients of 4 heads take, in float32 arrays of 4 T^2."""
    q, k, v, w = inputs(T, 4, 1, 8)
    samples = mx.zeros((2, T), mx.int32)
    mx.eval(q, k, v, w, samples)
    mx.clear_cache()
    mx.reset_peak_memory()
    before = mx.get_active_memory()
    mx.eval(mx.grad(lambda q, k, v: (way(q, k, v, 0.3, samples) * w).sum(), argnums=(0, 1, 2))(q, k, v))
    return (mx.get_peak_memory() - before) / (2 * 4 * T * T * 4)


def test_blockwise_makes_no_square_array():
    """7 arrays of one block's scores, 64 of 1024 queries: 0.38; MLX's own has 3.4 whole squares."""
    assert peak(lambda *x: blockwise(*x, 64), 1024) < 0.75
    assert peak(plain, 1024) > 2
