"""WildSpeech-Bench: a mark of 1 to 10 by a general checklist and the question's own.

As in the authors' script the first "Score: [n]" counts, and a reply that is not English has the mark 1. They
ask langdetect for the language; here a reply is not English where most of its letters are not Latin, so a
French one passes. The surprise: the paper's percent is ten times the mean mark, so the least is 10 %.
Needs of an item: ref["transcript"], a Judged with the checklist. Source: Tencent/WildSpeech-Bench
tools/api_judge.py, tools/retrieve_results.py.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

from mlx_audio_r1.evaluate.judge_words import Words, filled
from mlx_audio_r1.evaluate.scorers.judged_reading import MINI_PARAMS, asked, no_score, number_in, said
from mlx_audio_r1.evaluate.scoring import JudgeScorer, Score
from mlx_audio_r1.tasks.item import Item
from mlx_audio_r1.tasks.reply import Reply

BEST = 10
_SCORE = re.compile(r"Score: (?:\[)?(\d+)(?:\])?")
WORDS = Words(
    "A person asked an assistant aloud, and it answered aloud; both are written down here.\n\nQuestion:\n"
    "{query}\n\nAnswer:\n{response}\n\nPoints to check:\n{checklist}\n\nHow good is the answer, from 1 "
    "(worthless) to 10 (nothing to better)? Say what is good and what is not, then end in a line like\n"
    "Score: [n]",
    parts={"checklist": "- Does it do what was asked?\n- Is it true?\n- Does it repeat itself?\n"},
)


def prompts(item: Item, reply: Reply, words: Words) -> list[str]:
    checklist = words.parts.get("checklist", "") + "\n".join(item.target.rubric)
    fields = {"{query}": asked(item), "{response}": reply.answer, "{checklist}": checklist}
    return [filled(words.user, fields)]


def read(item: Item, reply: Reply, replies: Sequence[str]) -> Score:
    found = _SCORE.search(said(replies[0]))
    mark = number_in(found.group(1), 1, BEST) if found else None
    if mark is None:
        return no_score()
    if not is_english(reply.answer):
        return Score(1 / BEST, "1", "not English")
    return Score(mark / BEST, f"{mark:g}", "mark of 1 to 10")


def is_english(text: str) -> bool:
    """Are at least half of its letters Latin? A text without letters is let pass."""
    letters = [c for c in text if c.isalpha()]
    latin = sum(unicodedata.name(c, "").startswith("LATIN") for c in letters)
    return 2 * latin >= len(letters)


MARK = JudgeScorer(
    "wildspeech.judge", "judge's mark", prompts, read, WORDS,
    names={"user": "meta_prompt", "checklist": "general_checklist"}, must=("{response}",),
    official="2834987d7c330ec9190b9279e0d12ea7b6178bd6c6f2f69d326ec0a0f033bc05",
    expects="a last line: Score: [1 to 10]",
    params=MINI_PARAMS,
)  # fmt: skip
