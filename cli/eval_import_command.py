"""`audio-r1 eval import` and `list`: which benchmarks there are, and one of them made ready to be asked."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from mlx_audio_r1.evaluate.bench import Bench
    from mlx_audio_r1.evaluate.import_report import ImportReport

MOST_TOLD = 5  # items that are named one by one


@click.command("list")
@click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout.")
def list_benches(as_json: bool) -> None:
    """Say which benchmarks can be imported, how large they are, what they may be used for and where they are.

    Nothing is downloaded: the data sets are yours to get, under their own licences.

    \b
    Examples:
      audio-r1 eval list
      audio-r1 eval list --json | jq -r '.benches[].name'
    """
    from mlx_audio_r1.evaluate.benches import BENCHES, bench

    rows = [_row(bench(name)) for name in BENCHES]
    if as_json:
        click.echo(json.dumps({"benches": rows}, ensure_ascii=False, indent=2))
        return
    width = max(len(row["name"]) for row in rows) + 2
    for row in rows:
        facts = [f"{row['items']} items" if row["items"] else "", row["license"]]
        click.echo(f"{row['name']:<{width}}{row['title']} ({', '.join(filter(None, facts)) or 'any size'})")
        click.echo(f"{'':<{width}}download: {row['source']}")


def _row(bench: Bench) -> dict[str, Any]:
    return {
        "name": bench.name, "title": bench.title, "items": bench.expected.get("", {}).get(""),
        "license": bench.license, "source": bench.source, "scorers": list(bench.scorers),
        "profiles": [profile.name for profile in bench.profiles], "judge": bench.judge,
    }  # fmt: skip


@click.command("import", context_settings={"show_default": True})
@click.argument("name", metavar="BENCH")
@click.argument("path", required=False, type=click.Path(path_type=Path))
@click.option("-o", "--output", "out", required=True, metavar="DIR", type=click.Path(path_type=Path),
              help="The folder to write; importing again writes it anew.")
@click.option("--allow-missing", is_flag=True,
              help="Leave questions out whose sound is missing or cannot be opened, in place of stopping.")
@click.option("--check-audio", is_flag=True, help="Decode every sound to its end: finds damage, takes longer.")
@click.option("--n", "per_task", type=click.IntRange(1), default=16,
              help="Of acoustic-world: questions of each task.")
@click.option("--seed", type=click.IntRange(0), default=0, help="Of acoustic-world: another seed, other clips.")
@click.option("--json", "as_json", is_flag=True, help="The import report as one JSON object on stdout.")
def import_bench(name: str, path: Path | None, out: Path, as_json: bool, **options: Any) -> None:
    """Make a download of BENCH ready: PATH is its folder or file, DIR becomes a folder of questions.

    BENCH is a name of `audio-r1 eval list`, or auto, which looks at the layout. Sounds that are files stay
    where they are; those inside parquet files are written to DIR/audio. DIR/import_report.json says how
    many questions of each kind there are, which version it is, and why numbers from it could not be
    compared with published ones.

    \b
    Examples:
      audio-r1 eval import mmau MMAU/ -o mmau/
      audio-r1 eval import auto downloads/spoken-mqa -o spoken-mqa/ --check-audio
      audio-r1 eval import acoustic-world -o world/ --n 16
      audio-r1 eval import generic my-questions.jsonl -o mine/ --json | jq .counts
    """
    from mlx_audio_r1.evaluate.importing import ImportOptions
    from mlx_audio_r1.evaluate.importing import import_bench as import_to

    bench = _chosen(name, path)
    report = import_to(bench, path, out, ImportOptions(**options), _progress)
    _clear()
    if as_json:
        click.echo(json.dumps(report.as_dict(), ensure_ascii=False, indent=2))
    else:
        _show(report, bench, out)


def _chosen(name: str, path: Path | None) -> Bench:
    from mlx_audio_r1.evaluate.benches import bench
    from mlx_audio_r1.evaluate.detect import detect

    if name != "auto":
        return bench(name)
    if path is None:
        raise click.UsageError("auto: give the PATH to look at")
    return detect(path)


def _show(report: ImportReport, bench: Bench, out: Path) -> None:
    """Counts beside what should be there, in the bench's order of groups, and the verdict."""
    click.echo(f"{report.title}: {report.items} questions, {report.seconds / 3600:.2f} h of sound, "
               f"version {report.version or 'none'}")  # fmt: skip
    for group in bench.group_by:
        expected = report.expected.get(group, {})
        for value, count in report.counts.get(group, {}).items():
            wanted = f", expected {expected[value]}" if expected.get(value, count) != count else ""
            click.echo(f"  {group:<14}{value:<34}{count:>6}{wanted}")
    _tell("left out", report.left_out, out)
    _tell("damaged", report.damaged, out)
    if bench.expected:
        reasons = f": {'; '.join(report.reasons)}" if report.reasons else ""
        click.echo(f"items {'not ' if reasons else ''}paper-comparable{reasons}")
    click.echo(f"{out}: ready for audio-r1 eval run {out}")


def _tell(what: str, found: Sequence[tuple[str, str]], out: Path) -> None:
    for uid, why in found[:MOST_TOLD]:
        click.echo(f"{what}: {uid}: {why}", err=True)
    if len(found) > MOST_TOLD:
        click.echo(f"{what}: {len(found) - MOST_TOLD} more, in {out / 'import_report.json'}", err=True)


def _progress(number: int) -> None:
    if sys.stderr.isatty() and number % 20 == 0:
        click.echo(f"\r\x1b[K{number} questions", err=True, nl=False)


def _clear() -> None:
    if sys.stderr.isatty():
        click.echo("\r\x1b[K", err=True, nl=False)
