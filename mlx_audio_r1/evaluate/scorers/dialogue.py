"""Two rules without a judge for Chinese answers: dialogue understanding (Step-DU) and SPQA.

`du.rule`: the gold is parts between semicolons, each of which is alternatives between slashes; what stands
before a colon counts. The score is the share of parts that the reply names.
`spqa.exact`: the reply is the reference answer or its label, marks and case aside.
The surprise: neither is the number to publish; the authors' judge gives a half where `du.rule` gives nothing.
Needs of an item: rows.references, and extra["label"] for SPQA where it has one.
"""

# ruff: noqa: RUF001  (full-width marks are meant)
from __future__ import annotations

import re

from mlx_audio_r1.evaluate.scorers.rows import references
from mlx_audio_r1.evaluate.scoring import RuleScorer, Score
from mlx_audio_r1.tasks.item import Item
from mlx_audio_r1.tasks.names import denied
from mlx_audio_r1.tasks.plain import fold
from mlx_audio_r1.tasks.wording import normal

SYNONYMS = (
    ("男", "男性", "男声", "男生", "男人", "男的", "先生", "male"),
    ("女", "女性", "女声", "女生", "女人", "女的", "女士", "female"),
    ("慢速", "偏慢", "较慢", "很慢", "缓慢", "慢"),
    ("快速", "偏快", "较快", "很快", "快"),
    ("中速", "适中", "正常语速", "语速正常", "不快不慢", "中等"),
    ("高兴", "开心", "快乐", "愉快", "喜悦", "欢快"),
    ("难过", "悲伤", "伤心", "悲痛", "哀伤"),
    ("生气", "愤怒", "恼怒", "气愤"),
    ("害怕", "恐惧", "惊恐"),
    ("惊讶", "吃惊", "惊喜", "诧异"),
    ("平静", "中性", "平淡", "平和"),
    ("咳嗽", "咳", "咳嗽声"),
    ("打喷嚏", "喷嚏", "喷嚏声"),
    ("笑", "大笑", "笑声", "轻笑"),
    ("哭", "哭泣", "哭声", "抽泣", "啜泣"),
    ("叹气", "叹息", "叹气声"),
    ("打哈欠", "哈欠"),
    ("清嗓子", "清嗓", "清喉咙"),
    ("儿童", "小孩", "孩子", "小朋友"),
    ("老人", "老年", "老年人"),
    ("开头", "开始", "起始", "前面"),
    ("中间", "中段"),
    ("结尾", "末尾", "最后", "结束"),
)
NOT_BEHIND = {"快": ("愉", "欢"), "慢": ("傲",), "笑": ("玩",), "male": ("fe",)}  # "愉快" is no speed
_PARTS, _WAYS, _EXPLAINED = re.compile("[；;]"), re.compile("[/／]"), re.compile("[：:]")


def share_named(reply: str, gold: str) -> float:
    """The share of the gold's parts that the reply names."""
    said = fold(reply)
    parts = [part for part in map(_meant, _PARTS.split(gold)) if part]
    named = [any(_names(said, way) for way in part) for part in parts]
    return sum(named) / len(named) if named else 0.0


def du(reply: str, item: Item) -> Score:
    said = reply.strip()
    if not said:
        return Score(0.0, None, "empty")
    best = max(share_named(said, gold) for gold in references(item))
    return Score(best, said, "share of parts named")


def spqa(reply: str, item: Item) -> Score:
    said = normal(reply)
    label = item.extra.get("label")
    known = {normal(text) for text in (*references(item), *([str(label)] if label else []))}
    right = bool(said) and said in known
    return Score(float(right), said or None, "equal" if right else "another text")


def _meant(part: str) -> list[str]:
    """The ways to say a part: its alternatives, each with what means the same."""
    ways = [fold(way) for way in _WAYS.split(_EXPLAINED.split(part)[0])]
    same = [word for way in ways for group in SYNONYMS if way in group for word in group]
    return [*dict.fromkeys(way for way in (*ways, *same) if way)]


def _names(said: str, way: str) -> bool:
    """Does the reply say it, not as a part of another word and not denied?"""
    at = said.find(way)
    while at >= 0:
        if not said[:at].endswith(NOT_BEHIND.get(way, ())) and not denied(said, at, at + len(way)):
            return True
        at = said.find(way, at + 1)
    return False


DU = RuleScorer("du.rule", "rule", du)
SPQA = RuleScorer("spqa.exact", "equal texts", spqa)
