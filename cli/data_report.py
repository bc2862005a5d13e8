"""What `audio-r1 data check` found, on the terminal."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import groupby
from typing import Any

import click

from mlx_audio_r1.cli.progress import in_words

SHOWN = 10  # problems of one kind; --json has them all
LEARNT = ("⟦", "⟧")  # around what is learnt, in bold where there is colour
KINDS = {"sft": "sft", "preference": "preference", "prompt": "prompt-only"}


def show(report: Any, model: str) -> None:
    """Numbers of each file, samples, warnings, errors, and a last line that sums up."""
    for facts in report.splits.values():
        _show_split(facts, report)
    _show_samples(report.samples)
    _show_problems("warning", report.warnings, "yellow")
    _show_problems("error", report.errors, "red")
    click.echo()
    checked = f"for {model}, context {report.context:,}, rows of at most {report.max_seq_length:,} tokens"
    counted = f"{_count(len(report.errors), 'error')}, {_count(len(report.warnings), 'warning')}"
    verdict = "training will take this" if report.ok else "training will refuse this"
    click.secho(f"{verdict}: {counted} ({checked})", fg="green" if report.ok else "red")
    if not report.decoded:
        click.secho("sounds were not decoded: damage, silence and copies were not looked for", dim=True)


def _show_split(facts: Mapping[str, Any], report: Any) -> None:
    click.secho(facts["file"], bold=True)
    kinds = ", ".join(f"{n:,} {KINDS[kind]}" for kind, n in facts["rows"].items() if n)
    read = sum(facts["rows"].values())
    _row("rows", f"{read:,} of {facts['lines']:,} lines" + (f": {kinds}" if kinds else ""))
    _row("sounds", _sounds(facts))
    tokens = facts["tokens"]
    if tokens:
        names = ("min", "median", "p95", "max")
        _row("tokens a row", ", ".join(f"{name} {tokens[name]:,}" for name in names))
        share = facts["learnt_tokens"] / tokens["total"]
        _row("tokens", f"{tokens['total']:,}, {facts['learnt_tokens']:,} of them learnt ({share:.0%})")
    if facts["with_reasoning"] or facts["without_reasoning"]:
        _row("reasoning", f"{facts['with_reasoning']:,} replies with, {facts['without_reasoning']:,} without")
    if facts["over_long"]:
        _row(f"over {report.max_seq_length:,}", _over_long(facts["over_long"]))
    if facts["errors"]:
        _row("errors", ", ".join(f"{n:,} {kind}" for kind, n in facts["errors"].items()))
    click.echo()


def _sounds(facts: Mapping[str, Any]) -> str:
    if not facts["clips"]:
        return "none"
    files = f"{_count(facts['files'], 'file')} ({facts['distinct_sounds']:,} different)"
    parts = [f"{_count(facts['clips'], 'clip')} from {files}, {in_words(facts['hours'] * 3600)}"]
    if facts["longer_than_a_chunk"]:
        parts.append(f"{facts['longer_than_a_chunk']:,} longer than 25 s, heard in pieces")
    if facts["text_only_rows"]:
        parts.append(f"{_count(facts['text_only_rows'], 'row')} without sound")
    return "; ".join(parts)


def _over_long(rows: list[Mapping[str, Any]]) -> str:
    listed = ", ".join(f"{row['where']} ({row['tokens']:,})" for row in rows[:SHOWN])
    return f"{_count(len(rows), 'row')}: {listed}{', ...' if len(rows) > SHOWN else ''}"


def _row(name: str, text: str) -> None:
    click.echo(f"  {name:<14}{text}")


def _count(n: int, what: str) -> str:
    return f"{n:,} {what}{'' if n == 1 else 's'}"


def _show_samples(samples: Iterable[Any]) -> None:
    for sample in samples:
        click.secho(f"{sample.where} ({sample.what})", bold=True)
        for text, learnt in sample.pieces:
            shown = f"{LEARNT[0]}{text}{LEARNT[1]}" if learnt else text
            click.secho(shown, fg="green" if learnt else None, bold=learnt, nl=False)
        click.echo("\n")


def _show_problems(what: str, faults: list[Any], colour: str) -> None:
    """One a line, those of a kind together."""
    if not faults:
        return
    click.secho(_count(len(faults), what), fg=colour, bold=True)
    grouped = [list(group) for _, group in groupby(sorted(faults, key=_kind), key=_kind)]
    for group in grouped:
        for fault in group[:SHOWN]:
            click.echo(f"  {fault.where}: {fault.text}")
        if len(group) > SHOWN:
            click.secho(f"  and {len(group) - SHOWN:,} more like these ({_kind(group[0])}); --json has all",
                        dim=True)


def _kind(fault: Any) -> str:
    return fault.kind
