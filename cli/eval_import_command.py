"""`audio-r1 eval import` and `list`: which benchmarks there are, and one of them made ready to be asked."""

from __future__ import annotations

import json

import click


@click.command("list")
@click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout.")
def list_benches(as_json: bool) -> None:
    """Say which benchmarks can be imported, how large they are and what they may be used for.

    \b
    Examples:
      audio-r1 eval list
      audio-r1 eval list --json | jq -r '.benches[].name'
    """
    from mlx_audio_r1.evaluate.benches import BENCHES, bench

    found = [bench(name) for name in BENCHES]
    if as_json:
        rows = [{"name": b.name, "title": b.title, "license": b.license} for b in found]
        click.echo(json.dumps({"benches": rows}, ensure_ascii=False, indent=2))
        return
    for b in found:
        click.echo(f"{b.name:<16} {b.title}")
