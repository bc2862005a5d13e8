"""What a scorer is: a reply to an item -> a Score. Registered by name in `scorers.SCORERS`.

Two kinds. A rule decides at once; a judge's scorer writes prompts, and reads what the judge said. The surprise:
a value of None means that the official script would have left the item out of its denominator.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from mlx_audio_r1.tasks.item import Item
from mlx_audio_r1.tasks.reply import Reply


@dataclass(frozen=True)
class Score:
    """value: 0 to 1, or None: not counted. parsed: what was understood as the answer. how: the rule.
    counts: integers that are summed over a benchmark (edits and words of a word error rate)."""

    value: float | None
    parsed: str | None = None
    how: str = ""
    counts: Mapping[str, int] = field(default_factory=dict)


Rule = Callable[[str, Item], Score]  # the answer behind the reasoning, the item


@dataclass(frozen=True)
class RuleScorer:
    """title: as a table names it. total: sums the scores up where it is not their mean: counts -> 0 to 1.
    error: the lower the better (a word error rate)."""

    name: str
    title: str
    rule: Rule
    total: Callable[[Mapping[str, int]], float] | None = None
    error: bool = False


@dataclass(frozen=True)
class JudgeScorer:
    """prompts: what is asked about one reply, one judge call each. read: the judge's replies -> the score.
    expects: what a reply looks like, for people. params: as the authors call their judge. unit: what a full
    mark counts as in their table (10 for a mark of 1 to 10)."""

    name: str
    title: str
    prompts: Callable[[Item, Reply], Sequence[str]]
    read: Callable[[Item, Reply, Sequence[str]], Score]
    expects: Any = ""
    params: Mapping[str, Any] = field(default_factory=dict)
    error: bool = False


Scorer = RuleScorer | JudgeScorer


def score(scorer: RuleScorer, item: Item, reply: Reply) -> Score:
    """A reply that never ends its reasoning is scored as an empty one, whatever option its reasoning names:
    so do the official scripts with our prediction files, and a word error rate counts its deletions."""
    if reply.closed:
        return scorer.rule(reply.answer, item)
    return replace(scorer.rule("", item), parsed=None, how="unfinished")
