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
    return {**values, **({"lora_parameters": lora} if lora else {})}
