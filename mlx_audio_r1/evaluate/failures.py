"""The failures that tell most, so that somebody can listen to them: wrong, and one can say why it matters.

Told by what the run itself has: right without the sound, right with less thinking, the same wrong answer every
time, a reasoning without an end. The surprise: a kind that is common is not shown ten times; kinds and groups
take turns.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from mlx_audio_r1.evaluate.results import FULL, REAL, Result
from mlx_audio_r1.evaluate.scorers import scorer
from mlx_audio_r1.evaluate.scoring import credit
from mlx_audio_r1.evaluate.summary import Table
from mlx_audio_r1.evaluate.summary_parts import resolver
from mlx_audio_r1.tasks.item import Item

MOST = 10


@dataclass(frozen=True, eq=False)
class Failure:
    """An item, the reply shown, and what makes it telling."""

    item: Item
    result: Result
    why: str


def failures(part: Table, most: int = MOST) -> list[Failure]:
    """At most so many, the most telling first."""
    if not part.scorers:
        return []
    by_kind: dict[str, list[Failure]] = defaultdict(list)
    for kind, failure in _found(part, part.scorers[0]):
        by_kind[kind].append(failure)
    queues = [_by_groups(by_kind[kind]) for kind in KINDS if kind in by_kind]
    return list(_in_turn(queues))[:most]


# the most telling first
KINDS = ("control", "budget", "same", "unfinished", "wrong", "unparsed", "rule", "error")


MISREAD = "right as our resolver reads it, wrong by the official rule"


def _found(part: Table, primary: str) -> Iterator[tuple[str, Failure]]:
    one = scorer(primary)
    values = {row.key: credit(one, row.scores[primary]) for row in part.rows if primary in row.scores}
    second = resolver(part)  # the primary one again where the bench has no other
    read = {row.key: row.scores[second].value for row in part.rows if primary != second in row.scores}
    parsed = {row.key: row.scores[primary].parsed for row in part.rows if primary in row.scores}
    own: dict[str, list[Result]] = defaultdict(list)
    for result in part.results:
        own[result.uid].append(result)
    for uid, results in own.items():
        plain = [r for r in results if r.budget == FULL and r.control == REAL and r.key in values]
        wrong = [r for r in plain if values[r.key] == 0.0 or (one.error and values[r.key] < 1.0)]
        if wrong:
            misread = read.get(wrong[0].key) == 1.0
            kind, why = ("rule", MISREAD) if misread else _why(plain, results, wrong, values, parsed)
            yield kind, Failure(part.items[uid], wrong[0], why)


def _why(
    plain: Sequence[Result], results: Sequence[Result], wrong: Sequence[Result], values: dict, parsed: dict
) -> tuple[str, str]:  # fmt: skip
    shown = wrong[0]
    if shown.error:
        return "error", f"no reply: {shown.error}"
    if not shown.closed:
        return "unfinished", f"{shown.thinking_tokens:,} tokens of reasoning without an end"
    right = [r for r in results if values.get(r.key, 0.0) == 1.0 and r.sample == shown.sample]
    for other in right:
        if other.control != REAL:
            return "control", f"right with {other.control} in the place of the sound"
    for other in sorted(right, key=lambda r: r.budget):
        if other.budget != FULL:
            return "budget", (f"right after {other.budget:,} tokens of reasoning, wrong after all "
                              f"{shown.thinking_tokens:,}")  # fmt: skip
    said = {parsed[r.key] for r in wrong}
    if len(plain) > 1 and len(wrong) == len(plain) and len(said) == 1 and None not in said:
        return "same", f"the same wrong answer in all {len(plain)} samples"
    if parsed[shown.key] is None:
        return "unparsed", "no answer could be understood"
    return "wrong", "wrong"


def _by_groups(found: Sequence[Failure]) -> list[Failure]:
    """One of each group, then the second of each."""
    groups: dict[tuple[str, ...], list[Failure]] = defaultdict(list)
    for failure in found:
        groups[tuple(map(str, failure.item.groups.values()))].append(failure)
    return list(_in_turn(list(groups.values())))


def _in_turn(queues: Sequence[Sequence[Failure]]) -> Iterator[Failure]:
    for place in range(max(map(len, queues), default=0)):
        yield from (queue[place] for queue in queues if place < len(queue))
