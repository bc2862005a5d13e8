"""Two runs over the same items: how they differ, and whether that is more than noise.

    for row in compare(Path("bf16"), Path("4bit")).rows:
        print(row.bench, row.difference)          # (0.012, -0.004, 0.028): B above A by 1.2 points

Items are paired: each counts with the mean of its samples, so what is hard for both takes no part. p is the
exact sign test over the items on which they differ, which for one sample each is McNemar's test. Of a word
error rate, a and b are those of the corpus, and fewer errors are better. The surprise: two single numbers a
point apart on 1,000 items are usually noise, and the same two paired often are not.
"""

from __future__ import annotations

import json
import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mlx_audio_r1.errors import EvaluationError
from mlx_audio_r1.evaluate.results import ITEMS, RUN
from mlx_audio_r1.evaluate.score_rows import ScoreRow, read_scores
from mlx_audio_r1.evaluate.scorers import scorer as scorer_of
from mlx_audio_r1.evaluate.scoring import Score
from mlx_audio_r1.tasks.item import Item
from mlx_audio_r1.tasks.item_files import read_items
from mlx_audio_r1.tasks.statistics import Interval, bootstrap_mean, bootstrap_total, mcnemar

Marks = Mapping[str, "Mark"]  # by uid
Of = tuple[str, str]  # bench, scorer
Total = Callable[[Mapping[str, int]], float]
EXPLAINED = ("bench", "items", "seed")  # keys of run.json that may differ without a word


@dataclass(frozen=True)
class Mark:
    """An item under one scorer: the mean value over its samples, and their counts together."""

    value: float
    counts: Counter[str]


@dataclass(frozen=True)
class Paired:
    """One bench (or one group of it) under one scorer. difference: B - A with its 95 % interval, 0-1."""

    bench: str
    group: str  # "task=music", "" for all
    scorer: str
    n: int
    a: float
    b: float
    difference: Interval
    better_a: int  # items on which A is better
    better_b: int
    p: float


@dataclass(frozen=True)
class Comparison:
    """rows: all benches, each whole and by its groups. flips: (uid, A, B) of items that changed, the largest
    changes first. missing: items that one run alone has. settings: name -> (A, B) where they differ."""

    rows: tuple[Paired, ...]
    flips: tuple[tuple[str, float, float], ...]
    missing: tuple[int, int]
    settings: Mapping[str, tuple[Any, Any]]


def compare(a: Path, b: Path, scorer: str | None = None, groups: Sequence[str] = ()) -> Comparison:
    """Run folder against run folder. scorer: each bench's first where None. groups: names to split by.

    Raises EvaluationError where a folder has no scores, or the two no item in common.
    """
    marks = [_marks(read_scores(folder), scorer) for folder in (a, b)]
    common = _common(*marks)
    if not common:
        raise EvaluationError(_nothing_common(a, b, scorer))
    items = {item.uid: item for item in read_items(a / ITEMS)} if groups else {}
    _check_groups(groups, items.values())
    rows: list[Paired] = []
    for key, uids in sorted(common.items()):
        for label, chosen in [("", uids), *_split(uids, items, groups)]:
            rows.append(_paired(*key, label, [(marks[0][key][u], marks[1][key][u]) for u in chosen]))
    return Comparison(tuple(rows), _flips(marks, common), _missing(marks), _settings(a, b))


def _nothing_common(a: Path, b: Path, scorer: str | None) -> str:
    known = sorted({name for folder in (a, b) for row in read_scores(folder) for name in row.scores})
    if scorer and scorer not in known:
        return f"no scores by {scorer!r} in {a} or {b}; there are {', '.join(known) or 'none'}"
    wanted = f" scored by {scorer}" if scorer else ""
    return f"{a} and {b}: no item{wanted} is in both; run the same benchmark on each"


def _check_groups(groups: Sequence[str], items: Iterable[Item]) -> None:
    """Raises EvaluationError for a group that no item has."""
    known = sorted({name for item in items for name in item.groups})
    for group in groups:
        if group not in known:
            raise EvaluationError(f"no group {group!r}; there are {', '.join(known) or 'none'}")


