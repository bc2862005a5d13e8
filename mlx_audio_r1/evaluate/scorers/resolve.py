"""Our own reading of a reply, the same for every benchmark: `tasks.verify`. Deterministic; it never guesses.

Printed beside the official number, and the only one for benchmarks made here (`world`). A reply that is not
understood is wrong, and counted as such. The surprise: an answer that only a judge can score is not counted.
"""

from __future__ import annotations

from mlx_audio_r1.evaluate.scoring import RuleScorer, Score
from mlx_audio_r1.tasks.item import Item
from mlx_audio_r1.tasks.judged import Judged
from mlx_audio_r1.tasks.verify import verify


def rule(reply: str, item: Item) -> Score:
    """The verdict of the verifier for the item's kind of target."""
    if isinstance(item.target, Judged):
        return Score(None, None, "needs a judge")
    verdict = verify(reply, item)
    return Score(verdict.correct, None if verdict.unparsed else str(verdict.parsed), verdict.why)


CHOICE = RuleScorer("mcq.resolve", "resolver", rule)
NUMBER = RuleScorer("num.resolve", "resolver", rule)
LABEL = RuleScorer("label.resolve", "resolver", rule)
WORLD = RuleScorer("world", "verifier", rule)
