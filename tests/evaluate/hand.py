"""Runs written by hand: items of two groups, replies with known answers, scored by the real scorers."""

import json
from pathlib import Path

from mlx_audio_r1.evaluate.results import FULL, ITEMS, REAL, RUN, Result, ResultFile
from mlx_audio_r1.evaluate.score_rows import score_row, write_scores
from mlx_audio_r1.evaluate.scorers import scorer
from mlx_audio_r1.evaluate.scoring import score
from mlx_audio_r1.evaluate.summary import summarise, tables, write_summary
from mlx_audio_r1.prompt import AudioPart
from mlx_audio_r1.tasks.choice import Choice
from mlx_audio_r1.tasks.item import OPTIONS, Item, Turn
from mlx_audio_r1.tasks.item_files import item_to_json

OPTION_TEXTS = ("bell", "drum", "harp", "voice")


def item(number, *, gold=1, bench="mmau", sound="a.wav", **groups):
    turns = (Turn("user", ("Which?", OPTIONS, AudioPart(sound))),)
    target = Choice(OPTION_TEXTS, (gold,))
    given = {"task": "music" if number % 2 else "sound", **groups}
    return Item(f"{bench}:{number}", turns, target, bench=bench, chance=0.25, groups=given)


def result(number, answer="B. drum", *, bench="mmau", sample=0, budget=FULL, control=REAL, tokens=10, **more):
    return Result(f"{bench}:{number}", bench, sample=sample, budget=budget, control=control, answer=answer,
                  ids=tuple(range(tokens + 3)),
                  thinking=f"Item {number} beats.", thinking_tokens=tokens, answer_tokens=3, seconds=0.5,
                  prompt_tokens=40, audio_seconds=2.0, **more)  # fmt: skip


def scored(items, results, names=("mmau.official", "mcq.resolve")):
    """Rows of the real scorers."""
    known = {i.uid: i for i in items}
    return [score_row(r, {n: score(scorer(n), known[r.uid], r.reply) for n in names}) for r in results]


def table(items, results, names=("mmau.official", "mcq.resolve")):
    [part] = tables(items, results, scored(items, results, names))
    return part


def write_run(path: Path, items, results, names=("mmau.official", "mcq.resolve"), run=None, **more):
    """A folder as `eval run` leaves it, but for the report."""
    path.mkdir(parents=True)
    run = run or {"model": "by hand"}
    (path / RUN).write_text(json.dumps(run))
    lines = (json.dumps(item_to_json(i)) + "\n" for i in items)
    (path / ITEMS).write_text("".join(lines))
    file = ResultFile(path, {})
    for one in results:
        file.append(one)
    rows = scored(items, results, names)
    write_scores(path, rows)
    write_summary(path, summarise(tables(items, results, rows), run, **more))
    return path
