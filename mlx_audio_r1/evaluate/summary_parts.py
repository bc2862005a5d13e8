"""Of a summary: votes and passes of several samples, accuracy under budgets and controls, letters against gold.

Accuracy is the primary scorer's; of an error rate it is 1 - the rate, of each item by itself. What was chosen,
for votes, changes and letters, is what our own resolver read where a bench has it: an official rule often knows
right and wrong alone.

Sources: pass@k, Chen et al. 2021; control, scaling and performance of budgets, s1 (Muennighoff et al. 2025);
audio contribution, AudioMCQ (2509.21060).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from mlx_audio_r1.evaluate.results import FULL, REAL
from mlx_audio_r1.evaluate.scorers import scorer
from mlx_audio_r1.evaluate.scoring import Score, credit
from mlx_audio_r1.tasks.choice import Choice
from mlx_audio_r1.tasks.statistics import (
    bootstrap_mean,
    bootstrap_slope,
    guess_at_k,
    maj_at_k,
    mcnemar,
    pass_at_k,
    wilson,
)

if TYPE_CHECKING:
    from mlx_audio_r1.evaluate.summary import Table

RIGHT = 0.5  # a score above it counts as right where only right and wrong are known
Worth = Mapping[str, Sequence[float]]  # uid -> credits of its samples


def votes(part: Table, primary: str) -> dict[str, Any]:
    """pass@k and maj@k for k = 1, 2, 4, ... samples, with what blind guessing passes; {} for one sample, and
    for an error rate, which knows no right and wrong."""
    by, read = part.by_item(primary), part.by_item(resolver(part))
    n = min(map(len, by.values()), default=0)
    if n < 2 or scorer(primary).error:
        return {}
    chances = [part.items[uid].chance for uid in by]
    found = {}
    for k in [2**i for i in range(n.bit_length()) if 2**i <= n]:
        passed = [pass_at_k(len(s), sum(map(_right, s)), k) for s in by.values()]
        agreed = [_voted(scores, k) for scores in read.values()]
        guessed = [guess_at_k(chance, k) for chance in chances]
        found[str(k)] = {"pass": _mean(passed), "maj": _mean(agreed), "guess": _mean(guessed)}
    return found


def repeats(part: Table, primary: str) -> dict[str, Any]:
    """Accuracy of each sample over all items, their mean and standard deviation: what sampling anew may change.
    {} for one sample."""
    by = _credits(part, primary)
    n = min(map(len, by.values()), default=0)
    if n < 2:
        return {}
    values = [_mean([worth[i] for worth in by.values()]) for i in range(n)]
    return {"values": values, "mean": _mean(values), "sd": float(np.std(values, ddof=1))}


def _voted(scores: Sequence[Score], k: int) -> float:
    """A vote over what was understood: right answers are one camp, each wrong text its own."""
    camps = [None if s.parsed is None else (_right(s), "" if _right(s) else s.parsed) for s in scores]
    return maj_at_k(camps, (True, ""), k)


def budgets(part: Table, primary: str) -> dict[str, Any]:
    """Accuracy by tokens of reasoning allowed, over the same items; {} where no budget was asked for."""
    given = sorted({row.budget for row in part.rows if row.control == REAL and row.budget != FULL})
    if not given:
        return {}
    points = [_point(part, primary, budget) for budget in [*given, FULL]]
    split = _grouped(part, [_credits(part, primary, budget) for budget in [*given, FULL]])
    return {"points": points, "groups": split, **_trend(part, primary, given)}


def _grouped(part: Table, asked: Sequence[Worth]) -> dict[str, dict[str, list[float]]]:
    """group -> value -> accuracy each time."""
    marks: dict[str, dict[str, list[list[float]]]] = {}
    for at, by in enumerate(asked):
        for uid, scores in by.items():
            for group, value in part.items[uid].groups.items():
                places = marks.setdefault(group, {}).setdefault(str(value), [[] for _ in asked])
                places[at].append(_mark(scores))
    return {group: {value: [_mean(own) for own in places] for value, places in sorted(values.items())}
            for group, values in marks.items()}  # fmt: skip


def _point(part: Table, primary: str, budget: int) -> dict[str, Any]:
    by = _credits(part, primary, budget)
    results = [r for r in part.results if r.budget == budget and r.control == REAL]
    value, low, high = _rate(by)
    return {"budget": None if budget == FULL else budget, "n": len(by),
            "value": value, "low": low, "high": high,
            "thinking_tokens": _mean([r.thinking_tokens for r in results]),
            "forced": _mean([float(r.finish == "budget") for r in results]),
            "unfinished": _mean([float(not r.closed) for r in results])}  # fmt: skip


def _trend(part: Table, primary: str, given: Sequence[int]) -> dict[str, Any]:
    """slope: of accuracy on log2(1 + budget), with its interval. control: share of replies within their budget.
    scaling: mean slope of accuracy over pairs of budgets, a token. best: the highest accuracy."""
    marks = [{uid: _mark(s) for uid, s in _credits(part, primary, budget).items()} for budget in given]
    uids = sorted(set.intersection(*map(set, marks)))
    table = np.array([[own[uid] for own in marks] for uid in uids])
    if len(given) < 2 or not uids:
        return {}
    curve = table.mean(0)
    pairs = [(b - a, curve[j] - curve[i]) for i, a in enumerate(given) for j, b in enumerate(given) if b > a]
    within = [r.thinking_tokens <= r.budget for r in part.results if r.budget != FULL and r.control == REAL]
    return {"slope": bootstrap_slope(np.log2(1 + np.array(given)).tolist(), table),
            "scaling": _mean([gain / more for more, gain in pairs]), "control": _mean(list(map(float, within))),
            "best": float(curve.max())}  # fmt: skip


def controls(part: Table, primary: str) -> dict[str, Any]:
    """What is left where the sound is another. difference: true - control, paired. contribution: of what could
    be gained, the share the sound gives. flips: of answers that changed. Controls that think less are compared
    with the true sound under the same budget. {} where no control was asked for."""
    found = {}
    for control, at in sorted({(row.control, row.budget) for row in part.rows if row.control != REAL}):
        name = control if at == FULL else f"{control}, {at:,} tokens"
        real, other = (_credits(part, primary, at, heard) for heard in (REAL, control))
        read, changed = (part.by_item(resolver(part), at, heard) for heard in (REAL, control))
        uids = sorted(real.keys() & other.keys())
        if uids:
            flips = [x.parsed != y.parsed for u in uids for x, y in zip(read[u], changed[u], strict=False)]
            known = _control({u: real[u] for u in uids}, {u: other[u] for u in uids})
            split = {group: {value: means[0] for value, means in values.items()}
                     for group, values in _grouped(part, [other]).items()}  # fmt: skip
            found[name] = {**known, "flips": _mean(list(map(float, flips))), "groups": split}
    return found


def _control(real: Worth, other: Worth) -> dict[str, Any]:
    pairs = [(_mark(real[uid]), _mark(other[uid])) for uid in real]
    (a, _, _), (b, low, high) = _rate(real), _rate(other)
    return {"n": len(pairs), "value": b, "low": low, "high": high,
            "difference": bootstrap_mean([x - y for x, y in pairs]),
            "p": mcnemar(sum(x > y for x, y in pairs), sum(y > x for x, y in pairs)),
            "contribution": (a - b) / (1 - b) if b < 1 else math.nan,
            "retention": b / a if a else math.nan}  # fmt: skip


def positions(part: Table, primary: str) -> list[list[int]]:
    """Rows: where the right option stood; columns: which was chosen, the last: none. [] without options."""
    choices = {uid: item.target for uid, item in part.items.items() if isinstance(item.target, Choice)}
    if not choices:
        return []
    widest = max(len(target.options) for target in choices.values())
    table = [[0] * (widest + 1) for _ in range(widest)]
    for uid, scores in part.by_item(resolver(part)).items():
        for score in scores if uid in choices else []:
            chosen = _place(choices[uid], score)
            table[choices[uid].gold[0]][widest if chosen is None else chosen] += 1
    return table


def _place(target: Choice, score: Score) -> int | None:
    """Where the chosen option stands; of equal ones, the right one."""
    places = [i for i, option in enumerate(target.options) if option == score.parsed]
    return next((i for i in places if i in target.gold), places[0] if places else None)


def _rate(by: Worth) -> tuple[float, float, float]:
    marks = [_mark(scores) for scores in by.values()]
    return wilson(math.fsum(marks), len(marks)) if marks else (math.nan,) * 3


def _credits(part: Table, primary: str, budget: int = FULL, control: str = REAL) -> dict[str, list[float]]:
    """What each sample of an item is worth, the more the better."""
    one, by = scorer(primary), part.by_item(primary, budget, control)
    return {uid: [credit(one, score) for score in scores] for uid, scores in by.items()}


def _mark(scores: Sequence[float]) -> float:
    """An item's mean over its samples; what is left out counts as wrong: all points have the same items."""
    return _mean(scores)


def _right(score: Score) -> bool:
    return (score.value or 0.0) > RIGHT


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values) if values else math.nan


def resolver(part: Table) -> str:
    """The scorer that says what was chosen."""
    return resolver_of(part.scorers)


def resolver_of(names: Sequence[str]) -> str:
    """The one of a bench's scorers that says what was chosen; the primary one where no other does."""
    return next((name for name in names if name.endswith("resolve")), names[0])
