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

from mlx_audio_r1.tasks.boolean import POLAR, UNKNOWING, truth_of
from mlx_audio_r1.tasks.item import Item, Verdict
from mlx_audio_r1.tasks.names import SENTENCE_END, Names, answers_after_cues, denied
from mlx_audio_r1.tasks.options import LETTERS
from mlx_audio_r1.tasks.plain import fold, has_words, plain, trim

CHINESE_LETTERS = dict(zip("甲乙丙丁戊己庚辛", "ABCDEFGH", strict=True))
_LETTER = "[A-Za-z甲乙丙丁戊己庚辛]"
_OPEN, _CLOSE = r"[(\[【<\"']", r"[)\]】>\"']"
_BEHIND = r"(?:[.)\]:、,。;!](?=\s|$)|[.)、:,](?=[^\s\d])|\s*[-–—](?=\s)|\n|$)"
_LEADING = re.compile(
    rf"(?:(?:{_OPEN}\s*){{1,2}}({_LETTER})(?:\s*{_CLOSE}){{1,2}}|({_LETTER}){_BEHIND})[.:、,]?\s*"
)
_GLUED = re.compile(rf"({_LETTER})[.)、:,](?=\d)")  # "A.1,200 Hz", where it may also be "G:7"
_VERB = r"(?:is|was|as|because|since|fits?|matches|must be|seems)\b"
_NAMED = re.compile(
    r"(?:\b(?:options?|choices?|choose|chose|select(?:ed)?|pick(?:ed)?|go with|letter)\s*:?\s*"
    r"|[选選][项項]|[选選][择擇]|[选選])\s*:?\s*"
    rf"{_OPEN}?({_LETTER})(?![A-Za-z])(?={_CLOSE}|\s*(?:$|[.,;:!?\n。、\"']|-\s|{_VERB}|(?:and|or)\b|是|因为|和|或))",
    re.IGNORECASE,
)  # "option B", "I choose B", 选B
_SAID = re.compile(
    r"(?:\b(?:it is|it's|that is|that's|say|guess|think|believe|probably|definitely|likely|clearly|must be)\s+"
    r"|(?<!not )\b(?:so|therefore|thus|hence|correct|right|final|verdict|listening)\b[,:]?\s+"
    r"|\b(?:choice|pick|selection|guess|vote)\b(?:\s+(?:is|would be)\b)?\s*[,:]?\s+"
    r"|是|为|為)"
    rf"({_LETTER})(?=\s*(?:$|[.,;!\n。]))",
    re.IGNORECASE,
)  # "I'd say B."
_SUBJECT = re.compile(
    rf"(?:^|[.,;:!?\n。、]\s*|\b(?:so|that|hence|only|and|but) )(?![Ii])({_LETTER})[)\]】]?"
    rf"(?=\s+{_VERB}|\s*(?:[选選][项項]|[项項]|是|对|正确|對|正確|因为))",
    re.IGNORECASE,
)  # "B is right", B正确
_LAST = re.compile(rf"(?:[.!?。]\s+|\n\s*)[(\[]?({_LETTER})[.)\]!。]*$")  # the last sentence is a letter
_LISTED = re.compile(
    rf"(?:(?:maybe|perhaps|possibly|or|and|also)\s+)?({_LETTER})(?=\s*(?:$|[,/&、]|and\b|or\b|和|或))",
    re.IGNORECASE,
)
_BRACKETED = re.compile(rf"[(\[【]\s*({_LETTER})\s*[)\]】]")
_ENUMERATED = re.compile(rf"(?<![A-Za-z])(?:{_OPEN}\s*)?({_LETTER})(?:{_CLOSE}|[.):、])(?=\s|$)")
_NEXT = re.compile(
    rf"\s*(?:[,/&、]|or\b|and\b|和|或)\s*(?:maybe |option )?[(\[]?({_LETTER})"
    r"(?=[)\]]?\s*(?:$|[.,;!?\n。]|or\b|and\b))",
    re.IGNORECASE,
)  # "option B or C"
_REASON = re.compile(
    r"(?:it|it's|its|because|since|as|i|i'm|the|this|that|there|which|due|given|so|final|definitely|sure|not|or|and|is|was|"
    r"must|fits|matches|seems|sounds)\b"
    r"|因|由于|这|我|理由",
    re.IGNORECASE,
)
MOST_WORDS = 4  # of a text behind a letter that may be meant as the option's
_LEADING_ARTICLE = re.compile(r"(?:an?|the|it is|it's|this is)\s+", re.IGNORECASE)
_A_WORD = re.compile(r"[^\W\d_]{2}")


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
        self.polar = {fold(option) for option in options} <= POLAR.keys()

    def resolve(self, text: str) -> Chosen:
        """`text` is plain and not empty."""
        if option := self.names.exact(text):
            return Chosen(option, "option text")
        for rule in (self._cued, self._last, self._leading, self._elsewhere):
            if chosen := rule(text):
                return chosen
        return self._mentioned(text)

    def _cued(self, text: str) -> Chosen | None:
        """Behind "the answer is": what is clear there must agree, what is not clear leaves no answer."""
        found = [self._piece(piece) for piece in answers_after_cues(text)]
        options = {c.option: c for c in found if c.option}
        if len(options) > 1:
            return Chosen(None, "several answers")
        for option, chosen in options.items():
            return Chosen(option, f"answer: {chosen.why}")
        return next((c for c in found if c.why != "no option"), None)

    def _piece(self, text: str) -> Chosen:
        option = self.names.exact(text)
        chosen = Chosen(option, "option text") if option else self._leading(text)
        return chosen or self._elsewhere(text) or self._mentioned(text)

    def _last(self, text: str) -> Chosen | None:
        """A letter by itself at the very end, behind words."""
        mark = _LAST.search(text)
        option = self._option(mark.group(1)) if mark else None
        if mark is None or option is None or not _A_WORD.search(text[: mark.start()]):
            return None
        return self._agreeing(option, text, "letter")

    def _leading(self, text: str) -> Chosen | None:
        """The letter in front, alone or with words behind it."""
        mark = _LEADING.match(text)
        if mark is None:
            return self._glued(text)
        option = self._option(mark.group(1) or mark.group(2))
        if option is None or denied(text, 0, mark.end(1) if mark.group(1) else mark.end(2) + 1):
            return None
        if any(m.start == 0 and m.end > 1 for m in self.names.mentions(text)):
            return None  # the letter belongs to a name: "C: maj"
        rest = text[mark.end() :]
        if not trim(rest) or self._same_letter(rest, option):
            return Chosen(option, "letter")
        if whole := self.names.exact(rest):
            return Chosen(whole, "letter and text" if whole == option else "text against its letter")
        if self.names.exact(mark.group(1) or mark.group(2)) not in (None, option):
            return None  # the letter is another option's text
        if (self._letters(_ENUMERATED, rest) | self._first(_LISTED, rest)) - {option}:
            return Chosen(None, "several letters")
        first = self._begins_with(rest)
        if first not in (None, option):
            return Chosen(None, "letter and text disagree")
        if first is None and self._another_text(rest):
            return Chosen(None, "a letter and no option's text")
        return Chosen(option, "letter and text" if first else "letter")

    def _glued(self, text: str) -> Chosen | None:
        """A letter with its option right behind it, where that begins with a digit."""
        mark = _GLUED.match(text)
        option = self._option(mark.group(1)) if mark else None
        if mark is None or option is None or self.names.exact(text[mark.end() :]) != option:
            return None
        return Chosen(option, "letter and text")

    def _another_text(self, rest: str) -> bool:
        """Is it a few words that are meant as an option, though no option has them?"""
        said = SENTENCE_END.split(rest.strip())[0]
        few = _A_WORD.search(said) is not None and len(said.split()) <= MOST_WORDS
        return few and not _REASON.match(rest) and not self.names.named(rest)

    def _elsewhere(self, text: str) -> Chosen | None:
        """One letter that is said to be the one, or else one in brackets."""
        said = set().union(*(self._letters(pattern, text) for pattern in (_NAMED, _SAID, _SUBJECT)))
        letters = said or self._letters(_BRACKETED, text)
        if len(letters) > 1:
            return Chosen(None, "several letters")
        return self._agreeing(letters.pop(), text, "one letter") if letters else None

    def _agreeing(self, option: str, text: str, why: str) -> Chosen:
        """The option of a letter, unless the text names only others."""
        named = self.names.named(text)
        return (
            Chosen(None, "letter and text disagree") if named and option not in named else Chosen(option, why)
        )

    def _mentioned(self, text: str) -> Chosen:
        named = self.names.named(UNKNOWING.sub(" ", text) if self.polar else text)
        if len(named) == 1:
            return Chosen(named[0], "one option named")
        if opening := self.names.opening(text):
            return Chosen(opening, "option text first")
        if self.polar and (truth := truth_of(text)) is not None:
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
        marks = [m for m in pattern.finditer(text) if not denied(text, m.start(1), m.end())]
        marks += [later for m in marks if (later := _NEXT.match(text, m.end()))]
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
