"""MMAU's and MMAR's own rule, `string_match`: every word of the right choice is in the reply, and no word that
only wrong choices have.

Their scripts compare with the choices as the file has them. Here that is `*.official_plain`; `*.official` puts
the displayed letters in front of choices and answer, because a reply "A. Man" is otherwise wrong wherever a
wrong choice has the word "a". The surprise, in both: the letter alone is never right, and a list in the wrong
order is.
Needs of an item: a Choice; extra["choices"] and extra["answer"] where the row's own differ from it.
Source: Sakshi113/MMAU and ddlBoJack/MMAR, evaluation.py; the function is the same in both.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from mlx_audio_r1.evaluate.scorers.rows import raw_answer, raw_choices
from mlx_audio_r1.evaluate.scoring import RuleScorer, Score
from mlx_audio_r1.tasks.item import Item
from mlx_audio_r1.tasks.options import LETTERS, without_letters

Gold = tuple[str, Sequence[str]]  # the right choice, all choices
_WORD = re.compile(r"\w+")
UNLETTERED = "none"  # the option style that shows no letters


def string_match(answer: str, reply: str, choices: Sequence[str]) -> bool:
    """Are the words of the answer in the reply, and none of the other choices' own?"""
    said, wanted = _words(reply), _words(answer)
    wrong = set().union(*(_words(choice) - wanted for choice in choices))
    return bool(said) and wanted <= said and not said & wrong


def plain_gold(item: Item) -> Gold:
    """Without letters, whether the row has them or not."""
    raw, answer = [str(choice) for choice in raw_choices(item)], str(raw_answer(item))
    choices = without_letters(raw)
    return (choices[raw.index(answer)] if answer in raw else answer), choices


def lettered_gold(item: Item) -> Gold:
    """With the letters that stood before the choices as they were shown; of equal choices the row's own."""
    answer, choices = plain_gold(item)
    if item.option_style == UNLETTERED:
        return answer, choices
    raw, given = [str(choice) for choice in raw_choices(item)], str(raw_answer(item))
    names = raw if given in raw else choices
    shown = zip(LETTERS, choices, strict=False)
    lettered = [f"({letter}) {choice}" if choice.strip() else choice for letter, choice in shown]
    return (lettered[names.index(given)] if given in names else answer), lettered


def _rule(gold: Callable[[Item], Gold]) -> Callable[[str, Item], Score]:
    def rule(reply: str, item: Item) -> Score:
        answer, choices = gold(item)
        if not _words(reply):
            return Score(0.0, None, "empty")
        right = string_match(answer, reply, choices)
        return Score(float(right), reply.strip(), "words match" if right else "words do not match")

    return rule


def _words(text: str) -> set[str]:
    return set(_WORD.findall(text.lower()))


MMAU = RuleScorer("mmau.official", "official rule, lettered", _rule(lettered_gold))
MMAU_PLAIN = RuleScorer("mmau.official_plain", "official rule, as in the file", _rule(plain_gold))
MMAR = RuleScorer("mmar.official", "official rule, lettered", _rule(lettered_gold))
MMAR_PLAIN = RuleScorer("mmar.official_plain", "official rule, as in the file", _rule(plain_gold))
