"""MMAU-Pro's open questions: four marks of 1 to 5 and an overall one, over 5.

    mmaupro.open           as the official script reads them: what it does not find is 3
    mmaupro.open_strict    the same marks; a reply without all of them is worth nothing

The surprises, both official: an overall mark of exactly 3 is replaced by the mean of the four, and a mark in
brackets or behind stars is not found.
Needs of an item: a Judged with the answer.
Source: sonalkum/MMAUPro evaluate_mmau_pro_comprehensive.py.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from mlx_audio_r1.evaluate.judge_words import SYSTEM_TURN, Words, filled
from mlx_audio_r1.evaluate.scorers.judged_reading import asked, no_score, said, unread
from mlx_audio_r1.evaluate.scorers.rows import references
from mlx_audio_r1.evaluate.scoring import JudgeScorer, Score
from mlx_audio_r1.tasks.item import Item
from mlx_audio_r1.tasks.reply import Reply

BEST, UNFOUND = 5, 3.0
CONTEXT = "general open-ended question answering"  # what the script says of every open question
CRITERIA = {name: re.compile(rf"{name}:\s*(\d+)", re.IGNORECASE)
            for name in ("correctness", "relevance", "completeness", "clarity")}  # fmt: skip
_OVERALL = re.compile(r"OVERALL:\s*(\d+(?:\.\d+)?)", re.IGNORECASE)
WORDS = Words(
    "Mark an answer, from 1 to 5.\n\nQuestion: {question}\n\nReference: {reference_answer}\n\nAnswer: "
    "{model_response}\n\nWrite five lines, each with a mark and why:\nCORRECTNESS: n - why\n"
    "RELEVANCE: n - why\nCOMPLETENESS: n - why\nCLARITY: n - why\nOVERALL: n - why"
)


def prompts(item: Item, reply: Reply, words: Words) -> list[str]:
    fields = {"{context}": CONTEXT, "{question}": asked(item), "{reference_answer}": references(item)[0],
              "{model_response}": reply.answer}  # fmt: skip
    return [filled(words.user, fields)]


def marks_of(text: str) -> dict[str, float]:
    """criterion -> its mark, of those that are found; "overall" too."""
    text = said(text)
    found = {name: pattern.search(text) for name, pattern in {**CRITERIA, "overall": _OVERALL}.items()}
    return {name: float(m.group(1)) for name, m in found.items() if m and 1 <= float(m.group(1)) <= BEST}


def official(item: Item, reply: Reply, replies: Sequence[str]) -> Score:
    marks = marks_of(replies[0])
    overall = marks.get("overall", UNFOUND)
    if overall == UNFOUND:
        overall = sum(marks.get(name, UNFOUND) for name in CRITERIA) / len(CRITERIA)
    missing = [name for name in CRITERIA if name not in marks]
    how = f"official default 3 for {', '.join(missing)}" if missing else "overall mark"
    return Score(overall / BEST, f"{overall:g}" if marks else None, how, unread(not marks))


def strict(item: Item, reply: Reply, replies: Sequence[str]) -> Score:
    marks = marks_of(replies[0])
    if len(marks) <= len(CRITERIA):
        return no_score()
    return Score(marks["overall"] / BEST, f"{marks['overall']:g}", "overall mark")


_OFFICIAL = "abd69540247724a657b35fec9ce9033e2c94fb0a17892aecdd6472c68cf6bb91"
_NAMES = {"user": "prompt", "system": SYSTEM_TURN}
_PARAMS = {"temperature": 0.1, "max_tokens": 512}
_EXPECTS = "CORRECTNESS: n - ..., RELEVANCE: n, COMPLETENESS: n, CLARITY: n, OVERALL: n"
JUDGE = JudgeScorer("mmaupro.open", "judge, official reading", prompts, official, WORDS, _NAMES,
                    ("{model_response}",), _OFFICIAL, expects=_EXPECTS, params=_PARAMS)  # fmt: skip
STRICT = JudgeScorer("mmaupro.open_strict", "judge, nothing assumed", prompts, strict, WORDS, _NAMES,
                     ("{model_response}",), _OFFICIAL, expects=_EXPECTS, params=_PARAMS)  # fmt: skip
