"""report.html of a run of MGRD: what every round learnt, what it was taught and why, what it says now.

Made from the files of the run alone, so it can be made at any moment; a part that is not there yet is left
out. The sections about the filters are in report_filters.py, those about the learning in report_rounds.py.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mlx_audio_r1 import __version__
from mlx_audio_r1.files import write_file
from mlx_audio_r1.mgrd import report_filters, report_rounds
from mlx_audio_r1.mgrd.run_files import CONFIG, Row, RunFiles, read_object
from mlx_audio_r1.mgrd.status import Status, duration
from mlx_audio_r1.mgrd.status import status as status_of
from mlx_audio_r1.report import bars, page, plots
from mlx_audio_r1.report.page import DASH, Html, Section

REPORT = "report.html"


def write_report(folder: Path | str) -> Path:
    """Make `folder`/report.html and tell where it is. Raises TrainingError when there is no run."""
    files, now = RunFiles(folder), status_of(folder)
    sections = [
        Section("Outcome", _outcome(files, now)),
        Section("Over the rounds", report_rounds.measured(files)),
        Section("The same clips, round after round", report_rounds.showcase(files)),
        *report_filters.sections(files),
        Section("Reinforcement learning", report_rounds.learnt(files)),
        Section("What it says it is", _self_cognition(files.folder)),
        Section("Phases", _phases(now)),
        Section("Settings", _settings(files.config)),
    ]
    text = page.page(f"MGRD report: {files.name}", _subtitle(files, now), sections,
                     f"mlx-audio-r1 {__version__}, {files.folder}")  # fmt: skip
    write_file(files.folder / REPORT, text)
    return files.folder / REPORT


def _subtitle(files: RunFiles, now: Status) -> str:
    """Of which model, and how far."""
    done = sum(phase.state == "done" for phase in now.phases)
    told = [str(files.config.get("model") or "the default model"), str(files.config.get("data") or "")]
    if now.phases:
        told.append(f"{done} of {len(now.phases)} phases done")
    if now.running:
        told.append(f"now {now.running.name}")
    return ", ".join(filter(None, told))


# ---- outcome


def _outcome(files: RunFiles, now: Status) -> list[Html]:
    """First and last measures side by side, and what went wrong."""
    measured = report_rounds.measures(files)
    blocks = []
    if measured:
        (first, before), (last, after) = measured[0], measured[-1]
        when = f"after round {last}" if first == last else f"round {first} → round {last}"
        tiles = {name: _from_to(keys, before, after) for name, keys in TILES.items()}
        blocks.append(page.tiles({name: value for name, value in tiles.items() if value}))
        blocks.append(page.note(f"{when}; measured on {after['n']:,} questions" if after.get("n") else when))
    else:
        blocks.append(page.note("No round has been measured yet."))
    if lacking := plots.missing():
        blocks.append(page.note(lacking))
    failed = [f"{phase.name} failed: {phase.note or 'no reason was given'}" for phase in now.phases
              if phase.state == "failed"]  # fmt: skip
    return [*blocks, *(page.note(line, warning=True) for line in failed)]


TILES = {
    "accuracy, thinking": ("accuracy", "thinking"),
    "accuracy, no thinking": ("accuracy", "direct"),
    "accuracy, silence heard": ("accuracy", "silence"),
    "reasoning about the sound": ("grounding", "ratio"),
    "evidence in the reasoning": ("gain", "thinking"),
    "evidence in the answer": ("gain", "answer"),
    "tokens of reasoning": ("length",),
    "samples kept": ("keep_rate",),
}


def _from_to(keys: Sequence[str], *rows: Row) -> str | None:
    """First and last value of a measure."""
    values = [value for row in rows if (value := report_rounds.found(row, keys)) is not None]
    told = list(dict.fromkeys(f"{value:.3g}" if abs(value) < 1_000 else f"{value:,.0f}" for value in values))
    return " → ".join(told) or None


# ---- the rest


def _self_cognition(folder: Path) -> list[Html]:
    """Rates of wrong claims about itself, with their intervals."""
    stages = read_object(folder / "self_cognition" / "measures.json").get("stages") or []
    rated = [s for s in stages if isinstance(s, dict) and isinstance(s.get("rate"), int | float)]
    if not rated:
        return []
    rows = [[s.get("name", ""), s.get("n"), s.get("errors"), _percent(s["rate"]),
             f"{_percent(s.get('low'))} to {_percent(s.get('high'))}"] for s in rated]  # fmt: skip
    blocks = [page.note("Share of replies that claim to be a model of text alone, or to hear nothing; "
                        "95 % intervals.")]  # fmt: skip
    if not plots.missing():
        rates = {str(s.get("name", "")): (s["rate"], s.get("low") or s["rate"], s.get("high") or s["rate"])
                 for s in rated}  # fmt: skip
        told = "; ".join(f"{name} {_percent(rate)}" for name, (rate, _, _) in rates.items())
        drawn = bars.intervals(rates, f"Rate of errors: {told}", "replies that are wrong about what it is")
        blocks.append(page.tag("div", drawn, class_="across"))
    return [*blocks, page.grid(["stage", "replies", "wrong", "rate", "interval"], rows)]


def _percent(value: Any) -> str:
    return f"{100 * value:.3g} %" if isinstance(value, int | float) else DASH


def _phases(now: Status) -> list[Html]:
    if not now.phases:
        return []
    rows = [[", ".join(filter(None, (phase.name, phase.note))), phase.state, phase.count,
             duration(phase.seconds) if phase.seconds else ""] for phase in now.phases]  # fmt: skip
    return [page.grid(["phase", "state", "count", "time"], rows)]


def _settings(config: Row) -> list[Html]:
    """Every setting; groups of settings one below the other."""
    if not config:
        return [page.note(f"No {CONFIG} yet.")]
    flat: dict[str, Any] = {}
    for name, value in config.items():
        if isinstance(value, Mapping) and value:
            flat |= {f"{name}.{inner}": _told(told) for inner, told in value.items()}
        else:
            flat[name] = _told(value)
    return [page.facts(flat)]


def _told(value: Any) -> Any:
    """Lists of lists and of objects as JSON."""
    nested = isinstance(value, list) and any(isinstance(inner, dict | list) for inner in value)
    return json.dumps(value, ensure_ascii=False) if nested else value
