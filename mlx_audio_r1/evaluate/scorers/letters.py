"""The rule that MMSU and AIR-Bench share: the first character of a reply is the letter, or the last but one.

The surprise is what follows from it: "cough" and "(C) cough" leave the denominator, "Burp" chooses B, and
"The answer is A." is read by its last but one character. MMSU counts an empty reply as wrong, AIR-Bench leaves
it out too. `mmsu.official_all` is MMSU's rule with all that is not understood counted as wrong.
Needs of an item: a Choice of up to four options, or extra["choices"] and extra["answer"], raw.
Source: dingdongwang/MMSU mmsu_evaluation.py, OFA-Sys/AIR-Bench score_foundation.py.
"""

from __future__ import annotations

from dataclasses import replace

from mlx_audio_r1.evaluate.scorers.rows import raw_answer, raw_choices
from mlx_audio_r1.evaluate.scoring import RuleScorer, Score
from mlx_audio_r1.tasks.item import Item

LETTERS = "ABCD"


def mmsu(reply: str, item: Item) -> Score:
    """Any letter whose choice is the answer counts."""
    text = _one_line(reply)
    if text in ("", "None"):
        return Score(0.0, None, "empty")
    letter = letter_of(text)
    if letter is None:
        return Score(None, None, "left out")
    choices = dict(zip(LETTERS, raw_choices(item), strict=False))
    return Score(float(choices.get(letter, "") == raw_answer(item)), letter, "letter")


def mmsu_all(reply: str, item: Item) -> Score:
    """The same, with nothing left out."""
    found = mmsu(reply, item)
    return found if found.value is not None else replace(found, value=0.0, how="unparsed")


def air_bench(reply: str, item: Item) -> Score:
    """Of equal choices only the first one's letter counts."""
    text = _one_line(reply)
    letter = letter_of(text) if text != "None" else None
    if letter is None:
        return Score(None, None, "left out")
    choices, answer = raw_choices(item), raw_answer(item)
    right = letter == LETTERS[choices.index(answer)] if answer in choices[: len(LETTERS)] else False
    return Score(float(right), letter, "letter")


def letter_of(text: str) -> str | None:
    """The first character, else the last but one, where it is A, B, C or D."""
    return next((c for c in (text[:1], text[-2:-1]) if c and c in LETTERS), None)


def _one_line(reply: str) -> str:
    return reply.strip().replace("\n", "")


MMSU = RuleScorer("mmsu.official", "official rule", mmsu)
MMSU_ALL = RuleScorer("mmsu.official_all", "official rule, unparsed wrong", mmsu_all)
AIR_BENCH = RuleScorer("airbench.official", "official rule", air_bench)
