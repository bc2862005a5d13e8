"""Asked before anything is loaded: what a run's configuration needs, from file headers alone."""

import json
import os
import shutil
import struct
from pathlib import Path

import numpy as np
import pytest

from mlx_audio_r1 import memory
from mlx_audio_r1.errors import PlanError
from mlx_audio_r1.footprint import published
from mlx_audio_r1.footprint_training import TrainingJob
from mlx_audio_r1.train.config import TrainConfig, resolve
from mlx_audio_r1.train.preflight import in_words, memory_limit, preflight, training_job

GOLDEN = Path(__file__).parent.parent / "golden"
R1 = published("stepfun-ai/Step-Audio-R1.1")


@pytest.fixture
def huge(tmp_path) -> Path:
    """Headers that speak of 67 TB: more than any machine has. No disk is used."""
    shutil.copy(GOLDEN / "tiny-bf16" / "config.json", tmp_path)
    header, end = {}, 0
    for line in (GOLDEN / "tensors_r1_32b.tsv").read_text().splitlines():
        name, shape = line.split("\t")
        sizes = [int(n) for n in shape.split("x")]
        begin, end = end, end + 2_000 * int(np.prod(sizes))
        header[name] = {"dtype": "BF16", "shape": sizes, "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    path = tmp_path / "model.safetensors"
    path.write_bytes(struct.pack("<Q", len(text)) + text)
    os.truncate(path, 300 << 20)  # a hole
    return tmp_path


def test_a_small_checkpoint_is_not_planned():
    assert preflight(TrainConfig(model=str(GOLDEN / "tiny-bf16"))) is None
    assert preflight(TrainConfig(model=None)) is None  # nano


def test_what_does_not_fit_is_refused_in_one_line_unless_forced(huge):
    config = TrainConfig(model=str(huge))
    with pytest.raises(PlanError) as refusal:
        preflight(config)
    line = str(refusal.value)
    assert line.startswith("LoRA of rank 16 on 4 layers, 4 rows of 2,048 tokens: needs 67,04")
    assert line.endswith("--force goes on regardless") and "\n" not in line
    plan = preflight(config, force=True)
    said = in_words(plan)
    assert not plan.fits and said.startswith(f"{plan.title}: about 67,04") and said.endswith("offers")


def test_rows_longer_than_the_model_reads_are_refused():
    with pytest.raises(PlanError, match="max_seq_length is 70,000, and the model reads at most 65,536"):
        training_job(TrainConfig(max_seq_length=70_000), R1)


@pytest.mark.parametrize(("mode", "options", "job"), [
    ("sft", {}, TrainingJob(2_048, 4)),
    ("dpo", {"batch_size": 1}, TrainingJob(2_048, 1, rows=2)),
    ("sft", {"max_tokens_per_batch": 8_192, "pack": True}, TrainingJob(2_048, 4, tokens=8_192)),
    ("sft", {"fine_tune_type": "dora", "num_layers": 16, "optimizer": "lion", "attention": "plain",
             "lora_parameters": {"rank": 8, "keys": ["self_attn.q_proj"]}, "grad_checkpoint": False},
     TrainingJob(2_048, 4, 8, 16, ("self_attn.q_proj",), False, "plain", "dora", "lion")),
    ("sft", {"train_adaptor": True, "train_encoder": True, "grad_accumulation_steps": 4},
     TrainingJob(2_048, 4, also_trained=("audio_adaptor", "audio_encoder"), accumulated=True)),
])  # fmt: skip
def test_the_step_that_a_configuration_asks_for(mode, options, job):
    assert training_job(resolve(mode, options), R1) == job


def test_mlx_is_limited_to_what_was_asked_for_or_what_there_is():
    assert memory_limit(TrainConfig(memory_limit_gb=12.5)) == 12_500_000_000
    assert memory_limit(TrainConfig()) == memory.usable_bytes() > 0
