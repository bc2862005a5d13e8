"""Verifiers: tables of replies with the verdict each must get and the reason for it, and what no text does."""

import json
from pathlib import Path

import pytest

from mlx_audio_r1.tasks.item import Item
from mlx_audio_r1.tasks.item_files import item_from_json
from mlx_audio_r1.tasks.verify import verify

TABLES = Path(__file__).parent.parent / "data" / "verifiers"


def item_of(target: dict) -> Item:
    return item_from_json({"schema": "audio-r1.task/1", "uid": "x", "turns": [], "target": target})


def cases(name: str) -> list:
    """(item, reply, correct, parsed) of a table, each named by its line and reason."""
    items, found = {}, []
    for number, line in enumerate((TABLES / f"{name}.jsonl").read_text(encoding="utf-8").splitlines(), start=1):
        data = json.loads(line)
        if isinstance(data, dict):
            items[data["item"]] = item_of(data["target"])
        else:
            item, reply, correct, parsed, reason = data
            found.append(pytest.param(items[item], reply, correct, parsed, id=f"{number}: {reason}"))
    return found


EVERY = [case for table in sorted(TABLES.glob("*.jsonl")) for case in cases(table.stem)]


@pytest.mark.parametrize(("item", "reply", "correct", "parsed"), EVERY)
def test_the_verdict_is_the_tables(item, reply, correct, parsed):
    verdict = verify(reply, item)
    understood = None if verdict.parsed is None else str(verdict.parsed)
    assert (verdict.correct, understood) == (pytest.approx(correct), parsed), verdict.why
