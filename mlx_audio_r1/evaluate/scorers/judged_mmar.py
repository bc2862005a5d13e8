"""MMAR-Rubrics: five raters mark the reasoning by the question's own rubric; the mean of the middle three.

A reply whose answer is wrong by MMAR's rule has 0, and nobody is asked. The surprises: the choices are compared
as the file has them, so "A. Man" can be wrong (`string_match`); and where a rater cannot be read the official
script leaves the item out, "not evaluated", and so does this.
Needs of an item: a Choice, ref["thinking"] and ref["rubric"].
Source: ddlBoJack/MMAR code/evaluation_rubrics.py.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from mlx_audio_r1.evaluate.judge_words import Words, filled
from mlx_audio_r1.evaluate.scorers.judged_reading import asked, said, unread
from mlx_audio_r1.evaluate.scorers.string_match import plain_gold, string_match
from mlx_audio_r1.evaluate.scoring import JudgeScorer, Score
from mlx_audio_r1.tasks.item import Item
from mlx_audio_r1.tasks.reply import Reply

RATERS = 5
_LIST = re.compile(r"\[\s*\{.*\}\s*\]", re.DOTALL)
WORDS = Words(
    "Question: {question}\nRight answer: {answer}\nA good reasoning: {thinking}\n\nMark the reasoning below by "
    "each point:\n{rubric_string}\n\nWrite only JSON, a list with an object for each point:\n[\n"
    "{json_format_string}\n]\n\nReasoning to mark:\n{thinking_prediction} The answer is {answer_prediction}.",
    "You judge reasoning about sounds, strictly by the points you are given.",
    {
        "rubric": "{item['name']}: {item['scoring_point']} Possible: {item['choices']}",
        "format": "{\"name\": \"{item['name']}\", \"score\": one of {item['choices']}, "
                  "\"justification\": \"...\"}{comma}",
    },
)  # fmt: skip


def prompts(item: Item, reply: Reply, words: Words) -> list[str]:
    rubric = item.ref.get("rubric") or ()
    if not rubric or not _right(item, reply):
        return []
    commas = [","] * (len(rubric) - 1) + [""]
    fields = {
        "{question}": asked(item), "{answer}": plain_gold(item)[0],
        "{thinking}": str(item.ref.get("thinking") or ""),
        "{rubric_string}": "\n".join(_written(words.parts["rubric"], point, "") for point in rubric),
        "{json_format_string}": "\n".join(map(_written, [words.parts["format"]] * len(rubric), rubric, commas)),
        "{thinking_prediction}": reply.thinking, "{answer_prediction}": reply.answer,
    }  # fmt: skip
    return [_flush(filled(words.user, fields))]


def read(item: Item, reply: Reply, replies: Sequence[str]) -> Score:
    rubric = item.ref.get("rubric") or ()
    if not rubric:
        return Score(None, None, "no rubric; import the file of 2026")
    if not replies:
        return Score(0.0, "", "the answer is wrong, no judge asked")
    marks = [mark_of(text, rubric) for text in replies]
    read = sorted(mark for mark in marks if mark is not None)
    if len(read) < len(marks):
        missing = len(marks) - len(read)
        return Score(None, None, f"{missing} of {len(marks)} raters cannot be read", unread(missing))
    middle = read[1:-1] if len(read) > 2 else read
    value = sum(middle) / len(middle)
    return Score(value, f"{value:.4f}", f"mean of the middle {len(middle)} of {len(read)} raters")


def mark_of(text: str, rubric: Sequence[Mapping[str, Any]]) -> float | None:
    """A rater's points over the most there are, 0 to 1."""
    text = said(text)
    found = _LIST.search(text)
    try:
        marks = json.loads(found.group() if found else text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(marks, list) or len(marks) != len(rubric):
        return None
    points = [_points(mark, point["choices"]) for mark, point in zip(marks, rubric, strict=True)]
    most = sum(max(point["choices"]) for point in rubric)
    return None if None in points else sum(points) / most if most else 0.0  # type: ignore[arg-type]


def _points(mark: Any, possible: Sequence[int]) -> float | None:
    """The points of a criterion, which must be among those that are possible."""
    if not isinstance(mark, Mapping) or not {"name", "score"} <= mark.keys():
        return None
    score = mark["score"]
    return float(score) if isinstance(score, int | float) and score in possible else None


def _right(item: Item, reply: Reply) -> bool:
    answer, choices = plain_gold(item)
    return string_match(answer, reply.answer, choices)


def _written(text: str, point: Mapping[str, Any], comma: str) -> str:
    fields = {f"{{item['{name}']}}": str(point.get(name, "")) for name in ("name", "scoring_point", "choices")}
    return _flush(filled(text, {**fields, "{comma}": comma}))


def _flush(text: str) -> str:
    """Without the indentation of a script, as the official one does it."""
    return "\n".join(line.lstrip() for line in text.strip().splitlines())


RUBRICS = JudgeScorer(
    "mmar.rubrics", "rubrics, 5 raters", prompts, read, WORDS,
    names={"user": "prompt", "system": "EVALUATE_SYS_PROMPT", "rubric": "section:0", "format": "section:1"},
    official="8f2c7fe507300e4300effb539591c0f3203b9785ad715e13d4c005065736f9b8",
    must=("{thinking_prediction}",), raters=RATERS, expects="a JSON list of {name, score, justification}",
    params={"temperature": 0, "seed": 42, "max_tokens": 2048},
)  # fmt: skip
