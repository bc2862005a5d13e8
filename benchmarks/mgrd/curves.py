"""The curves of docs/mgrd.md, drawn from the results that are there.

    python benchmarks/mgrd/curves.py        # docs/curves/*.svg
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from mlx_audio_r1.report.plots import Line, line_plot
from mlx_audio_r1.report.style import STYLE

HERE = Path(__file__).parent
RESULTS, CURVES = HERE / "results", HERE.parents[1] / "docs" / "curves"
STAGES = ("base, made to deny", "after filtered self-distillation", "after DPO")
Results = Mapping[str, Any]


def over_steps(found: Results, name: str) -> list[Line]:
    """A column of each arm's curve, the mean over its seeds."""
    runs = [(run.get("arm") or run["strategy"], run["curve"]) for run in found["runs"]]
    lines = []
    for arm in dict.fromkeys(arm for arm, _ in runs):
        curves = [curve for of, curve in runs if of == arm]
        shared = sorted(set.intersection(*(set(curve["step"]) for curve in curves)))
        values = [np.mean([curve[name][curve["step"].index(s)] for curve in curves]) for s in shared]
        lines.append(Line(arm, shared, [float(v) for v in values]))
    return lines


def over_rounds(found: Results, column: str) -> list[Line]:
    """A column of each arm by round."""
    return [Line(arm, range(len(rounds)), [row[column]["mean"] for row in rounds])
            for arm, rounds in found["means"].items()]  # fmt: skip


def by_budget(found: Results) -> list[Line]:
    """Accuracy of MGRD against the tokens of thinking, a line each round."""
    names = ("cold start", "round 1", "round 2")
    return [Line(name, [int(n) for n in row["budgets"]], list(row["budgets"].values()))
            for name, row in zip(names, found["means"]["mgrd"], strict=False)]  # fmt: skip


def of_stages(found: Results) -> list[Line]:
    """Rate of denials before, after distillation, after DPO; a line each seed."""
    return [Line(f"seed {seed}", range(3), [of_seed[stage]["error_rate"][0] for stage in STAGES])
            for seed, of_seed in found["seeds"].items()]  # fmt: skip


Drawing = tuple[str, Callable[[Results], list[Line]], str, str, str]
REWARD, REASONS, GAIN = "Reward of the rollouts", "Share of replies that reason", "Nats a token for the sound"
DRAWINGS: Mapping[str, Drawing] = {  # file -> results, lines, what is read aloud, axis, across
    "rewards": ("rewards", lambda f: over_steps(f, "reward"), REWARD, "share", "step"),
    "format-reasoning": ("format_reward", lambda f: over_steps(f, "reasoning"), REASONS, "share", "step"),
    "selection": ("selection", lambda f: over_steps(f, "reward"), REWARD, "share", "step"),
    "grounding-accuracy": ("grounding", lambda f: over_rounds(f, "thinking"), "Accuracy", "share", "round"),
    "grounding-ratio": ("grounding", lambda f: over_rounds(f, "grounding"), "Acoustic share", "share", "round"),
    "grounding-gain": ("grounding", lambda f: over_rounds(f, "gain"), GAIN, "zero", "round"),
    "budgets": ("grounding", by_budget, "Accuracy by thinking", "share", "tokens of thinking"),
    "self-cognition": ("self_cognition", of_stages, "Rate of denials", "zero", "stage"),
}  # fmt: skip


def main() -> None:
    CURVES.mkdir(parents=True, exist_ok=True)
    for name, (results, lines, label, axis, across) in DRAWINGS.items():
        path = RESULTS / f"{results}.json"
        if path.exists():
            found = json.loads(path.read_text())
            drawing = str(line_plot(lines(found), label, axis, across))
            (CURVES / f"{name}.svg").write_text(by_itself(drawing))
            print(CURVES.name, f"{name}.svg")


def by_itself(drawing: str) -> str:
    """The drawing as a file, with the page's colours for light and dark in it."""
    colours = STYLE[: STYLE.index("* {")]
    head, rest = drawing.split(">", 1)
    paper = '<rect width="100%" height="100%" fill="var(--paper)"/>'
    return f'{head} xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink">' \
           f"<style>{colours}</style>{paper}{rest}\n"  # fmt: skip


if __name__ == "__main__":
    main()
