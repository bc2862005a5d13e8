"""What the authors' scripts said of constructed replies, and how our scorers are held against it."""

import json
from pathlib import Path

from mlx_audio_r1.evaluate.scorers import scorer
from mlx_audio_r1.tasks.choice import Choice
from mlx_audio_r1.tasks.item import Item

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
