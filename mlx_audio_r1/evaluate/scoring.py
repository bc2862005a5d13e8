"""What a scorer is: a reply to an item -> a Score. Registered by name in `scorers.SCORERS`.

Two kinds. A rule decides at once; a judge's scorer writes prompts, and reads what the judge said. The surprise:
a value of None means that the official script would have left the item out of its denominator.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from mlx_audio_r1.evaluate.judge_words import Words
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
    """prompts: what is asked about one reply, in the words given: one judge call each, () where a rule decides
    already. read: what was said to each prompt, by each of `raters` in turn -> the score.
    words: our own. names: where the authors' are in a file of theirs (`judge_words.words_of`). must: the marks
    of which their words have at least one, or they would not show the reply. official: their sha256, where it
    is known. expects: what a judge's reply looks like, for people. params: as the authors call their judge."""

    name: str
    title: str
    prompts: Callable[[Item, Reply, Words], Sequence[str]]
    read: Callable[[Item, Reply, Sequence[str]], Score]
    words: Words
    names: Mapping[str, str] = field(default_factory=dict)
    must: tuple[str, ...] = ()
    official: str = ""
    raters: int = 1
    expects: Any = ""
    params: Mapping[str, Any] = field(default_factory=dict)
    error: bool = False


Scorer = RuleScorer | JudgeScorer
OTHER_KIND = "another kind of question"  # how, of an item that is not the scorer's to read


def credit(scorer: Scorer, score: Score) -> float:
    """What a score is worth, the more the better, of an error rate too; what is left out is worth nothing."""
    if score.value is None:
        return 0.0
    return 1.0 - min(score.value, 1.0) if scorer.error else score.value


def score(scorer: RuleScorer, item: Item, reply: Reply) -> Score:
    """A reply that never ends its reasoning is scored as an empty one, whatever option its reasoning names: so
    do the official scripts with our prediction files, and a word error rate counts its deletions. What credit a
    rule gives for silence (a refusal, a lot that is drawn) it does not get; a rate of faults leaves it out, or
    it would fall by failing."""
    if reply.closed:
        return scorer.rule(reply.answer, item)
    made = scorer.rule("", item)
    value = made.value if scorer.total else None if scorer.error or made.value is None else 0.0
    return replace(made, value=value, parsed=None, how="unfinished")
