"""What the measures of grounding say, in a few words each, for people who read a report."""

from __future__ import annotations

OVER = {"silence": "silence", "shuffle": "another clip"}
GAINS = {
    "thinking": "nats a token by which the true sound makes the reasoning likelier than {over} does",
    "answer": "the same of the answer, over {over}",
    "acoustic": "the same of words of listening in the reasoning, over {over}",
    "other": "the same of the other words of the reasoning, over {over}",
    "grounded": "share of the reasoning's tokens that gain more than half a nat over {over}",
    "selectivity": "what words of listening gain more than other words, over {over}",
}
MEANINGS = {
    "words.ratio": "words of listening, of those of listening and of reading",
    "words.density": "words of listening in a thousand words of reasoning",
    "words.breadth": "kinds of words of listening that a reasoning has, of eight",
    "gain.thinking.auc": "does the gain of the reasoning tell true sounds from wrong ones? 0.5: no, 1: always",
    "gain.answer.auc": "the same of the gain of the answer",
    "gain.acoustic.auc": "the same of the gain of words of listening",
    "early.area_over_curve": "how late in the reasoning the answer settles; 0: before it, 1: at its end",
    "retrieval.hit": "how often the reasoning picks the true sound among a few",
    "retrieval.reciprocal": "one over the place of the true sound among them",
    "retrieval.infonce": "what the reasoning tells about which sound it was, in nats",
    "retrieval.auc": "does that tell true sounds from wrong ones?",
    "margin.margin": "log-probability of the right option above the best wrong one, a token",
    "margin.gain": "what the sound adds to that margin, over silence",
    "margin.auc": "does that gain tell true sounds from wrong ones?",
    "order.correct": "share right over orders of the options, without thinking",
    "order.agreement": "pairs of orders that choose the same option",
}


def meaning(name: str) -> str:
    """Empty for a measure nobody has described."""
    measure, _, rest = name.partition(".")
    over, _, kind = rest.partition(".")
    if measure == "gain" and over in OVER and kind in GAINS:
        return GAINS[kind].format(over=OVER[over])
    return MEANINGS.get(name, "")
