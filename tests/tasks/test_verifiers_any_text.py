"""What no text may do: crash a verifier, score without being understood, change with its clothes."""

import time
import unicodedata
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlx_audio_r1.tasks.boolean import Boolean
from mlx_audio_r1.tasks.choice import Choice, choose
from mlx_audio_r1.tasks.item import Item, Verdict
from mlx_audio_r1.tasks.label import Label
from mlx_audio_r1.tasks.lexicon import grounding
from mlx_audio_r1.tasks.number import Quantity, read_number
from mlx_audio_r1.tasks.options import LETTERS
from mlx_audio_r1.tasks.rewards import RewardConfig, reward
from mlx_audio_r1.tasks.verify import USUAL_MOST, verify
from mlx_audio_r1.tasks.wording import METRICS, Wording

WORDS = ["drum", "bell", "plucked string", "sine tone", "noise", "click", "speech", "music"]
TARGETS = [
    Choice(("drum", "bell", "a bell and a drum", "C", "是"), (1,)),
    Quantity(Fraction(7), "Hz", Fraction(1, 10)),
    Label("valid", ("valid", "invalid"), {"invalid": ("not valid", "无效")}),
    Label("angry"),
    Boolean(True),
    *(Wording(("the cat", "猫"), metric) for metric in METRICS),
]
ITEMS = [Item("x", (), target) for target in TARGETS]
ids = [f"{type(t).__name__}-{getattr(t, 'metric', '')}" for t in TARGETS]
SCRAPS = [
    *(
        "answer is ",
        "答案是",
        "(",
        ")",
        "B",
        "b. ",
        "bell",
        "drum",
        " not ",
        "不",
        "yes",
        "no",
        "7",
        "3/4",
        ",",
        "½",
    ),
    *(
        "1,234",
        "e9",
        "-",
        "one",
        " hundred",
        "二",
        "分之",
        "\\boxed{",
        "}",
        "**",
        "_",
        "`",
        "</think>",
        "<think>",
    ),
    *("<answer>", "</answer>", "{", '"', "\n", " or ", "option ", "?", "Hz", "%", "\u200b", "\x00", "\ud800"),
    *("İ", "ß", "ﷺ"),
]
TEXT = st.one_of(st.text(max_size=200), st.lists(st.sampled_from(SCRAPS), max_size=25).map("".join))
CLOTHES = {
    "bold": "**{}**", "code": "`{}`", "heading": "### {}", "quote": "> {}", "list": "- {}", "quotes": '"{}"',
    "curly": "“{}”", "boxed": "\\boxed{{{}}}", "tags": "<answer>{}</answer>", "space": "\n  {} \t\n",
    "invisible": "\u200b{}\ufeff", "stop": "{}.", "Chinese stop": "{}。", "announced": "The answer is {}",
    "colon": "Answer: {}", "Chinese": "答案是{}", "html": "<b>{}</b>",
}  # fmt: skip
WRITINGS = [
    "{letter}",
    "{small}",
    "({letter})",
    "{letter}. {text}",
    "({letter}) {text}",
    "{letter}: {text}",
    "{text}",
]


@pytest.mark.parametrize("item", ITEMS, ids=ids)
@given(text=TEXT)
@settings(max_examples=30, deadline=None)
def test_no_text_crashes_a_verifier_and_none_scores_without_being_understood(item, text):
    verdict = verify(text, item)
    assert 0.0 <= verdict.correct <= 1.0 and verdict.why
    assert not (verdict.unparsed and verdict.correct)
    assert verify(text, item) == verdict


@given(text=TEXT, truncated=st.booleans(), thinking=st.booleans())
@settings(max_examples=40, deadline=None)
def test_no_reply_gets_more_than_the_whole_reward(text, truncated, thinking):
    given_ = reward(text, ITEMS[0], truncated=truncated, thinking=thinking)
    assert given_.value in (0.0, 1.0)  # an item without sound is rewarded by equation 6
    config = RewardConfig(surrogate=1.0)
    assert reward(text, ITEMS[0], config, truncated=truncated, thinking=thinking).value == given_.value


@given(
    options=st.lists(st.sampled_from(WORDS), min_size=2, max_size=8, unique=True),
    seed=st.randoms(use_true_random=False),
    writing=st.sampled_from(WRITINGS),
    clothes=st.sampled_from(list(CLOTHES)),
)
@settings(max_examples=60, deadline=None)
def test_clothes_do_not_change_the_option_and_a_permutation_permutes_the_letter(
    options, seed, writing, clothes
):
    gold = seed.choice(options)
    for _ in range(2):
        seed.shuffle(options)
        letter = LETTERS[options.index(gold)]
        reply = CLOTHES[clothes].format(writing.format(letter=letter, small=letter.lower(), text=gold))
        for dressed in (reply, reply.lower(), reply.upper(), reply.replace(" ", "  ")):
            if clothes in ("boxed",) and dressed != reply and dressed != reply.replace(" ", "  "):
                continue  # the name of a LaTeX command has one case
            assert choose(dressed, tuple(options)).option == gold


