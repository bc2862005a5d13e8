"""Of an MGRD report: measures over the rounds, the course of reinforcement learning, the same clips again.

The surprise: the rounds of reinforcement learning are drawn one behind the other on one axis, since each
goes on with what the last one made.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mlx_audio_r1.mgrd.run_files import Row, RunFiles
from mlx_audio_r1.report import page, plots
from mlx_audio_r1.report.page import Html
from mlx_audio_r1.report.plots import Line
from mlx_audio_r1.report.samples import Reply, Sample, samples
from mlx_audio_r1.train import metrics
from mlx_audio_r1.train.report import RL_PLOTS

CURVES = (  # caption, axis, name of a line and where it stands in measures.json
    ("Accuracy", "share", {"thinking": ("accuracy", "thinking"), "no thinking": ("accuracy", "direct"),
                           "silence heard": ("accuracy", "silence")}),
    ("Evidence: gain in log-probability by the sound, nats a token", "linear",
     {"reasoning": ("gain", "thinking"), "answer": ("gain", "answer")}),
    ("Acoustic terms, of acoustic and textual ones", "share", {"share": ("grounding", "ratio")}),
    ("Acoustic terms in a thousand words of reasoning", "zero", {"terms": ("grounding", "density")}),
    ("Kinds of acoustic terms that a reasoning has, of eight", "share", {"share": ("grounding", "breadth")}),
    ("Tokens of reasoning", "zero", {"tokens": ("length",)}),
    ("Replies that reason", "share", {"share": ("reasoning",)}),
    ("Samples kept for learning", "share", {"share": ("keep_rate",)}),
)  # fmt: skip

ALONE = {"length": "Tokens of a reply", "truncated": "Replies without an end"}  # first keys alone


def found(measures: Row, keys: Sequence[str]) -> float | None:
    """The number at a place in nested objects; None where there is none."""
    value: Any = measures
    for key in keys:
        value = value.get(key) if isinstance(value, dict) else None
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


# ---- over the rounds


def measured(files: RunFiles) -> list[Html]:
    """A plot for each measure, and all of them as a table."""
    rounds = measures(files)
    drawn, rows = [], []
    for caption, axis, places in CURVES:
        lines = [line for name, keys in places.items() if (line := _line(name, keys, rounds)).values]
        if lines and not plots.missing():
            drawn.append((caption, plots.line_plot(lines, _read_aloud(caption, lines), axis, "round")))
        rows += [[f"{caption}: {line.name}" if len(places) > 1 else caption,
                  *(dict(line.finite).get(number) for number, _ in rounds)] for line in lines]  # fmt: skip
    if not rows:
        return []
    return [page.plots([*drawn, *_budgets(rounds)]), page.grid(["", *(f"round {n}" for n, _ in rounds)], rows)]


def _budgets(rounds: Sequence[tuple[int, Row]]) -> list[tuple[str, Html]]:
    """Accuracy where the reasoning is closed after so many tokens, a line for each round."""
    lines = []
    for number, row in rounds:
        given = row.get("budgets") or {}
        points = sorted((int(n), float(v)) for n, v in given.items() if str(n).isdigit() and v is not None)
        lines.append(Line(f"round {number}", [n for n, _ in points], [v for _, v in points]))
    lines = [line for line in lines if line.values]
    if not lines or plots.missing():
        return []
    caption = "Accuracy by the tokens of reasoning allowed"
    said = _read_aloud(caption, lines).replace("over rounds", "over budgets")
    return [(caption, plots.line_plot(lines, said, "share", "tokens of reasoning allowed"))]


def measures(files: RunFiles) -> list[tuple[int, Row]]:
    """Rounds that were measured, with what their filters kept."""
    rounds: list[tuple[int, Row]] = []
    for number in files.rounds:
        row, decided = files.measures(number), files.decisions(number)
        if row:
            kept = sum(bool(d.get("kept")) for d in decided) / len(decided) if decided else None
            rounds.append((number, {"keep_rate": kept, **row}))
    return rounds


def _line(name: str, keys: Sequence[str], rounds: Sequence[tuple[int, Row]]) -> Line:
    pairs = [(number, value) for number, row in rounds if (value := found(row, keys)) is not None]
    return Line(name, [n for n, _ in pairs], [v for _, v in pairs])


def _read_aloud(caption: str, lines: Sequence[Line]) -> str:
    said = (f"{line.name} from {line.values[0]:.4g} to {line.values[-1]:.4g}" for line in lines)
    return f"{caption} over rounds: {'; '.join(said)}"


# ---- reinforcement learning


def learnt(files: RunFiles) -> list[Html]:
    """Curves of every round, one behind the other."""
    courses, start = [], 0.0
    for number in files.rounds:
        rows = [row for row in metrics.read(files.round(number) / "rl") if isinstance(row.get("step"), int)]
        if rows:
            courses.append((number, start, rows))
            start += max(row["step"] for row in rows)
    if not courses or plots.missing():
        return []
    drawn = []
    for title, keys, axis in RL_PLOTS:
        caption = ALONE.get(keys[0], title)
        lines = [line for course in courses if (line := _course(keys[0], *course)).values]
        if any(v for line in lines for v in line.values):  # all zeros say nothing
            drawn.append((caption, plots.line_plot(lines, _read_aloud(caption, lines), axis,
                                                   "step, the rounds one behind the other")))  # fmt: skip
    return [page.plots(drawn)]


def _course(key: str, number: int, start: float, rows: Sequence[Row]) -> Line:
    pairs = [(start + row["step"], float(row[key])) for row in rows if isinstance(row.get(key), int | float)]
    return Line(f"round {number}", [s for s, _ in pairs], [v for _, v in pairs])


# ---- the same clips


def showcase(files: RunFiles) -> list[Html]:
    """The replies to each clip by round, with the clip to play."""
    asked: dict[tuple[str, str], list[tuple[int, Row]]] = {}
    for number in files.rounds:
        for row in files.showcase(number):
            asked.setdefault((_text(row.get("where")), _text(row.get("prompt"))), []).append((number, row))
    return samples([_sample(files.folder, where, prompt, rows) for (where, prompt), rows in asked.items()])


def _sample(folder: Path, where: str, prompt: str, rows: Sequence[tuple[int, Row]]) -> Sample:
    replies = [Reply(_when(number, row), _text(row.get("think")), _text(row.get("answer")))
               for number, row in rows]  # fmt: skip
    first = rows[0][1]
    audio = first.get("audio") or []
    sounds = [_sound(folder, _text(name)) for name in (audio if isinstance(audio, list) else [audio])]
    return Sample(where, sounds, prompt, _text(first.get("expected")), replies)


def _when(number: int, row: Row) -> str:
    """After which round, and whether the verifier calls the answer right, where it was asked."""
    when = "round 0, the cold start" if number == 0 else f"after round {number}"
    right = found(row, ["correct"])
    return when if right is None else f"{when}: {'right' if right >= 0.5 else 'wrong'}"


def _sound(folder: Path, name: str) -> Path | str:
    """A data URI as it is; a path as it is, or from the run's folder where it is found there alone."""
    if name.startswith("data:"):
        return name
    beside = folder / name
    return beside if not Path(name).exists() and beside.exists() else Path(name)


def _text(value: Any) -> str:
    return "" if value is None or (isinstance(value, float) and math.isnan(value)) else str(value)
