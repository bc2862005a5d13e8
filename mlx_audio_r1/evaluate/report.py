"""report.html and report.md of a run: the paper's table with the run in it, intervals, curves, failures.

Made from the run's folder alone, at any moment; a part that was not measured is left out. What stands in the
page is summary.json; sounds and replies come from the items and the results.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from mlx_audio_r1 import __version__
from mlx_audio_r1.errors import EvaluationError
from mlx_audio_r1.evaluate import report_bench
from mlx_audio_r1.evaluate.report_tables import drawn_interval, headline, markdown, paper_table
from mlx_audio_r1.evaluate.results import ITEMS, SUMMARY, read_results
from mlx_audio_r1.evaluate.score_rows import read_scores
from mlx_audio_r1.evaluate.summary import Table, tables
from mlx_audio_r1.files import write_file
from mlx_audio_r1.report import bars, page, plots
from mlx_audio_r1.report.page import Html, Section
from mlx_audio_r1.tasks.item_files import read_items

HTML, MARKDOWN = "report.html", "report.md"
Summary = Mapping[str, Any]


@dataclass(frozen=True)
class RunFolder:
    """What a folder of `eval run` holds, read when it is asked for. Raises EvaluationError."""

    path: Path

    @cached_property
    def summary(self) -> Summary:
        try:
            found = json.loads((self.path / SUMMARY).read_text(encoding="utf-8"))
            return {"run": dict(found["run"]), "benches": dict(found["benches"])}
        except (OSError, ValueError, KeyError, TypeError):
            raise EvaluationError(
                f"{self.path / SUMMARY}: cannot be read; run audio-r1 eval score {self.path} first"
            ) from None

    @cached_property
    def tables(self) -> dict[str, Table]:
        """By bench."""
        items, rows = list(read_items(self.path / ITEMS)), read_scores(self.path)
        return {part.name: part for part in tables(items, read_results(self.path), rows)}


def write_report(folder: Path | str) -> tuple[Path, Path]:
    """Make both files and tell where they are. Raises EvaluationError, DiskError."""
    run = RunFolder(Path(folder))
    write_file(run.path / MARKDOWN, markdown(run.summary))
    write_file(run.path / HTML, _page(run))
    return run.path / HTML, run.path / MARKDOWN


def _page(run: RunFolder) -> str:
    benches = run.summary["benches"]
    sections = [Section("Outcome", _outcome(benches)), Section("Beside the paper", _paper(run.summary))]
    for name, found in benches.items():
        sections += report_bench.sections(name, found, run.tables.get(name))
    sections.append(Section("Settings", [page.facts(_flat(run.summary["run"]))]))
    told = run.summary["run"]
    subtitle = ", ".join(filter(None, [str(told.get("model", "")), ", ".join(benches)]))
    return page.page("Evaluation", subtitle, sections, f"mlx-audio-r1 {__version__}, {run.path}")


def _outcome(benches: Summary) -> list[Html]:
    """The number of every bench with its interval, drawn and in a table."""
    rates = {name: drawn_interval(s) for name, found in benches.items()
             if (s := found["scorers"].get(found["primary"])) and s["value"] is not None and not s.get("error")
             }  # fmt: skip
    blocks = [page.grid(*headline(benches))]
    if lacking := plots.missing():
        return [*blocks, page.note(lacking)]
    if rates:
        said = "; ".join(f"{name} {100 * value:.1f} %" for name, (value, _, _) in rates.items())
        drawn = bars.intervals(rates, f"Accuracy with 95 % intervals: {said}", "share right, 95 % interval")
        blocks.insert(0, page.tag("div", drawn, class_="across"))
    return blocks


def _paper(summary: Summary) -> list[Html]:
    columns, rows, notes = paper_table(summary)
    if not rows:
        return []
    return [page.grid(columns, rows), *(page.note(line) for line in notes)]


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, Mapping) and value:
            flat |= _flat(value, f"{prefix}{name}.")
        else:
            nested = isinstance(value, Sequence) and any(isinstance(inner, dict | list) for inner in value)
            flat[prefix + name] = json.dumps(value, ensure_ascii=False) if nested else value
    return flat
