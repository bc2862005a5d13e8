"""Units a listener or a sum may name, and what they are worth in the first of their kind."""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction

KINDS: dict[str, dict[str, tuple[Fraction | int, str]]] = {  # kind -> unit -> (worth, its spellings)
    "frequency": {"Hz": (1, "hz hertz 赫兹 赫"), "kHz": (1000, "khz kilohertz 千赫兹 千赫"),
                  "MHz": (10**6, "mhz 兆赫")},
    "time": {"s": (1, "s sec secs second seconds 秒 秒钟"),
             "ms": (Fraction(1, 1000), "ms millisecond milliseconds 毫秒"),
             "min": (60, "min mins minute minutes 分钟"), "h": (3600, "h hr hrs hour hours 小时"),
             "day": (86_400, "day days 天")},
    "level": {"dB": (1, "db decibel decibels dbfs 分贝")},
    "tempo": {"BPM": (1, "bpm")},
    "interval": {"semitone": (1, "semitone semitones 半音"), "octave": (12, "octave octaves 八度")},
    "share": {"%": (Fraction(1, 100), "% percent")},
    "length": {"m": (1, "m meter meters metre metres 米"),
               "km": (1000, "km kilometer kilometers kilometre kilometres 公里 千米"),
               "cm": (Fraction(1, 100), "cm centimeter centimeters 厘米"),
               "mm": (Fraction(1, 1000), "mm millimeter millimeters 毫米")},
    "mass": {"g": (1, "g gram grams 克"), "kg": (1000, "kg kilogram kilograms 公斤 千克")},
    "money": {"$": (1, "dollar dollars usd 美元"), "cent": (Fraction(1, 100), "cent cents 美分")},
    "money (EUR)": {"€": (1, "€ euro euros eur 欧元")},
    "money (CNY)": {"¥": (1, "¥ yuan rmb cny 元 块")},
}  # fmt: skip


@dataclass(frozen=True)
class Unit:
    """One `name` is `worth` of the first unit of its kind."""

    name: str
    kind: str
    worth: Fraction


BY_SPELLING = {
    spelling: Unit(name, kind, Fraction(worth))
    for kind, units in KINDS.items()
    for name, (worth, spellings) in units.items()
    for spelling in (*spellings.split(), name.lower())
}
_FOLLOWING = re.compile(
    r"\s?-?(" + "|".join(re.escape(s) for s in sorted(BY_SPELLING, key=len, reverse=True)) + r")(?![A-Za-z])",
    re.IGNORECASE,
)  # fmt: skip


def unit_named(text: str) -> Unit | None:
    """The unit of this spelling."""
    return BY_SPELLING.get(text.strip().lower())


def unit_after(text: str, at: int) -> Unit | None:
    """The unit that stands at text[at:], a space in front of it or none."""
    match = _FOLLOWING.match(text, at)
    return BY_SPELLING[match[1].lower()] if match else None
