"""`audio-r1 eval score`: results.jsonl -> scores.jsonl, summary.json and prediction files, without the model.

    summary = score_run(Path("out"))

Rules are applied anew each time; what a judge said stays until it is asked again. The surprise: an error and a
reply without an end are scored like an empty answer, so that no number gets better by failing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from mlx_audio_r1.errors import EvaluationError
from mlx_audio_r1.evaluate.benches import BENCHES, bench
from mlx_audio_r1.evaluate.comparable import comparable
from mlx_audio_r1.evaluate.grounding_summary import read_measured, summed_up
from mlx_audio_r1.evaluate.hearing import of_hearing
from mlx_audio_r1.evaluate.judge_words import Words
from mlx_audio_r1.evaluate.judging import judge_replies, with_judged
from mlx_audio_r1.evaluate.results import ITEMS, SCORES, Result, read_results
from mlx_audio_r1.evaluate.run_folder import read_run
from mlx_audio_r1.evaluate.score_rows import ScoreRow, read_scores, score_row, write_scores
from mlx_audio_r1.evaluate.scorers import SCORERS, scorer
from mlx_audio_r1.evaluate.scoring import JudgeScorer, RuleScorer, Score, score
from mlx_audio_r1.evaluate.summary import Table, summarise, tables, write_summary
from mlx_audio_r1.files import disk_errors, write_file
from mlx_audio_r1.judges.judge import JudgeConfig
from mlx_audio_r1.tasks.item import Item
from mlx_audio_r1.tasks.item_files import read_items

PREDICTIONS = "predictions"
ANY_BENCH = ("world",)  # the scorers of items that are of no benchmark known here
Telling = Callable[[int, int], None]  # verdicts there are, verdicts wanted


def score_run(
    folder: Path,
    judge: JudgeConfig | None = None,
    api_key: str | None = None,
    words: Mapping[str, Words] | None = None,
    tell: Telling = lambda *_: None,
) -> dict[str, Any]:
    """Score a run's folder and sum it up; gives the summary. judge: to ask, None: keep what one has said.

    Raises EvaluationError where the folder is of no run, JudgeError, DiskError.
    """
    run, items = read_run(folder), {item.uid: item for item in read_items(folder / ITEMS)}
    results = sorted((r for r in read_results(folder) if r.uid in items), key=lambda r: r.key)
    if not results:
        raise EvaluationError(f"{folder}: no replies in it yet; run the same audio-r1 eval run again")
    rows = [score_row(result, rule_scores(result, items[result.uid])) for result in results]
    if judge:
        rows = with_judged(rows, judge_replies(items, results, folder, judge, api_key, words, tell))
    else:
        rows = _with_kept(rows, results, folder)
    write_scores(folder, rows)
    parts = tables(items.values(), results, rows)
    measured = read_measured(folder)
    more = {
        "grounding": {p.name: found for p in parts
                      if (found := summed_up(p.results, p.rows, [m for m in measured if m.bench == p.name]))},
        "comparable": {p.name: comparable(p, run, folder) for p in parts},
        "hearing": {p.name: found for p in parts if (found := of_hearing(p))},
    }  # fmt: skip
    summary = summarise(parts, run, **more)
    write_summary(folder, summary)
    _write_predictions(folder, parts)
    return summary


def scorers_of(name: str) -> tuple[str, ...]:
    """The scorers of a benchmark, its primary one first."""
    return bench(name).scorers if name in BENCHES else ANY_BENCH


def rule_scores(result: Result, item: Item) -> dict[str, Score]:
    """What the rules make of a reply, by scorer. An error is scored as an empty answer, and called one."""
    found = {}
    for name in scorers_of(item.bench):
        one = scorer(name) if name in SCORERS else None
        if isinstance(one, RuleScorer):
            made = score(one, item, result.reply)
            found[name] = replace(made, how="error") if result.error else made
    return found


def _with_kept(rows: Sequence[ScoreRow], results: Sequence[Result], folder: Path) -> list[ScoreRow]:
    """With what a judge has said of them, in the benchmark's order of scorers."""
    before = {row.key: _judged(row) for row in read_scores(folder)} if (folder / SCORES).exists() else {}
    closed = {result.key for result in results if result.reply.closed}
    made = []
    for row in rows:
        kept = {name: s for name, s in before.get(row.key, {}).items()
                if row.key not in closed or s.how != "unfinished"}  # fmt: skip
        order = scorers_of(row.bench)
        scores = {**row.scores, **kept}
        made.append(replace(row, scores={name: scores[name] for name in order if name in scores}))
    return made


def _judged(row: ScoreRow) -> dict[str, Score]:
    return {name: s for name, s in row.scores.items()
            if name in SCORERS and isinstance(scorer(name), JudgeScorer)}  # fmt: skip


# ---- what official scripts read


def _write_predictions(folder: Path, parts: Iterable[Table]) -> None:
    """predictions/NAME for each benchmark whose authors have a script; the first sample of each item."""
    for part in parts:
        make = bench(part.name).predictions if part.name in BENCHES else None
        replies = {r.uid: r.reply for r in part.plain() if r.sample == 0}
        asked = [item for uid, item in part.items.items() if uid in replies]
        for name, text in (make(asked, replies) if make and asked else {}).items():
            with disk_errors(folder / PREDICTIONS):
                (folder / PREDICTIONS).mkdir(exist_ok=True)
            write_file(folder / PREDICTIONS / name, text)
