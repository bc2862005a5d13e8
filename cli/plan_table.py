"""A plan on the terminal: the parts, what fits, what would."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

import click


def show(plan: Any, checkpoint: Any) -> None:
    """The plan as a table of about twenty lines."""
    from mlx_audio_r1.plan import gb

    click.secho(f"{checkpoint.name} on {plan.machine.name}", bold=True)
    click.echo(f"{plan.title}; sizes: {checkpoint.source}")
    if checkpoint.note:
        click.secho(checkpoint.note, dim=True)
    click.echo()
    for part in plan.parts:
        note = ", ".join(filter(None, (part.note, "estimate" if part.estimate else "")))
        _row(part.name, gb(part.bytes), note)
    click.secho(f"  {'needed':<22}{gb(plan.needed):>12}", bold=True)
    _row("offered", gb(plan.machine.usable), plan.machine.why)
    over = plan.needed - plan.machine.usable
    verdict = f"fits, {gb(-over)} to spare" if plan.fits else f"does not fit: {gb(over)} too much"
    click.secho(f"  {verdict}\n", fg="green" if plan.fits else "red")
    _show_reach(plan.reach)
    if not plan.fits:
        click.echo("\nTo make it fit:" if plan.advice else "\nNo setting here makes it fit.")
        for line in plan.advice:
            click.echo(f"  {line}")


def _row(name: str, size: str, note: str) -> None:
    click.echo(f"  {name:<22}{size:>12}" + (f"   {click.style(note, dim=True)}" if note else ""))


def _show_reach(reach: Any) -> None:
    click.echo(f"  {reach.caption:<22}" + "".join(f"{name:>12}" for name in reach.columns))
    for name, lengths in reach.rows:
        click.echo(f"  {name:<22}" + "".join(f"{f'{n:,}' if n else '-':>12}" for n in lengths))


def show_json(plan: Any, checkpoint: Any) -> None:
    """The plan as one JSON object."""
    facts = {"model": checkpoint.name, "source": checkpoint.source, "note": checkpoint.note, "fits": plan.fits,
             "needed": plan.needed, "offered": plan.machine.usable, "advice": plan.advice, **asdict(plan)}
    click.echo(json.dumps(facts, ensure_ascii=False, indent=2))
