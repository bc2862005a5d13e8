"""May a number stand beside a published one? Only where items, prompt, settings and judge are those of it.

The surprise: the reasons are kept rather than a yes or no, because most of them can be lived with, if one knows
them.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlx_audio_r1.evaluate.bench import Bench
from mlx_audio_r1.evaluate.benches import BENCHES, bench
from mlx_audio_r1.evaluate.judging import REPORT
from mlx_audio_r1.evaluate.paper import band
from mlx_audio_r1.evaluate.scorers import SCORERS, scorer
from mlx_audio_r1.evaluate.scoring import JudgeScorer

if TYPE_CHECKING:
    from mlx_audio_r1.evaluate.summary import Table

SAMPLING = ("temperature", "top_p", "top_k", "min_p", "repetition_penalty", "max_tokens", "thinking",
            "thinking_budget")  # fmt: skip


def comparable(part: Table, run: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """{"comparable": bool, "reasons": [...]} of a bench in a run. run: run.json."""
    if part.name not in BENCHES:
        reasons = ["of no benchmark that is known here"]
    else:
        reasons = list(dict.fromkeys(_reasons(bench(part.name), part, run.get("bench", {}), folder)))
    return {"comparable": not reasons, "reasons": reasons}


def _reasons(of: Bench, part: Table, benches: Mapping[str, Any], folder: Path) -> Iterator[str]:
    told = benches.get(of.name, {})
    if band(of.name) is None:
        yield "no published numbers"
    yield from told.get("reasons", [])
    if told.get("items") != told.get("of"):
        yield f"{told.get('items')} of {told.get('of')} items"
    answered = {r.uid for r in part.plain()}
    if len(answered) < len(part.items):
        yield f"{len(part.items) - len(answered)} items without a reply"
    yield from _asked_otherwise(of, told)
    yield from _of_judge(of, folder)


def _asked_otherwise(of: Bench, told: Mapping[str, Any]) -> Iterator[str]:
    profile = of.profiles[0]
    if told.get("profile") != profile.name:
        yield f"prompt profile {told.get('profile')}, not {profile.name}"
    if told.get("option_style") != profile.option_style:
        yield f"option style {told.get('option_style')}, not {profile.option_style}"
    given = {**profile.settings, "thinking": profile.thinking}
    for name, value in told.get("settings", {}).items():
        if name in SAMPLING and value != given.get(name):
            yield f"{name} {value}, not {given.get(name, 'the default')}"


def _of_judge(of: Bench, folder: Path) -> Iterator[str]:
    """Where a judge's verdict is the number: whose it is."""
    primary = of.scorers[0]
    if primary not in SCORERS or not isinstance(scorer(primary), JudgeScorer):
        return
    try:
        told = json.loads((folder / REPORT).read_text(encoding="utf-8"))[of.name][primary]
        yield from map(str, told["reasons"])
        if told["waiting"]:
            yield f"{told['waiting']} verdicts to come"
    except (OSError, ValueError, KeyError, TypeError):
        yield "not judged"
