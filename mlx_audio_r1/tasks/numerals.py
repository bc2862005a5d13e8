"""Numbers as they are written: 1,234.5, 3/4, 2½, 10^3, twenty-one, three quarters, 二十一, 三分之二.

    find_numbers("1,200 Hz or two thirds")   # 1200 at [0, 5), 2/3 at [12, 22)

Values are exact fractions. The surprise: a lone "one" and 一 are weak, because they often count nothing
("this one", 一个); ordinals are no numbers.
"""

# ruff: noqa: RUF001  (full-width marks are meant)
from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction

from mlx_audio_r1.tasks.units import unit_after

MOST_DIGITS, MOST_EXPONENT = 60, 60  # more than any answer has; keeps hostile replies cheap


@dataclass(frozen=True)
class Number:
    """`value` stands at text[start:end]. `weak`: only when there is no other number."""

    value: Fraction
    start: int
    end: int
    digits: bool = False
    weak: bool = False


def find_numbers(text: str) -> list[Number]:
    """All numbers of a plain text, in order."""
    digits = list(_written(text))
    free = _blanked(text, digits)
    found = sorted([*digits, *_spelled(free), *_chinese(free)], key=lambda n: n.start)
    return _with_parts(text, found)


def _with_parts(text: str, numbers: list[Number]) -> list[Number]:
    """ "three and three quarters" is one number."""
    joined: list[Number] = []
    for number in numbers:
        whole = joined[-1] if joined else None
        part = 0 < number.value < 1 and number.value.denominator > 1
        if whole and part and whole.value.denominator == 1 and text[whole.end : number.start] == " and ":
            joined[-1] = Number(whole.value + number.value, whole.start, number.end, whole.digits)
        else:
            joined.append(number)
    return joined


def spelled_out(text: str) -> str:
    """½ and its like as fractions; NFKC would join 2½ into 21/2."""
    for sign, fraction in VULGAR.items():
        text = re.sub(rf"(?<=\d)\s?{sign}", f" {fraction}", text).replace(sign, fraction)
    return text


# In digits

VULGAR = {"½": "1/2", "⅓": "1/3", "⅔": "2/3", "¼": "1/4", "¾": "3/4", "⅕": "1/5", "⅖": "2/5", "⅗": "3/5",
          "⅘": "4/5", "⅙": "1/6", "⅚": "5/6", "⅛": "1/8", "⅜": "3/8", "⅝": "5/8", "⅞": "7/8"}  # fmt: skip
_DECIMAL = r"(?:(?:\d{1,3}(?:,\d{3}){1,8}(?![\d,])|\d+)(?:\.\d+)?|\.\d+)"
_WRITTEN = re.compile(
    rf"(?<![A-Za-z0-9_.])(?P<sign>[-+](?=\.?\d))?(?:"
    rf"(?:(?P<whole>\d+)[ -])?(?P<over>{_DECIMAL})\s?/\s?(?P<under>{_DECIMAL})(?![/\d])"
    rf"|10\s?(?:\^|\*\*)\s?\(?(?P<ten>[-+]?\d{{1,4}})\)?"
    rf"|(?P<plain>{_DECIMAL})(?:[eE](?P<e>[-+]?\d{{1,4}})(?![\w.])"
    rf"|\s?[×x*]\s?10\s?(?:\^|\*\*)\s?\(?(?P<power>[-+]?\d{{1,4}})\)?)?"
    rf"(?:\s?(?P<scale>万|亿|千|百|k(?![A-Za-z])|thousand\b|million\b|billion\b|trillion\b))?)",
    re.IGNORECASE,
)
_INSIDE = re.compile(r"第$|\d[:/_]$")  # an ordinal, a time, a date
_MORE_DIGITS = re.compile(r"[.:/_]\d")
_LETTERS = re.compile(r"(?!x\b)[A-Za-z]+", re.IGNORECASE)


def _written(text: str) -> Iterator[Number]:
    for match in _WRITTEN.finditer(text):
        before = text[max(0, match.start() - 20) : match.start()]
        value = _value(match)
        if value is not None and not _INSIDE.search(before) and not _goes_on(text, match.end()):
            signed = _SIGN.search(before) or (match["sign"] == "-" and not before.rstrip()[-1:].isdigit())
            yield Number(-value if signed else value, match.start(), match.end(), digits=True)


def _goes_on(text: str, at: int) -> bool:
    """Do the digits belong to a word: 3rd, 3D, 1e999? Units and "3x" are none."""
    if _MORE_DIGITS.match(text, at):
        return True
    word = _LETTERS.match(text, at)
    return bool(word) and unit_after(text, at) is None


