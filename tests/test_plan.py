"""The planner against shapes of the published models, tables worked out by hand, and MLX's own sizes."""

import math
from dataclasses import replace
from pathlib import Path

import mlx.core as mx
import mlx.nn as nn
import pytest
from mlx.utils import tree_flatten
from mlx_lm.models.cache import make_prompt_cache

from mlx_audio_r1 import footprint
from mlx_audio_r1.config import read_config
from mlx_audio_r1.errors import PlanError
from mlx_audio_r1.footprint import GB, GIB, Sizes, Workload, published, quantised
from mlx_audio_r1.models.step_audio_r1 import Model
from mlx_audio_r1.plan import (
    Machine,
    context_for,
    inference_parts,
    largest_context,
    mac,
    plan_inference,
    require_fit,
)
from tests.helpers import random_checkpoint

GOLDEN = Path(__file__).parent / "golden"
R1 = published("stepfun-ai/Step-Audio-R1.1")
BF16 = footprint.sizes_from_shapes(R1)
FOUR, SIX, EIGHT = (quantised(R1, BF16, bits) for bits in (4, 6, 8))


def tensors(table: str) -> list[tuple[str, int, int]]:
    """(name, bytes in bfloat16, values) of a published model, from the list of its shapes."""
    lines = (line.split("\t") for line in (GOLDEN / table).read_text().splitlines())
    values = [(name, math.prod(map(int, shape.split("x")))) for name, shape in lines]
    return [(name, 2 * n, n) for name, n in values]


def offering(gigabytes: float) -> Machine:
    return Machine("a test machine", int(gigabytes * GB), int(gigabytes * GB), int(gigabytes * GB), "test")


def needed(parts) -> int:
    return sum(part.bytes for part in parts)


# ---- weights


@pytest.mark.parametrize(("table", "repo", "decoder", "audio"), [
    ("tensors_r1_32b.tsv", "stepfun-ai/Step-Audio-R1", 32_832_033_792, 636_968_960 + 18_030_848),
    ("tensors_2_mini.tsv", "stepfun-ai/Step-Audio-2-mini", 7_663_326_720, 636_968_960 + 14_883_584),
])
def test_shapes_of_the_published_models_give_every_value_they_have(table, repo, decoder, audio):
    from_headers = footprint.sizes_of(tensors(table))
    assert from_headers == Sizes(2 * decoder, 2 * audio, tied=False, value_bytes=2)
    assert footprint.sizes_from_shapes(published(repo)) == from_headers


def test_names_of_mlx_checkpoints_are_told_apart_as_well():
    ours = [("audio_encoder.conv1.weight", 7, 7), ("language_model.model.norm.weight", 20, 5),
            ("language_model.lm_head.weight", 100, 25), ("audio_adaptor.conv.bias", 3, 3)]
    assert footprint.sizes_of(ours) == Sizes(120, 10, tied=False, value_bytes=4)
    assert footprint.sizes_of(ours[:2]).tied


@pytest.mark.parametrize(("sizes", "gigabytes"), [(FOUR, 18.47), (SIX, 26.68), (EIGHT, 34.88), (BF16, 65.66)])
def test_decoder_sizes_of_the_table(sizes, gigabytes):
    assert sizes.decoder / GB == pytest.approx(gigabytes, abs=0.006)
    assert sizes.audio == 2 * 654_999_808  # never quantised


def test_exact_bytes_at_four_bits():
    assert FOUR.decoder == 32_830_914_560 * 9 // 16 + 1_119_232 * 2 == 18_469_627_904
    assert footprint.bits_per_value(R1, FOUR) == pytest.approx(4.5, abs=0.001)


