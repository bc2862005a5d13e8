"""Whichever way examples are bucketed, packed and shared out, each epoch learns the same tokens once."""

from collections import Counter

import mlx.core as mx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlx_audio_r1.errors import DataError
from mlx_audio_r1.train.batch import MEL_FRAMES
from mlx_audio_r1.train.batch_plan import BatchConfig, first_fit
from mlx_audio_r1.train.batches import Batches, collate
from tests.train.data_sets import example


class Numbered:
    """Features that say whose they are: every chunk's rows hold its number and their own place."""

    log_mels = False

    def __init__(self, examples):
        digests = dict.fromkeys(chunk.digest for e in examples for chunk in e.sounds)
        self.numbers = {digest: n for n, digest in enumerate(digests, start=1)}

    def __call__(self, chunk):
        rows = 2 * chunk.patches
        return mx.stack([mx.full(rows, self.numbers[chunk.digest]), mx.arange(rows)], axis=1)

    def rows(self, length):
        return (length + 1) // 2


def many(n, seed=0, longest=200, sounds=True):
    rng = np.random.default_rng(seed)
    lengths = np.clip(rng.lognormal(3.7, 0.7, n).astype(int), 12, longest)
    return [example(rng, f"train.jsonl:{i}", int(length), rng.integers(1, 4, i % 3) if sounds else ())
            for i, length in enumerate(lengths)]  # fmt: skip


def pairs(n, seed=0):
    rng = np.random.default_rng(seed)
    return [tuple(example(rng, f"train.jsonl:{i}", int(length)) for length in rng.integers(10, 60, 2))
            for i in range(n)]  # fmt: skip


def expected(e, features=None):
    """What must arrive of an example: ids, what is learnt where, and which feature row each patch takes."""
    at = np.flatnonzero(e.weights)
    learnt = tuple(zip(at.tolist(), e.ids[at].tolist(), e.weights[at].tolist(), strict=True))
    rows = [(features.numbers[c.digest], 2.0 * i) for c in e.sounds for i in range(c.patches)]
    return e.name, tuple(e.ids.tolist()), learnt, tuple(zip(e.patch_at.tolist(), rows, strict=True))


def arrived(batch):
    """The same, read back from the arrays of a batch."""
    ids, samples, patches = (np.array(x) for x in (batch.ids, batch.samples, batch.patches))
    width = ids.shape[1]
    flat = None
    if batch.features is not None:  # row 2i of E stands for row i of the adaptor's output
        flat = np.array(batch.features[:, ::2].reshape(-1, batch.features.shape[-1]))
    learnt = list(zip(*(np.array(x).tolist() for x in (batch.owners, batch.positions, batch.targets,
                                                       batch.weights)), strict=True))  # fmt: skip
    for number, name in enumerate(batch.names):
        rows, columns = np.nonzero(samples == number)
        assert len({*rows}) == 1 and (np.diff(columns) == 1).all()  # one row, side by side
        start = rows[0] * width + columns[0]
        own = tuple((p + 1 - start, t, w) for owner, p, t, w in learnt if owner == number and w)
        assert all(ids.reshape(-1)[p + 1] == t for owner, p, t, w in learnt if w)
        taken = patches[rows[0], columns]
        sounds = tuple((int(i), tuple(flat[taken[i]].tolist())) for i in np.flatnonzero(taken >= 0))
        yield name, tuple(ids[rows[0], columns].tolist()), own, sounds
    assert (ids[samples < 0] == 0).all() and (patches[samples < 0] == -1).all()


CONFIGS = {
    "plain": {"batch_size": 3},
    "one": {"batch_size": 1},
    "tokens": {"max_tokens_per_batch": 700},
    "packed": {"batch_size": 2, "pack": True},
    "packed tokens": {"max_tokens_per_batch": 448, "pack": True},
    "accumulated": {"batch_size": 2, "grad_accumulation_steps": 5},
    "loose": {"batch_size": 4, "pad_to": 1},
}


def config(name, **more):
    return BatchConfig(**{"max_seq_length": 224, "seed": 3, **CONFIGS[name], **more})


@pytest.mark.parametrize("world", [1, 2, 3])
@pytest.mark.parametrize("name", CONFIGS)
def test_every_example_arrives_once_an_epoch_whole(name, world):
    examples = many(41)
    features = Numbered(examples)
    whole = Counter(expected(e, features) for e in examples)
    ranks = [Batches(examples, features, config(name), rank, world) for rank in range(world)]
    for epoch in (0, 1):
        steps = range(ranks[0].steps(epoch), ranks[0].steps(epoch + 1))
        batches = [batch for step in steps for rank in ranks for batch in rank(step)]
        assert Counter(found for batch in batches for found in arrived(batch)) == whole


@pytest.mark.parametrize("name", CONFIGS)
def test_pairs_stay_together_as_2i_and_2i_plus_1(name):
    examples = pairs(17)
    batches = Batches(examples, None, config(name))
    found = [f for step in range(batches.steps(1)) for batch in batches(step) for f in arrived(batch)]
    together = list(zip(found[::2], found[1::2], strict=True))
    assert sorted(together) == sorted(tuple(map(expected, pair)) for pair in examples)


