"""Which of several names does a text give? The base of options, labels, yes and no.

A name counts where it stands at word boundaries, outside a longer name and not denied: "bell, not drum"
names a bell, "it isn't a drum" names nothing. The surprise: names that differ in case or marks alone
("Do", "do") are then told apart by them; otherwise neither matters.
"""

# ruff: noqa: RUF001  (other dashes are meant)
from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest

from mlx_audio_r1.tasks.plain import fold, lower, plain, trim

CLAUSE_ENDS = re.compile(
    r"[,;:!?\n。、—]|\.(?!\d)|\b(?:but|so|hence|therefore|thus)\b|但|而是|所以|因此", re.IGNORECASE
)
SENTENCE_END = re.compile(r"(?<!\b\w)[.!?](?=\s|$)|[。!?\n]")  # not behind a letter by itself: "B. bell"
LOOK_BACK, LOOK_AHEAD = 80, 40  # characters of a clause that can deny a name
NO_DENIAL = re.compile(
    r"\bno doubt\b|\bwithout (?:a |any )?doubt\b|\bnot (?:only|just)\b|\bnothing (?:but|other than)\b"
    r"|\bno other than\b|不仅|不只|不错|没错|非常|毫无疑问|无疑",
    re.IGNORECASE,
)
MOST_CUES = 10
_ALL_BUT = re.compile(r"\b(?:anything|everything|everyone|all) but\b", re.IGNORECASE)
_DENIED_BEFORE = re.compile(
    r"\b(?:not|no|never|neither|nor|without|cannot|rather than|instead of|except|excluding|excludes?|"
    r"unlike|unlikely|hardly|scarcely|doubt|rules? out|ruled out|ruling out|wrong|incorrect)\b|n't\b"
    r"|(?:不|没|无|非|未|排除|除了|错误)[\w\s\"'(]{0,5}$",
    re.IGNORECASE,
)
_DENIED_AFTER = re.compile(
    r"[\s)\]\"'】]{0,3}(?:[吗嗎么]?\?|"
    r"(?:(?:it|this|that) )?(?:is|was|are|were|does|do|did|could|would|will|seems?|must)\s?(?:not|n't|never)\b"
    r"|(?:cannot|can't)\b"
    r"|(?:(?:is|was|are|were|seems?) )?"
    r"(?:wrong|incorrect|unlikely|impossible|false|absent|missing|excluded|ruled out)\b"
    r"|[,;:] no[.!]*\Z"
    r"|(?:[选選]?[项項])?是?(?:不对|不對|不是|错|錯|排除|不可能|不正确|不正確|不符))",
    re.IGNORECASE,
)
CUE = re.compile(
    r"(?:\b(?:answers?|ans\b\.?)(?: (?:choice|option|letter))?"
    r"|\b(?:correct|right|best|final) (?:option|choice|one)\b)"
    r"(?: (?:is|was|would be|should be|must be))?(?: (?:option|choice))?\s*(?:[:=–—]|-(?=\s))?\s*"
    r"|\b(?:response|result|output|conclusion)\s*[:=]\s*"
    r"|(?:答案|结果|結果|正确选项|正確選項|正确的|正確的)(?:应该|應該|应|應|就)?(?:选项|選項)?[是为為选選]?\s*[:=]?\s*"
    r"(?:[选選][项項]?)?|答\s*:\s*",
    re.IGNORECASE,
)  # what follows is the answer
_WORD = re.compile(r"(?:[-+](?=\.?\d))?[\w#%/'°]+(?:[.:]\w+)*")
_UNIT = re.compile(r"((?<!\w)\d+)(?=[a-z%°])", re.IGNORECASE)
_TAKEN_BACK = re.compile(
    r"\b(?:wait|actually|correction|sorry|on second thoughts?|or maybe|or perhaps|no)\b|不对|等等|其实|更正",
    re.IGNORECASE,
)
_ARTICLE = re.compile(r"(?:(?:an?|the|it is|it's|this is)\s+|是|一个|一种)(?=\S)", re.IGNORECASE)


@dataclass(frozen=True)
class Mention:
    """`name` stands at text[start:end]."""

    name: str
    start: int
    end: int


