"""The plan of the real 32B checkpoint, from its published tensor list; no weight is needed."""

from __future__ import annotations

import json
import math

import pytest

from mlx_audio_r1.convert.plan import SHARD_BYTES, make_plan
from mlx_audio_r1.convert.reader import Entry
from mlx_audio_r1.convert.recipe import Recipe
from mlx_audio_r1.models.key_map import AUDIO_PREFIXES
from tests.convert.checkpoints import GOLDEN

CONFIG = {
    "architectures": ["StepAudio2ForCausalLM"],
    "model_type": "step_audio_2",
    "audio_encoder_config": {"llm_dim": 5120},
    "text_config": {
        "hidden_size": 5120, "num_hidden_layers": 64, "intermediate_size": 27648, "vocab_size": 158720,
        "num_attention_heads": 40, "num_key_value_heads": 8, "rms_norm_eps": 1e-6,
    },
}
MINI = {"hidden_size": 3584, "num_hidden_layers": 28, "intermediate_size": 18944, "vocab_size": 158720,
        "num_attention_heads": 28, "num_key_value_heads": 4, "rms_norm_eps": 1e-6}


def entries_of(table: str) -> list[Entry]:
    entries, begin = [], 0
    for line in (GOLDEN / table).read_text().splitlines():
        name, shape = line.split("\t")
        entry = Entry(name, "BF16", tuple(int(n) for n in shape.split("x")), "model.safetensors", begin)
        begin += entry.nbytes
        entries.append(entry)
    return entries


def test_r1_in_4_bits():
    plan = make_plan(entries_of("tensors_r1_32b.tsv"), CONFIG, Recipe(quantize=True))
    assert sum(s.source_bytes for s in plan.steps) == 66_974_067_200
    assert plan.output_bytes == 19_779_627_520
    assert plan.total_parameters == 33_487_033_600
    assert [s.name for s in plan.shards] == [f"model-0000{n}-of-00004.safetensors" for n in (1, 2, 3, 4)]
    assert all(sum(step.output_bytes for step in s.steps) <= SHARD_BYTES for s in plan.shards)
    # 64 layers of 7 linears, embeddings and head; each packed weight adds scales and biases.
    assert len(plan.index()["weight_map"]) == 1264 + 2 * (64 * 7 + 2)
    assert not any(s.pack for s in plan.steps if s.outputs[0].name.startswith(AUDIO_PREFIXES))
    assert sum(bool(step.axes) for step in plan.steps) == 3


def test_r1_in_bf16_is_as_large_as_the_source():
    plan = make_plan(entries_of("tensors_r1_32b.tsv"), CONFIG, Recipe())
    assert plan.output_bytes == 66_974_067_200
    assert len(plan.shards) == 13
    assert len(plan.steps) == 1264 and not any(step.pack for step in plan.steps)


@pytest.mark.parametrize("flat", [True, False])
def test_the_mini_and_both_layouts_of_its_config(flat):
    text = MINI if flat else {"text_config": MINI}
    config = {"audio_encoder_config": {"llm_dim": 3584}, **text}
    plan = make_plan(entries_of("tensors_2_mini.tsv"), config, Recipe(quant_predicate="mixed_4_6"))
    assert plan.total_parameters == 8_315_179_264
    packing = plan.config["quantization"]
    assert packing["group_size"] == 64 and packing["language_model.lm_head"]["bits"] == 6
    assert packing["language_model.model.layers.5.self_attn.q_proj"]["bits"] == 4


def test_every_output_is_planned_once_and_every_source_used_once():
    entries = entries_of("tensors_r1_32b.tsv")
    plan = make_plan(entries, CONFIG, Recipe(quantize=True))
    used = [e for step in plan.steps for e in step.sources]
    names = [o.name for step in plan.steps for o in step.outputs]
    assert sorted(used, key=lambda e: e.begin) == entries
    assert len(names) == len(set(names))
    assert [s.first for s in plan.shards] == [
        sum(len(before.steps) for before in plan.shards[:n]) for n in range(len(plan.shards))
    ]


def test_the_plan_itself_is_small_and_the_config_can_be_written():
    plan = make_plan(entries_of("tensors_r1_32b.tsv"), CONFIG, Recipe(quantize=True))
    assert json.loads(json.dumps(plan.config))["quantization_config"] == plan.config["quantization"]
    largest = max(math.prod(e.shape) * 2 for step in plan.steps for e in step.sources)
    assert largest == 158_720 * 5_120 * 2
