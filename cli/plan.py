"""`audio-r1 plan`: what a model will need, against what this machine or another one offers."""

from __future__ import annotations

from typing import Any

import click

from mlx_audio_r1.cli.plan_mgrd import MGRD_OPTIONS
from mlx_audio_r1.cli.plan_mgrd import make_plan as make_mgrd_plan

BITS = click.Choice(["2", "3", "4", "5", "6", "8"])
GROUPS = click.Choice(["32", "64", "128"])
OPTIONS = (
    click.option("--context", type=click.IntRange(1),
                 help="Tokens of a prompt and its reply.  [default: 16384]"),
    click.option("--batch", type=click.IntRange(1), default=1, help="Replies or training rows at once."),
    click.option("--seconds", type=click.FloatRange(0), default=30.0, help="Sound in the prompt."),
    click.option("--kv-bits", type=BITS, help="Quantise the KV cache."),
    click.option("--kv-group-size", type=GROUPS, default="64", help="KV quantisation group."),
    click.option("--prefill-step-size", type=click.IntRange(1), default=2_048, help="Prompt tokens a step."),
    click.option("--train", is_flag=True, help="Plan a training step instead of replies."),
    click.option("--fine-tune-type", type=click.Choice(["lora", "dora", "full"]), default="lora",
                 help="What is trained."),
    click.option("--optimizer", type=click.Choice(["adam", "adamw", "muon", "sgd", "adafactor", "lion"]),
                 default="adamw", help="Moments it keeps differ."),
    click.option("--train-adaptor", is_flag=True, help="Train the audio adaptor as a whole, too."),
    click.option("--train-encoder", is_flag=True, help="Train the audio encoder as a whole, too."),
    click.option("--dpo", is_flag=True, help="Rows are pairs of replies."),
    click.option("--attention", type=click.Choice(["auto", "plain", "blockwise"]), default="auto",
                 help="Of training; auto: blockwise from 2,048 tokens."),
    click.option("--max-seq-length", type=click.IntRange(1), default=2_048, help="Longest training row."),
    click.option("--rank", type=click.IntRange(1), default=16, help="LoRA's rank."),
    click.option("--num-layers", type=click.IntRange(-1), default=-1, help="Last layers to train; -1: all."),
    click.option("--grad-checkpoint/--no-grad-checkpoint", default=True,
                 help="Recompute activations instead of keeping them."),
    click.option("--memory", "gib", type=click.IntRange(1), metavar="GB", help="Plan for a Mac of this size."),
    click.option("--q-bits", "bits", type=BITS, help="Plan for MODEL converted to this many bits."),
    click.option("--q-group-size", "group_size", type=GROUPS, default="64", help="Weights per scale."),
    click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout."),
)


def _options(command: Any) -> Any:
    for option in reversed((*OPTIONS, *MGRD_OPTIONS)):
        command = option(command)
    return command


@click.command("plan", context_settings={"show_default": True})
@click.argument("model", required=False)
@_options
@click.pass_context
def plan(ctx: click.Context, model: str | None, gib: int | None, as_json: bool, **options: Any) -> None:
    """Say whether MODEL fits, what it takes, and what would fit instead. Nothing is loaded or fetched.

    MODEL: a folder, a hub repository (its headers are read) or nano. Default: the one `ask` would use,
    else Step-Audio-R1.1 as `audio-r1 pull` would make it. Exit code 0: it fits, 1: it does not.

    With --mgrd a run of MGRD is planned: what a round takes in hours and memory, phase by phase, by estimated
    rates, and where that is more than a day, what would make it less.

    \b
    Examples:
      audio-r1 plan
      audio-r1 plan --memory 36 --context 32768 --kv-bits 8
      audio-r1 plan stepfun-ai/Step-Audio-R1.1 --q-bits 6 --batch 8 --memory 64
      audio-r1 plan --train --max-seq-length 8192 --rank 16 --num-layers 16 --memory 64
      audio-r1 plan --mgrd --memory 512 --judge 7b --train-samples 4
    """
    from mlx_audio_r1.cli.startup import import_engine

    import_engine()
    from mlx_audio_r1 import memory
    from mlx_audio_r1.cli import plan_mgrd, plan_table
    from mlx_audio_r1.plan import mac

    table = plan_mgrd if options["mgrd"] else plan_table

    checkpoint, pulled_bits = _checkpoint(model)
    machine = mac(gib) if gib else memory.this_machine()
    made = _plan(checkpoint, machine, {**options, "gib": gib}, int(options["bits"] or 0) or pulled_bits)
    (table.show_json if as_json else table.show)(made, checkpoint)
    ctx.exit(0 if made.fits else 1)


def _checkpoint(model: str | None) -> tuple[Any, int | None]:
    """What to plan for, and the bits that `pull` would give it when there is nothing yet."""
    from mlx_audio_r1 import memory
    from mlx_audio_r1.cli.model_choice import choose_model
    from mlx_audio_r1.convert.pulled import DEFAULT_REPO

    chosen = choose_model(model)
    if chosen is not None:
        return memory.find_checkpoint(chosen), None
    return memory.published_checkpoint(DEFAULT_REPO), 4


def _plan(checkpoint: Any, machine: Any, given: dict[str, Any], bits: int | None) -> Any:
    from mlx_audio_r1 import footprint, plan

    config, sizes = checkpoint.config, checkpoint.sizes
    weights = {"bits": bits, "group_size": int(given["group_size"])}
    if given["mgrd"]:
        return make_mgrd_plan(checkpoint, machine, given, weights)
    if given["train"]:
        return _training_plan(checkpoint, machine, given, weights)
    prompt = footprint.prompt_tokens(given["seconds"])
    context = given["context"] or max(prompt, plan.context_for(config, None))
    work = footprint.Workload(
        plan.context_for(config, context), given["batch"], min(prompt, context),
        given["kv_bits"] and int(given["kv_bits"]), int(given["kv_group_size"]),
        prefill_step=given["prefill_step_size"], **weights)
    return plan.plan_inference(config, sizes, machine, work)


def _training_plan(checkpoint: Any, machine: Any, given: dict[str, Any], weights: dict[str, Any]) -> Any:
    from mlx_audio_r1.footprint_training import TrainingJob
    from mlx_audio_r1.plan import context_for
    from mlx_audio_r1.plan_training import plan_training

    whole = (("audio_adaptor", given["train_adaptor"]), ("audio_encoder", given["train_encoder"]))
    same = ("batch", "rank", "grad_checkpoint", "attention", "fine_tune_type", "optimizer")
    if given["fine_tune_type"] == "full":  # quantised weights cannot be trained
        weights = {}
    job = TrainingJob(
        max_seq_length=context_for(checkpoint.config, given["max_seq_length"]),
        num_layers=given["num_layers"] if given["num_layers"] > 0 else None,
        also_trained=tuple(name for name, trained in whole if trained),
        rows=2 if given["dpo"] else 1,
        **{name: given[name] for name in same},
        **weights,
    )
    return plan_training(checkpoint.config, checkpoint.sizes, machine, job)
