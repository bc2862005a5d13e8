"""The same question as different people type it: polite, hurried, without capitals or question mark."""

from __future__ import annotations

import numpy as np

LEAD_INS = (
    "Please tell me: ", "Listen: ", "Listen carefully. ", "Question: ", "Hello! ", "Tell me, ",
    "Can you tell me: ",
    "A question about this clip: ", "In this recording: ", "Quick question: ", "Please answer: ", "Now ",
    "I would like to know: ", "Hear this. ", "About the audio: ", "Just one thing: ",
)  # fmt: skip
ADDITIONS = (
    " Please.", " Thanks!", " Thank you.", " Answer in one word.", " Be brief.", " Answer briefly.",
    " Only the answer, please.", " Listen carefully.", " Think first.", " I am not sure.",
)  # fmt: skip
LEAD_IN_SHARE, ADDITION_SHARE, LOWER_SHARE, BARE_SHARE = 0.12, 0.08, 0.15, 0.15


def vary(rng: np.random.Generator, text: str) -> str:
    """Another way to write `text`; options behind the first line stay as they are."""
    asked, newline, options = text.partition("\n")
    if not asked:
        return text
    bare = rng.random() < BARE_SHARE
    if bare:
        asked = asked.rstrip("?.!")
    if rng.random() < LEAD_IN_SHARE:
        asked = str(rng.choice(LEAD_INS)) + asked[0].lower() + asked[1:]
    if not bare and rng.random() < ADDITION_SHARE:
        asked += str(rng.choice(ADDITIONS))
    if rng.random() < LOWER_SHARE:
        asked = asked.lower()
    return asked + newline + options
