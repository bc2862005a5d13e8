"""Multiple choice: which option does a reply choose? Deterministic; what is not clear is not guessed.

Rules in order: the option's own text; what follows "the answer is"; the letter a reply begins with; one
letter chosen elsewhere; one option named. A letter and a text that contradict each other count as the text
when it is all that follows, and as nothing otherwise. The surprise: a letter needs a mark behind it, or
"A bell" would choose A.
"""

# ruff: noqa: RUF001  (full-width marks are meant)
from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

from mlx_audio_r1.tasks.boolean import POLAR, truth_of
from mlx_audio_r1.tasks.item import Item, Verdict
from mlx_audio_r1.tasks.names import Names, answers_after_cues, denied
from mlx_audio_r1.tasks.options import LETTERS
from mlx_audio_r1.tasks.plain import fold, has_words, plain, trim

CHINESE_LETTERS = dict(zip("甲乙丙丁戊己庚辛", "ABCDEFGH", strict=True))
_LETTER = "[A-Za-z甲乙丙丁戊己庚辛]"
_OPEN, _CLOSE = r"[(\[【<\"']", r"[)\]】>\"']"
_BEHIND = r"(?:[.)\]:、,。](?=\s|$)|[.)、:,](?=[^\s\d])|\s*[-–—](?=\s)|\n|$)"
_LEADING = re.compile(rf"(?:{_OPEN}\s*({_LETTER})\s*{_CLOSE}|({_LETTER}){_BEHIND})[.:、,]?\s*")
_NAMED = re.compile(
    r"(?:\b(?:options?|choices?|choose|chose|select(?:ed)?|pick(?:ed)?|go with|letter)\s*:?\s*"
    r"|选项|选择|我选|应选|选)\s*"
    rf"{_OPEN}?({_LETTER})(?![A-Za-z])(?={_CLOSE}|\s*(?:$|[.,;:!?\n。、\"']|-\s|(?:is|was|as|because|since|fits?|"
    r"matches|and|or)\b|是|因为|和|或))",
    re.IGNORECASE,
)
_FOLLOWED = re.compile(rf"({_LETTER})(?=\s+(?:is|was|as|because|since|fits|matches)\b|是|因为)", re.IGNORECASE)
_LISTED = re.compile(rf"({_LETTER})(?=\s*(?:$|[,/&、]|and\b|or\b|和|或))", re.IGNORECASE)
_BRACKETED = re.compile(rf"[(\[【]\s*({_LETTER})\s*[)\]】]")
_ENUMERATED = re.compile(rf"(?<![A-Za-z])(?:{_OPEN}\s*)?({_LETTER})(?:{_CLOSE}|[.):、])(?=\s|$)")
_LEADING_ARTICLE = re.compile(r"(?:an?|the|it is|it's|this is)\s+", re.IGNORECASE)


@dataclass(frozen=True)
class Choice:
    """`gold` are the indices of the right options: several where an option stands twice."""

    options: tuple[str, ...]
    gold: tuple[int, ...]

    @property
    def gold_text(self) -> str:
        return self.options[self.gold[0]]


@dataclass(frozen=True)
class Chosen:
    """An option's text, or None; `why` is the rule that decided."""

    option: str | None
    why: str


def verify_choice(answer: str, item: Item) -> Verdict:
    """Does the answer choose a right option?"""
    target: Choice = item.target
    chosen = choose(answer, target.options)
    right = chosen.option is not None and chosen.option == _resolver(target.options).option(target.gold[0])
    return Verdict(float(right), chosen.option, chosen.why)


def choose(answer: str, options: tuple[str, ...]) -> Chosen:
    """The option a reply chooses; of options that say the same, the first."""
    if not has_words(answer):
        return Chosen(None, "empty")
    return _resolver(options).resolve(plain(answer))


@lru_cache(maxsize=256)  # the samples of a prompt come one after the other
def _resolver(options: tuple[str, ...]) -> _Resolver:
    return _Resolver(options)


