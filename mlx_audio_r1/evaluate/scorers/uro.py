"""URO-Bench's one rule: repeating what was said (Repeat, Repeat-zh). Everything else there is a judge's.

A reply with an error rate of at most a half counts 1 - rate, any other nothing. The authors print the share of
such replies times one less their mean rate, which is the mean of these. The surprise: their script divides by
the words of the reply and not of the reference, so a reply twice as long passes, and one half as long does not.
Needs of an item: rows.references and its lang, "zh" for characters. The extra `asr`.
Source: Ruiqi-Yan/URO-Bench metrics/mark_wer.py and evaluate.py.
"""

from __future__ import annotations

import string
import unicodedata
import warnings
from typing import Any

from mlx_audio_r1.evaluate.scorers.asr import english, library
from mlx_audio_r1.evaluate.scorers.rows import references
from mlx_audio_r1.evaluate.scoring import RuleScorer, Score
from mlx_audio_r1.tasks.item import Item
from mlx_audio_r1.tasks.plain import visible

MOST = 0.5  # the error rate of what still counts as repeated
_MARKS_BESIDE = "\u3000\u301c\u3030\u303e\u303f"  # of Chinese typography, and no punctuation to Unicode


def repeat(reply: str, item: Item) -> Score:
    """1 - the reply's error rate, or 0 where that is above MOST."""
    said = visible(reply)
    rate = error_rate(said, references(item)[0], item.lang)
    return Score(1 - rate if rate <= MOST else 0.0, said.strip() or None, f"error rate {rate:.3f}")


def error_rate(said: str, reference: str, lang: str) -> float:
    """With the two sides as the script has them: changed over."""
    jiwer = library("jiwer")
    if lang.startswith("zh"):
        return float(jiwer.cer(characters(said), characters(reference)))
    return float(jiwer.wer(" ".join(english(said)), " ".join(english(reference))))


def characters(text: str) -> str:
    """Without punctuation, numbers in Chinese; single spaces stay, and are counted."""
    bare = "".join(c for c in text if not _is_mark(c)).replace("  ", " ")
    with warnings.catch_warnings(action="ignore"):  # of numbers that it leaves as they are
        return str(_transform(bare.strip().lower()))


def _transform(text: str) -> Any:
    return library("cn2an").transform(text, "an2cn")


def _is_mark(c: str) -> bool:
    plain = unicodedata.normalize("NFKC", c)
    return plain in string.punctuation or unicodedata.category(c)[0] == "P" or c in _MARKS_BESIDE


REPEAT = RuleScorer("uro.repeat", "official rule", repeat)
