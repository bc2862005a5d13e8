"""`audio-r1 data world`: clips and questions whose answers are known, as many as you like."""

from __future__ import annotations

import sys
import time
from typing import Any

import click

LEVELS = ["easy", "medium", "hard"]


@click.command("world", context_settings={"show_default": True})
@click.option("-o", "--output", "folder", required=True, metavar="DIR", help="The folder to write; a new one.")
@click.option("--train", type=click.IntRange(0), default=400, help="Questions in train.jsonl, a clip each.")
@click.option("--valid", type=click.IntRange(0), default=40, help="Questions in valid.jsonl.")
@click.option("--test", type=click.IntRange(0), default=0, help="Questions in test.jsonl.")
@click.option("--tasks", metavar="NAMES", help="Such as count,compare. Default: all that there are.")
@click.option("--difficulty", type=click.Choice(LEVELS), help="Default: as it comes.")
@click.option("--choice/--free", default=True, help="With options where a task has them, or without.")
@click.option("--arithmetic", type=click.IntRange(0), default=0, metavar="N",
              help="Add N sums without sound to train.jsonl, and as large a share to the others.")
@click.option("--form", type=click.Choice(["rl", "sft"]), default="rl",
              help="rl: question and solution. sft: with reasoning and answer too.")
@click.option("--seed", type=click.IntRange(0), default=0, help="The same seed writes the same folder.")
def world(folder: str, tasks: str | None, **options: Any) -> None:
    """Write a data folder of synthetic clips and questions: training data that never runs out.

    Tones, bells, drums, voices, music: what sounds is known, so every answer is. `train rl`, `train sft`
    (with --form sft) and `data check` read the folder. Splits share no clip; answers are equally likely.

    \b
    Examples:
      audio-r1 data world -o world/ --train 400 --valid 50
      audio-r1 data world -o counting/ --tasks count,compare --difficulty easy --free
      audio-r1 data world -o replies/ --form sft --arithmetic 100 --seed 7
    """
    from mlx_audio_r1.tasks.world_rows import WorldPlan, write_world

    names = tuple(name.strip() for name in tasks.split(",")) if tasks else None
    started = time.monotonic()
    written = write_world(folder, WorldPlan(tasks=names, **options), _progress)
    _clear()
    for split, rows in written.items():
        click.echo(f"{split}.jsonl: {rows.total()} rows: " + ", ".join(f"{n} {t}" for t, n in rows.items()))
    seconds = time.monotonic() - started
    total = sum(rows.total() for rows in written.values())
    click.echo(f"{folder}: {total} rows in {seconds:.1f} s ({total / max(seconds, 1e-9):.1f} a second)")


def _progress(split: str, number: int, wanted: int) -> None:
    if sys.stderr.isatty():
        click.echo(f"\r\x1b[K{split}: {number} of {wanted}", err=True, nl=False)


def _clear() -> None:
    if sys.stderr.isatty():
        click.echo("\r\x1b[K", err=True, nl=False)
