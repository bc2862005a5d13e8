"""Coherence by rules: a reasoning that ends, goes somewhere, agrees with itself and with its answer.

    incoherence(chain, limits)   # ("follows", "the last step names drum, the answer is bell"), or None

Each rule is a pure function of the chain that says what is wrong, or "". What a rule cannot tell it lets
pass: these are the cheap checks, and a judge may stand behind them. The surprise: a conclusion that is taken
back in so many words ("wait", 不对) is no contradiction.
"""

# ruff: noqa: RUF001  (full-width marks are meant)
from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from mlx_audio_r1.mgrd.answers import answered, cued, said
from mlx_audio_r1.mgrd.chain import Chain
from mlx_audio_r1.mgrd.loops import repeated_runs, repeated_sentences, words_of
from mlx_audio_r1.mgrd.opposites import opposed
from mlx_audio_r1.tasks.boolean import Boolean
from mlx_audio_r1.tasks.choice import Choice
from mlx_audio_r1.tasks.label import Label
from mlx_audio_r1.tasks.wording import Wording, normal

LAST_STEPS = 3  # sentences from the end in which a choice must be named
SHOWN = 60  # characters of a sentence that a reason quotes
_CUT_OFF = re.compile(
    r"(?:[,;:，；：、(（]|\b(?:and|or|but|so|the|an?|of|to|is|are|with|because|that|which|than))\s*$|(?:因为|所以|和|的|是|而|比)$",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class CoherenceLimits:
    """words: the fewest of a reasoning. repeated: the largest share of repeated sentences or runs, 0 to 1."""

    words: int = 3
    repeated: float = 0.3


Rule = Callable[[Chain, CoherenceLimits], str]


def incoherence(chain: Chain, limits: CoherenceLimits | None = None) -> tuple[str, str] | None:
    """(name of the first rule that fails, why), or None for a coherent chain."""
    limits = limits or CoherenceLimits()
    found = ((name, rule(chain, limits)) for name, rule in RULES.items())
    return next(((name, why) for name, why in found if why), None)


def coherence_scores(chain: Chain, limits: CoherenceLimits | None = None) -> dict[str, float]:
    """coherent: the share of the rules that hold; repeated: the share that repeats."""
    limits = limits or CoherenceLimits()
    holding = [not rule(chain, limits) for rule in RULES.values()]
    return {"coherent": sum(holding) / len(holding), "repeated": _repeated(chain)}


def _closed(chain: Chain, limits: CoherenceLimits) -> str:
    return "" if chain.closed else "the reasoning is never closed"


def _whole(chain: Chain, limits: CoherenceLimits) -> str:
    if chain.truncated:
        return "the reply is truncated"
    return f"the reasoning breaks off: {_short(chain.last, end=True)}" if _CUT_OFF.search(chain.text) else ""


def _long_enough(chain: Chain, limits: CoherenceLimits) -> str:
    count = len(words_of(chain.text))
    return f"{count} words, the least is {limits.words}" if count < limits.words else ""


def _loop(chain: Chain, limits: CoherenceLimits) -> str:
    share = _repeated(chain)
    return f"{share:.0%} of it repeats, the most is {limits.repeated:.0%}" if share > limits.repeated else ""


def _one_answer(chain: Chain, limits: CoherenceLimits) -> str:
    """All conclusions that name one answer name the same; it is asked only where an answer is a name."""
    named = [names for sentence in chain.conclusions if len(names := _concluded(sentence, chain)) == 1]
    different = list(dict.fromkeys(name for names in named for name in names))
    return f"it concludes both {different[0]} and {different[1]}" if len(different) > 1 else ""


def _no_opposites(chain: Chain, limits: CoherenceLimits) -> str:
    pair = opposed(chain.conclusions)
    return f"it concludes {_short(pair[0])} and {_short(pair[1])}" if pair else ""


def _follows(chain: Chain, limits: CoherenceLimits) -> str:
    """The answer is what the last step names."""
    answer = answered(chain.answer, chain.item)
    if answer is None:
        return "the answer cannot be read"
    if isinstance(chain.item.target, Wording):
        return _wording_follows(chain)
    steps = [names for sentence in chain.sentences[-LAST_STEPS:] if (names := _step(sentence, chain))]
    if not steps:
        needed = isinstance(chain.item.target, Choice)
        return f"the last {LAST_STEPS} sentences name no option" if needed else ""
    return _agrees(steps[-1], answer, chain)


def _step(sentence: str, chain: Chain) -> set[str]:
    """What "the answer is" names, else whatever is named; for other targets than choices of the last
    sentence alone."""
    if not isinstance(chain.item.target, Choice) and sentence != chain.last:
        return set()
    return cued(sentence, chain.item) or said(sentence, chain.item)


def _agrees(named: set[str], answer: str, chain: Chain) -> str:
    told = ", ".join(sorted(named))
    if answer not in named:
        return f"the last step names {told}, the answer is {answer}"
    alone = isinstance(chain.item.target, Choice | Boolean) and len(named) > 1
    return f"the last step names several answers: {told}" if alone else ""


def _wording_follows(chain: Chain) -> str:
    told, answer = cued(chain.last, chain.item), normal(chain.answer)
    fits = not told or any(answer in piece or piece in answer for piece in told)
    return "" if fits else f"the last step says {_short(next(iter(told)))}, the answer is {_short(answer)}"


def _concluded(sentence: str, chain: Chain) -> set[str]:
    found = cued(sentence, chain.item)
    named = isinstance(chain.item.target, Choice | Label | Boolean)
    return found or (said(sentence, chain.item) if named else set())


def _repeated(chain: Chain) -> float:
    return max(repeated_sentences(chain.sentences), repeated_runs(chain.text))


def _short(text: str, end: bool = False) -> str:
    """A quotation of at most SHOWN characters."""
    if len(text) <= SHOWN:
        return repr(text)
    return repr("..." + text[-SHOWN:]) if end else repr(text[:SHOWN] + "...")


RULES: dict[str, Rule] = {  # in the order of their cost
    "closed": _closed,
    "whole": _whole,
    "length": _long_enough,
    "loop": _loop,
    "one answer": _one_answer,
    "opposites": _no_opposites,
    "follows": _follows,
}
