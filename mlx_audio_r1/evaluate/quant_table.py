"""The table of `quant` in markdown: a line for each checkpoint in each benchmark."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from mlx_audio_r1.evaluate import report_tables as tables

HEAD = ["benchmark", "checkpoint", "weights", "n", "right", "95 % interval", "against the reference", "p",
        "KL, nats a token", "same first choice", "thinking tokens", "tokens/s"]  # fmt: skip


def markdown(table: Mapping[str, Any]) -> str:
    """A line for each checkpoint in each benchmark."""
    benches = table["rows"][0]["benches"]
    rows = [_line(bench, row) for bench in benches for row in table["rows"] if bench in row["benches"]]
    return tables.table(HEAD, rows) + "\n"


def _line(bench: str, row: Mapping[str, Any]) -> list[str]:
    own = row["benches"][bench]
    change = tables.points(own["difference"]) if "difference" in own else "reference"
    speed = own["tokens"] / own["seconds"] if own["seconds"] else math.nan
    return [
        bench, row["name"], f"{row['bytes'] / 1e9:,.3g} GB", f"{own['n']:,}", tables.percent(own["value"]),
        tables.interval(own), change, f"{own['p']:.2g}" if "p" in own else "",
        _within(row.get("kl"), 1, ".3g"), _within(row.get("agreement"), 100, ".1f", " %"),
        tables.number(own["thinking_tokens"]), tables.number(speed),
    ]  # fmt: skip


def _within(found: Sequence[float] | None, times: float, form: str, unit: str = "") -> str:
    """A value and its interval."""
    if not found:
        return ""
    value, low, high = (f"{times * part:{form}}" for part in found)
    return f"{value}{unit} ({low} to {high})"
