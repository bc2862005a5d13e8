"""The files that official scripts read: the rows as the benchmark has them, with what the model answered.

A question that was not asked is left out, which is how those scripts see it too. The surprise: a reply that
never ended its reasoning is written as an empty answer; left out, it would leave their denominator.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mlx_audio_r1.tasks.item import Item
from mlx_audio_r1.tasks.reply import Reply

Gold = Callable[[Item], tuple[str, Sequence[str]]]  # an item -> its right choice, all choices


@dataclass(frozen=True)
class Answered:
    """official: the row of an item, as its import kept it in extra["row"]."""

    item: Item
    official: Mapping[str, Any]
    thinking: str
    answer: str


def answered(items: Iterable[Item], replies: Mapping[str, Reply]) -> Iterator[Answered]:
    """The items that have a reply."""
    for item in items:
        if item.uid in replies:
            reply = replies[item.uid]
            answer = reply.answer if reply.closed else ""
            yield Answered(item, item.extra.get("row", {}), reply.thinking, answer)


def with_gold(row: Answered, gold: Gold, key: str) -> dict[str, Any]:
    """The official row with its choices and answer in another form, and the reply under `key`."""
    answer, choices = gold(row.item)
    return {**row.official, "choices": list(choices), "answer": answer, key: row.answer}


def json_array(rows: Iterable[Mapping[str, Any]]) -> str:
    return json.dumps(list(rows), ensure_ascii=False, indent=1) + "\n"


def json_lines(rows: Iterable[Mapping[str, Any]]) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
