"""Grounding by lexicon: scores by hand, and each limit by itself."""

import pytest

from mlx_audio_r1.mgrd.grounded import LexiconLimits, lexicon_scores, ungrounded
from mlx_audio_r1.tasks.lexicon import acoustic_places

HEARS = "The pitch rises and the timbre is bright."  # 3 terms, pitch and timbre, 8 words
READS = "The transcript says that the pitch rises."
NEITHER = "It is the second one."


def test_scores_by_hand():
    assert lexicon_scores(HEARS) == {
        "ratio": 1.0, "density": 375.0, "breadth": 0.25, "terms": 3.0, "surrogate": 0.0}
    assert lexicon_scores(READS)["ratio"] == 0.5
    assert "ratio" not in lexicon_scores(NEITHER)
    assert lexicon_scores("根据描述音高上升。")["surrogate"] >= 1


@pytest.mark.parametrize(("text", "limits", "why"), [
    (HEARS, LexiconLimits(), ""),
    (HEARS, LexiconLimits(terms=3, density=375, breadth=0.25), ""),
    (HEARS, LexiconLimits(terms=4), "acoustic terms 3, the least is 4"),
    (HEARS, LexiconLimits(density=400), "density 375, the least is 400"),
    (HEARS, LexiconLimits(breadth=0.5), "breadth 0.25, the least is 0.5"),
    (READS, LexiconLimits(), "acoustic terms 1, textual 1 ('transcript'): ratio 0.50, the least is 0.7"),
    (READS, LexiconLimits(ratio=0.5), ""),
    (NEITHER, LexiconLimits(), "acoustic terms 0, the least is 1"),
    (NEITHER, LexiconLimits(terms=0), ""),
])  # fmt: skip
def test_a_limit_says_what_is_missing(text, limits, why):
    assert ungrounded(text, lexicon_scores(text), limits) == why


def test_places_of_terms():
    assert [HEARS[a:b] for a, b in acoustic_places(HEARS)] == ["pitch", "timbre", "bright"]
    assert acoustic_places(NEITHER) == []
