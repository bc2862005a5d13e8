"""What the phases of a round of MGRD take: hours by rates.py, bytes by the formulas of the other plans.

Every number is an estimate; each phase keeps its formula with the numbers in it. The surprise: the evidence
of the filter takes nearly as long as sampling what it looks at, because a reading of the reply is as dear
as a row of its decoding.

    distillation    prompts * (samples * tokens / decode rate + reading the prompt once)
    evidence        what passed the rules * 2 readings of prompt and reply (the sound, and silence instead)
    judge           what passed the rules * reading it and writing a verdict
    SFT             what was kept * training on prompt and reply, one epoch
    curation        8 samples a prompt again, or nothing where the distillation's are counted
    RL rollouts     as distillation, of fewer prompts and more samples
    RL update       every sample, or the chosen ones, trained on once; no pass for old log-probabilities
    RL critic       value=lora alone: values of every sample, then CRITIC_UPDATES epochs on them
"""

from __future__ import annotations

from dataclasses import dataclass

from mlx_audio_r1 import rates
from mlx_audio_r1.config import ModelConfig
from mlx_audio_r1.footprint import (
    Sizes,
    Workload,
    activation_bytes,
    published,
    quantised,
    sizes_from_shapes,
    slack_bytes,
    stored_sizes,
)
from mlx_audio_r1.footprint_training import TrainingJob, passed_layers, trained_bytes
from mlx_audio_r1.plan import Machine, inference_parts, total, weight_parts
from mlx_audio_r1.plan_training import training_parts
from mlx_audio_r1.rates import Chip

PASSED = 0.5  # of the samples pass the rules, and are shown evidence and the judge
KEPT = 0.25  # of the samples are learnt from
CURATED = 8  # samples a prompt where the distillation's are not reused (section 4.3 of the paper)
VERDICT = 16  # tokens that a judge writes
CRITIC_UPDATES = 4  # epochs of the critic a batch, as `train rl` has it
AT_ONCE = 16_384  # tokens of candidates that are shown evidence at once
ROWS = 32  # replies that decode at once, where they fit
SMALL = "stepfun-ai/Step-Audio-2-mini"  # its language model is the 7B judge and the 8B backbone


@dataclass(frozen=True)
class MgrdJob:
    """A run of MGRD. num_layers None: a LoRA on every layer. train_samples None: learn from all samples."""

    prompts: int = 500
    samples: int = 8
    tokens: int = 2_500
    rl_prompts: int = 200
    rl_samples: int = 16
    rl_tokens: int = 2_500
    rounds: int = 3
    prompt_tokens: int = 600
    num_layers: int | None = None
    train_samples: int | None = None
    value: str = "group"  # lora
    judge: str = "none"  # 7b, self
    reuse: bool = True  # the distillation's samples as the pass counts of curation
    rank: int = 16
    kv_bits: int | None = None
    bits: int | None = None
    group_size: int = 64

    @property
    def candidates(self) -> int:
        return round(PASSED * self.prompts * self.samples)

    @property
    def kept(self) -> int:
        return round(KEPT * self.prompts * self.samples)

    @property
    def learnt(self) -> int:
        """Samples of a prompt that an update learns from."""
        return min(self.train_samples or self.rl_samples, self.rl_samples)


@dataclass(frozen=True)
class Phase:
    """Hours of a round, bytes at its largest moment; `formula` has the numbers they come from."""

    name: str
    hours: float
    bytes: int
    formula: str


@dataclass(frozen=True)
class On:
    """What is planned for: a model on a machine."""

    config: ModelConfig
    sizes: Sizes
    machine: Machine
    chip: Chip


def phases_of(on: On, job: MgrdJob) -> tuple[Phase, ...]:
    again = Phase("curation", 0.0, 0, "the distillation's samples are counted")
    return (
        _sampling(on, job, "distillation rollouts", job.prompts, job.samples, job.tokens),
        _evidence(on, job),
        *([] if job.judge == "none" else [_judge(on, job)]),
        _learning(on, job, "SFT", job.kept, job.tokens),
        again if job.reuse else _sampling(on, job, "curation", job.prompts, CURATED, job.tokens),
        _sampling(on, job, "RL rollouts", job.rl_prompts, job.rl_samples, job.rl_tokens),
        _learning(on, job, "RL update", job.rl_prompts * job.learnt, job.rl_tokens),
        *([_critic(on, job)] if job.value == "lora" else []),
    )


# ---- phases