@given(letters=st.permutations(list("ABCD")), text=TEXT)
@settings(max_examples=50, deadline=None)
def test_a_reply_that_names_texts_alone_does_not_depend_on_the_order_of_options(letters, text):
    quiet = "".join(
        c
        for c in text
        if c not in "ABCDabcd甲乙丙丁" and unicodedata.normalize("NFKC", c).upper() not in "ABCD"
    )
    options = ["one x", "two x", "three y", "four y"]
    moved = tuple(options["ABCD".index(letter)] for letter in letters)
    assert choose(quiet, tuple(options)).option == choose(quiet, moved).option


@given(st.integers(-(10**9), 10**9), st.sampled_from(list(CLOTHES)), st.booleans())
@settings(max_examples=50, deadline=None)
def test_a_number_is_read_in_any_clothes(value, clothes, separated):
    text = f"{value:,}" if separated else str(value)
    reading = read_number(CLOTHES[clothes].format(text))
    assert not isinstance(reading, str) and reading.value == value


@given(st.integers(0, 999_999))
@settings(max_examples=50, deadline=None)
def test_english_and_chinese_words_are_read_back(value):
    assert read_number(english(value)).value == value
    assert read_number(chinese(value)).value == value


@given(st.fractions(min_value=-1000, max_value=1000, max_denominator=99))
@settings(max_examples=100, deadline=None)
def test_fractions_are_exact(value):
    text = f"{value.numerator}/{value.denominator}"
    assert read_number(text).value == value
    assert read_number(f"\\boxed{{\\frac{{{value.numerator}}}{{{value.denominator}}}}}").value == value


HOSTILE = {  # name -> what is repeated up to a hundred thousand characters
    "letters": "B. ", "options": "bell drum ", "one option": "bell ", "digits": "9", "separators": "1,",
    "thousands": "1,111", "number words": "one hundred ", "halves": "half one ", "cues": "the answer is ",
    "brackets": "(", "closing": ")", "stars": "*", "underscores": "_", "tags": "<answer>",
    "tag ends": "</answer>",
    "thinks": "<think>", "closings": "</think>", "braces": "{", "json": '{"a":', "boxed": "\\boxed{",
    "fractions": "\\frac{1}{", "spaces": " ", "newlines": "\n", "nulls": "\0", "nots": "not ",
    "Chinese": "不是",
    "numerals": "一百", "ligatures": "ﷺ", "combining": "\u0301", "surrogates": "\ud800", "slashes": "1/",
    "html": "<b>", "quotes": "> ",
}  # fmt: skip


@pytest.mark.parametrize("name", list(HOSTILE))
def test_a_hundred_thousand_characters_are_no_answer_and_take_no_time(name):
    start, full = time.process_time(), HOSTILE[name] * (100_000 // len(HOSTILE[name]))
    for item in (ITEMS[0], ITEMS[1]):
        assert verify(full[:USUAL_MOST], item).correct in (0.0, 1.0)
    assert verify(full, ITEMS[0]) == Verdict(0.0, None, "too long")
    assert reward(f"{full}</think>B", ITEMS[0]).value == 1.0
    grounding(full[:USUAL_MOST])
    assert time.process_time() - start < 3.0  # about 0.1 s; what is quadratic takes minutes


def english(value: int) -> str:
    small = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven",
             "twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen",
             "nineteen"]  # fmt: skip
    tens = ["", "", "twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]
    if value < 20:
        return small[value]
    if value < 100:
        return tens[value // 10] + (f"-{small[value % 10]}" if value % 10 else "")
    if value < 1000:
        rest = f" and {english(value % 100)}" if value % 100 else ""
        return f"{small[value // 100]} hundred{rest}"
    rest = f" {english(value % 1000)}" if value % 1000 else ""
    return f"{english(value // 1000)} thousand{rest}"


def chinese(value: int) -> str:
    """As it is read aloud: 零 for a gap inside."""
    digits = "零一二三四五六七八九"
    if value >= 10_000:
        rest = value % 10_000
        gap = "零" if 0 < rest < 1000 else ""
        return f"{chinese(value // 10_000)}万{gap}{chinese(rest) if rest else ''}"
    text, gap = "", False
    for power, unit in ((1000, "千"), (100, "百"), (10, "十"), (1, "")):
        digit = value // power % 10
        if digit:
            text += ("零" if gap and text else "") + digits[digit] + unit
        gap = not digit
    return text or "零"