def _marks(rows: Iterable[ScoreRow], scorer: str | None) -> dict[Of, Marks]:
    """(bench, scorer) -> marks; what an official script leaves out is left out."""
    found: dict[Of, dict[str, list[Score]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        name = scorer or next(iter(row.scores), None)
        if row.plain and name in row.scores and row.scores[name].value is not None:
            found[row.bench, name][row.uid].append(row.scores[name])
    return {key: {uid: _mark(scores) for uid, scores in own.items()} for key, own in found.items()}


def _mark(scores: Sequence[Score]) -> Mark:
    value = math.fsum(score.value or 0.0 for score in scores) / len(scores)
    return Mark(value, sum((Counter(score.counts) for score in scores), Counter()))


def _common(a: Mapping[Of, Marks], b: Mapping[Of, Marks]) -> dict[Of, list[str]]:
    """The items of both, by bench and scorer."""
    shared = {key: sorted(a[key].keys() & b[key].keys()) for key in a.keys() & b.keys()}
    return {key: uids for key, uids in shared.items() if uids}


def _split(
    uids: Sequence[str], items: Mapping[str, Item], groups: Sequence[str]
) -> list[tuple[str, list[str]]]:
    parts: dict[str, list[str]] = defaultdict(list)
    for group in groups:
        for uid in uids:
            if group in items[uid].groups:
                parts[f"{group}={items[uid].groups[group]}"].append(uid)
    return sorted(parts.items())


def _paired(bench: str, name: str, group: str, pairs: Sequence[tuple[Mark, Mark]]) -> Paired:
    known = scorer_of(name)
    sides = [sum(x.value > y.value for x, y in pairs), sum(y.value > x.value for x, y in pairs)]
    better_a, better_b = reversed(sides) if known.error else sides
    a, b, difference = _numbers(pairs, getattr(known, "total", None))
    return Paired(bench, group, name, len(pairs), a, b, difference, better_a, better_b,
                  mcnemar(better_a, better_b))  # fmt: skip


def _numbers(pairs: Sequence[tuple[Mark, Mark]], total: Total | None) -> tuple[float, float, Interval]:
    """A's, B's and B - A."""
    if total is None:
        a, b = (math.fsum(mark.value for mark in side) / len(pairs) for side in zip(*pairs, strict=True))
        return a, b, bootstrap_mean([y.value - x.value for x, y in pairs])
    names = sorted({name for pair in pairs for mark in pair for name in mark.counts})
    rows = np.array([[[mark.counts[name] for name in names] for mark in pair] for pair in pairs])

    def of(sums: np.ndarray) -> float:
        return total(dict(zip(names, sums.tolist(), strict=True)))

    a, b = map(of, rows.sum(0))
    return a, b, bootstrap_total(rows, lambda sums: of(sums[1]) - of(sums[0]))


def _flips(
    marks: Sequence[Mapping[Of, Marks]], common: Mapping[Of, Sequence[str]]
) -> tuple[tuple[str, float, float], ...]:
    changed = [(uid, marks[0][key][uid].value, marks[1][key][uid].value)
               for key, uids in common.items() for uid in uids]  # fmt: skip
    changed = [row for row in changed if row[1] != row[2]]
    return tuple(sorted(changed, key=lambda row: (-abs(row[2] - row[1]), row[0])))


def _missing(marks: Sequence[Mapping[Of, Marks]]) -> tuple[int, int]:
    a, b = ({(key, uid) for key, own in found.items() for uid in own} for found in marks)
    return len(a - b), len(b - a)


def _settings(a: Path, b: Path) -> dict[str, tuple[Any, Any]]:
    first, second = _run(a), _run(b)
    names = [name for name in {**first, **second} if name not in EXPLAINED]
    return {name: (first.get(name), second.get(name)) for name in names if first.get(name) != second.get(name)}


def _run(folder: Path) -> dict[str, Any]:
    try:
        found = json.loads((folder / RUN).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise EvaluationError(f"{folder / RUN}: cannot be read; give a folder of audio-r1 eval run") from None
    return found if isinstance(found, dict) else {}
