"""Free words: equal after normalising, or scored by their errors: WER, CER, or mixed (MER).

correct = 1 - errors / words of the reference, 0 at the least; of several references the best counts. Errors
are counted by jiwer (the extra `asr`), over a token a word, a character, or both: Chinese characters and
words of other scripts, as is usual where the two are mixed. `whisper`'s English rules are no part of this.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from mlx_audio_r1.errors import AudioR1Error
from mlx_audio_r1.tasks.item import Item, Verdict
from mlx_audio_r1.tasks.plain import has_words, plain

METRICS = ("exact", "wer", "cer", "mer")
_CJK = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]")


@dataclass(frozen=True)
class Wording:
    """Any of `references` is right. metric: one of METRICS."""

    references: tuple[str, ...]
    metric: str = "exact"


@dataclass(frozen=True)
class Errors:
    """What to sum over a corpus: the error rate is errors / words of all, never a mean of rates."""

    substitutions: int
    deletions: int
    insertions: int
    words: int

    @property
    def count(self) -> int:
        return self.substitutions + self.deletions + self.insertions

    @property
    def correct(self) -> float:
        """1 - rate, 0 at the least; an empty reference is right only where nothing was said."""
        return max(0.0, 1 - self.count / self.words) if self.words else float(not self.count)


def verify_wording(answer: str, item: Item) -> Verdict:
    """How much of the answer is as it should be?"""
    target: Wording = item.target
    said = normal(answer)
    if target.metric == "exact":
        right = said in {normal(reference) for reference in target.references}
        return Verdict(float(right and bool(said)), said or None, "text" if said else "empty")
    if not has_words(answer) and all(normal(r) for r in target.references):
        return Verdict(0.0, None, "empty")
    best = max((count_errors(r, answer, target.metric) for r in target.references), key=lambda e: e.correct)
    return Verdict(best.correct, said, f"{best.count} errors in {best.words}")


def normal(text: str) -> str:
    """Plain, one case, no marks, single spaces. An apostrophe inside a word stays."""
    text = plain(text).casefold()
    kept = [
        c if c.isalnum() or unicodedata.category(c)[0] == "M" or _inner(text, i) else " "
        for i, c in enumerate(text)
    ]
    return " ".join("".join(kept).split())


def tokens(text: str, metric: str) -> list[str]:
    """What errors are counted in."""
    if metric == "wer":
        return normal(text).split()
    if metric == "cer":
        return list(normal(text).replace(" ", ""))
    return _CJK.sub(lambda m: f" {m.group()} ", normal(text)).split()


def count_errors(reference: str, said: str, metric: str) -> Errors:
    """The fewest substitutions, deletions and insertions. Raises AudioR1Error without jiwer."""
    return edits(tokens(reference, metric), tokens(said, metric))


def edits(wanted: Sequence[str], given: Sequence[str]) -> Errors:
    """The same between tokens, none of which has a space in it."""
    if not wanted or not given:
        return Errors(0, len(wanted), len(given), len(wanted))
    found = _jiwer().process_words(" ".join(wanted), " ".join(given))
    return Errors(found.substitutions, found.deletions, found.insertions, len(wanted))


def _inner(text: str, i: int) -> bool:
    """Is it the apostrophe of "don't" or the point of 3.5?"""
    if text[i] not in "'." or not 0 < i < len(text) - 1:
        return False
    return (
        text[i - 1].isdigit() and text[i + 1].isdigit()
        if text[i] == "."
        else text[i - 1].isalpha() and text[i + 1].isalpha()
    )


def _jiwer() -> Any:
    try:
        import jiwer
    except ImportError:
        raise AudioR1Error('word errors are counted by jiwer: pip install "mlx-audio-r1[asr]"') from None
    return jiwer
