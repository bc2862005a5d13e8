"""`audio-r1 mgrd`: the paper's method, and a run of it watched from outside."""

from __future__ import annotations

import json

import click

from mlx_audio_r1.cli.lazy_group import LazyGroup

SUBCOMMANDS = {"run": "mgrd_run_command", "status": "mgrd_command", "report": "mgrd_command"}  # name -> module


@click.group("mgrd", cls=LazyGroup, modules=SUBCOMMANDS)
def mgrd() -> None:
    """Modality-Grounded Reasoning Distillation: run it, see how far it is, and what came out of it.

    \b
    Examples:
      audio-r1 mgrd run mgrd.yaml -o runs/first
      audio-r1 mgrd status runs/first
      audio-r1 mgrd report runs/first
    """


@click.command("status")
@click.argument("folder")
@click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout.")
def status(folder: str, as_json: bool) -> None:
    """Say which phases of the run in FOLDER are done, what was kept, and what is left.

    Reads files alone: it may be asked at any moment, also of a run that died.

    \b
    Examples:
      audio-r1 mgrd status runs/first
      audio-r1 mgrd status runs/first --json | jq .left
    """
    from mlx_audio_r1.mgrd.status import status as status_of

    found = status_of(folder)
    if as_json:
        click.echo(json.dumps(found.as_dict(), ensure_ascii=False, indent=2))
        return
    for line in found.lines():
        click.echo(line)


@click.command("report")
@click.argument("folder")
def report(folder: str) -> None:
    """Make FOLDER/report.html: one page with the curves of every round, what was kept and why, and replies.

    The page needs nothing but itself and may be made at any moment. Prints where it is.

    \b
    Examples:
      audio-r1 mgrd report runs/first
    """
    from mlx_audio_r1.mgrd.report import write_report

    click.echo(write_report(folder))
