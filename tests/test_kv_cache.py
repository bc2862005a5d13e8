"""Rows of a batch see what they would see alone: shared prefixes, ragged rows, quantisation, changes.

Tolerance: the softmax of a few hundred float32 scores, summed in another order, differs by some 1e-7
per weight; outputs are means of values of size 1, so 1e-5 leaves room for a hundred roundings. A wrong
row, column or mask shows 0.01 or more.
"""

import copy
import random

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from mlx.utils import tree_flatten
from mlx_lm.generate import maybe_quantize_kv_cache
from mlx_lm.models import qwen2
from mlx_lm.models.base import scaled_dot_product_attention
from mlx_lm.models.cache import BatchKVCache, KVCache, make_prompt_cache

from mlx_audio_r1.errors import PromptError
from mlx_audio_r1.models.attention import Attention, open_attention
from mlx_audio_r1.models.kv_cache import BatchCache, RowCache
from mlx_audio_r1.models.shared_prefix import EXACT, STEP, KVFormat, Segment, shared_attention

CLOSE = 1e-5
HEADS, KV_HEADS, DIM = 6, 2, 32
SCALE = DIM**-0.5
Q8, Q4 = KVFormat(8, 32, 0), KVFormat(4, 32, 0)


def normal(*shape: int) -> mx.array:
    return mx.random.normal(shape)


def distance(a: mx.array, b: mx.array) -> float:
    assert a.shape == b.shape
    return mx.abs(a - b).max().item()


def segment(tokens: int) -> Segment:
    return Segment(normal(1, KV_HEADS, tokens, DIM), normal(1, KV_HEADS, tokens, DIM))


def plain(store, form: KVFormat) -> mx.array:
    if isinstance(store, mx.array):
        return store
    return mx.dequantize(*store, group_size=form.group_size, bits=form.bits)


@pytest.mark.parametrize("form", [EXACT, Q8, Q4], ids=["exact", "8 bit", "4 bit"])
@pytest.mark.parametrize(("rows", "L", "lengths"), [(1, 1, [3]), (5, 1, [7]), (3, 4, [9, 1]), (2, 1, [])])
def test_shared_attention_is_attention_over_copies(rows, L, lengths, form):
    mx.random.seed(rows + L)
    queries, own = normal(rows, HEADS, L, DIM), [normal(rows, KV_HEADS, 6, DIM) for _ in range(2)]
    segments = [segment(n) for n in lengths]
    if form.bits:
        segments, own = [s.quantised(form) for s in segments], [form.quantise(x) for x in own]
    mask = mx.array(np.random.RandomState(0).rand(rows, 1, L, 6) > 0.3)
    mask[..., -1] = True
    got = shared_attention(queries, segments, *own, SCALE, mask, form)
    copies = [
        mx.concatenate([*(mx.repeat(plain(store, form), rows, 0) for store in seen), plain(mine, form)], 2)
        for seen, mine in zip(([s.keys for s in segments], [s.values for s in segments]), own, strict=True)
    ]
    whole = mx.concatenate([mx.ones((rows, 1, L, sum(lengths)), mx.bool_), mask], -1)
    expected = mx.fast.scaled_dot_product_attention(queries, *copies, scale=SCALE, mask=whole)
    assert distance(got, expected) < CLOSE


def test_the_softmax_of_bfloat16_rows_is_taken_in_float32():
    mx.random.seed(0)
    queries, prompt = normal(4, HEADS, 1, DIM), segment(3000)
    own = [normal(4, KV_HEADS, 2, DIM) for _ in range(2)]
    exact = shared_attention(queries, [prompt], *own, SCALE, None)
    half = Segment(prompt.keys.astype(mx.bfloat16), prompt.values.astype(mx.bfloat16))
    queries, *own = (x.astype(mx.bfloat16) for x in (queries, *own))
    got = shared_attention(queries, [half], *own, SCALE, None)
    # means over 3000 values, of size 0.02: scores and weights rounded to 8 bits cost 1e-3; a sum of 3000
    # weights in bfloat16 stops growing and costs 0.1
    assert got.dtype == mx.bfloat16 and distance(got.astype(mx.float32), exact) < 4e-3


class Reference:
    """The rows of a batch, each with mlx-lm's cache of one stream."""

    def __init__(self, form: KVFormat):
        self.form, self.rows = form, []

    def add(self, row: RowCache) -> None:
        self.rows.append(BatchCache.extract(RowCache.merge([row]), 0))

    def attend(self, queries: mx.array, keys: mx.array, values: mx.array) -> mx.array:
        outputs = []
        for i in range(len(self.rows)):
            cache = [self.rows[i]]
            if self.form.bits:
                maybe_quantize_kv_cache(cache, self.form.start, self.form.group_size, self.form.bits)
            self.rows[i] = cache[0]
            q, k, v = (x[i : i + 1] for x in (queries, keys, values))
            mask = cache[0].make_mask(q.shape[2], return_array=False, window_size=None)
            k, v = cache[0].update_and_fetch(k, v)
            outputs.append(scaled_dot_product_attention(q, k, v, cache[0], SCALE, mask))
        return mx.concatenate(outputs)


