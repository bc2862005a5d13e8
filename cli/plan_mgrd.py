"""`audio-r1 plan --mgrd`: hours and memory of a round, and what would make it practical."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

import click

CHIP_NAMES = ("m2-max", "m2-ultra", "m3-max", "m3-ultra-60", "m3-ultra", "m4", "m4-pro", "m4-max", "m5",
              "m5-max")  # fmt: skip  (rates.CHIPS, which --help does not import)
MGRD_OPTIONS = (
    click.option("--mgrd", is_flag=True, help="Plan rounds of MGRD instead: hours and memory of each phase."),
    click.option("--chip", type=click.Choice(CHIP_NAMES),
                 help="Whose rates to plan with.  [default: this Mac's, or the usual one of --memory]"),
    click.option("--prompts", type=click.IntRange(1), default=500, help="MGRD: questions to distil."),
    click.option("--samples", type=click.IntRange(1), default=8, help="MGRD: samples of each."),
    click.option("--tokens", type=click.IntRange(1), default=2_500, help="MGRD: mean length of a sample."),
    click.option("--rl-prompts", type=click.IntRange(1), default=200, help="MGRD: questions RL learns from."),
    click.option("--rl-samples", type=click.IntRange(1), default=16, help="MGRD: samples of each."),
    click.option("--rl-tokens", type=click.IntRange(1), default=2_500, help="MGRD: mean length there."),
    click.option("--rounds", type=click.IntRange(1), default=3, help="MGRD: rounds."),
    click.option("--train-samples", type=click.IntRange(1), metavar="N",
                 help="MGRD: learn from N of a question's samples.  [default: all]"),
    click.option("--value", type=click.Choice(["group", "lora"]), default="group",
                 help="MGRD: what stands for the value of a state."),
    click.option("--judge", type=click.Choice(["none", "7b", "self"]), default="none",
                 help="MGRD: an LLM that judges what passed the other filters."),
    click.option("--reuse/--no-reuse", default=True, help="MGRD: curate by the distillation's samples."),
)
SAME = ("prompts", "samples", "tokens", "rl_prompts", "rl_samples", "rl_tokens", "rounds", "train_samples",
        "value", "judge", "reuse", "rank")  # fmt: skip


def make_plan(checkpoint: Any, machine: Any, given: dict[str, Any], weights: dict[str, Any]) -> Any:
    """The plan of what was asked for. Raises PlanError."""
    from mlx_audio_r1.footprint import prompt_tokens
    from mlx_audio_r1.plan import context_for
    from mlx_audio_r1.plan_mgrd import plan_mgrd
    from mlx_audio_r1.plan_mgrd_phases import MgrdJob

    prompt = prompt_tokens(given["seconds"])
    context_for(checkpoint.config, prompt + max(given["tokens"], given["rl_tokens"]))
    job = MgrdJob(prompt_tokens=prompt, num_layers=given["num_layers"] if given["num_layers"] > 0 else None,
                  kv_bits=given["kv_bits"] and int(given["kv_bits"]), **weights,
                  **{name: given[name] for name in SAME})  # fmt: skip
    return plan_mgrd(checkpoint.config, checkpoint.sizes, machine, _chip(given["chip"], given["gib"]), job)


def _chip(name: str | None, gib: int | None) -> Any:
    """Raises PlanError where the rates of this machine are not known."""
    import mlx.core as mx

    from mlx_audio_r1 import rates
    from mlx_audio_r1.errors import PlanError

    device = str(mx.device_info().get("device_name", "this machine"))
    key = name or (rates.usual_chip(gib) if gib else rates.chip_called(device))
    if key is None:
        raise PlanError(f"{device}: its rates are not known; say whose to plan with: --chip or --memory")
    return rates.CHIPS[key]


def show(plan: Any, checkpoint: Any) -> None:
    """Phases, the whole, and settings to take where a round is long or does not fit."""
    from mlx_audio_r1.plan import gb
    from mlx_audio_r1.plan_mgrd import DAY, ESTIMATE

    click.secho(f"{checkpoint.name} on {plan.machine.name}, {plan.chip.name}", bold=True)
    click.echo(f"{plan.title}; sizes: {checkpoint.source}")
    click.secho("\n".join(filter(None, (checkpoint.note, ESTIMATE))) + "\n", dim=True)
    for phase in plan.phases:
        size = gb(phase.bytes) if phase.bytes else ""
        _row(phase.name, phase.hours, size, click.style(phase.formula, dim=True))
    _row("one round", plan.hours, gb(plan.needed), f"offered {gb(plan.machine.usable)}", bold=True)
    if plan.rounds > 1:
        _row(f"{plan.rounds} rounds", plan.rounds * plan.hours, "", _days(plan.rounds * plan.hours))
    verdict = "fits" if plan.fits else f"does not fit: {gb(plan.needed - plan.machine.usable)} too much"
    click.secho(f"  {verdict}", fg="green" if plan.fits else "red")
    if plan.choices:
        why = f"takes more than {DAY:.0f} h" if plan.fits else "does not fit"
        click.echo(f"\nA round {why}. Instead, it would take")
    for choice in plan.choices:
        _row("", choice.hours, gb(choice.bytes), choice.words + ("" if choice.fits else "  (does not fit)"))


def _row(name: str, hours: float, size: str, note: str, bold: bool = False) -> None:
    click.echo(click.style(f"  {name:<24}{hours:>8,.1f} h{size:>12}", bold=bold) + f"   {note}")


def _days(hours: float) -> str:
    return f"{hours / 24:.1f} days"


def show_json(plan: Any, checkpoint: Any) -> None:
    """The plan as one JSON object; formulas and where rates come from are part of it."""
    from mlx_audio_r1 import plan_mgrd_phases, rates
    from mlx_audio_r1.plan_mgrd import ESTIMATE

    facts = {"model": checkpoint.name, "source": checkpoint.source, "note": checkpoint.note, "estimate": True,
             "caution": ESTIMATE, "fits": plan.fits, "needed": plan.needed, "offered": plan.machine.usable,
             "round_hours": plan.hours, "hours": plan.rounds * plan.hours, **asdict(plan),
             "formulas": {"phases": plan_mgrd_phases.__doc__, "rates": rates.__doc__}}  # fmt: skip
    click.echo(json.dumps(facts, ensure_ascii=False, indent=2))
