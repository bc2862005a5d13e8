"""Constructed English phrases, on which whisper's own normaliser and the one used here have to agree."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

SUBJECTS = (
    "twenty one dogs", "two hundred and five", "one oh one", "three point one four", "$20 million",
    "five dollars and ten cents", "ninety-nine per cent", "the 1960s", "the twenty first of May", "3rd",
    "1,234.50", "double seven", "minus four", "half past ten", "two and a half", "one", "ones", "£5", "€7.05",
    "50%", "Mr. Smith", "Mrs. O'Neill", "Dr. Jones", "St. Paul", "the colour grey", "organised theatre",
    "my neighbour", "centre of the metre", "café", "naïve Zoë", "straße", "e-mail", "U.S.A.", "rock 'n' roll",
    "C++", "A&B", "ten thousand and one", "a million", "nineteen eighty four", "seven eleven", "0.5", ".5",
    "hundred", "thousandth",
)  # fmt: skip
FRAMES = (
    "{}", "I've {} here.", "It's {}, isn't it?", "Uh, {} um hmm", "[noise] {} (laughs)", "WE CAN'T HAVE {}!",
    "he'd gone; she's been with {}", "They won't, y'all gonna get {}", "{} <unk> cause",
    "I dunno, kinda sorta {}", "let's {} - and {}",
)  # fmt: skip


def phrases() -> Iterator[str]:
    for subject, frame in product(SUBJECTS, FRAMES):
        yield frame.format(subject, subject)
