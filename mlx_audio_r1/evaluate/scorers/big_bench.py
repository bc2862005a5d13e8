"""Big Bench Audio by rule. Its own scorer is a language model; the authors' prompt asks for one word or number.

    valid, invalid    "invalid", "not (a) valid" or 无效 anywhere means invalid, else "valid" or 有效 valid
    yes, no           the first word if it is one of them (是, 否 too), else the last one that is
    a number          the last one in digits, else the last one in words, English or Chinese

The surprise: "invalid" has to be looked for first, and "not invalid" is read as invalid.
Needs of an item: a Label, a Boolean or a Quantity; extra["official_answer"] where it has no such target.
"""

from __future__ import annotations

import re
from fractions import Fraction

from mlx_audio_r1.evaluate.scorers.rows import gold_text
from mlx_audio_r1.evaluate.scoring import RuleScorer, Score
from mlx_audio_r1.tasks.item import Item
from mlx_audio_r1.tasks.numerals import MOST_DIGITS, find_numbers
from mlx_audio_r1.tasks.plain import lower, plain

_INVALID = re.compile(
    r"(?<![a-z])(?:(?:in|non)[\s-]*valid|(?:not|never|[a-z]+n't)\s+(?:an?\s+)?(?:[a-z]+ly\s+)?valid)(?![a-z])"
    r"|无效|不是?有效"
)
_VALID = re.compile(r"(?<![a-z])valid(?![a-z])|有效")
_FIRST = re.compile(r"\W*(?:(yes|no)(?![a-z])|([是否不]))")
_POLAR = re.compile(r"(?<![a-z])(?:yes|no)(?![a-z])")
_CHINESE = {"是": "yes", "否": "no", "不": "no"}
_DIGITS = re.compile(r"(?<![a-z0-9_.])-?[0-9]+(?:\.[0-9]+)?")

_SEAM = re.compile(r"(?<=[\u4e00-\u9fff])(?=[a-z])")  # "是seven": two words


def rule(reply: str, item: Item) -> Score:
    """By what the right answer is, the reply is read."""
    gold = lower(str(item.extra.get("official_answer") or gold_text(item)).strip())
    read = _number if _DIGITS.fullmatch(gold) else _polar if gold in ("yes", "no") else _validity
    said = read(lower(plain(reply)))
    if said is None:
        return Score(0.0, None, "unparsed")
    return Score(float(said == (_number(gold) if read is _number else gold)), said, read.__name__.strip("_"))


def _validity(text: str) -> str | None:
    return "invalid" if _INVALID.search(text) else "valid" if _VALID.search(text) else None


def _polar(text: str) -> str | None:
    if first := _FIRST.match(text):
        return first.group(1) or _CHINESE[first.group(2)]
    found = _POLAR.findall(text)
    return found[-1] if found else None


def _number(text: str) -> str | None:
    """As a fraction in lowest terms, so that 7 and 7.0 are the same; None for endless digits."""
    digits = _DIGITS.findall(re.sub(r"(?<=\d),(?=\d{3})", "", text))
    if digits:
        return str(Fraction(digits[-1])) if len(digits[-1]) <= MOST_DIGITS else None
    spelled = [n for n in find_numbers(_SEAM.sub(" ", text)) if n.end > n.start]
    return str(spelled[-1].value) if spelled else None


RULE = RuleScorer("bba.rule", "rule", rule)