@pytest.mark.parametrize(("bits", "group_size"), [(4, 64), (8, 32), (3, 64)])
def test_quantised_sizes_are_those_mlx_makes(tmp_path, bits, group_size):
    config = read_config(random_checkpoint(tmp_path / "model"))
    model = Model(config.with_shapes(adaptor_width=2048, tied=False))
    before = Sizes(*(sum(p.nbytes for _, p in tree_flatten(part)) for part in (
        model.language_model.parameters(),
        [model.audio_encoder.parameters(), model.audio_adaptor.parameters()])), value_bytes=4)
    assert footprint.sizes_from_shapes(config, value_bytes=4) == before
    nn.quantize(model.language_model, group_size, bits)
    made = sum(p.nbytes for _, p in tree_flatten(model.language_model.parameters()))
    assert quantised(config, before, bits, group_size).decoder == made


# ---- KV cache


def test_kv_bytes_of_a_token():
    assert [footprint.kv_bytes_per_token(R1.text, bits) for bits in (None, 8, 4)] == [262_144, 139_264, 73_728]
    assert footprint.kv_bytes(R1.text, Workload(16_384, rows=4)) == 4 * 16_384 * 262_144


def test_kv_bytes_are_those_of_mlx_caches(tmp_path):
    config = read_config(random_checkpoint(tmp_path / "model", heads=2, kv_heads=1))
    model = Model(config.with_shapes(adaptor_width=2048, tied=False)).language_model
    cache = make_prompt_cache(model)
    mx.eval(model(mx.zeros((1, 256), mx.int32), cache=cache), [c.state for c in cache])
    assert sum(c.nbytes for c in cache) == 256 * footprint.kv_bytes_per_token(config.text, value_bytes=4)
    packed = sum(c.to_quantized(group_size=64, bits=8).nbytes for c in cache)
    assert packed == 256 * footprint.kv_bytes_per_token(config.text, 8, 64, value_bytes=4)


def test_a_cache_quantised_late_is_counted_at_its_largest_moment():
    late = Workload(6_000, kv_bits=4, kv_start=5_000)
    assert footprint.kv_bytes(R1.text, late) == 5_000 * 262_144  # more than 6,000 * 73,728
    assert footprint.kv_bytes(R1.text, replace(late, context=4_000)) == 4_000 * 262_144  # never quantised
    assert footprint.kv_bytes(R1.text, replace(late, context=40_000)) == 40_000 * 73_728


# ---- plans of replies


@pytest.mark.parametrize(("offered", "short", "long"), [
    (27, 6, 1), (31, 11, 3), (48, 32, 9), (57, 43, 13), (72, 61, 18), (88, 81, 24), (96, 91, 27),
    (118, 118, 35), (144, 150, 45), (384, 445, 134),
])
def test_replies_that_fit_at_once(offered, short, long):
    """Rollouts at 4 bits with a 16-bit cache, contexts of 3,100 and 10,240 tokens."""
    def most(context: int) -> int:
        fits = (n for n in range(1, 1000)
                if needed(inference_parts(R1, FOUR, offering(offered), Workload(context, n))) > offered * GB)
        return next(fits) - 1

    assert (most(3_100), most(10_240)) == (short, long)


def test_a_plan_that_fits_has_no_advice():
    plan = plan_inference(R1, FOUR, mac(36), Workload(16_384))
    assert plan.fits and plan.advice == [] and plan.machine.usable == 27 * GIB
    names = [part.name for part in plan.parts]
    assert names == ["decoder", "audio part", "KV cache, 16 bits", "working memory"]
    assert [part.bytes for part in plan.parts[:3]] == [18_469_627_904, 1_309_999_616, 16_384 * 262_144]
    assert plan.parts[3].estimate and not any(part.estimate for part in plan.parts[:3])


