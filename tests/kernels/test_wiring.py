"""The attention, sampling and statistics kernels where they are used: with the switch on as with it off.

Tolerance in float32: a softmax over some tens of scores and sums of values of size 1, in another order; 1e-5
leaves room for a hundred roundings, and a wrong row, column, mask or padding shows 0.01 or more.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import pytest
from mlx_lm.models.cache import QuantizedKVCache

from mlx_audio_r1 import load
from mlx_audio_r1.batch import SeededSampler
from mlx_audio_r1.generate import Settings, sampler
from mlx_audio_r1.kernels.choice import configured
from mlx_audio_r1.many import sample
from mlx_audio_r1.models.decode_attention import MEASURED, Seen, over_one_stream, over_quantised
from mlx_audio_r1.models.kv_cache import BatchCache, Block, RowCache
from mlx_audio_r1.models.shared_prefix import EXACT, KVFormat, Segment
from mlx_audio_r1.session import AudioR1
from mlx_audio_r1.train.forward import ForwardOptions
from mlx_audio_r1.train.logprobs import token_logprobs
from tests.helpers import random_checkpoint
from tests.kernels.grid import DTYPES
from tests.metalsim.simulate import Simulation
from tests.test_batch import lively
from tests.train.tiny import batch_of, farthest, gradient, random_piece, tiny_model

# Plain scores and weights are rounded to bfloat16: of 200,000 values up to 3 the worst was off by 0.1. Other
# inputs show more than 1.
CLOSE = {mx.float32: 1e-5, mx.bfloat16: 0.25}
Q8, Q4 = KVFormat(8, 64), KVFormat(4, 64)
SEGMENTS = ("attention_segment_exact", "attention_segment_quantised")


@pytest.fixture(autouse=True)
def seeded() -> None:
    mx.random.seed(0)


def launches(simulation: Simulation, *names: str) -> int:
    return sum(simulation.count(name) for name in names or SEGMENTS)


def distance(a: mx.array, b: mx.array) -> float:
    assert a.shape == b.shape and a.dtype == b.dtype
    return mx.abs(a.astype(mx.float32) - b.astype(mx.float32)).max().item()


# ---- attention


def kept(tokens: int, form: KVFormat, kv_heads: int, dims: int, dtype: mx.Dtype) -> Segment:
    exact = Segment(*(mx.random.normal((1, kv_heads, tokens, dims)).astype(dtype) for _ in range(2)))
    return exact.quantised(form) if form.due(tokens) else exact


def rows_of(form: KVFormat, kv_heads: int, dims: int, dtype: mx.Dtype) -> list[RowCache]:
    """Three blocks: three rows of a prefix, two of another behind the same first one, two of their own."""
    first, second, third = (kept(n, form, kv_heads, dims, dtype) for n in (33, 5, 64))
    alone = [RowCache((), kept(n, form, kv_heads, dims, dtype), form) for n in (41, 63)]
    return [*[RowCache((first,), None, form)] * 3, *[RowCache((third, second), None, form)] * 2, *alone]


def stepped(cache: BatchCache, heads: tuple[int, int], dims: int, dtype: mx.Dtype) -> Iterator[mx.array]:
    """What some steps of a batch give: rows go, so that those who stay are ragged, and one comes."""
    for step, L in enumerate((1, 3, 1, 8)):
        if step == 2:
            cache.filter([0, 2, 3, 5, 6])
            first = cache.blocks[0]
            late = Block.one(RowCache(first.segments, None, first.form))
            cache.blocks[0] = first.joined(late)
        n, key = sum(map(len, cache.blocks)), mx.random.key(step)
        new = mx.split(mx.random.normal((n, sum(heads) + heads[1], L, dims), dtype, key=key),
                       [heads[0], sum(heads)], axis=1)
        yield cache.attend(*new, dims**-0.5, cache.make_mask(L))


@pytest.mark.parametrize(("form", "heads", "dims", "dtype"), [
    (EXACT, (4, 2), 32, mx.float32),
    (KVFormat(8, 32, 45), (4, 2), 32, mx.float32),
    pytest.param(Q4, (5, 1), 128, mx.float32, marks=pytest.mark.long),
    pytest.param(Q8, (10, 2), 64, mx.float32, marks=pytest.mark.long),
    pytest.param(Q8, (40, 8), 128, mx.bfloat16, marks=pytest.mark.long),
    pytest.param(EXACT, (4, 4), 64, mx.bfloat16, marks=pytest.mark.long),
], ids=["exact", "8 bits from 45 tokens on", "4 bits", "8 bits", "8 bits bfloat16", "exact bfloat16"])
def test_a_batch_attends_as_without_kernels(simulation: Simulation, form: KVFormat, heads: tuple[int, int],
                                            dims: int, dtype: mx.Dtype) -> None:
    rows = rows_of(form, heads[1], dims, dtype)
    caches = {switch: RowCache.merge(rows) for switch in ("on", "off")}
    assert [len(block) for block in caches["on"].blocks] in ([3, 2, 2], [3, 2, 1, 1])
    steps = {switch: stepped(cache, heads, dims, dtype) for switch, cache in caches.items()}
    for _ in range(4):
        simulation.launches.clear()
        with configured("off"):
            plain = next(steps["off"])
        assert simulation.launches == []
        with configured("on"):
            got = next(steps["on"])
        assert launches(simulation) >= 5  # of the blocks with segments: each segment, and their own
        assert distance(got, plain) < CLOSE[dtype]
    assert any(len({*block.lengths}) > 1 for block in caches["on"].blocks)


@pytest.mark.parametrize("form", [KVFormat(3, 64), KVFormat(6, 32)], ids=str)
def test_what_the_kernels_do_not_take_is_as_it_was(simulation: Simulation, form: KVFormat) -> None:
    rows = rows_of(form, 1, 128, mx.float32)
    found = {}
    for switch in ("on", "off"):
        with configured(switch):
            found[switch] = list(stepped(RowCache.merge(rows), (5, 1), 128, mx.float32))
    assert simulation.launches == []
    assert all(mx.array_equal(a, b) for a, b in zip(found["on"], found["off"], strict=True))


@pytest.mark.parametrize("L", [1, pytest.param(2, marks=pytest.mark.long), 8, 9])
def test_one_stream_over_a_quantised_cache(simulation: Simulation, L: int) -> None:
    cache = QuantizedKVCache(64, 8)
    cache.update_and_fetch(*(mx.random.normal((1, 2, 70, 64)) for _ in range(2)))
    keys, values = cache.update_and_fetch(*(mx.random.normal((1, 2, L, 64)) for _ in range(2)))
    queries = mx.random.normal((1, 10, L, 64))
    masks = [cache.make_mask(L, return_array=False, window_size=None)]
    if L > 1:
        masks.append(mx.arange(70 + L) <= 70 + mx.arange(L)[:, None])  # the same, but it might be any
    for mask in masks:
        with configured("off"):
            plain = over_one_stream(queries * 1, keys, values, 0.12, mask, cache)
        simulation.launches.clear()
        with configured("on"):
            got = over_one_stream(queries * 1, keys, values, 0.12, mask, cache)
        assert distance(got, plain) < CLOSE[mx.float32]
        assert (simulation.launches != []) == (L <= 8 and not isinstance(mask, mx.array))


def quantised(tokens: int) -> tuple[Any, ...]:
    keys, values = (Q8.quantise(mx.random.normal((2, 2, tokens, 64))) for _ in range(2))
    return mx.random.normal((2, 10, 1, 64)), keys, values, 0.12, Q8, Seen.of([0, 3], tokens - 1, 1)


@pytest.mark.parametrize("winner", [True, False])
def test_auto_obeys_its_file(simulation: Simulation, tmp_path: Path, winner: bool) -> None:
    file, given = tmp_path / "kernels.json", quantised(33)
    with configured("auto", file):
        over_quantised(*given)
    kept = json.loads(file.read_text())
    [key] = kept["winners"]
    assert " quantised_attention " in key
    kept["winners"][key] = {"kernel": winner, "ratio": 2.0}
    file.write_text(json.dumps(kept))
    with configured("auto", file):
        over_quantised(*given)  # the kernel is tried
        simulation.launches.clear()
        over_quantised(*given)
    assert bool(simulation.launches) == winner


def test_the_choice_waits_for_nothing(simulation: Simulation, monkeypatch: pytest.MonkeyPatch) -> None:
    queries, keys, values, scale, _, seen = quantised(20)
    arrays, options = (queries, *keys, *values, seen.padding), {"scale": scale, "bits": 8, "group_size": 64}

    def waits(*_: Any) -> None:
        raise AssertionError("computed something")

    with configured("on"):
        assert MEASURED["quantised_attention"].runs(*arrays, **options)
        monkeypatch.setattr(mx, "eval", waits)
        assert MEASURED["quantised_attention"].runs(*arrays, **options)


# ---- whole replies


@pytest.fixture(scope="module")
def r1(tmp_path_factory: pytest.TempPathFactory) -> AudioR1:
    folder = tmp_path_factory.mktemp("wiring") / "model"
    return lively(load(random_checkpoint(folder, heads=4, kv_heads=2, seed=3)))


ASK = [{"role": "user", "content": "Count to a hundred and one."}]
SHORT = {"max_tokens": 6}
BITS = {"kv_bits": 8, "kv_group_size": 32, "quantized_kv_start": 0}


@pytest.mark.parametrize("options", [{}, pytest.param(BITS, marks=pytest.mark.long)], ids=["exact", "8 bits"])
def test_greedy_samples_of_one_prompt(simulation: Simulation, r1: AudioR1, options: dict[str, Any]) -> None:
    """Random weights, so a tie would be luck; the margins of this prompt are not close (test_batch)."""
    found = {}
    for switch in ("off", "off,shared_prefix_attention=on"):
        with configured(switch):
            replies = sample(r1, ASK, 3, temperature=0.0, **SHORT, **options)
            found[switch] = [reply.token_ids for reply in replies]
        assert bool(launches(simulation)) == (switch != "off")
    plain, ours = found.values()
    assert ours == plain and ours[0] == ours[1] == ours[2]


def test_a_greedy_reply_over_a_quantised_cache(simulation: Simulation, r1: AudioR1) -> None:
    found = []
    for switch in ("off", "off,quantised_attention=on"):
        with configured(switch):
            found.append(r1.reply(ASK, temperature=0.0, **SHORT, **BITS).token_ids)
    assert found[0] == found[1]
    assert launches(simulation) >= (len(found[0]) - 1) * len(r1.model.layers)


# ---- sampling

OPTIONS = [{}, {"top_p": 0.8, "top_k": 20}, pytest.param({"min_p": 0.05}, marks=pytest.mark.long)]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_a_seed_gives_the_same_tokens_with_kernel_and_without(simulation: Simulation, options: Any) -> None:
    settings = Settings(temperature=0.8, **options)
    logprobs = mx.random.normal((3, 200)) * 3

    def tokens(broken: bool) -> list[list[int]]:
        with configured("off,sample=on") as choice:
            if broken:
                choice.broken["sample"] = "on purpose"
            mx.random.seed(11)
            alone, own = sampler(settings), SeededSampler(settings, 11)
            one = [[draw(logprobs[:1]).item() for _ in range(8)] for draw in (alone, own)]
            return [*one, *(alone(logprobs).tolist() for _ in range(4))]

    with_kernel = tokens(broken=False)
    assert simulation.count("sample") > 12
    simulation.launches.clear()
    assert tokens(broken=True) == with_kernel
    assert simulation.launches == []
    assert with_kernel[0] == with_kernel[1] and len({*with_kernel[0]}) > 2


def test_where_sampling_is_off_or_greedy_mlx_lm_samples(simulation: Simulation) -> None:
    from mlx_lm.sample_utils import greedy_sampler, make_sampler

    logprobs, settings = mx.random.normal((40, 100)), Settings(temperature=0.8, top_p=0.9)
    found = []
    for draw in (sampler(settings), make_sampler(0.8, 0.9)):
        mx.random.seed(1)
        found.append(draw(logprobs).tolist())
    assert found[0] == found[1]
    with configured("on"):
        assert sampler(Settings(temperature=0.0)) is greedy_sampler
    assert simulation.launches == []


def test_sampled_replies_of_a_batch_are_those_alone(simulation: Simulation, r1: AudioR1) -> None:
    hot = {"temperature": 1.0, "top_p": 0.95, "seed": 5, **SHORT}
    with configured("off,sample=on"):
        replies = sample(r1, ASK, 3, **hot)
        assert replies[0].token_ids == r1.reply(ASK, **hot).token_ids
    assert len({tuple(reply.token_ids) for reply in replies}) > 1
    assert simulation.count("sample") >= 3 * len(replies[0].token_ids)


# ---- training

ROWS = [[random_piece(1, 9, 3), random_piece(2, 8, 5)], [random_piece(3, 14, 4)]]
BATCH = batch_of(ROWS, padding=2, unlearnt=2)  # 21 learnt tokens: 3 chunks of 9 at most


def loss(entropy: bool) -> Callable[[nn.Module], mx.array]:
    def of(model: nn.Module) -> mx.array:
        logp, found = token_logprobs(model, BATCH, ForwardOptions(head_chunk=9), entropy=entropy)
        slope = mx.arange(BATCH.targets.size) / 7 - 1
        return (logp * slope).sum() + (0.3 * (found * slope * slope).sum() if found is not None else 0)

    return of


@pytest.mark.parametrize("entropy", [True, False])
@pytest.mark.parametrize("frozen", [True, False])
def test_losses_and_gradients(simulation: Simulation, frozen: bool, entropy: bool) -> None:
    """Of a trained head, and of a frozen one, whose gradient is prepared. 1e-5: float32 sums in two orders."""
    model = tiny_model(layers=1)
    if frozen:
        model.freeze()
        model.language_model.model.unfreeze()
    model.train()
    with configured("off"):
        value, grads = gradient(model, loss(entropy))
    assert simulation.launches == []
    with configured("on"):
        ours, our_grads = gradient(model, loss(entropy))
    assert simulation.count("token_statistics") >= 3 and simulation.count("token_statistics_vjp") >= 3
    assert ours == pytest.approx(value, rel=1e-5)
    assert farthest(our_grads, grads) < 1e-5


@pytest.mark.long
@pytest.mark.parametrize("dtype", DTYPES[1:], ids=str)
def test_gradients_of_half_the_bits(simulation: Simulation, dtype: mx.Dtype) -> None:
    """Logits and their gradient are rounded to 8 or 11 bits on both sides: 5e-3 measured in bfloat16."""
    model = tiny_model(layers=1)
    model.set_dtype(dtype)
    found = []
    for switch in ("off", "on"):
        with configured(switch):
            value, grads = gradient(model, loss(True))
            found.append((value, {name: g.astype(mx.float32) for name, g in grads.items()}))
    (value, grads), (ours, our_grads) = found
    assert ours == pytest.approx(value, rel=1e-5)
    assert farthest(our_grads, grads) < 0.02
