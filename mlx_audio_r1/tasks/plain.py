"""A reply as people write it -> plain text that can be compared: markdown, LaTeX, tags and quotes gone.

`plain` keeps the case and the line breaks, `fold` loses both. The surprise: an invisible character is
taken away before anything else, so that it can neither hide an answer nor stand for one.
"""

# ruff: noqa: RUF001  (full-width marks are meant)
from __future__ import annotations

import json
import re
import unicodedata

FRONT_MARKS = " \t\n。:;,、!?·'\""  # what may hang before an answer; a point or a dash may belong to it
END_MARKS = FRONT_MARKS + ".~-–—"
_SAME = str.maketrans({
    "‘": "'", "’": "'", "‛": "'", "ʼ": "'", "“": '"', "”": '"', "„": '"', "「": '"', "」": '"', "『": '"',
    "』": '"', "《": '"', "》": '"', "«": '"', "»": '"', "−": "-", "‐": "-", "‑": "-", "﹣": "-", "⁄": "/",
    "\r": "\n", "\u2028": "\n", "\u2029": "\n",
})  # fmt: skip
_THIN = re.compile(r"(?<=\d)[\u00a0\u2009\u202f](?=\d{3}(?!\d))")  # 12 000, typeset
_OPENING = re.compile(r"<(?:answer|response|result)>", re.IGNORECASE)
_CLOSING = re.compile(r"</(?:answer|response|result)>", re.IGNORECASE)
_FENCED = re.compile(r"\A```\w*|```\Z")
_JSON_KEYS = ("answer", "content", "text", "result", "response", "答案")
_MARKUP = (  # pattern -> what stays; in this order
    (re.compile(r"\\[dt]?frac\s*\{([^{}]{1,40})\}\s*\{([^{}]{1,40})\}"), r"\1/\2"),
    (re.compile(r"\\[dt]?frac\s*(\d)\s*(\d)(?!\d)"), r"\1/\2"),
    (re.compile(r"(?<=\d)\\[,;:! ](?=\d{3}(?!\d))"), ""),
    (re.compile(r"\\(?:boxed|fbox)\s*\{"), "\nAnswer: {"),
    (re.compile(r"\\(?:text|textbf|textit|mathrm|mathbf|operatorname)\s*\{([^{}]*)\}"), r"\1"),
    (re.compile(r"<(b|i|u|p|em|strong|code|mark)>([^<]*)</\1>", re.IGNORECASE), r"\2"),
    (re.compile(r"<br ?/?>", re.IGNORECASE), "\n"),
    (re.compile(r"\\[()\[\]]"), ""),
    (re.compile(r"\$"), " "),
    (re.compile(r"\\(?:times|cdot)\b"), "×"),
    (re.compile(r"\\[,;:!% ]"), " "),
    (re.compile(r"^[ \t]*```\w*[ \t]*$", re.MULTILINE), ""),
    (re.compile(r"`+|~~"), ""),
    (re.compile(r"^[ \t]*(?:#{1,6}|>+)[ \t]+", re.MULTILINE), ""),
    (re.compile(r"^[ \t]*[-*+•][ \t]+", re.MULTILINE), ""),
    (re.compile(r"\*+(?=\S)|(?<=\S)\*+"), ""),
    (re.compile(r"(?<!\w)_+(?=\S)|(?<=[^\s_])_+(?!\w)"), ""),
    (re.compile(r"[{}]"), ""),
    (re.compile(r"[^\S\n]+"), " "),
    (re.compile(r" ?\n[ \n]*"), "\n"),
)
_BRACKETS = {"(": ")", "[": "]", "【": "】", "<": ">", "{": "}"}


def visible(text: str) -> str:
    """Without control and zero-width characters, and without halves of surrogate pairs."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(c for c in text if c in "\n\t" or unicodedata.category(c)[0] != "C" or c in "\r")


def has_words(text: str) -> bool:
    """Is there anything to read: more than spaces and invisible characters?"""
    return any(unicodedata.category(c)[0] not in "CZ" for c in text)


def plain(text: str) -> str:
    """NFKC text without markup; line breaks stay, other whitespace is one space."""
    text = _THIN.sub("", visible(_unwrap(text)))
    text = unicodedata.normalize("NFKC", text.translate(_SAME)).translate(_SAME)
    for pattern, kept in _MARKUP:
        text = pattern.sub(kept, text)
    return text.strip()


def trim(text: str) -> str:
    """Without marks, quotes and a pair of brackets around the whole; never empty where `text` was not."""
    bare = text.lstrip(FRONT_MARKS).rstrip(END_MARKS) or text.strip()
    closing = _BRACKETS.get(bare[:1])
    if len(bare) > 2 and closing and bare.endswith(closing) and closing not in bare[1:-1]:
        return trim(bare[1:-1])
    return bare


def fold(text: str) -> str:
    """Plain, in one case and one line, trimmed: equal for texts that say the same."""
    return trim(lower(plain(text)).replace("\n", " "))


def lower(text: str) -> str:
    """Casefolded, and still NFKC."""
    return unicodedata.normalize("NFKC", text.casefold())


def _unwrap(text: str) -> str:
    """What stands in the last <answer>, or in a object's only value (JSON, or a Python dict); else the text."""
    closing = max((m.start() for m in _CLOSING.finditer(text)), default=-1)
    opening = max((m.end() for m in _OPENING.finditer(text, 0, max(closing, 0))), default=-1)
    if opening >= 0:
        return text[opening:closing]
    bare = _FENCED.sub("", text.strip()).strip()
    return _json_value(bare) if bare.startswith("{") and bare.endswith("}") else text


def _json_value(text: str) -> str:
    try:
        value = json.loads(text if '"' in text else text.replace("'", '"'))
    except (ValueError, RecursionError):
        return text
    named = [value[key] for key in _JSON_KEYS if key in value] or list(value.values())
    return str(named[0]) if named and isinstance(named[0], str | int | float) else text
