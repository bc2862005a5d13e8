"""Yes or no, true or false, in English and Chinese.

The first word decides when it is one of them ("No, nothing but a drum"), else what follows "the answer is",
else the last of them, which is where an argument ends.
"""

# ruff: noqa: RUF001  (full-width marks are meant)
from __future__ import annotations

import re
from dataclasses import dataclass

from mlx_audio_r1.tasks.item import Item, Verdict
from mlx_audio_r1.tasks.names import NO_DENIAL, Names, answers_after_cues
from mlx_audio_r1.tasks.plain import has_words, plain

ANYWHERE = {  # words that mean it wherever they stand
    True: ("yes", "true", "correct", "yeah", "yep", "that's right", "是的", "对的", "正确", "没错"),
    False: ("no", "false", "incorrect", "nope", "that's wrong", "not true", "not correct", "not right",
            "isn't true", "isn't correct", "isn't right", "不是", "不对", "不正确", "错误", "没有", "并非"),
}  # fmt: skip
ALONE = {  # words that mean it only by themselves, or in front of a comma
    True: ("right", "y", "sure", "definitely", "certainly", "absolutely", "of course", "indeed", "affirmative",
           "是", "对", "有", "有的", "存在", "会", "会的", "真的", "能", "可以", "真", "√"),
    False: ("wrong", "n", "not", "negative", "not at all", "definitely not", "certainly not",
            "absolutely not", "of course not", "否", "不", "没", "无", "错", "错的", "不存在", "不是的", "不会",
            "不能", "不可以", "假", "×"),
}  # fmt: skip
POLAR = {word: truth for words in (ANYWHERE, ALONE) for truth in words for word in words[truth]}
_WHOLE = Names({str(truth): (*ANYWHERE[truth], *ALONE[truth]) for truth in (True, False)})
_ANYWHERE = Names({str(truth): words for truth, words in ANYWHERE.items()})
_LEADING = re.compile(r"[\s\"'(\[]*(?:(yes|no|true|false|yeah|yep|nope|correct|incorrect)\b"
                      r"|([\u4e00-\u9fff]{1,3})(?=[\s,.。、!;:?]|$))", re.IGNORECASE)  # fmt: skip
UNKNOWING = re.compile(r"\bno (?:idea|clue|answer|opinion|way to|one can (?:say|tell|know))\b", re.IGNORECASE)
_NO_DOUBT = re.compile(r"[\s\"'(]*no (?:doubt|question)\b", re.IGNORECASE)
_NO_ANSWER = re.compile(
    rf"[\s\"'(]*(?:{UNKNOWING.pattern}"
    r"|(?:yes|no) ?(?:/|and|or) ?(?:yes|no)\b|是否|有没有)",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Boolean:
    """Is it so?"""

    gold: bool


def verify_boolean(answer: str, item: Item) -> Verdict:
    """Does the answer say what is so?"""
    if not has_words(answer):
        return Verdict(0.0, None, "empty")
    truth = truth_of(plain(answer))
    if truth is None:
        return Verdict(0.0, None, "neither yes nor no")
    return Verdict(float(truth is item.target.gold), truth, "yes or no")


def truth_of(text: str) -> bool | None:
    """True, False, or None where a plain text says neither."""
    if _NO_ANSWER.match(text):
        return None
    truth = _whole_or_first(text)
    if truth is not None:
        return truth
    cued = [t for piece in answers_after_cues(text) if (t := _whole_or_first(piece)) is not None]
    if cued:
        return cued[-1] if len(set(cued)) == 1 else None
    last = [m.name for m in _ANYWHERE.mentions(NO_DENIAL.sub(" ", UNKNOWING.sub(" ", text)))][-1:]
    return last[0] == "True" if last else None


def _whole_or_first(text: str) -> bool | None:
    whole = _WHOLE.exact(text)
    if whole is not None:
        return whole == "True"
    first = _LEADING.match(text)
    if first is None or _NO_ANSWER.match(text) or _NO_DOUBT.match(text):
        return None
    return POLAR.get((first.group(1) or first.group(2)).lower())
