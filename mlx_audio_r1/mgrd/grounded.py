"""Grounding by lexicon: does a reasoning speak of the sound, or of a text about it? (measure G1)

A list of words can be gamed by saying them, so this is the cheap filter; `evidence` is the one that cannot.
The surprise: a reasoning with neither kind of words has no ratio, and falls for want of acoustic terms.
"""

from __future__ import annotations

from dataclasses import dataclass

from mlx_audio_r1.tasks.lexicon import grounding, surrogate_terms

SHOWN = 3  # textual surrogates that a reason quotes


@dataclass(frozen=True)
class LexiconLimits:
    """ratio: acoustic terms / (acoustic + textual), 0 to 1. density: acoustic terms in 1,000 words. breadth:
    the share of the eight categories. terms: acoustic ones. All are the least that passes."""

    ratio: float = 0.7
    density: float = 0.0
    breadth: float = 0.0
    terms: int = 1


def lexicon_scores(thinking: str) -> dict[str, float]:
    """ratio (absent where there is none), density, breadth, terms, surrogate of a reasoning."""
    found = grounding(thinking)
    scores = {} if found.ratio is None else {"ratio": found.ratio}
    return {**scores, "density": found.density, "breadth": found.breadth, "terms": float(found.terms),
            "surrogate": float(found.surrogate)}  # fmt: skip


def ungrounded(thinking: str, scores: dict[str, float], limits: LexiconLimits) -> str:
    """Why a reasoning of these scores is not about the sound; "" where it is."""
    if scores["terms"] < limits.terms:
        return f"acoustic terms {scores['terms']:.0f}, the least is {limits.terms}"
    if scores.get("ratio", 1.0) < limits.ratio:
        said = ", ".join(repr(term) for term in surrogate_terms(thinking)[:SHOWN])
        return (f"acoustic terms {scores['terms']:.0f}, textual {scores['surrogate']:.0f} ({said}): ratio "
                f"{scores['ratio']:.2f}, the least is {limits.ratio:g}")  # fmt: skip
    for name in ("density", "breadth"):
        if scores[name] < getattr(limits, name):
            return f"{name} {scores[name]:.3g}, the least is {getattr(limits, name):g}"
    return ""
