"""summary.json: what a run comes to, with how sure it is; made of items, results and scores alone.

An item counts once, with the mean of its samples; intervals are Wilson's over items, or a bootstrap over items
where the number is made of counts (a word error rate). The surprise: what an official scorer leaves out is left
out of its own number alone, and how much that was stands beside it.
"""

from __future__ import annotations

import json
import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from mlx_audio_r1.evaluate.results import FULL, REAL, SUMMARY, Result
from mlx_audio_r1.evaluate.score_rows import ScoreRow
from mlx_audio_r1.evaluate.scorers import scorer
from mlx_audio_r1.evaluate.scoring import OTHER_KIND, Score, Scorer
from mlx_audio_r1.evaluate.summary_parts import budgets, controls, positions, repeats, votes
from mlx_audio_r1.files import write_file
from mlx_audio_r1.tasks.item import Item
from mlx_audio_r1.tasks.statistics import Interval, bootstrap_total, wilson

PARTS = {"votes": votes, "repeats": repeats, "budgets": budgets, "controls": controls, "positions": positions}
By = Mapping[str, list[Score]]  # uid -> scores of its samples


@dataclass(frozen=True)
class Table:
    """Everything of one bench in a run."""

    name: str
    items: Mapping[str, Item]
    results: Sequence[Result]
    rows: Sequence[ScoreRow]

    @cached_property
    def scorers(self) -> list[str]:
        """The primary one first."""
        return list(dict.fromkeys(name for row in self.rows for name in row.scores))

    def plain(self) -> list[Result]:
        """Of the true sound, with all thinking."""
        return [r for r in self.results if r.budget == FULL and r.control == REAL]

    def by_item(self, name: str, budget: int = FULL, control: str = REAL) -> dict[str, list[Score]]:
        """The scores of a scorer under a budget and a control."""
        found: dict[str, list[Score]] = defaultdict(list)
        for row in self.rows:
            if row.budget == budget and row.control == control and name in row.scores:
                found[row.uid].append(row.scores[name])
        return dict(found)


def tables(items: Iterable[Item], results: Iterable[Result], rows: Iterable[ScoreRow]) -> list[Table]:
    """One for each bench, in the order of the items."""
    by_bench: dict[str, dict[str, Item]] = defaultdict(dict)
    for item in items:
        by_bench[item.bench][item.uid] = item
    own_results, own_rows = defaultdict(list), defaultdict(list)
    for result in results:
        own_results[result.bench].append(result)
    for row in rows:
        own_rows[row.bench].append(row)
    return [Table(name, found, own_results[name], own_rows[name]) for name, found in by_bench.items()]


def summarise(parts: Iterable[Table], run: Mapping[str, Any], **more: Mapping[str, Any]) -> dict[str, Any]:
    """The whole summary. more: by name what else is known of a bench, {bench: ...}: grounding, comparable."""
    benches = {}
    for part in parts:
        known = {name: found[part.name] for name, found in more.items() if part.name in found}
        benches[part.name] = {**summary_of(part), **known}
    return {"run": dict(run), "benches": benches}


def write_summary(folder: Path, summary: Mapping[str, Any]) -> None:
    """Raises DiskError."""
    write_file(folder / SUMMARY, json.dumps(finite(summary), indent=1, ensure_ascii=False) + "\n")


def summary_of(part: Table) -> dict[str, Any]:
    """One bench."""
    known = {name: scorer(name) for name in part.scorers}
    primary = part.scorers[0] if part.scorers else ""
    return {
        "items": len(part.items),
        "samples": 1 + max((r.sample for r in part.plain()), default=0),
        "chance": _mean([item.chance for item in part.items.values()]),
        "version": ", ".join(sorted({item.version for item in part.items.values()} - {""})),
        "primary": primary,
        "scorers": {name: scored(one, part.by_item(name), part.items) for name, one in known.items()},
        **_counts(part),
        **({name: make(part, primary) for name, make in PARTS.items()} if primary else {}),
    }


def scored(one: Scorer, by: By, items: Mapping[str, Item]) -> dict[str, Any]:
    """A scorer's number over a bench, and over each of its groups."""
    groups: dict[str, dict[str, dict[str, list[Score]]]] = defaultdict(lambda: defaultdict(dict))
    for uid, scores in by.items():
        for group, value in items[uid].groups.items():
            groups[group][str(value)][uid] = scores
    split = {group: {value: {**number(one, own), "chance": _mean([items[uid].chance for uid in own])}
                     for value, own in sorted(values.items())} for group, values in groups.items()}  # fmt: skip
    return {"title": one.title, "error": one.error, **number(one, by), "groups": split}


def number(one: Scorer, by: By) -> dict[str, Any]:
    """n: items counted. left_out: items the official script would not count. unparsed: replies that were
    not understood, those left out for it too. value, low, high: 0-1."""
    counted = {uid: kept for uid, scores in by.items() if (kept := [s for s in scores if s.value is not None])}
    unparsed = sum(_unparsed(score) for scores in by.values() for score in scores)
    value, low, high = _interval(one, counted)
    return {"n": len(counted), "left_out": len(by) - len(counted), "unparsed": unparsed,
            "value": value, "low": low, "high": high}  # fmt: skip


def _unparsed(score: Score) -> bool:
    return score.parsed is None and score.how != OTHER_KIND


def _interval(one: Scorer, counted: By) -> Interval:
    if not counted:
        return math.nan, math.nan, math.nan
    total = getattr(one, "total", None)
    if total is None:
        means = [_mean([s.value for s in scores if s.value is not None]) for scores in counted.values()]
        return wilson(math.fsum(means), len(means))
    return _of_counts([_summed(scores) for scores in counted.values()], total)


def _summed(scores: Sequence[Score]) -> Counter[str]:
    return sum((Counter(s.counts) for s in scores), Counter())


def _of_counts(counts: Sequence[Counter[str]], total: Any) -> Interval:
    """A number made of sums, and where it lies when items are drawn anew: unknown where all are alike."""
    names = sorted({name for own in counts for name in own})
    rows = np.array([[own[name] for name in names] for own in counts])
    value, low, high = bootstrap_total(rows, lambda sums: total(dict(zip(names, sums.tolist(), strict=True))))
    return (value, low, high) if low < high else (value, math.nan, math.nan)


def _counts(part: Table) -> dict[str, Any]:
    """How replies ended, and what they cost."""
    plain = part.plain()
    said = [r for r in plain if not r.error]
    ended = Counter(r.finish for r in said)
    return {
        "replies": len(plain),
        "errors": len(plain) - len(said),
        "unfinished": sum(not r.closed for r in said),
        "finish": dict(sorted(ended.items())),
        "thinking_tokens": _spread([r.thinking_tokens for r in said]),
        "answer_tokens": _spread([r.answer_tokens for r in said]),
        "tokens": sum(len(r.ids) for r in part.results),  # a reasoning cut at a budget was written once
        "prompt_tokens": sum(r.prompt_tokens for r in part.results),
        "audio_seconds": math.fsum(r.audio_seconds for r in plain),
        "seconds": math.fsum(r.seconds for r in part.results),
    }


def _spread(values: Sequence[float]) -> dict[str, float]:
    if not values:
        return {}
    return {"mean": _mean(values), "median": float(np.median(values)), "most": float(max(values))}


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values) if values else math.nan


def finite(value: Any) -> Any:
    """JSON has no NaN: null."""
    if isinstance(value, Mapping):
        return {str(key): finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
