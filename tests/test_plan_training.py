"""Plans of training steps against tables worked out by hand, and against what MLX and the adapters make."""

from dataclasses import replace
from pathlib import Path

import mlx.core as mx
import mlx.nn as nn
import pytest
from mlx.utils import tree_flatten

from mlx_audio_r1 import footprint
from mlx_audio_r1 import footprint_training as step
from mlx_audio_r1.adapter_config import AdapterConfig, LoRAParameters
from mlx_audio_r1.adapters import attach
from mlx_audio_r1.errors import PlanError
from mlx_audio_r1.footprint import GB, GIB, published, quantised
from mlx_audio_r1.footprint_training import TrainingJob
from mlx_audio_r1.plan import Machine, mac, require_fit
from mlx_audio_r1.plan_training import TRAIN_WORDS, plan_training, training_parts
from mlx_audio_r1.train.optim import build_optimizer
from mlx_audio_r1.weights import load_model
from tests.helpers import random_checkpoint

R1 = published("stepfun-ai/Step-Audio-R1.1")
BF16 = footprint.sizes_from_shapes(R1)
FOUR, SIX, EIGHT = (quantised(R1, BF16, bits) for bits in (4, 6, 8))
GOLDEN = Path(__file__).parent / "golden"


def offering(gigabytes: float) -> Machine:
    return Machine("a test machine", int(gigabytes * GB), int(gigabytes * GB), int(gigabytes * GB), "test")


def needed(sizes, job) -> int:
    return sum(part.bytes for part in training_parts(R1, sizes, job))


def millions(**job) -> float:
    return step.trained_values(R1, BF16, TrainingJob(**job)) / 1e6


# ---- trained values


@pytest.mark.parametrize(("rank", "qv", "attention", "every", "last_16"), [
    (8, 8.4, 16.8, 67.1, 16.8), (16, 16.8, 33.6, 134.2, 33.6), (64, 67.1, 134.2, 536.9, 134.2),
])
def test_lora_values_of_the_table(rank, qv, attention, every, last_16):
    found = [millions(rank=rank, num_layers=layers, targets=targets) for layers, targets in
             ((64, "qv"), (64, "attention"), (64, "all"), (16, "all"))]
    assert found == pytest.approx([qv, attention, every, last_16], abs=0.051)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return random_checkpoint(tmp_path_factory.mktemp("plan") / "model")


ADAPTERS = {  # fine_tune_type, num_layers, keys, also_trained
    "lora on every linear": ("lora", -1, None, ()),
    "lora on the last layer": ("lora", 1, None, ()),
    "dora": ("dora", -1, ("self_attn.q_proj", "mlp.down_proj"), ()),
    "patterns": ("lora", -1, ("self_attn.*", "audio_adaptor.linear*"), ()),
    "from the root": ("lora", 1, ("mlp.up_proj", "model.layers.0.mlp.up_proj", "lm_head"), ()),
    "in the encoder": ("lora", 1, ("mlp.up_proj", "audio_encoder.*"), ()),
    "a linear named twice": ("lora", 1, ("mlp.up_proj", "model.layers.1.mlp.up_proj"), ()),
    "beside whole audio parts": ("lora", 1, None, ("audio_adaptor", "audio_encoder")),
    "full": ("full", -1, None, ()),
    "full, the last layer": ("full", 1, None, ("audio_adaptor",)),
}


@pytest.mark.parametrize("name", ADAPTERS)
def test_trained_values_are_those_an_adapter_has(tiny, name):
    kind, layers, keys, also = ADAPTERS[name]
    model = load_model(tiny)
    attach(model, AdapterConfig(kind, layers, LoRAParameters(4, keys=keys), also))
    trained = [value for _, value in tree_flatten(model.trainable_parameters())]
    job = TrainingJob(rank=4, num_layers=layers if layers > 0 else None, targets=keys or "all",
                      fine_tune_type=kind, also_trained=also)  # fmt: skip
    sizes = footprint.sizes_from_shapes(model.config, value_bytes=4)
    assert step.trained_values(model.config, sizes, job) == sum(value.size for value in trained)
    assert {value.dtype for value in trained} == {mx.float32} and step.VALUE_BYTES == 4


@pytest.mark.parametrize("name", step.MOMENTS)
def test_moments_are_those_mlx_keeps(name):
    layer = nn.Linear(512, 512, bias=False)
    optimizer = build_optimizer(name, 1e-3, {})
    optimizer.init(layer.trainable_parameters())
    kept = sum(value.size for _, value in tree_flatten(optimizer.state))
    assert kept / layer.weight.size == pytest.approx(step.MOMENTS[name], abs=0.01)


