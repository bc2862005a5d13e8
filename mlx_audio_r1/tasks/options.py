"""Options as they are shown, and options as people write them down: with letters, or in the question.

write_options("Which?", ("drum", "bell"), "brackets")    # "Which?\\n(A) drum\\n(B) bell"
read_options("Which? A. drum B. bell")                    # ("drum", "bell")
without_letters(["(A) drum", "(B) bell"])                 # ("drum", "bell")
"""

# ruff: noqa: RUF001  (full-width marks are meant)
from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from mlx_audio_r1.errors import PromptError
from mlx_audio_r1.prompt import CHOICE_REQUEST, multiple_choice

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
MMSU_REQUEST = (
    "Choose the most suitable answer from options A, B, C, and D. "
    "You must respond with only A, B, C, or D."
)
AIR_BENCH_REQUEST = (
    "Choose the most suitable answer from options A, B, C, and D to respond the question in next line, "
    "you may only choose A or B or C or D."
)
_LETTERED = re.compile(r"\s*[(\[（]?([A-Za-z])(?:[)\]）][.:、：]?\s*|[.:]\s+|[、．：]\s*)(?=\S)")
_INLINE = re.compile(r"(?:^|(?<=\s))[(\[（]?([A-Z])(?:[)\]）][.:、：]?\s*|[.:]\s+|[、．：]\s*)(?=\S)")


def write_options(question: str, options: Sequence[str], style: str = "step-r1") -> str:
    """The question with its options. Raises PromptError for a style or a number of options nobody knows."""
    if style not in STYLES:
        raise PromptError(f"option style {style!r}; known are {', '.join(STYLES)}")
    return STYLES[style](question, options)


def read_options(question: str) -> tuple[str, ...]:
    """The options a question ends in, one a line or one behind the other; () where there are none."""
    marks = list(_INLINE.finditer(question))
    for first in reversed([i for i, mark in enumerate(marks) if mark.group(1) == "A"]):
        run = [mark for mark, letter in zip(marks[first:], LETTERS, strict=False) if mark.group(1) == letter]
        if len(run) == len(marks) - first >= 2:
            ends = [mark.start() for mark in run[1:]] + [len(question)]
            return tuple(question[m.end() : end].strip(" \t\n,;") for m, end in zip(run, ends, strict=True))
    return ()


def without_letters(options: Sequence[str]) -> tuple[str, ...]:
    """Options without their letters where every one has its own; as they are otherwise ("A:maj/5")."""
    marks = [_LETTERED.match(option) for option in options]
    if len(options) > 1 and all(
        m and m.group(1).upper() == letter for m, letter in zip(marks, LETTERS, strict=False)
    ):
        return tuple(option[m.end() :] for option, m in zip(options, marks, strict=True) if m)
    return tuple(options)


def _unlettered(question: str, options: Sequence[str]) -> str:
    """As the public MMAU script of others shows them: the same words, no letters."""
    return f"{question}\n{CHOICE_REQUEST.rstrip()}\n" + "".join(f"{option}\n" for option in options)


def _bracketed(question: str, options: Sequence[str]) -> str:
    return "\n".join([question, *(f"({letter}) {o}" for letter, o in zip(LETTERS, options, strict=False))])


def _official_mmsu(question: str, options: Sequence[str]) -> str:
    """As MMSU's own script asks; a question of fewer than four options has no empty lines here."""
    lines = "\n".join(f"{letter}. {option}" for letter, option in zip(LETTERS, options, strict=False))
    return f"{MMSU_REQUEST}\n\nQuestion: {question}\n\n{lines}"


def _official_air_bench(question: str, options: Sequence[str]) -> str:
    """As AIR-Bench's own script asks, without its "C. None"."""
    lines = "\n".join(f"{letter}. {option}" for letter, option in zip(LETTERS, options, strict=False))
    return f"{AIR_BENCH_REQUEST}\n{question}\n{lines}"


STYLES: dict[str, Callable[[str, Sequence[str]], str]] = {
    "step-r1": multiple_choice,  # the authors' words
    "none": _unlettered,
    "brackets": _bracketed,
    "mmsu": _official_mmsu,
    "air-bench": _official_air_bench,
}
