"""Our own reading of a reply, the same for every benchmark: `tasks.verify`. Deterministic; it never guesses.

Printed beside the official number, and the only one for benchmarks made here (`world`). A reply that is not
understood is wrong, and counted as such. The surprise: where a benchmark has questions of several kinds, each
of these leaves out what it cannot read, and all of them what only a judge can.
"""

from __future__ import annotations

from functools import partial

from mlx_audio_r1.evaluate.scoring import OTHER_KIND, RuleScorer, Score
from mlx_audio_r1.tasks.boolean import Boolean
from mlx_audio_r1.tasks.choice import Choice
from mlx_audio_r1.tasks.item import Item
from mlx_audio_r1.tasks.label import Label
from mlx_audio_r1.tasks.number import Quantity
from mlx_audio_r1.tasks.verify import verify
from mlx_audio_r1.tasks.wording import Wording


def rule(reply: str, item: Item, *, kinds: tuple[type, ...]) -> Score:
    """The verdict of the verifier for the item's kind of target."""
    if not isinstance(item.target, kinds):
        return Score(None, None, OTHER_KIND)
    verdict = verify(reply, item)
    return Score(verdict.correct, None if verdict.unparsed else str(verdict.parsed), verdict.why)


def _resolver(name: str, title: str, *kinds: type) -> RuleScorer:
    return RuleScorer(name, title, partial(rule, kinds=kinds))


CHOICE = _resolver("mcq.resolve", "resolver", Choice)
NUMBER = _resolver("num.resolve", "resolver", Quantity)
LABEL = _resolver("label.resolve", "resolver", Label, Boolean)
WORLD = _resolver("world", "verifier", Choice, Quantity, Label, Boolean, Wording)