def test_bytes_of_a_trained_value():
    job, values = TrainingJob(), 134_217_728
    assert step.trained_bytes(R1, FOUR, job) == 16 * values
    bytes_each = (({"optimizer": "lion"}, 12), ({"optimizer": "adafactor"}, 8), ({"accumulated": True}, 20))
    for change, each in bytes_each:
        assert step.trained_bytes(R1, FOUR, replace(job, **change)) == each * values


# ---- how far a gradient goes


@pytest.mark.parametrize(("change", "layers"), [
    ({}, 64), ({"num_layers": 16}, 16), ({"num_layers": 16, "fine_tune_type": "full"}, 16),
    ({"num_layers": 16, "also_trained": ("audio_adaptor",)}, 64),
    ({"num_layers": 16, "targets": ("mlp.*", "audio_adaptor.linear1")}, 64),
    ({"targets": ("model.layers.60.mlp.up_proj",)}, 4), ({"targets": ("lm_head",)}, 0),
])
def test_layers_that_a_gradient_passes(change, layers):
    job = TrainingJob(2_048, **change)
    assert step.passed_layers(R1, job) == layers
    width = 4 if job.fine_tune_type == "full" else 2  # a full fine-tune computes in float32
    assert step.kept_bytes(R1, FOUR, job) == 2_048 * layers * 5_120 * width


def test_tokens_at_once():
    assert TrainingJob(1_000, 4).tokens_at_once == 4_000
    assert TrainingJob(1_000, 4, rows=2).tokens_at_once == 8_000  # pairs
    assert TrainingJob(1_000, 4, tokens=6_000).tokens_at_once == 6_000  # a budget rules
    assert TrainingJob(1_000, tokens=500, rows=2).tokens_at_once == 2_000  # one example there is


def test_auto_attends_blockwise_where_the_run_does():
    from mlx_audio_r1.train.forward import ForwardOptions, is_blockwise

    for length in (2_047, 2_048):
        for attention in ("auto", "plain", "blockwise"):
            job = TrainingJob(length, attention=attention)
            assert job.blockwise == is_blockwise(ForwardOptions(attention=attention), length)


# ---- plans


@pytest.mark.parametrize(("tokens", "four", "last_16", "six", "eight"), [
    (1_024, 24.28, 22.17, 32.49, 40.70),
    (2_048, 25.48, 22.86, 33.68, 41.89),
    (4_096, 28.03, 24.40, 36.24, 44.44),
    (8_192, 33.13, 27.49, 41.34, 49.54),
    (10_240, 35.68, 29.03, 43.89, 52.09),
])
def test_training_peaks_of_the_table(tokens, four, last_16, six, eight):
    """Weights + 1.31 + 16 bytes a value + layers * 10,240 bytes * T + 9 * 32,768 * 2 * T + 1 GB; at 1,024
    tokens 0.95 arrays of 40 * T^2 scores too."""
    job = TrainingJob(tokens)
    found = [needed(sizes, j) / GB for sizes, j in (
        (FOUR, job), (FOUR, replace(job, num_layers=16)), (SIX, job), (EIGHT, job))]
    assert found == pytest.approx([four, last_16, six, eight], abs=0.0051)


def test_where_a_step_needs_most():
    def peak(**job) -> tuple[str, float]:
        moments = step.backward_moments(R1, FOUR, TrainingJob(**job))
        where = max(moments, key=moments.get)
        return where, round(moments[where] / GB, 2)

    assert peak(max_seq_length=256) == ("the loss", 0.24)  # 3 * 128 * 158,720 * 4
    assert peak(max_seq_length=8_192) == ("a layer's MLP", 4.83)  # 9 * 32,768 * 2 * T
    assert peak(max_seq_length=8_192, attention="plain") == ("a layer's attention", 19.81)  # + 3.2 * 80 * T^2
    assert peak(max_seq_length=8_192, grad_checkpoint=False) == ("a layer's MLP", 1.45)  # beside what is kept
    assert peak(max_seq_length=8_192, fine_tune_type="dora") == ("a layer's MLP", 6.38)  # 1.32 times LoRA's
    kept = step.kept_bytes(R1, FOUR, TrainingJob(4_096, grad_checkpoint=False, attention="plain"))
    assert kept / GB == pytest.approx(64 * (28.7 * 5_120 * 4_096 + 1.7 * 40 * 4_096**2) * 2 / 1e9)  # 223 GB


