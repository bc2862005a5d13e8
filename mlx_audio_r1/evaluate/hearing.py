"""Self-cognition in a summary: how often replies deny hearing, in the answer and, apart, in the thinking."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from mlx_audio_r1.evaluate.results import Result
from mlx_audio_r1.tasks.self_cognition import judge_denial
from mlx_audio_r1.tasks.statistics import wilson

if TYPE_CHECKING:
    from mlx_audio_r1.evaluate.summary import Table

SCORER = "self.denial"


def of_hearing(part: Table) -> dict[str, Any]:
    """answer and thinking: [rate, low, high] over all replies to the true sounds; by: the same by sound and
    language; {} for a bench that does not ask. Rates are over replies that end; an error is none."""
    if SCORER not in part.scorers:
        return {}
    replies = [r for r in part.plain() if r.reply.closed]
    groups: dict[str, list[Result]] = defaultdict(list)
    for reply in replies:
        for group, value in part.items[reply.uid].groups.items():
            groups[f"{group}={value}"].append(reply)
    return {**_rates(replies), "by": {name: _rates(own) for name, own in sorted(groups.items())}}


def _rates(replies: Iterable[Result]) -> dict[str, Any]:
    denials = [judge_denial(r.thinking, r.answer) for r in replies]
    return {"n": len(denials), "answer": _rate([d.answer is not None for d in denials]),
            "thinking": _rate([d.thinking is not None for d in denials])}  # fmt: skip


def _rate(found: list[bool]) -> list[float]:
    return list(wilson(sum(found), len(found))) if found else [math.nan] * 3
