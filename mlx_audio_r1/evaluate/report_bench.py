"""Of a report: the sections of one bench, with its curves, its letters, and its failures to listen to."""

from __future__ import annotations

import string
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mlx_audio_r1.evaluate.failures import Failure, failures
from mlx_audio_r1.evaluate.report_tables import drawn_interval, extras, groups, scorers
from mlx_audio_r1.evaluate.summary import Table
from mlx_audio_r1.report import bars, page, plots
from mlx_audio_r1.report.page import Html, Section
from mlx_audio_r1.report.plots import Line
from mlx_audio_r1.report.samples import Reply, Sample, samples
from mlx_audio_r1.tasks.gold import gold_text

MOST_LINES = 8  # of categories in one plot
MOST_DRAWN = 24  # values of a group that are drawn
MOST_SHOWN = 6_000  # characters of a reasoning: half from its beginning, half from its end
Found = Mapping[str, Any]


def sections(name: str, found: Found, part: Table | None) -> list[Section]:
    """All of them; those without content are left out by the page."""
    return [
        Section(name, [page.grid(*scorers(found)), *_groups(found)]),
        Section(f"{name}: more or less thinking, another sound", [*_curves(found), *_extras(found)]),
        Section(f"{name}: where the right option stood, and which was chosen", _letters(found)),
        Section(f"{name}: what it cost", [page.tiles(_cost(found))]),
        Section(f"{name}: telling failures", _failures(part)),
    ]


def _groups(found: Found) -> list[Html]:
    primary = found["scorers"].get(found["primary"], {})
    own, what = primary.get("groups", {}), "errors" if primary.get("error") else "share right"
    blocks: list[Html] = []
    for group, values in own.items():
        known = {value: s for value, s in values.items() if s["value"] is not None}
        rates = {value: drawn_interval(s) for value, s in known.items()}
        if 1 < len(rates) <= MOST_DRAWN and not plots.missing():
            said = "; ".join(f"{value} {100 * rate:.1f} %" for value, (rate, _, _) in rates.items())
            drawn = bars.intervals(rates, f"{what.capitalize()} by {group}: {said}", f"{what}, by {group}")
            blocks.append(page.tag("div", drawn, class_="across"))
        blocks.append(page.grid(*groups(found, group)))
    return blocks


def _curves(found: Found) -> list[Html]:
    """Accuracy against the budget with its interval, and one plot of lines for each group."""
    budgets = found.get("budgets") or {}
    points = [p for p in budgets.get("points", []) if p["budget"] is not None]
    if len(points) < 2 or plots.missing():
        return []
    steps = [p["budget"] for p in points]
    line = Line("all", steps, *([p[key] for p in points] for key in ("value", "low", "high")))
    drawn = [("Accuracy by the tokens of reasoning allowed, 95 % interval", _plot([line]))]
    for group, values in budgets.get("groups", {}).items():
        if 1 < len(values) <= MOST_LINES:
            lines = [Line(value, steps, own[: len(steps)]) for value, own in values.items()]
            drawn.append((f"The same by {group}", _plot(lines)))
    blocks = [page.plots(drawn)]
    if budgets.get("slope"):
        worth, low, high = (100 * value for value in budgets["slope"])
        said = f"Doubling the reasoning is worth {worth:+.2f} points ({low:+.2f} to {high:+.2f})."
        blocks.append(page.note(said))
    return blocks


def _plot(lines: Sequence[Line]) -> Html:
    ends = [(line.name, 100 * line.values[0], 100 * line.values[-1]) for line in lines]
    said = "Accuracy over budgets: " + "; ".join(f"{name} {a:.0f} to {b:.0f} %" for name, a, b in ends)
    return plots.line_plot(lines, said, "share", "tokens of reasoning allowed", even=True)


def _extras(found: Found) -> list[Html]:
    return [block for title, grid in extras(found) for block in (page.tag("h3", title), page.grid(*grid))]


def _letters(found: Found) -> list[Html]:
    table = found.get("positions") or []
    if not table:
        return []
    letters = [string.ascii_uppercase[i] if i < 26 else str(i + 1) for i in range(len(table))]
    rows = [[f"right: {letter}", *row, sum(row)] for letter, row in zip(letters, table, strict=True)]
    totals = ["chosen", *(sum(column) for column in zip(*table, strict=True)), sum(map(sum, table))]
    return [page.grid(["", *(f"chose {letter}" for letter in letters), "none", "all"], [*rows, totals])]


def _cost(found: Found) -> dict[str, Any]:
    thinking, hours = found.get("thinking_tokens", {}), found.get("seconds", 0.0) / 3_600
    return {
        "replies": found["replies"], "tokens written": found["tokens"], "tokens read": found["prompt_tokens"],
        "sound": f"{found['audio_seconds'] / 60:,.1f} min",
        "thinking, median": thinking.get("median"), "thinking, most": thinking.get("most"),
        "time, all rows": f"{hours:,.1f} h" if hours >= 1 else f"{60 * hours:,.1f} min",
        "unfinished": found["unfinished"],
    }  # fmt: skip


def _failures(part: Table | None) -> list[Html]:
    return samples([_sample(failure) for failure in failures(part)]) if part else []


def _sample(failure: Failure) -> Sample:
    item, result = failure.item, failure.result
    sounds = [Path(str(sound.source)) for sound in item.sounds if isinstance(sound.source, str | Path)]
    words = [p for message in item.messages() for p in message.parts if isinstance(p, str)]
    reply = Reply(failure.why, _shortened(result.thinking), result.answer)
    return Sample(item.uid, sounds, "\n".join(words), gold_text(item), [reply])


def _shortened(thinking: str) -> str:
    """A reasoning that fits on a page; all of it is in results.jsonl."""
    left, half = len(thinking) - MOST_SHOWN, MOST_SHOWN // 2
    return thinking if left <= 0 else f"{thinking[:half]} … ({left:,} characters left out) … {thinking[-half:]}"