def test_a_full_fine_tune_keeps_a_second_set_of_gradients_for_a_moment():
    parts = {part.name: part.bytes for part in training_parts(R1, BF16, TrainingJob(fine_tune_type="full"))}
    activations = parts["layer inputs"] + parts["backward pass"]
    assert parts["weights, adamw"] == 16 * 32_832_033_792
    assert parts["end of the step"] + activations == 4 * 32_832_033_792
    accumulating = TrainingJob(fine_tune_type="full", accumulated=True)
    for sizes, job in ((BF16, accumulating), (FOUR, TrainingJob())):
        assert "end of the step" not in {part.name for part in training_parts(R1, sizes, job)}


def test_a_trained_encoder_is_dear():
    job = TrainingJob(2_048, 2, also_trained=("audio_encoder",))
    frames = 4 * 312  # 25 s
    chunk = 32 * (12 * 1_280 * frames + 30 * frames**2) * 4
    assert step.encoder_bytes(R1, FOUR, job) == 2 * chunk
    assert step.encoder_bytes(R1, FOUR, TrainingJob()) == 0
    changes = [a.changes for a in plan_training(R1, FOUR, mac(64), job).alternatives]
    assert changes[0] == (("batch", 1),) and (("also_trained", ()),) in changes


@pytest.mark.parametrize(("offered", "rank", "layers", "longest"), [
    (27, 16, 64, 3_072), (27, 8, 16, 7_680), (48, 16, 64, 19_968),
])
def test_longest_training_sequences(offered, rank, layers, longest):
    plan = plan_training(R1, FOUR, offering(offered), TrainingJob(rank=rank, num_layers=layers))
    assert dict(plan.reach.rows)[f"{'all' if layers == 64 else 'last'} {layers} layers"][0] == longest


@pytest.mark.parametrize(("offered", "batch"), [(96, 5), (144, 9)])
def test_batches_of_the_longest_rows(offered, batch):
    machine = offering(offered)
    assert plan_training(R1, FOUR, machine, TrainingJob(10_240, batch)).fits
    assert not plan_training(R1, FOUR, machine, TrainingJob(10_240, batch + 1)).fits


# ---- advice


@pytest.mark.parametrize(("sizes", "memory", "job", "advice"), [
    (FOUR, 36, TrainingJob(8_192), "--max-seq-length 4864 (28.98 GB)"),
    (FOUR, 36, TrainingJob(4_096, grad_checkpoint=False), "--grad-checkpoint (28.03 GB)"),
    (FOUR, 36, TrainingJob(8_192, 4), "--batch 1 --max-seq-length 4864 (28.98 GB)"),
    (FOUR, 36, TrainingJob(2_048, 8, rows=2), "--batch 1 (28.03 GB)"),
    (FOUR, 48, TrainingJob(4_096, 4, attention="plain"), "--batch 1 (31.22 GB)"),
    (FOUR, 36, TrainingJob(1_024, tokens=16_384), "--max-tokens-per-batch 4352 (28.68 GB)"),
    (BF16, 64, TrainingJob(4_096), "--q-bits 4 (28.03 GB)"),
    (BF16, 64, TrainingJob(4_096, 4, fine_tune_type="full"), "--fine-tune-type lora --q-bits 4 (43.33 GB)"),
])
def test_the_nearest_advice_fits_and_changes_little(sizes, memory, job, advice):
    plan = plan_training(R1, sizes, mac(memory), job)
    assert plan.advice[0] == advice
    for alternative in plan.alternatives:
        changes = dict(alternative.changes)
        if changes.keys() & {"limit", "mac"}:
            continue
        changed = plan_training(R1, sizes, mac(memory), replace(job, **changes))
        assert changed.fits and changed.needed == alternative.needed


def test_a_run_is_refused_in_the_words_of_train():
    plan = plan_training(R1, BF16, mac(64), TrainingJob(4_096, 2))
    with pytest.raises(PlanError) as refusal:
        require_fit(plan, TRAIN_WORDS)
    assert str(refusal.value) == (
        "LoRA of rank 16 on 64 layers, 2 rows of 4,096 tokens: needs 80.32 GB, a Mac with 64 GiB offers "
        "51.54 GB; try a 4-bit --model (audio-r1 convert -q) (33.13 GB); --force goes on regardless")
    assert mac(64).usable == 48 * GIB