def newcomers(rng: random.Random, form: KVFormat) -> list[RowCache]:
    """One prompt of its own, or a few rows of one prompt, perhaps behind a prefix others have too."""
    def ready(tokens: int) -> Segment:
        return segment(tokens).quantised(form) if form.due(tokens) else segment(tokens)

    if rng.random() < 0.4:
        return [RowCache((), ready(rng.randint(1, 40)), form)]
    return [RowCache((ready(rng.randint(1, 40)),), None, form)] * rng.randint(2, 4)


@pytest.mark.parametrize("form", [EXACT, Q8, Q4, KVFormat(8, 32, 30)], ids=["exact", "8", "4", "8 from 30"])
@pytest.mark.parametrize("seed", [0, 1])
def test_rows_that_come_and_go_see_what_they_would_see_alone(form, seed):
    rng = random.Random(seed)
    mx.random.seed(seed)
    batch, reference = None, Reference(form)
    for _ in range(25):
        if batch is None or rng.random() < 0.3:
            rows = newcomers(rng, form)
            merged = copy.deepcopy(RowCache.merge(rows))  # as mlx-lm does when it splits a batch
            batch = merged if batch is None else (batch.extend(merged), batch)[1]
            for row in rows:
                reference.add(row)
        n, L = len(reference.rows), rng.choice([1, 1, 1, 3])
        queries = normal(n, HEADS, L, DIM)
        keys, values = normal(n, KV_HEADS, L, DIM), normal(n, KV_HEADS, L, DIM)
        expected_offset = [cache.offset for cache in reference.rows]
        assert mx.broadcast_to(mx.array(batch.offset), (n,)).tolist() == expected_offset
        got = batch.attend(queries, keys, values, SCALE, batch.make_mask(L))
        assert distance(got, reference.attend(queries, keys, values)) < CLOSE
        assert batch.size() == max(cache.offset for cache in reference.rows)
        if rng.random() < 0.4 and n > 1:
            keep = sorted(rng.sample(range(n), rng.randint(1, n)))
            batch.filter(keep)
            reference.rows = [reference.rows[i] for i in keep]
    for i, cache in enumerate(reference.rows):
        extracted = batch.extract(i)
        assert extracted.offset == cache.offset and type(extracted) is type(cache)
        for got, expected in zip(extracted.keys_and_values(), cache.keys_and_values(), strict=True):
            assert distance(plain(got, form), plain(expected, form)) == 0