def test_every_advice_does_fit():
    plan = plan_inference(R1, FOUR, mac(36), work := Workload(32_768))
    assert not plan.fits
    assert [a.changes for a in plan.alternatives] == [
        (("context", 27_392),), (("kv_bits", 8),), (("limit", 29_696),), (("mac", 48),)]
    for alternative in plan.alternatives[:2]:
        changed = plan_inference(R1, FOUR, mac(36), replace(work, **dict(alternative.changes)))
        assert changed.fits and changed.needed == alternative.needed
    assert plan.needed <= 29_696 << 20
    assert plan_inference(R1, FOUR, mac(48), work).fits
    assert not plan_inference(R1, FOUR, mac(36), replace(work, context=27_392 + 256)).fits
    assert plan.advice[2] == "sudo sysctl iogpu.wired_limit_mb=29696 (30.36 GB)"


def test_weights_too_large_lead_to_fewer_bits_and_then_to_pairs_of_changes():
    alone = plan_inference(R1, BF16, mac(64), Workload(16_384))
    assert alone.alternatives[0].changes == (("bits", 4),)
    pairs = plan_inference(R1, BF16, mac(36), Workload(16_384, rows=4))
    assert [a.changes for a in pairs.alternatives] == [
        (("bits", 4), ("context", 6_656)), (("rows", 1), ("bits", 4)), (("mac", 128),)]
    hopeless = plan_inference(R1, FOUR, mac(16), Workload(16_384))
    assert [a.changes for a in hopeless.alternatives] == [(("mac", 36),)]


def test_a_long_prompt_makes_a_quantised_cache_dear_and_a_shorter_prefill_step_helps():
    hour = Workload(51_200, prompt=footprint.prompt_tokens(3_600), kv_bits=8)
    plan = plan_inference(R1, FOUR, mac(36), hour)
    assert hour.prompt == 45_225 and not plan.fits
    assert dict(plan.alternatives[0].changes) == {"prefill_step": 128}
    scores = 2 * 2 * 40 * 2_048 * 45_225  # margin, bytes, heads, step, prompt
    plain = footprint.activation_bytes(R1, FOUR, replace(hour, kv_bits=None), fused=True)
    assert footprint.activation_bytes(R1, FOUR, hour, fused=True) - plain == scores
    assert footprint.activation_bytes(R1, FOUR, replace(hour, kv_start=50_000), fused=True) == plain


def test_the_reach_is_as_long_as_fits_and_ends_with_the_model():
    plan = plan_inference(R1, FOUR, mac(36), Workload(16_384))
    assert plan.reach.columns == ("KV 16 bits", "KV 8 bits", "KV 4 bits")
    name, (longest, _, quarter) = plan.reach.rows[0]
    assert (name, longest, quarter) == ("1 reply", 27_392, 65_536)
    assert largest_context(R1, FOUR, mac(36), Workload(1)) == longest
    assert largest_context(R1, BF16, mac(36), Workload(1)) == 0


def test_macs_as_they_come():
    assert [mac(gib).usable / GIB for gib in (16, 32, 36, 64, 128)] == pytest.approx(
        [10.67, 21.33, 27, 48, 96], abs=0.01)
    assert [mac(gib).raised / GIB for gib in (36, 96)] == [31, 88]
    assert mac(8).raised == mac(8).usable  # nothing to gain


def test_a_context_longer_than_the_model_reads_is_refused():
    assert context_for(R1, None) == 16_384 and context_for(R1, 65_536) == 65_536
    with pytest.raises(PlanError, match="at most 65,536 tokens, not 65,537"):
        context_for(R1, 65_537)


def test_require_fit_says_what_is_missing_in_one_line():
    require_fit(plan_inference(R1, FOUR, mac(64), Workload(16_384)))
    with pytest.raises(PlanError) as refusal:
        require_fit(plan_inference(R1, FOUR, mac(32), Workload(16_384)))
    assert str(refusal.value) == (
        "one reply of 16,384 tokens: needs 26.06 GB, a Mac with 32 GiB offers 22.91 GB; "
        "try --context 4096 (22.84 GB); --force goes on regardless")
    with pytest.raises(PlanError, match="try a shorter one"):
        require_fit(plan_inference(R1, FOUR, mac(32), Workload(16_384)), {"context": "a shorter one"})
