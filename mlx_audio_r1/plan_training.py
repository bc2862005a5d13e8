"""Will a training step fit? The plan of one, its reach, and which settings would fit instead.

The formulas are in footprint_training.py. `audio-r1 train` asks before it loads anything, and
`audio-r1 plan --train` shows the same plan; the two differ in the words they give for a setting.
"""

from __future__ import annotations

from dataclasses import replace

from mlx_audio_r1 import footprint
from mlx_audio_r1 import footprint_training as step
from mlx_audio_r1.config import ModelConfig
from mlx_audio_r1.footprint import BLOCK, Sizes
from mlx_audio_r1.footprint_training import TrainingJob
from mlx_audio_r1.plan import (
    MIN_LENGTH,
    PLAN_WORDS,
    Knobs,
    Machine,
    Part,
    Plan,
    Reach,
    fewer_bits,
    shorter,
    total,
    weight_parts,
    with_alternatives,
)

FEW_LAYERS, LOW_RANK = 16, 8  # what is advised where more is asked for
SHORT = 512  # tokens: a row shorter than this is no advice, nor one below MIN_LENGTH instead of a longer one

CHANGES = (  # one at a time, the gentlest first; when none fits alone, the first two of these that do together
    (("grad_checkpoint",), ("attention",), ("batch",), ("tokens",), ("max_seq_length",), ("num_layers",),
     ("also_trained",), ("optimizer",), ("fine_tune_type",), ("rank",), ("bits",)),
    (("attention", "batch"), ("attention", "max_seq_length"), ("grad_checkpoint", "attention"),
     ("batch", "max_seq_length"), ("num_layers", "max_seq_length"), ("num_layers", "batch"),
     ("rank", "max_seq_length"), ("bits", "max_seq_length"), ("batch", "bits", "max_seq_length"),
     ("num_layers", "bits", "max_seq_length"),
     ("grad_checkpoint", "batch", "num_layers", "bits", "max_seq_length"),
     ("fine_tune_type", "bits"), ("fine_tune_type", "batch", "max_seq_length"),
     ("fine_tune_type", "bits", "max_seq_length"),
     ("fine_tune_type", "bits", "batch", "num_layers", "max_seq_length")),
)  # fmt: skip
TRAIN_WORDS = {  # of `audio-r1 train`
    "max_seq_length": "--max-seq-length {}",
    "batch": "--batch-size {}",
    "tokens": "--max-tokens-per-batch {}",
    "num_layers": "--num-layers {}",
    "grad_checkpoint": "--grad-checkpoint",
    "attention": "--attention {}",
    "rank": "--rank {}",
    "optimizer": "--optimizer {}",
    "fine_tune_type": "--fine-tune-type {}",
    "also_trained": "--no-train-encoder",
    "bits": "a {}-bit --model (audio-r1 convert -q)",
    "limit": "sudo sysctl iogpu.wired_limit_mb={}",
    "mac": "a Mac with {} GiB",
}
PLAN_TRAIN_WORDS = {  # of `audio-r1 plan --train`
    **TRAIN_WORDS, "batch": "--batch {}", "bits": PLAN_WORDS["bits"], "also_trained": "without --train-encoder",
}  # fmt: skip


def plan_training(config: ModelConfig, sizes: Sizes, machine: Machine, job: TrainingJob) -> Plan:
    """Plan a training step. Never raises: ask `fits`, or hand the plan to `require_fit`.

    The run limits MLX to what the machine offers (`mx.set_memory_limit`); without that MLX runs ahead and
    activations take up to 1.8 times as much (benchmarks/train_memory.py).
    """
    reach = _reach(config, sizes, machine, job)
    plan = Plan(_title(config, job), training_parts(config, sizes, job), machine, reach, words=PLAN_TRAIN_WORDS)
    return with_alternatives(plan, job, lambda other: training_parts(config, sizes, other),
                             _knobs(config, sizes, job), _changes(job))  # fmt: skip


