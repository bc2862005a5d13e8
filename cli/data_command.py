"""`audio-r1 data`: look after the rows that training learns from, or make them."""

from __future__ import annotations

import json
import sys
from typing import Any

import click

from mlx_audio_r1.cli.lazy_group import LazyGroup

SUBCOMMANDS = {  # name -> module that has a command of this name
    "check": "data_command", "world": "world_command", "curate": "curate_command",
}  # fmt: skip


@click.group("data", cls=LazyGroup, modules=SUBCOMMANDS)
def data() -> None:
    """Look after the rows that training learns from, or make them.

    \b
    Examples:
      audio-r1 data check sounds/
      audio-r1 data world -o world/ --train 400
      audio-r1 data curate world/ -o moderate/
    """


@click.command("check", context_settings={"show_default": True})
@click.argument("folder", metavar="DIR")
@click.option("--model", help="Whose tokenizer and context to check against. Default: the one `ask` would use.")
@click.option("--max-seq-length", type=click.IntRange(8), default=2_048, help="Longest row, in tokens.")
@click.option("--over-long", type=click.Choice(["refuse", "drop"]), default="refuse",
              help="What training will be told to do with longer rows.")
@click.option("--mask-prompt/--no-mask-prompt", default=True, help="Learn the replies alone.")
@click.option("--sample", type=click.IntRange(0), default=0, metavar="N",
              help="Show N rows of the first file as the model sees them.")
@click.option("--no-decode", is_flag=True, help="Read the headers of sounds only: quick, finds no damage.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout, with every problem.")
@click.pass_context
def check(
    ctx: click.Context, folder: str, model: str | None, no_decode: bool, as_json: bool, **options: Any
) -> None:
    """Find everything in DIR that training would stumble over; nothing is changed, no weights are read.

    DIR holds train.jsonl and perhaps valid.jsonl and test.jsonl, or is one such file. A row is
    {"messages": [...], "audios": [...]} with an <audio> mark for each sound, or
    {"prompt": ..., "chosen": ..., "rejected": ..., "audios": [...]}; paths count from the file. Exit
    code 0: training will take all of it (there may be warnings), 1: it will not.

    \b
    Examples:
      audio-r1 data check sounds/
      audio-r1 data check sounds/ --sample 2 --max-seq-length 4096
      audio-r1 data check sounds/ --no-decode --json | jq .errors
    """
    from mlx_audio_r1.cli.data_report import show
    from mlx_audio_r1.cli.model_choice import choose_model
    from mlx_audio_r1.train.data_check import CheckOptions
    from mlx_audio_r1.train.data_check import check as check_data

    chosen = choose_model(model)
    report = check_data(folder, chosen, CheckOptions(decode=not no_decode, **options), _progress)
    _clear()
    if as_json:
        click.echo(json.dumps({"model": chosen or "nano", **report.as_dict()}, ensure_ascii=False, indent=2))
    else:
        show(report, chosen or "nano")
    ctx.exit(0 if report.ok else 1)


def _progress(where: str, seconds: float) -> None:
    """The row being looked at, on a terminal only."""
    if sys.stderr.isatty():
        click.echo(f"\r\x1b[K{where}, {seconds / 60:.1f} min of sound", err=True, nl=False)


def _clear() -> None:
    if sys.stderr.isatty():
        click.echo("\r\x1b[K", err=True, nl=False)
