"""grounding.jsonl, results and scores -> what stands in the summary of a bench: name -> (mean, low, high), or a
number. Intervals are of a bootstrap over items.

The surprise: the names that end in `auc` are no grounding but whether the measure works: the chance that a true
sound has more of it than a wrong one put in its place. Near 0.5 a measure tells nothing about this model.
"""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from mlx_audio_r1.evaluate.controls import SHUFFLE
from mlx_audio_r1.evaluate.grounding import FILE, GAIN, RETRIEVAL, SILENCE, Measured
from mlx_audio_r1.evaluate.option_measures import MARGIN, ORDER
from mlx_audio_r1.evaluate.results import FULL, REAL, Result
from mlx_audio_r1.evaluate.score_rows import ScoreRow
from mlx_audio_r1.evaluate.summary_parts import resolver_of
from mlx_audio_r1.tasks.lexicon import grounding
from mlx_audio_r1.tasks.statistics import auc, bootstrap_mean

Values = Mapping[str, float]
Summary = dict[str, Any]


def read_measured(folder: Path) -> list[Measured]:
    """The lines of a run; [] where nothing was measured."""
    path = folder / FILE
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)[1:] if path.exists() else []
    return [Measured(**json.loads(line)) for line in lines if line.endswith("\n")]


def summed_up(results: Sequence[Result], rows: Sequence[ScoreRow], measured: Iterable[Measured]) -> Summary:
    """All that is known about one bench; {} where nothing was measured."""
    by: dict[str, list[Values]] = defaultdict(list)
    for one in measured:
        by[one.measure].append(one.values)
    if not by:
        return {}
    parts = (_words(results), _gains(by[GAIN]), _early(results, rows), _retrieved(by[RETRIEVAL]),
             _margins(by[MARGIN]), _orders(by[ORDER]))  # fmt: skip
    return {name: value for part in parts for name, value in part.items()}


def _words(results: Sequence[Result]) -> Summary:
    """The lexicon on every reasoning (G1). ratio: over those that have either kind of words."""
    found = [grounding(r.thinking) for r in results
             if r.budget == FULL and r.control == REAL and r.thinking]  # fmt: skip
    if not found:
        return {}
    return {"words.ratio": _mean([g.ratio for g in found]), "words.density": _mean([g.density for g in found]),
            "words.breadth": _mean([g.breadth for g in found])}  # fmt: skip


def _gains(rows: Sequence[Values]) -> Summary:
    """Nats a token, over each control; and the control of the measure itself."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    found: Summary = {f"gain.{name}": _mean([row.get(name) for row in rows]) for name in names}
    for kind in ("thinking", "answer", "acoustic"):
        true, other = f"{SILENCE}.{kind}", f"{SHUFFLE}.{kind}"
        both = [row for row in rows if true in row and other in row]
        if both:  # the gain of the other sound over silence: (true - silence) - (true - other)
            found[f"gain.{kind}.auc"] = auc([r[true] for r in both], [r[true] - r[other] for r in both])
    return found


def _retrieved(rows: Sequence[Values]) -> Summary:
    if not rows:
        return {}
    found: Summary = _means("retrieval", rows, ("hit", "reciprocal", "infonce"))
    return {**found, "retrieval.auc": auc([r["infonce"] for r in rows], [r["infonce_shuffled"] for r in rows])}


def _margins(rows: Sequence[Values]) -> Summary:
    found = _means("margin", rows, ("margin", "gain"))
    both = [row for row in rows if "gain_shuffled" in row]
    if both:
        found["margin.auc"] = auc([r["gain"] for r in both], [r["gain_shuffled"] for r in both])
    return found


def _orders(rows: Sequence[Values]) -> Summary:
    return _means("order", rows, ("correct", "agreement"))


def _means(measure: str, rows: Sequence[Values], names: Sequence[str]) -> Summary:
    return {f"{measure}.{name}": _mean([row[name] for row in rows]) for name in names if rows}


def _early(results: Sequence[Result], rows: Sequence[ScoreRow]) -> Summary:
    """Area over the curve of "the same answer as with all the thinking" against the share of the thinking
    (Lanham et al. 2023): 0 where the first word settles it, 1 where only the last does."""
    said = {row.key: row.scores[resolver_of(list(row.scores))].parsed for row in rows
            if row.control == REAL and row.scores}  # fmt: skip
    lengths = {(r.uid, r.sample): r.thinking_tokens for r in results if r.budget == FULL and r.control == REAL}
    curves: dict[tuple[str, int], list[tuple[float, float]]] = defaultdict(list)
    for (uid, sample, budget, control), parsed in said.items():
        length = lengths.get((uid, sample), 0)
        if budget != FULL and 0 <= budget < length:
            same = parsed == said.get((uid, sample, FULL, control))
            curves[uid, sample].append((budget / length, float(same)))
    return {"early.area_over_curve": _mean([_over(points) for points in curves.values()])} if curves else {}


def _over(points: Sequence[tuple[float, float]]) -> float:
    """Straight lines between the points, level before the first, up to (1, 1)."""
    x, y = zip(*sorted(points), strict=True)
    whole = list(pairwise(zip([0.0, *x, 1.0], [y[0], *y, 1.0], strict=True)))
    return 1.0 - math.fsum((b - a) * (low + high) / 2 for (a, low), (b, high) in whole)


def _mean(values: Sequence[float | None]) -> list[float]:
    known = [value for value in values if value is not None and math.isfinite(value)]
    return list(bootstrap_mean(known))
