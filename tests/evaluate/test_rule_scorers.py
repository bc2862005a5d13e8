"""Rules of benchmarks against their authors' own scripts, and our own readings against tables made by hand.

data/*.jsonl has what the official scripts said of constructed replies; its first line names repository and
commit, and `python -m tests.evaluate.official.make_verdicts FOLDER` makes it again. Big Bench Audio has no
script: its rule is held against a second implementation and a table here.
"""

import json
from pathlib import Path

import pytest

from mlx_audio_r1.evaluate.scorers import scorer
from mlx_audio_r1.evaluate.scorers.spoken_mqa import answer_of
from mlx_audio_r1.tasks.choice import Choice
from mlx_audio_r1.tasks.item import Item
from mlx_audio_r1.tasks.judged import Judged

DATA = Path(__file__).parent / "data"
LEAST = 300  # replies a benchmark


def verdicts(name):
    head, *rows = [json.loads(line) for line in (DATA / f"{name}.jsonl").read_text().splitlines()]
    assert head["replies"] == len(rows) >= LEAST
    return rows


def choice_item(row, **fields):
    return Item("u", (), Choice(tuple(row["choices"]), (row["gold"],)), **fields)


def value(name, reply, item):
    return scorer(name).rule(reply, item).value


def disagreements(rows, ours, theirs):
    return [(row, ours(row)) for row in rows if ours(row) != theirs(row)]


@pytest.mark.parametrize("bench", ["mmau", "mmar"])
@pytest.mark.parametrize(("form", "column"), [("official", "lettered"), ("official_plain", "plain")])
def test_string_match_agrees_with_the_official_script(bench, form, column):
    name = f"{bench}.{form}"
    rows = verdicts(bench)
    assert disagreements(rows, lambda r: value(name, r["reply"], choice_item(r)), lambda r: r[column]) == []


@pytest.mark.parametrize("bench", ["mmsu", "airbench"])
def test_letter_rules_agree_with_the_official_script(bench):
    rows = verdicts(bench)
    assert (
        disagreements(
            rows, lambda r: value(f"{bench}.official", r["reply"], choice_item(r)), lambda r: r["official"]
        )
        == []
    )
    assert sum(r["official"] is None for r in rows) >= 100


def spoken_item(row):
    return Item("u", (), Judged(), groups={"split": row["split"]}, extra={"answer": row["answer"]})


def test_spoken_mqa_agrees_with_the_official_script():
    rows = verdicts("spokenmqa")
    assert disagreements(rows, lambda r: answer_of(r["reply"]), lambda r: r["number"]) == []
    assert (
        disagreements(
            rows, lambda r: value("spokenmqa.official", r["reply"], spoken_item(r)), lambda r: r["official"]
        )
        == []
    )
