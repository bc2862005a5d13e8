"""Errors of a transcript: words (English), characters (Chinese), or both mixed, summed over a corpus.

    asr.wer    whisper's English normaliser on both sides, then words: as in OpenAI's own evaluation
    asr.cer    Chinese: half-width, simplified, numbers in characters, no marks and no spaces; then characters
    asr.mer    a Chinese character or a word of another script each: speech that switches between the two

The rate is all errors over all words of the references, never a mean of rates. The surprise: a reply of ten
times the reference's length is counted in full and as `runaway`, where others drop it.
Needs of an item: a Wording; of several references the one with the fewest errors counts. The extra `asr`.
"""

# ruff: noqa: RUF001  (full-width marks are meant)
from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Callable, Mapping
from functools import lru_cache, partial
from importlib import import_module
from typing import Any

from mlx_audio_r1.errors import EvaluationError
from mlx_audio_r1.evaluate.scorers.rows import references
from mlx_audio_r1.evaluate.scoring import RuleScorer, Score
from mlx_audio_r1.tasks.item import Item
from mlx_audio_r1.tasks.plain import visible
from mlx_audio_r1.tasks.wording import Errors, edits, tokens

Tokens = Callable[[str], list[str]]
RUNAWAY = 10  # times the words of the reference
LONGEST_NUMBER = 8  # digits that are read as a number; more are a telephone number
MOST_DIGITS, PIECE = 1_000, 100  # of a number; words, each of which can multiply by a decillion
_ENDLESS = re.compile(rf"\d{{{MOST_DIGITS},}}")
NOT_WHISPERS = (r"\bkinda\b", r"\bsorta\b", r"\bdunno\b", r"\bcause\b")
_THINKING = re.compile(r"\A.*</think>", re.DOTALL)
_FENCED = re.compile(r"\A```\w*\s*|\s*```\Z")
_CONTENT = re.compile(r'"content"\s*:\s*"(.*?)"?\s*\}?\Z', re.DOTALL)
_QUOTES = {'"': '"', "'": "'", "“": "”", "‘": "’", "「": "」", "『": "』", "《": "》"}
_SPOKEN = str.maketrans("0123456789.", "零一二三四五六七八九点")
_PERCENT = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*%")
_GROUPED = re.compile(r"(?<=[0-9]),(?=[0-9]{3}(?![0-9]))")
_YEAR = re.compile(r"(?<![0-9])[0-9]{4}(?=年)")
_DIGITS = re.compile(r"[0-9]+(?:\.[0-9]+)?")


def rule(reply: str, item: Item, *, read: Tokens) -> Score:
    """The edits from the best reference to the transcript."""
    said = transcript(reply)
    given = read(said)
    found = min((edits(read(text), given) for text in references(item)), key=_rate)
    counts = {
        "substitutions": found.substitutions, "deletions": found.deletions, "insertions": found.insertions,
        "words": found.words, "runaway": int(len(given) > RUNAWAY * max(1, found.words)),
    }  # fmt: skip
    return Score(min(1.0, _rate(found)), said or None, f"{found.count} errors in {found.words}", counts)


def rate(counts: Mapping[str, int]) -> float:
    """Errors over words; of nothing said to nothing, 0. With references all empty, the errors themselves."""
    errors = sum(counts.get(name, 0) for name in ("substitutions", "deletions", "insertions"))
    return errors / max(1, counts.get("words", 0))


def transcript(reply: str) -> str:
    """What a reply gives as the words: without thinking, a code fence, {"content": ...} and quotes."""
    text = _FENCED.sub("", _THINKING.sub("", visible(reply)).strip()).strip()
    text = _content(text).strip()
    while len(text) > 1 and _QUOTES.get(text[0]) == text[-1] and text[-1] not in text[1:-1]:
        text = text[1:-1].strip()
    return text


def english(text: str) -> list[str]:
    """Words after whisper's normaliser. A loop of numbers, which it cannot write as one, is read in pieces."""
    try:
        return str(_whisper()(text)).split()
    except (ValueError, AssertionError):  # more digits than Python turns into a number
        words = _ENDLESS.sub(lambda m: m.group()[:MOST_DIGITS], text).split()
        pieces = [" ".join(words[at : at + PIECE]) for at in range(0, len(words), PIECE)]
        return [word for piece in pieces for word in str(_whisper()(piece)).split()]


def chinese(text: str) -> list[str]:
    """Characters of a simplified text with its numbers spelled out."""
    return tokens(spelled(simplified(text)), "cer")


def mixed(text: str) -> list[str]:
    """Chinese characters and other words of a simplified text; numbers stay as they are written."""
    return tokens(simplified(text), "mer")


def simplified(text: str) -> str:
    """NFKC, in simplified characters, without the commas inside numbers."""
    return _GROUPED.sub("", str(_simplifier().convert(unicodedata.normalize("NFKC", visible(text)))))


def spelled(text: str) -> str:
    """12 as 十二, 50% as 百分之五十, the year 2008 and long runs digit by digit."""
    text = _PERCENT.sub(r"百分之\1", text)
    text = _YEAR.sub(lambda m: m.group().translate(_SPOKEN), text)
    return _DIGITS.sub(lambda m: _in_characters(*m.group().partition(".")), text)


def _in_characters(whole: str, point: str, decimals: str) -> str:
    """12.5 -> 十二点五, 0571 -> 零五七一"""
    coded = len(whole) > LONGEST_NUMBER or (len(whole) > 1 and whole[0] == "0")
    read = whole.translate(_SPOKEN) if coded else library("cn2an").an2cn(whole, "low")
    return f"{read}{(point + decimals).translate(_SPOKEN)}"


def _content(text: str) -> str:
    """The value of a JSON object with the one key it was asked for, closed or not."""
    if not text.startswith("{"):
        return text
    try:
        found = json.loads(text)
    except ValueError:
        loose = _CONTENT.search(text)
        return loose.group(1) if loose else text
    return str(found["content"]) if isinstance(found, dict) and "content" in found else text


def _rate(found: Errors) -> float:
    return found.count / max(1, found.words)


@lru_cache(maxsize=1)
def _whisper() -> Any:
    """whisper's normaliser: the library's without the contractions it has added."""
    found = library("whisper_normalizer.english").EnglishTextNormalizer()
    found.replacers = {
        pattern: said for pattern, said in found.replacers.items() if pattern not in NOT_WHISPERS
    }
    return found


@lru_cache(maxsize=1)
def _simplifier() -> Any:
    return library("opencc").OpenCC("t2s")


def library(name: str) -> Any:
    """A module of the extra `asr`. Raises EvaluationError where it is not installed."""
    try:
        return import_module(name)
    except ImportError:
        raise EvaluationError(
            f"transcripts are compared with the help of {name.partition('.')[0]}: "
            'pip install "mlx-audio-r1[asr]"'
        ) from None


WER = RuleScorer("asr.wer", "word error rate", partial(rule, read=english), rate, error=True)
CER = RuleScorer("asr.cer", "character error rate", partial(rule, read=chinese), rate, error=True)
MER = RuleScorer("asr.mer", "mixed error rate", partial(rule, read=mixed), rate, error=True)