def _sampling(on: On, job: MgrdJob, name: str, prompts: int, samples: int, tokens: int) -> Phase:
    """The rows that fit, and of those the number that decodes fastest."""
    sizes, behind = stored_sizes(on.config, on.sizes, job), job.prompt_tokens + tokens / 2

    def needed(rows: int) -> int:
        work = Workload(job.prompt_tokens + tokens, rows, job.prompt_tokens, job.kv_bits)
        return total(inference_parts(on.config, sizes, on.machine, work))

    wanted = min(ROWS, prompts * samples)
    most = next((rows for rows in range(wanted, 1, -1) if needed(rows) <= on.machine.usable), 1)
    rows = rates.best_rows(on.chip, on.config, sizes, most, behind, job.kv_bits)
    speed = rows / rates.decode_seconds(on.chip, on.config, sizes, rows, behind, job.kv_bits)
    reading = rates.reading_seconds(on.chip, on.config, job.prompt_tokens)
    seconds = prompts * (samples * tokens / speed + reading)
    each = f"{samples} x {tokens:,} tokens / {speed:,.0f} tokens/s of {rows} rows"
    return Phase(name, seconds / 3600, needed(rows), f"{prompts:,} x ({each} + {reading:.2g} s)")


def _evidence(on: On, job: MgrdJob) -> Phase:
    sizes, length = stored_sizes(on.config, on.sizes, job), job.prompt_tokens + job.tokens
    each = rates.reading_seconds(on.chip, on.config, length)
    tokens = max(length, AT_ONCE // length * length)
    read = Workload(tokens, 1, tokens, prefill_step=tokens)
    working = activation_bytes(on.config, sizes, read, fused=True) + slack_bytes(sizes)  # blockwise, no cache
    needed = total(weight_parts(on.config, on.sizes, job)) + working
    told = f"{job.candidates:,} x 2 readings of {length:,} tokens, {each:.2g} s each"
    return Phase("filter, evidence", job.candidates * 2 * each / 3600, needed, told)


def _judge(on: On, job: MgrdJob) -> Phase:
    """It reads question and reply; a judge of another model stands beside the policy's weights."""
    config, own = on.config, stored_sizes(on.config, on.sizes, job)
    sizes, beside = own, 0
    other = published(SMALL) if job.judge == "7b" else None
    if other is not None:
        config, sizes = other, quantised(other, sizes_from_shapes(other), 4)
        beside = own.decoder + own.audio
    length = job.prompt_tokens + job.tokens
    reading = rates.reading_seconds(on.chip, config, length)
    writing = VERDICT * rates.decode_seconds(on.chip, config, sizes, 1, length)
    work = total(inference_parts(config, sizes, on.machine, Workload(length + VERDICT, 1, length)))
    each = f"{reading:.2g} s to read {length:,} tokens + {writing:.2g} s to write {VERDICT}"
    return Phase(f"filter, judge ({job.judge})", job.candidates * (reading + writing) / 3600, beside + work,
                 f"{job.candidates:,} x ({each})")  # fmt: skip


def _learning(on: On, job: MgrdJob, name: str, rows: int, tokens: int) -> Phase:
    """A row at a time, with checkpoints."""
    step = _step(job, tokens)
    length, passed = step.max_seq_length, passed_layers(on.config, step)
    each = rates.training_seconds(on.chip, on.config, length, passed)
    needed = total(training_parts(on.config, on.sizes, step))
    return Phase(name, rows * each / 3600, needed,
                 f"{rows:,} x {length:,} tokens / {length / each:,.0f} tokens/s through {passed} layers")


def _critic(on: On, job: MgrdJob) -> Phase:
    """A second adapter on the same base; it learns from every sample, as the values of all are asked for."""
    step = _step(job, job.rl_tokens)
    length, rows = step.max_seq_length, job.rl_prompts * job.rl_samples
    each = rates.training_seconds(on.chip, on.config, length, passed_layers(on.config, step))
    reading = rates.reading_seconds(on.chip, on.config, length)
    more = trained_bytes(on.config, on.sizes, step)
    return Phase("RL critic", rows * (reading + CRITIC_UPDATES * each) / 3600,
                 more + total(training_parts(on.config, on.sizes, step)),
                 f"{rows:,} x ({reading:.2g} s to read + {CRITIC_UPDATES} x {each:.3g} s to learn)")


def _step(job: MgrdJob, tokens: int) -> TrainingJob:
    return TrainingJob(job.prompt_tokens + tokens, rank=job.rank, num_layers=job.num_layers, bits=job.bits,
                       group_size=job.group_size, accumulated=True)  # fmt: skip