def test_a_pair_too_long_for_one_row_keeps_two_and_stays_whole():
    rng = np.random.default_rng(0)
    long = tuple(example(rng, "train.jsonl:1", 200) for _ in range(2))
    batches = Batches([long, *pairs(5)], None, config("packed"))
    batch = next(b for step in range(batches.steps(1)) for b in batches(step) if "train.jsonl:1" in b.names)
    assert [*arrived(batch)][batch.names.index("train.jsonl:1")] == expected(long[0])


def steps_of(batches, epochs=2):
    return [[[sorted(row) for row in batch] for batch in batches.rows(step)]
            for step in range(batches.steps(epochs))]  # fmt: skip


def test_a_step_is_a_function_of_seed_and_step_alone():
    examples = many(41, sounds=False)
    whole = steps_of(Batches(examples, None, config("packed")))
    jumping = Batches(examples, None, config("packed"))
    for step in (len(whole) - 1, 0, 3, len(whole) - 2, 1):
        assert [[sorted(row) for row in batch] for batch in jumping.rows(step)] == whole[step]
    assert steps_of(Batches(examples, None, config("packed", seed=4))) != whole
    first = Batches(examples, None, config("plain"))
    half = first.steps(1)
    both = steps_of(first)
    assert first.place(half) == (1, 0) and sorted(both[:half]) != sorted(both[half:])


@pytest.mark.parametrize("world", [2, 3, 8])
def test_ranks_share_each_step_and_none_is_without(world):
    """The step of two ranks is that of one rank with twice the micro-batches, unless one had to be cut."""
    examples = many(41, sounds=False)
    ranks = [Batches(examples, None, config("plain"), rank, world) for rank in range(world)]
    alone = Batches(examples, None, config("plain", grad_accumulation_steps=world))
    assert len({rank.steps(1) for rank in ranks} | {alone.steps(1)}) == 1
    for step in range(alone.steps(1)):
        shares = [rank.rows(step) for rank in ranks]
        assert all(shares)
        shared = sorted(row for share in shares for batch in share for row in batch)
        assert shared == sorted(row for batch in alone.rows(step) for row in batch)


def test_the_steps_of_an_epoch_are_equally_large():
    examples = many(50, sounds=False)
    batches = Batches(examples, None, config("one", grad_accumulation_steps=16))
    assert [len(batches.rows(step)) for step in range(batches.steps(1))] == [13, 13, 12, 12]


def test_fewer_rows_than_processes_are_refused_for_training_alone():
    batches = Batches(many(3), Numbered(many(3)), config("plain"), 0, 4)
    with pytest.raises(DataError, match="3 rows for 4 processes"):
        batches(0)
    assert len([*batches.in_order()]) == len([*batches.in_order(every_rank=True)]) == 1
    assert 0 < batches.padding() < 1


def test_sorting_by_length_leaves_little_padding():
    examples = many(3_000, longest=2_048, sounds=False)
    lengths = [len(e) for e in examples]
    random = 1 - sum(lengths) / sum(4 * max(lengths[i : i + 4]) for i in range(0, 3_000, 4))
    sorted_ = Batches(examples, None, BatchConfig(pad_to=1)).padding()
    packed = Batches(examples, None, BatchConfig(pad_to=1, pack=True)).padding()
    assert random > 0.4  # what batches as they come would waste
    assert sorted_ < 0.02 and packed < 0.02  # one of about eighty packed rows stays half empty
    assert Batches(examples, None, BatchConfig(pad_to=32)).padding(1) < 0.3  # short rows in multiples of 32


def test_batches_are_mixed_although_they_are_sorted():
    examples = many(400, sounds=False)
    batches = Batches(examples, None, config("plain"))
    longest = [max(len(batches.examples[i]) for row in b for i in row) for s in range(batches.steps(1))
               for b in batches.rows(s)]  # fmt: skip
    assert abs(np.corrcoef(longest, np.arange(len(longest)))[0, 1]) < 0.3


def test_a_token_budget_is_never_exceeded():
    batches = Batches(many(200), Numbered(many(200)), config("tokens"))
    shapes = [batch.ids.shape for step in range(batches.steps(1)) for batch in batches(step)]
    assert max(b * t for b, t in shapes) <= 700 and all(t % 32 == 0 for _, t in shapes)
    assert np.mean([b * t for b, t in shapes]) > 500  # and well used


def test_a_row_beyond_the_budget_is_refused_with_its_place():
    with pytest.raises(DataError, match=r"train\.jsonl:\d+ \(\d+\).*raise it to 192"):
        Batches(many(200), None, BatchConfig(max_seq_length=224, max_tokens_per_batch=100))