def test_rows_without_a_prefix_are_mlx_lms_batch_to_the_bit():
    mx.random.seed(0)
    singles = []
    for tokens in (5, 30, 17):
        cache = KVCache()
        cache.update_and_fetch(normal(1, KV_HEADS, tokens, DIM), normal(1, KV_HEADS, tokens, DIM))
        singles.append(cache)
    ours = RowCache.merge([RowCache((), Segment.of(cache)) for cache in singles])
    theirs = BatchKVCache.merge(singles)
    for step in range(4):
        queries, keys, values = normal(3 - step // 2, HEADS, 1, DIM), *(
            normal(3 - step // 2, KV_HEADS, 1, DIM) for _ in range(2))
        mask = theirs.make_mask(1)
        k, v = theirs.update_and_fetch(keys, values)
        expected = scaled_dot_product_attention(queries, k, v, theirs, SCALE, mask)
        assert mx.array_equal(ours.attend(queries, keys, values, SCALE, ours.make_mask(1)), expected)
        if step == 1:
            ours.filter([0, 2])
            theirs.filter([0, 2])


def test_a_shared_prompt_is_held_once_and_never_written():
    prompt = segment(1000)
    before = mx.array(prompt.keys)
    batch = RowCache.merge([RowCache((prompt,))] * 16)
    for _ in range(3):
        batch.attend(normal(16, HEADS, 1, DIM), *(normal(16, KV_HEADS, 1, DIM) for _ in range(2)), SCALE, None)
    own = 2 * 16 * KV_HEADS * STEP * DIM * 4
    assert batch.nbytes == prompt.nbytes + own == 2 * KV_HEADS * 1000 * DIM * 4 + own
    assert prompt.length == 1000 and mx.array_equal(prompt.keys, before)
    assert copy.deepcopy(batch).blocks[0].segments[0] is prompt


def test_rows_of_two_waves_on_one_prompt_stand_together():
    prompt = segment(50)
    batch = RowCache.merge([RowCache((prompt,))] * 2)
    batch.attend(normal(2, HEADS, 5, DIM), *(normal(2, KV_HEADS, 5, DIM) for _ in range(2)), SCALE, None)
    batch.extend(RowCache.merge([RowCache((prompt,))]))
    [block] = batch.blocks
    assert block.lengths == [5, 5, 0]


def test_rows_that_leave_cost_only_their_block():
    batch = RowCache.merge([*[RowCache((segment(9),))] * 2, *[RowCache((segment(8),))] * 3])
    batch.attend(normal(5, HEADS, 1, DIM), *(normal(5, KV_HEADS, 1, DIM) for _ in range(2)), SCALE, None)
    first, second = batch.blocks
    batch.filter([0, 1, 4])
    assert batch.blocks[0] is first and batch.blocks[1] is not second
    batch.filter([2])
    assert [len(block) for block in batch.blocks] == [1]


def test_rows_that_turn_one_by_one_share_the_quantised_prompt():
    form = KVFormat(8, 32, 12)
    prompt = segment(8)
    batch = RowCache.merge([RowCache((prompt,), None, form)])
    batch.attend(normal(1, HEADS, 2, DIM), *(normal(1, KV_HEADS, 2, DIM) for _ in range(2)), SCALE, None)
    batch.extend(RowCache.merge([RowCache((prompt,), None, form)]))
    kinds = []
    for _ in range(6):
        batch.attend(normal(2, HEADS, 1, DIM), *(normal(2, KV_HEADS, 1, DIM) for _ in range(2)), SCALE, None)
        kinds.append([(block.packed, len(block)) for block in batch.blocks])
    assert kinds == [[(False, 2)]] * 2 + [[(True, 1), (False, 1)]] * 2 + [[(True, 2)]] * 2


@pytest.mark.parametrize("form", [EXACT, Q8, Q4, KVFormat(4, 32, 300), KVFormat(4, 32, 10_000)])
@pytest.mark.parametrize(("prompt", "reply"), [(1, 1), (100, 300), (300, 20), (256, 40)])
def test_the_estimate_is_never_below_what_a_row_takes(form, prompt, reply):
    held = segment(prompt).quantised(form) if form.due(prompt) else segment(prompt)
    alone = RowCache.merge([RowCache((), held, form)])
    group = RowCache.merge([RowCache((held,), None, form)] * 3)
    values = 2 * KV_HEADS * DIM
    bound_alone = form.bytes(prompt + reply, values, 4)
    bound_group = form.bytes(prompt, values, 4) + 3 * form.bytes(reply, values, 4, before=prompt)
    for _ in range(reply):
        for batch, rows in ((alone, 1), (group, 3)):
            new = [normal(rows, KV_HEADS, 1, DIM) for _ in range(2)]
            mx.eval(batch.attend(normal(rows, HEADS, 1, DIM), *new, SCALE, None))
        assert alone.nbytes <= bound_alone and group.nbytes <= bound_group


def test_what_the_batch_cannot_do_is_refused():
    batch = RowCache.merge([RowCache((segment(3),))])
    with pytest.raises(PromptError, match="sliding window"):
        batch.make_mask(1, window_size=4)
    with pytest.raises(PromptError, match="several lengths"):
        batch.prepare(lengths=[1, 2], right_padding=[1, 0])


@pytest.fixture
def theirs() -> qwen2.Model:
    mx.random.seed(3)
    return qwen2.Model(qwen2.ModelArgs(
        model_type="qwen2", hidden_size=64, num_hidden_layers=2, intermediate_size=96, vocab_size=99,
        num_attention_heads=4, num_key_value_heads=2, rms_norm_eps=1e-6, tie_word_embeddings=False,
    ))


def test_the_attention_is_mlx_lms_to_the_bit_with_mlx_lms_caches(theirs):
    ids = mx.array([[5, 7, 11, 13], [2, 3, 5, 8]])
    ours = open_attention(copy.deepcopy(theirs))
    assert all(type(layer.self_attn) is Attention for layer in ours.layers)
    assert {k for k, _ in tree_flatten(ours.parameters())} == {k for k, _ in tree_flatten(theirs.parameters())}
    assert mx.array_equal(ours(ids), theirs(ids))
    caches = [make_prompt_cache(model) for model in (ours, theirs)]
    for part in (ids, ids[:, :1]):
        assert mx.array_equal(ours(part, caches[0]), theirs(part, caches[1]))


def test_gradients_pass_through_the_attention(theirs):
    ids = mx.array([[5, 7, 11, 13]])
    ours = open_attention(copy.deepcopy(theirs))
    gradients = [nn.value_and_grad(model, lambda m: m(ids).sum())(model)[1] for model in (ours, theirs)]
    for (name, a), (_, b) in zip(*map(tree_flatten, gradients), strict=True):
        assert mx.array_equal(a, b), name
