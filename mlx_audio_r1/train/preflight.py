"""Will this run fit? Asked before anything is loaded, from the headers of the checkpoint's files alone.

What counts is the worst micro-batch that the configuration allows: rows of `max_seq_length` tokens, each
with a sound. Real batches are mostly smaller.
"""

from __future__ import annotations

from mlx_audio_r1 import memory
from mlx_audio_r1.config import ModelConfig
from mlx_audio_r1.errors import PlanError
from mlx_audio_r1.footprint import GB
from mlx_audio_r1.footprint_training import TrainingJob
from mlx_audio_r1.plan import Plan, gb, require_fit
from mlx_audio_r1.plan_training import TRAIN_WORDS, plan_training
from mlx_audio_r1.train.config import TrainConfig

ROWS = {"dpo": 2}  # of an example; one where it is not named


def preflight(config: TrainConfig, force: bool = False) -> Plan | None:
    """The plan of a run on this machine, None for a checkpoint so small that memory is no question.

    Raises PlanError, with the nearest setting that fits, unless `force`.
    """
    if memory.is_small(config.model):
        return None
    checkpoint = memory.find_checkpoint(config.model)
    job = training_job(config, checkpoint.config)
    plan = plan_training(checkpoint.config, checkpoint.sizes, memory.this_machine(), job)
    if not force:
        require_fit(plan, TRAIN_WORDS)
    return plan


def training_job(config: TrainConfig, model: ModelConfig) -> TrainingJob:
    """The step that a configuration asks for. Raises PlanError for rows longer than the model reads."""
    if config.max_seq_length > model.context_length:
        raise PlanError(f"max_seq_length is {config.max_seq_length:,}, and the model reads at most "
                        f"{model.context_length:,} tokens: lower --max-seq-length")  # fmt: skip
    keys = config.lora.get("keys")
    return TrainingJob(
        max_seq_length=config.max_seq_length,
        batch=1 if config.train_mode == "rl" else config.batch_size,
        rank=config.lora["rank"],
        num_layers=config.num_layers if config.num_layers > 0 else None,
        targets=tuple(keys) if keys else "all",
        grad_checkpoint=config.grad_checkpoint,
        attention=config.attention,
        fine_tune_type=config.fine_tune_type,
        optimizer=config.optimizer,
        also_trained=config.also_trained,
        tokens=config.max_tokens_per_batch,
        rows=ROWS.get(config.train_mode, 1),
        accumulated=config.grad_accumulation_steps > 1,
    )


def memory_limit(config: TrainConfig) -> int:
    """Bytes for mx.set_memory_limit: what was asked for, else what this machine offers.

    MLX starts work ahead of what it waits for; above the limit it waits, so a step gets by with the memory
    that was planned.
    """
    if config.memory_limit_gb is not None:
        return int(config.memory_limit_gb * GB)
    return memory.usable_bytes()


def in_words(plan: Plan) -> str:
    """A plan as one line: what is needed, and of how much."""
    offered = f"the {gb(plan.machine.usable)} that {plan.machine.name} offers"
    return f"{plan.title}: about {gb(plan.needed)} of {offered}"