class Names:
    """Names and their spellings, ready to be found."""

    def __init__(self, spellings: Mapping[str, Sequence[str]]):
        """name -> ways to write it, the name itself included or not as the caller likes."""
        pairs = [(name, way) for name, ways in spellings.items() for way in ways if way.strip()]
        self.key = _telling_apart(pairs)
        self.by_key: dict[str, str] = {}
        for name, way in pairs:
            if key := self.key(way):
                self.by_key.setdefault(key, name)
        self.by_words = _by_words(self.by_key)
        self.by_bare = _by_bare(self.by_key)

    @classmethod
    def of(cls, options: Iterable[str]) -> Names:
        """Names that are written one way each; of equal ones the first stands for all."""
        return cls({option: (option,) for option in options})

    def exact(self, text: str) -> str | None:
        """The name that the whole text is, an article in front of either aside."""
        key = self.key(text)
        bare = _without_article(key)
        return (
            self.by_key.get(key)
            or self.by_key.get(bare)
            or self.by_bare.get(bare)
            or self.by_words.get(_words(key))
        )

    def mentions(self, text: str) -> list[Mention]:
        """Every name that the text gives and does not deny, in order."""
        text = self.prepared(text)
        found = [m for key, name in self.by_key.items() for m in _occurrences(text, key, name)]
        return [m for m in _longest(found) if not denied(text, m.start, m.end)]

    def named(self, text: str) -> list[str]:
        """The different names among the mentions, in order."""
        return list(dict.fromkeys(m.name for m in self.mentions(text)))

    def opening(self, text: str) -> str | None:
        """The name that the first sentence is, where what follows does not take it back."""
        end = SENTENCE_END.search(text)
        first = self.exact(text[: end.start()]) if end and end.group() != "?" else None
        rest = text[end.end() :] if end else ""
        if first is None or _TAKEN_BACK.search(rest):
            return None
        others = {self.exact(sentence) for sentence in SENTENCE_END.split(rest)} - {first, None}
        return None if others else first

    def prepared(self, text: str) -> str:
        """The text as mentions are looked for in it; its length may change."""
        return lower(plain(text)) if self.key is fold else plain(text)


def answers_after_cues(text: str) -> list[str]:
    """What follows each "the answer is" of a plain text, up to the end of the sentence; the last few."""
    found = []
    cues = list(CUE.finditer(text))[-MOST_CUES:]
    for cue, later in zip_longest(cues, cues[1:]):
        end = SENTENCE_END.search(text, cue.end(), later.start() if later else len(text))
        asked = end is not None and end.group() == "?"
        if not asked and not denied_before(text, cue.start()):
            stop = end.start() if end else later.start() if later else len(text)
            found.append(text[cue.end() : stop].strip())
    return [piece for piece in found if trim(piece)]


def denied(text: str, start: int, end: int) -> bool:
    """Does the clause around text[start:end] say that it is not so?"""
    return denied_before(text, start) or bool(_DENIED_AFTER.match(text[end : end + LOOK_AHEAD]))


def denied_before(text: str, start: int) -> bool:
    """Is there a "not" between the beginning of the clause and `start`?"""
    before = _ALL_BUT.sub("not", text[max(0, start - LOOK_BACK) : start])
    ends = [mark.end() for mark in CLAUSE_ENDS.finditer(before)]
    clause = NO_DENIAL.sub(" ", before[ends[-1] if ends else 0 :])
    return bool(_DENIED_BEFORE.search(clause))


def _telling_apart(pairs: Sequence[tuple[str, str]]) -> Callable[[str], str]:
    """The loosest way to compare texts that never takes two names for one."""
    for key in (fold, lambda text: trim(plain(text)), plain):
        owners: dict[str, set[str]] = {}
        for name, way in pairs:
            owners.setdefault(key(way), set()).add(name.strip())
        if all(len(names) == 1 for names in owners.values()):
            return key
    return plain


def _by_words(by_key: Mapping[str, str]) -> dict[str, str]:
    """words of a key -> name, where the words alone still tell the names apart: "yes twice" is "yes, twice"."""
    made = {_words(key): name for key, name in by_key.items()}
    return made if len(made) == len(by_key) and "" not in made else {}


def _by_bare(by_key: Mapping[str, str]) -> dict[str, str]:
    """keys without their article -> name, where that still tells the names apart: "bell" is "a bell"."""
    made = {_without_article(key): name for key, name in by_key.items()}
    return made if len(made) == len(by_key) and "" not in made else {}


def _without_article(key: str) -> str:
    article = _ARTICLE.match(key)
    return key[article.end() :] if article else key


def _words(key: str) -> str:
    """With a gap between a number and its unit: "120bpm" is "120 bpm"."""
    return " ".join(_WORD.findall(_UNIT.sub(r"\1 ", key)))


def _occurrences(text: str, key: str, name: str) -> Iterable[Mention]:
    at = text.find(key) if key else -1
    while at >= 0:
        end = at + len(key)
        if not _joined(text, at) and not _joined(text, end):
            yield Mention(name, at, end)
        at = text.find(key, at + 1)


def _joined(text: str, at: int) -> bool:
    """Do the characters on both sides of `at` belong to one word? Chinese has no gaps: never there."""
    if not 0 < at < len(text):
        return False
    before, after = text[at - 1], text[at]
    if after in ".,-/" and before.isdigit():  # 3 is not named by 3.5, 3,000, 3-4 or 3/4
        return text[at + 1 : at + 2].isdigit()
    if before in ".,-/" and after.isdigit():
        return at == 1 or text[at - 2].isdigit() or before in ".-"
    return _in_word(before) and _in_word(after)


def _in_word(character: str) -> bool:
    return (character.isalnum() or character in "_#") and not "\u2e80" <= character <= "\u9fff"


def _longest(found: list[Mention]) -> list[Mention]:
    """Without those that lie inside another."""
    kept: list[Mention] = []
    for mention in sorted(found, key=lambda m: (m.start, -m.end)):
        if not kept or mention.end > kept[-1].end:
            kept.append(mention)
    return kept