def test_long_rows_are_refused_by_name_or_dropped_and_told():
    examples = many(30, longest=200, sounds=False)
    long = [e.name for e in examples if len(e) > 64]
    with pytest.raises(DataError) as caught:
        Batches(examples, None, BatchConfig(max_seq_length=64))
    assert f"{len(long)} rows are longer than max_seq_length 64" in str(caught.value)
    assert all(name in str(caught.value) for name in long[:10]) and "--over-long drop" in str(caught.value)
    batches = Batches(examples, None, BatchConfig(max_seq_length=64, over_long="drop"))
    assert list(batches.dropped) == long and len(batches.examples) == 30 - len(long)
    with pytest.raises(DataError, match="no row is left"):
        Batches(examples, None, BatchConfig(max_seq_length=8, over_long="drop"))


def test_a_pair_is_dropped_as_a_whole():
    rng = np.random.default_rng(0)
    half = example(rng, "train.jsonl:9", 20), example(rng, "train.jsonl:9", 90)
    batches = Batches([half, *pairs(3)], None, BatchConfig(max_seq_length=64, over_long="drop"))
    assert batches.dropped == ("train.jsonl:9",) and len(batches.examples) == 6


def test_validation_comes_in_one_mixed_order_whatever_the_seed():
    examples = many(41)
    features = Numbered(examples)
    whole = Counter(expected(e, features) for e in examples)
    ranks = [[*Batches(examples, features, config("plain", seed=r), r, 2).in_order()] for r in (0, 1)]
    assert Counter(f for batches in ranks for batch in batches for f in arrived(batch)) == whole
    names = [batch.names for batch in Batches(examples, features, config("plain")).in_order(6)]
    assert names == [batch.names for pair in zip(*ranks, strict=False) for batch in pair][:6]


# Arrays


def test_the_arrays_of_a_packed_batch():
    rng = np.random.default_rng(0)
    a, b, c = example(rng, "a", 6, [2]), example(rng, "b", 5, [2]), example(rng, "c", 7)
    b = type(b)(b.ids, b.weights, b.where, a.sounds, b.patch_at)  # the same sound
    batch = collate([a, b, c], Numbered([a]), rows=[[0, 1], [2]], pad_to=8)
    assert batch.samples.tolist() == [[0] * 6 + [1] * 5 + [-1] * 5, [2] * 7 + [-1] * 9]
    assert batch.ids[0, :11].tolist() == [*a.ids, *b.ids] and batch.ids.dtype == mx.int32
    assert batch.features.shape == (1, 8, 2)  # heard once, padded to a multiple of 8
    assert batch.patches[0].tolist() == [0, 1, -1, -1, -1, -1, 0, 1] + [-1] * 8
    assert batch.positions.tolist() == [3, 4, 8, 9, 18, 19, 20, 21]
    assert batch.targets.tolist() == [*a.ids[4:], *b.ids[3:], *c.ids[3:]]
    assert batch.owners.tolist() == [0, 0, 1, 1, 2, 2, 2, 2]
    assert batch.weights.tolist() == [*a.weights[4:], *b.weights[3:], *c.weights[3:]]
    assert batch.extra == {} and batch.names == ("a", "b", "c")


def test_log_mels_come_with_their_lengths():
    rng = np.random.default_rng(0)
    a = example(rng, "a", 6, [2])
    heard = Numbered([a])
    heard.log_mels = True
    assert collate([a], heard).extra[MEL_FRAMES].tolist() == [4]


def test_batches_of_text_have_no_features():
    batch = collate(many(3, sounds=False))
    assert batch.features is None and batch.extra == {} and (batch.patches == -1).all().item()


def test_nothing_to_learn_still_is_a_batch():
    e = example(np.random.default_rng(0), "a", 9)
    e.weights[:] = 0
    batch = collate([e], pad_to=4)
    assert batch.weights.tolist() == [0.0] * 4 and batch.ids.shape == (1, 12)


def test_sounds_need_someone_who_encodes_them():
    with pytest.raises(DataError, match="nothing that encodes"):
        collate(many(3))


@settings(max_examples=200, deadline=None)
@given(st.lists(st.integers(1, 40), max_size=30))
def test_first_fit_is_the_plain_first_fit(lengths):
    bins: list[list[int]] = []
    for item in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        fitting = (b for b in bins if sum(lengths[i] for i in b) + lengths[item] <= 32)
        place = next(fitting, None) if lengths[item] <= 32 else None
        if place is None:
            bins.append([item])
        else:
            place.append(item)
    assert first_fit(lengths, 32) == bins


# Through the model


def test_a_packed_row_gives_every_example_the_logits_it_has_alone(tiny):
    from mlx_audio_r1.train.forward import hidden_states

    rng = np.random.default_rng(0)
    examples = [example(rng, str(i), n) for i, n in enumerate((9, 14, 5, 20))]
    packed = hidden_states(tiny.model, collate(examples, rows=[[0, 1], [2, 3]], pad_to=4))
    alone = hidden_states(tiny.model, collate(examples, pad_to=4))
    for number, (row, start) in enumerate(((0, 0), (0, 9), (1, 0), (1, 5))):
        n = len(examples[number])
        # float32; rotary angles at other positions round differently
        assert mx.allclose(packed[row, start : start + n], alone[number, :n], rtol=1e-4, atol=1e-4).item()
