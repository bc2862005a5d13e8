"""The options of `audio-r1 train`: mlx_lm.lora's names, each a field of `TrainConfig`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

LORA = ("rank", "scale", "dropout", "keys")  # gathered into lora_parameters
FLAGS = {"default": None, "show_default": False}  # not given: the file's value, or the default

SHARED = (
    click.option("--data", metavar="DIR", help="Folder with train.jsonl and perhaps valid and test.jsonl."),
    click.option("-c", "--config", "file", type=click.Path(dir_okay=False), metavar="YAML",
                 help="A file with these options, underscores for dashes; what is given here beats it."),
    click.option("--model", help="Checkpoint folder, hub repository, or nano."),
    click.option("--adapter-path", metavar="DIR", help="The run's folder.  [adapters]"),
    click.option("--fine-tune-type", "--train-type", type=click.Choice(["lora", "dora", "full"]),
                 help="[lora]"),
    click.option("--num-layers", type=int, help="Last decoder layers to train; -1 is all.  [-1]"),
    click.option("--rank", type=click.IntRange(1), help="Of LoRA.  [16]"),
    click.option("--scale", type=float, help="Of LoRA: alpha / rank.  [2]"),
    click.option("--dropout", type=float, help="Of LoRA.  [0]"),
    click.option("--keys", help="Where LoRA goes, with commas: self_attn.q_proj,audio_adaptor.linear1."),
    click.option("--train-adaptor/--no-train-adaptor", **FLAGS, help="Train the audio adaptor as a whole."),
    click.option("--train-encoder/--no-train-encoder", **FLAGS, help="Train the audio encoder as a whole."),
    click.option("--iters", type=click.IntRange(1), help="Optimizer steps.  [1000]"),
    click.option("--batch-size", type=click.IntRange(1), help="Examples at once, or pairs.  [4]"),
    click.option("--max-tokens-per-batch", type=click.IntRange(1), help="Instead: as many as fit."),
    click.option("--grad-accumulation-steps", type=click.IntRange(1), help="Batches of one step.  [1]"),
    click.option("--max-seq-length", type=click.IntRange(8), help="Longest row.  [2048]"),
    click.option("--over-long", type=click.Choice(["refuse", "drop"]), help="Rows beyond it.  [refuse]"),
    click.option("--learning-rate", type=float, help="[1e-4; dpo 5e-6]"),
    click.option("--optimizer", type=click.Choice(["adam", "adamw", "muon", "sgd", "adafactor", "lion"]),
                 help="[adamw]"),
    click.option("--clip-norm", type=click.FloatRange(0), help="Longest gradient; 0 is any.  [1]"),
    click.option("--val-batches", type=click.IntRange(-1), help="-1 is all of valid.jsonl.  [25]"),
    click.option("--test/--no-test", **FLAGS, help="Measure the loss on test.jsonl at the end."),
    click.option("--steps-per-report", type=click.IntRange(1), help="[10]"),
    click.option("--steps-per-eval", type=click.IntRange(1), help="[200]"),
    click.option("--save-every", type=click.IntRange(1), help="Steps between checkpoints.  [100]"),
    click.option("--keep-checkpoints", type=click.IntRange(1), help="[3]"),
    click.option("--samples", type=click.IntRange(0), help="Validation clips answered before and after.  [4]"),
    click.option("--grad-checkpoint/--no-grad-checkpoint", **FLAGS, help="Recompute layers.  [on]"),
    click.option("--attention", type=click.Choice(["auto", "plain", "blockwise"]), help="[auto]"),
    click.option("--compile/--no-compile", **FLAGS, help="mx.compile the step; pays where lengths are few."),
    click.option("--feature-cache", metavar="DIR", help="Where encoder outputs are kept, shared by runs."),
    click.option("--feature-cache-gb", type=click.FloatRange(0), help="Its limit.  [20]"),
    click.option("--memory-limit-gb", type=click.FloatRange(0, min_open=True), help="Throttles MLX above it."),
    click.option("--clear-cache-threshold", type=click.IntRange(0), help="Bytes of MLX's buffer pool."),
    click.option("--resume-adapter-file", metavar="FILE", help="Begin with these weights."),
    click.option("--report-to", help="tensorboard, wandb, or both with a comma."),
    click.option("--project-name", help="For --report-to."),
    click.option("--seed", type=int, help="[0]"),
    click.option("--overwrite", is_flag=True, help="Begin anew instead of going on."),
    click.option("--force", is_flag=True, help="Go on where memory is too small (see audio-r1 plan --train)."),
    click.option("--no-progress", is_flag=True, help="Say only what went wrong on stderr."),
    click.option("--json", "as_json", is_flag=True, help="The outcome as one JSON object."),
)
SFT = (
    click.option("--mask-prompt/--no-mask-prompt", **FLAGS, help="Learn the replies alone.  [on]"),
    click.option("--pack/--no-pack", **FLAGS, help="Several short examples in one row, apart by a mask."),
)
DPO = (
    click.option("--beta", type=click.FloatRange(0), help="Strength of the reference.  [0.1]"),
    click.option("--label-smoothing", type=click.FloatRange(0, 0.5, max_open=True), help="[0]"),
)


RL = (
    click.option("--algo", type=click.Choice(["ppo", "grpo", "rloo", "dr_grpo", "dapo"]), help="[ppo]"),
    click.option("--group-size", "--num-samples", type=click.IntRange(1), help="Samples a prompt.  [16]"),
    click.option("--max-completion-length", type=click.IntRange(1),
                 help="Longest reply, in tokens.  [what --max-seq-length leaves]"),
    click.option("--max-rows", type=click.IntRange(1), help="Replies that decode at once.  [32]"),
    click.option("--kv-bits", type=click.Choice(["2", "3", "4", "6", "8"]), help="Of the rollouts' KV cache."),
    click.option("--updates", type=click.IntRange(1), help="Steps a batch of rollouts.  [1]"),
    click.option("--value", type=click.Choice(["group", "none", "head", "lora"]),
                 help="What a state is worth: the group's mean, nothing, or a critic.  [group]"),
    click.option("--critic-learning-rate", type=click.FloatRange(0), help="[5e-5]"),
    click.option("--critic-updates", type=click.IntRange(0), help="Of a batch.  [4]"),
    click.option("--critic-rollouts", metavar="FILE", help="Judged rollouts to learn values from beforehand."),
    click.option("--critic-warmup", type=click.IntRange(0), help="Updates on them.  [20]"),
    click.option("--gamma", type=click.FloatRange(0, 1), help="[1]"),
    click.option("--lam", type=click.FloatRange(0, 1), help="Of generalised advantage estimation.  [1]"),
    click.option("--epsilon", type=click.FloatRange(0), help="Clip range.  [0.2]"),
    click.option("--epsilon-high", type=click.FloatRange(0), help="Upwards.  [--epsilon; dapo 0.28]"),
    click.option("--dual-clip", type=click.FloatRange(1), help="[none]"),
    click.option("--kl", type=click.FloatRange(0), help="Weight of the KL from the start.  [0; grpo 0.04]"),
    click.option("--aggregation", type=click.Choice(["token", "sequence", "constant"]), help="Of the loss."),
    click.option("--whiten/--no-whiten", **FLAGS, help="Advantages of mean 0 and variance 1.  [ppo: on]"),
    click.option("--mask-truncated/--no-mask-truncated", **FLAGS, help="Cut-off replies teach nothing."),
    click.option("--dynamic-sampling/--no-dynamic-sampling", **FLAGS, help="Drop groups that agree, try more."),
    click.option("--resample", type=click.IntRange(0), help="So many times the batch at most.  [3]"),
    click.option("--train-samples", type=click.IntRange(1), help="Learn from so many of a group.  [all]"),
    click.option("--tis-cap", type=click.FloatRange(0), help="Of importance; 0: none.  [2 with --kv-bits]"),
    click.option("--reward", metavar="KEY=VALUE", multiple=True, help="Terms: correct=0.8, reasoning=0.2, ..."),
    click.option("--reward-functions-file", metavar="FILE.py", help="Your own, beside the verifier."),
    click.option("--reward-functions", metavar="NAMES", help="Of the file, with commas.  [all]"),
    click.option("--reward-weights", metavar="JSON", help='"[1.0, 0.5]"'),
)


def train_options(*more: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Add the shared options and these."""

    def add(command: Callable[..., Any]) -> Callable[..., Any]:
        for option in reversed((*SHARED, *more)):
            command = option(command)
        return command

    return add


def given(options: dict[str, Any]) -> dict[str, Any]:
    """The options that were given, as fields of `TrainConfig`."""
    values = {name: value for name, value in options.items() if value is not None}
    lora = {name: values.pop(name) for name in LORA if name in values}
    if "keys" in lora:
        lora["keys"] = [key.strip() for key in lora["keys"].split(",")]
    if terms := values.pop("reward", ()):
        values["reward"] = dict(map(_term, terms))
    return {**values, **({"lora_parameters": lora} if lora else {})}


def _term(text: str) -> tuple[str, str | float]:
    """correct=0.8 -> ("correct", 0.8)."""
    name, equals, value = text.partition("=")
    if not equals:
        raise click.UsageError(f"--reward {text!r}: expected KEY=VALUE, such as reasoning=0.2")
    try:
        return name.strip(), float(value)
    except ValueError:
        return name.strip(), value.strip()