def _value(match: re.Match[str]) -> Fraction | None:
    """The exact value; None for more digits than an answer has, and for a division by zero."""
    power = int(match["e"] or match["power"] or match["ten"] or 0)
    if len(match.group()) > MOST_DIGITS or abs(power) > MOST_EXPONENT:
        return None
    if match["over"]:
        under = _decimal(match["under"])
        return int(match["whole"] or 0) + _decimal(match["over"]) / under if under else None
    scale = {**SCALES, "k": 1000, "万": 10**4, "亿": 10**8, "千": 1000, "百": 100}.get(
        (match["scale"] or "").lower(), 1
    )
    return _decimal(match["plain"] or "1") * Fraction(10) ** power * scale


def _decimal(text: str) -> Fraction:
    return Fraction(text.replace(",", ""))


# In English words

_SMALL = {w: i for i, w in enumerate((
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve",
    "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen",
))}  # fmt: skip
_TENS = {"twenty": 20, "thirty": 30, "forty": 40, "fifty": 50, "sixty": 60, "seventy": 70, "eighty": 80,
         "ninety": 90}  # fmt: skip
SCALES = {"hundred": 100, "thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12}
_PARTS = {"half": 2, "halves": 2, "third": 3, "thirds": 3, "quarter": 4, "quarters": 4, "fourth": 4,
          "fourths": 4, "fifth": 5, "fifths": 5, "sixth": 6, "sixths": 6, "eighth": 8, "eighths": 8,
          "tenth": 10, "tenths": 10, "hundredth": 100, "hundredths": 100, "thousandth": 1000,
          "thousandths": 1000}  # fmt: skip
_ALONE = {"none": Fraction(0), "once": Fraction(1), "twice": Fraction(2), "thrice": Fraction(3),
          "dozen": Fraction(12), "half": Fraction(1, 2), "quarter": Fraction(1, 4)}  # fmt: skip
_WORD = f"(?:{'|'.join(sorted([*_SMALL, *_TENS, *SCALES], key=len, reverse=True))})"
_RUN = re.compile(rf"\b(?:an? (?=hundred|thousand|million))?{_WORD}(?:(?: and |[ -]){_WORD})*\b", re.IGNORECASE)
_DECIMALS = re.compile(rf" point((?: (?:{'|'.join(_SMALL)})){{1,20}})\b", re.IGNORECASE)
_PART = re.compile(rf"[ -]({'|'.join(_PARTS)})\b", re.IGNORECASE)
_AND_PART = re.compile(r" and (?:an? )?(half|quarter|third)\b", re.IGNORECASE)
_ALONE_WORD = re.compile(rf"\b({'|'.join(_ALONE)})\b(?! notes?\b)", re.IGNORECASE)
_SIGN = re.compile(r"(?:\bnegative |(?<![\w)] )\bminus |负)$", re.IGNORECASE)  # "10 minus 5" has none
_NO_COUNT = re.compile(
    r"\b(?:the|this|that|first|second|third|last|next|each|every|no|which|other|another|any|some) $",
    re.IGNORECASE,
)


def _spelled(text: str) -> Iterator[Number]:
    runs: list[Number] = []
    for run in _RUN.finditer(text):
        if not runs or run.start() >= runs[-1].end:  # else it is the decimals of the number before
            runs += _read_run(text, run)
    yield from runs
    for match in _ALONE_WORD.finditer(_blanked(text, runs)):
        word = match[1].lower()
        yield Number(_ALONE[word], match.start(), match.end(), weak=word not in ("twice", "thrice", "dozen"))


def _read_run(text: str, run: re.Match[str]) -> Iterator[Number]:
    """The numbers of a run of number words: "twenty one" is one, "one two" are two."""
    total = current = 0
    open_ = False  # a number has begun
    start = end = run.start()
    joint = ""
    for word in re.finditer(r"[A-Za-z]+", run.group()):
        name = word.group().lower()
        if name in ("a", "an", "and"):
            joint = name
            continue
        grown = _extend(total, current, name, joint) if open_ else _begin(name)
        if grown is None:
            yield _finished(text, start, end, total + current, last=False)
            start, grown = run.start() + word.start(), _begin(name)
        (total, current), open_, joint = grown, True, ""
        end = run.start() + word.end()
    yield _finished(text, start, end, total + current, last=True)


def _begin(name: str) -> tuple[int, int]:
    """(finished thousands, what is below them) after the first word."""
    if name in SCALES:
        return (0, 100) if name == "hundred" else (SCALES[name], 0)
    return 0, _SMALL.get(name, _TENS.get(name, 0))


def _extend(total: int, current: int, name: str, joint: str) -> tuple[int, int] | None:
    """The same after one more word, None where it begins another number."""
    if name == "hundred":
        return (total, current * 100) if 0 < current < 100 else None
    if name in SCALES:
        fits = current and (not total or total % (SCALES[name] * 1000) == 0)
        return (total + current * SCALES[name], 0) if fits else None
    value = _SMALL.get(name, _TENS.get(name, 0))
    room = (
        100
        if (current or total) and current % 100 == 0
        else 10
        if current % 10 == 0 and current % 100 >= 20
        else 0
    )
    if not 0 < value < room or (joint and room == 10):
        return None
    return total, current + value


def _finished(text: str, start: int, end: int, whole: int, last: bool) -> Number:
    """With decimals, a part and a sign where they stand beside it."""
    value, word = Fraction(whole), text[start:end].lower()
    if last and (match := _DECIMALS.match(text, end)):
        digits = "".join(str(_SMALL[w]) for w in match[1].lower().split())
        value, end = Fraction(f"{whole}.{digits}"), match.end()
    elif last and (match := _PART.match(text, end)):
        value, end = value / _PARTS[match[1].lower()], match.end()
    elif last and (match := _AND_PART.match(text, end)):
        value, end = value + Fraction(1, _PARTS[match[1].lower()]), match.end()
    elif last and text[end : end + 6].lower() == " dozen":
        value, end = value * 12, end + 6
    before = text[max(0, start - 20) : start]
    negative = bool(_SIGN.search(before))
    weak = word == "one" and value == 1 and not negative
    if weak and (_NO_COUNT.search(before) or text[end : end + 3] == " of"):
        return Number(value, start, start, weak=True)  # counts nothing: dropped by its empty span
    return Number(-value if negative else value, start, end, weak=weak)


# In Chinese words

_ZH_DIGITS = {
    "零": 0,
    "〇": 0,
    "一": 1,
    "二": 2,
    "两": 2,
    "三": 3,
    "四": 4,
    "五": 5,
    "六": 6,
    "七": 7,
    "八": 8,
    "九": 9,
}
_ZH_SCALES = {"十": 10, "百": 100, "千": 1000}
_ZH_TAILS = {"百": 100, "千": 1000, "万": 10**4}
_ZH_LARGE = {"万": 10**4, "亿": 10**8}
_ZH = "[零〇一二两三四五六七八九十百千万亿]"
_ZH_NUMBER = re.compile(
    rf"(?<!第)(?P<sign>负)?(?:(?P<under>百|{_ZH}{{1,20}})分之(?P<over>{_ZH}{{1,20}}(?:点[零〇一二三四五六七八九]{{1,20}})?)"
    rf"|(?P<whole>{_ZH}{{1,20}})(?:点(?P<decimals>[零〇一二三四五六七八九]{{1,20}})|(?P<and_half>个半))?|(?P<half>一?半)(?!音))"
)
_ZH_NO_COUNT = re.compile(r"一[样起些直般定致下旦共切边]|十分|万一|千万(?![元人])|半音")
_ZH_NOT_BEHIND = "第唯统之某每另同万"


def _chinese(text: str) -> Iterator[Number]:
    for match in _ZH_NUMBER.finditer(text):
        start, end = match.span()
        if _ZH_NO_COUNT.match(text, start) or (
            end - start == 1 and text[start - 1 : start] in tuple(_ZH_NOT_BEHIND)
        ):
            continue
        value = _zh_value(match)
        if value is not None:
            yield Number(-value if match["sign"] else value, start, end, weak=match.group() == "一")


def _zh_value(match: re.Match[str]) -> Fraction | None:
    if match["half"]:
        return Fraction(1, 2)
    if match["under"]:
        under = _zh_integer(match["under"])
        whole, _, decimals = match["over"].partition("点")
        return _zh_decimal(whole, decimals) / under if under else None
    value = _zh_decimal(match["whole"], match["decimals"])
    return value + Fraction(1, 2) if match["and_half"] else value


def _zh_decimal(whole: str, decimals: str | None) -> Fraction:
    digits = "".join(str(_ZH_DIGITS[c]) for c in decimals or "零")
    return Fraction(f"{_zh_integer(whole)}.{digits}")


def _zh_integer(text: str) -> int:
    """二十一 -> 21; digits alone are read one by one: 二〇二四 -> 2024."""
    if all(c in _ZH_DIGITS for c in text):
        return int("".join(str(_ZH_DIGITS[c]) for c in text))
    total = section = digit = 0
    for c in text:
        if c in _ZH_DIGITS:
            digit = _ZH_DIGITS[c]
        elif c in _ZH_SCALES:
            section += (digit or 1) * _ZH_SCALES[c]
            digit = 0
        else:
            total = (total + section + digit or 1) * _ZH_LARGE[c]
            section = digit = 0
    if len(text) > 1 and digit and text[-2] in _ZH_TAILS:  # 一百二 is 120
        digit *= _ZH_TAILS[text[-2]] // 10
    return total + section + digit


def _blanked(text: str, numbers: list[Number]) -> str:
    """The text with the numbers in digits taken out, every position kept."""
    pieces, at = [], 0
    for number in numbers:
        pieces += [text[at : number.start], "\0" * (number.end - number.start)]
        at = number.end
    return "".join([*pieces, text[at:]])
