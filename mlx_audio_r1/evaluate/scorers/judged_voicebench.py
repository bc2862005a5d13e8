"""VoiceBench's judges: three replies each, as marks of 1 to 5 (open questions) or Yes and No (sd-qa).

    voicebench.open    the mean of the marks, over 5
    voicebench.qa      what most of the three say, "yes" or anything else

The surprise: "Yes." is not "yes" to the official script, which compares the whole reply; and where a mark is no
number it stops, while here that reply is counted as unreadable and the others are averaged.
Needs of an item: ref["transcript"], for sd-qa a reference.
Source: MatthewCYM/VoiceBench api_judge.py, src/evaluator.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

from mlx_audio_r1.evaluate.judge_words import SYSTEM_TURN, Words, filled
from mlx_audio_r1.evaluate.scorers.judged_reading import MINI_PARAMS, asked, no_score, number_in, said, unread
from mlx_audio_r1.evaluate.scorers.rows import references
from mlx_audio_r1.evaluate.scoring import JudgeScorer, Score
from mlx_audio_r1.tasks.item import Item
from mlx_audio_r1.tasks.reply import Reply

BEST, RATERS = 5, 3
_RATING = re.compile(r"\[\[(\d+)\]\]")
OPEN_WORDS = Words(
    "A person asked an assistant aloud. How well does it answer, from 1 (beside the point or wrong) to 5 (to "
    "the point, right, nothing too much)?\n\nQuestion: {prompt}\nAnswer: {response}\n\nWrite the mark alone."
)
QA_WORDS = Words(
    "Question: {prompt}\nReference: {reference}\nAnswer: {response}\n\nIs the answer right by the reference? "
    "Write one word, Yes or No."
)


def prompts(item: Item, reply: Reply, words: Words) -> list[str]:
    fields = {"{prompt}": asked(item), "{response}": reply.answer, "{reference}": references(item)[0]}
    return [filled(words.user, fields)]


def mark_of(text: str) -> float | None:
    """A reply that is a number, or has one in double brackets."""
    rated = _RATING.search(said(text))
    return number_in(rated.group(1) if rated else said(text), 1, BEST)


def mean_mark(replies: Sequence[str]) -> Score:
    """Of all the marks that can be read, over the best there is."""
    marks = [mark for text in replies if (mark := mark_of(text)) is not None]
    if not marks:
        return no_score(len(replies))
    mean = sum(marks) / len(marks)
    return Score(mean / BEST, f"{mean:g}", f"mean of {len(marks)} marks", unread(len(replies) - len(marks)))


def open_read(item: Item, reply: Reply, replies: Sequence[str]) -> Score:
    return mean_mark(replies)


def qa_read(item: Item, reply: Reply, replies: Sequence[str]) -> Score:
    told = [said(text).lower() for text in replies]
    yes, others = told.count("yes"), Counter(one for one in told if one != "yes")
    verdict = yes > max(others.values(), default=0)
    missing = sum(one not in ("yes", "no") for one in told)
    parsed = None if missing == len(told) else str(verdict)
    return Score(float(verdict), parsed, f"{yes} of {len(told)} say yes", unread(missing))


OPEN_JUDGE = JudgeScorer(
    "voicebench.open", "judge's marks", prompts, open_read, OPEN_WORDS,
    {"user": "meta_prompt_open", "system": SYSTEM_TURN}, ("{response}",),
    "4dc4907d6762330767bc11e65baaabe50bdce633cb754486132b61d21f1791fe", RATERS, expects="a mark of 1 to 5",
    params=MINI_PARAMS,
)  # fmt: skip
QA_JUDGE = JudgeScorer(
    "voicebench.qa", "judges' majority", prompts, qa_read, QA_WORDS,
    {"user": "meta_prompt_qa", "system": SYSTEM_TURN}, ("{response}",),
    "6619f1250220549a217f1fdd46b6dd44ee48a265e0ab67843aa8974fc41251d4", RATERS, expects="Yes or No",
    params=MINI_PARAMS,
)  # fmt: skip
