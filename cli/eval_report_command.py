"""`audio-r1 eval report` and `compare`: a run as a page, and two runs against each other."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from mlx_audio_r1.evaluate.compare import Comparison, Paired

MOST_FLIPS = 5  # items that changed, named one by one


@click.command("report")
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
def report(folder: Path) -> None:
    """Make report.html and report.md of a run again, from its rows and scores.

    The paper's table with the run in it, 95 % intervals, accuracy against thinking, other sounds, and the
    failures that tell most, to listen to. `eval run` and `eval score` make them too.

    \b
    Examples:
      audio-r1 eval report runs/4bit
    """
    from mlx_audio_r1.evaluate.report import write_report

    for path in write_report(folder):
        click.echo(path)


@click.command("compare", context_settings={"show_default": True})
@click.argument("a", metavar="A", type=click.Path(path_type=Path))
@click.argument("b", metavar="B", type=click.Path(path_type=Path))
@click.option("--scorer", metavar="NAME", help="Such as mcq.resolve. Default: the first of each benchmark.")
@click.option("--group", "groups", multiple=True, metavar="NAME",
              help="Also by this group, such as task; may be given several times.")
@click.option("--flips", type=click.IntRange(0), default=MOST_FLIPS, metavar="N",
              help="Name N items on which the runs differ.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout, with all items that changed.")
def compare(
    a: Path, b: Path, scorer: str | None, groups: tuple[str, ...], flips: int, as_json: bool
) -> None:
    """Say how run B differs from run A over the items of both, and whether that is more than noise.

    Pairs item by item: the difference has a 95 % interval (items drawn with replacement), p is McNemar's
    exact test. Folders of `audio-r1 eval run`; what their settings do not share is said.

    \b
    Examples:
      audio-r1 eval compare runs/bf16 runs/4bit
      audio-r1 eval compare runs/base runs/tuned --group task --json | jq .rows
    """
    from mlx_audio_r1.evaluate.compare import compare as compared

    found = compared(a, b, scorer, groups)
    if as_json:
        click.echo(json.dumps(asdict(found), ensure_ascii=False, indent=2, default=str))
        return
    _show(found, flips)


def _show(found: Comparison, flips: int) -> None:
    click.echo(f"{'':<34}{'n':>6}{'A':>9}{'B':>9}   {'B - A, points':<26}"
               f"{'A better':>9}{'B better':>9}{'p':>9}")  # fmt: skip
    for row in found.rows:
        click.echo(_line(row))
    for uid, before, after in found.flips[:flips]:
        click.echo(f"{uid}: {before:g} in A, {after:g} in B", err=True)
    if len(found.flips) > flips:
        more = len(found.flips) - flips
        click.echo(f"{more:,} more items differ; --flips {len(found.flips)} names all", err=True)
    for name, (one, other) in found.settings.items():
        click.echo(f"the runs differ in {name}: {_short(one)} and {_short(other)}", err=True)
    of_a, of_b = found.missing
    if of_a or of_b:
        click.echo(f"not compared: {of_a:,} items of A alone, {of_b:,} of B alone", err=True)


def _line(row: Paired) -> str:
    name = f"{row.bench} ({row.scorer})" if not row.group else f"  {row.group}"
    value, low, high = (100 * part for part in row.difference)
    change = f"{value:+.1f} ({low:+.1f} to {high:+.1f})"
    return (f"{name:<34}{row.n:>6,}{100 * row.a:>8.1f}%{100 * row.b:>8.1f}%   {change:<26}"
            f"{row.better_a:>9,}{row.better_b:>9,}{row.p:>9.2g}")  # fmt: skip


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 60 else f"{text[:57]}..."