class _Resolver:
    def __init__(self, options: tuple[str, ...]):
        self.options, self.names = options, Names.of(options)

    def resolve(self, text: str) -> Chosen:
        """`text` is plain and not empty."""
        if option := self.names.exact(text):
            return Chosen(option, "option text")
        for rule in (self._cued, self._leading, self._elsewhere):
            if chosen := rule(text):
                return chosen
        return self._mentioned(text)

    def _cued(self, text: str) -> Chosen | None:
        """Behind "the answer is"; several of these must agree."""
        found = []
        for piece in answers_after_cues(text):
            option = self.names.exact(piece)
            chosen = Chosen(option, "option text") if option else self._leading(piece)
            chosen = chosen or self._followed(piece) or self._elsewhere(piece) or self._mentioned(piece)
            found += [chosen] if chosen.option else []
        if len({c.option for c in found}) > 1:
            return Chosen(None, "several answers")
        return Chosen(found[-1].option, f"answer: {found[-1].why}") if found else None

    def _leading(self, text: str) -> Chosen | None:
        """The letter in front, alone or with words behind it."""
        mark = _LEADING.match(text)
        option = self._option(mark.group(1) or mark.group(2)) if mark else None
        if mark is None or option is None or any(m.start == 0 and m.end > 1 for m in self.names.mentions(text)):
            return None
        rest = text[mark.end() :]
        if not trim(rest) or self._same_letter(rest, option):
            return Chosen(option, "letter")
        if whole := self.names.exact(rest):
            return Chosen(whole, "letter and text" if whole == option else "text against its letter")
        if (self._letters(_ENUMERATED, rest) | self._first(_LISTED, rest)) - {option}:
            return Chosen(None, "several letters")
        first = self._begins_with(rest)
        if first not in (None, option):
            return Chosen(None, "letter and text disagree")
        return Chosen(option, "letter and text" if first else "letter")

    def _followed(self, text: str) -> Chosen | None:
        """ "B because it rings", behind a cue."""
        first = self._first(_FOLLOWED, text)
        return Chosen(first.pop(), "letter") if first else None

    def _elsewhere(self, text: str) -> Chosen | None:
        """One letter behind "option" or "choose", or in brackets."""
        for pattern in (_NAMED, _BRACKETED):
            letters = self._letters(pattern, text)
            if len(letters) > 1:
                return Chosen(None, "several letters")
            if letters:
                option, named = letters.pop(), self.names.named(text)
                if named and option not in named:
                    return Chosen(None, "letter and text disagree")
                return Chosen(option, "one letter")
        return None

    def _mentioned(self, text: str) -> Chosen:
        named = self.names.named(text)
        if len(named) == 1:
            return Chosen(named[0], "one option named")
        if {fold(o) for o in self.options} <= POLAR.keys() and (truth := truth_of(text)) is not None:
            agreeing = [o for o in self.options if POLAR[fold(o)] is truth]
            if len({fold(o) for o in agreeing}) == 1:
                return Chosen(self.option(self.options.index(agreeing[0])), "yes or no")
        return Chosen(None, "several options" if named else "no option")

    def option(self, index: int) -> str | None:
        """The first of the options that say the same as this one."""
        return self.names.by_key.get(self.names.key(self.options[index]))

    def _option(self, letter: str) -> str | None:
        index = LETTERS.find(CHINESE_LETTERS.get(letter, letter).upper())
        return self.option(index) if 0 <= index < len(self.options) else None

    def _letters(self, pattern: re.Pattern[str], text: str) -> set[str]:
        """Options whose letters the text gives by `pattern` and does not deny."""
        marks = [m for m in pattern.finditer(text) if not denied(text, m.start(), m.end())]
        return {option for m in marks if (option := self._option(m.group(1)))}

    def _first(self, pattern: re.Pattern[str], text: str) -> set[str]:
        """The option of the letter that the text begins with, if it does so by `pattern`."""
        mark = pattern.match(text)
        return {option} if mark and (option := self._option(mark.group(1))) else set()

    def _same_letter(self, rest: str, option: str) -> bool:
        letter = trim(rest)
        return len(letter) == 1 and self._option(letter) == option

    def _begins_with(self, rest: str) -> str | None:
        article = _LEADING_ARTICLE.match(rest)
        for text in (rest, rest[article.end() :] if article else ""):
            for mention in self.names.mentions(text):
                if mention.start <= 1:
                    return mention.name
        return None