def training_parts(config: ModelConfig, sizes: Sizes, job: TrainingJob) -> tuple[Part, ...]:
    """Weights, what is trained with its optimizer, and the peak of one step."""
    values, passed = step.trained_values(config, sizes, job), step.passed_layers(config, job)
    where, backward = max(step.backward_moments(config, sizes, job).items(), key=lambda moment: moment[1])
    kept, heard = step.kept_bytes(config, sizes, job), step.encoder_bytes(config, sizes, job)
    parts = (
        *weight_parts(config, sizes, job),
        Part(f"{_KINDS[job.fine_tune_type]}, {job.optimizer}", step.trained_bytes(config, sizes, job),
             f"{values / 1e6:,.1f} M values"),
        Part("layer inputs" if job.grad_checkpoint else "kept activations", kept, f"{passed} layers",
             estimate=not job.grad_checkpoint),
        Part("encoder activations", heard, "25 s of sound a row", estimate=True),
        Part("backward pass", backward, f"most in {where}", estimate=True),
        Part("end of the step", max(0, step.end_bytes(config, sizes, job) - kept - heard - backward),
             "gradients are clipped", estimate=True),
        Part("slack", footprint.slack_bytes(sizes), estimate=True),
    )  # fmt: skip
    return tuple(part for part in parts if part.bytes)


_KINDS = {"lora": "LoRA", "dora": "DoRA", "full": "weights"}


def _title(config: ModelConfig, job: TrainingJob) -> str:
    full = job.fine_tune_type == "full"
    what = "full fine-tuning of" if full else f"{_KINDS[job.fine_tune_type]} of rank {job.rank} on"
    trained = [f"{step.trained_layers(config, job)} layers", *(n.replace("_", " ") for n in job.also_trained)]
    if job.tokens is not None:
        rows = f"{job.tokens:,} tokens at once"
    else:
        things = ("row" if job.rows == 1 else "pair") + "s" * (job.batch != 1)
        rows = f"{'one' if job.batch == 1 else job.batch} {things} of {job.max_seq_length:,} tokens"
    return f"{what} {' and '.join(trained)}, {rows}"


def _reach(config: ModelConfig, sizes: Sizes, machine: Machine, job: TrainingJob) -> Reach:
    """The longest sequences, by batch and by layers."""
    layers, every = step.trained_layers(config, job), config.text.num_hidden_layers
    batches = sorted({1, 2, 4, job.batch})
    depths = sorted({layers, every, min(FEW_LAYERS, every)}, reverse=True)
    lengths = [*range(BLOCK, config.context_length, BLOCK), config.context_length]

    def longest(num_layers: int, batch: int) -> int:
        """Not by halving: what is needed falls where `auto` begins to attend blockwise."""
        other = replace(job, num_layers=num_layers, batch=batch, tokens=None)
        jobs = (replace(other, max_seq_length=length) for length in reversed(lengths))
        fitting = (j for j in jobs if total(training_parts(config, sizes, j)) <= machine.usable)
        return next((j.max_seq_length for j in fitting), 0)

    return Reach(
        "longest sequence",
        tuple(f"batch {b}" for b in batches),
        tuple((f"last {n} layers" if n < every else f"all {n} layers", tuple(longest(n, b) for b in batches))
              for n in depths),
    )  # fmt: skip


def _changes(job: TrainingJob) -> tuple[tuple[tuple[str, ...], ...], ...]:
    """CHANGES without those that cannot be: quantised weights are trained by LoRA alone."""
    if job.fine_tune_type != "full":
        return CHANGES
    return tuple(tuple(names for names in sets if "bits" not in names or "fine_tune_type" in names)
                 for sets in CHANGES)  # fmt: skip


def _knobs(config: ModelConfig, sizes: Sizes, job: TrainingJob) -> Knobs:
    full = job.fine_tune_type == "full"
    encoder = "audio_encoder" in job.also_trained
    without = tuple(name for name in job.also_trained if name != "audio_encoder")
    fewer = [FEW_LAYERS] if step.trained_layers(config, job) > FEW_LAYERS else []
    least = SHORT if job.max_seq_length <= MIN_LENGTH else MIN_LENGTH
    return {
        "grad_checkpoint": [] if job.grad_checkpoint else [True],
        "attention": [] if job.blockwise else ["blockwise"],
        "max_seq_length": shorter(job.max_seq_length, least),
        "batch": range(job.batch - 1, 0, -1) if job.tokens is None else [],
        "tokens": [] if job.tokens is None else shorter(job.tokens, job.rows * job.max_seq_length),
        "num_layers": fewer,
        "also_trained": [without] if encoder else [],
        "optimizer": ["adafactor"] if full and job.optimizer != "adafactor" else [],
        "fine_tune_type": ["lora"] if full else [],
        "rank": [LOW_RANK] if job.rank > LOW_RANK and not full else [],
        "bits": fewer_bits(config, sizes, job),
    }
