"""Rules of benchmarks against their authors' own scripts, and our own readings against tables made by hand.

data/*.jsonl has what the official scripts said of constructed replies; its first line names repository and
commit, and `python -m tests.evaluate.official.make_verdicts FOLDER` makes it again. Big Bench Audio has no
script: its rule is held against a second implementation and a table here.
"""

import itertools
import re
from fractions import Fraction

import pytest

from mlx_audio_r1.errors import EvaluationError
from mlx_audio_r1.evaluate.scorers import SCORERS, scorer
from mlx_audio_r1.evaluate.scorers.spoken_mqa import answer_of
from mlx_audio_r1.evaluate.scorers.string_match import string_match
from mlx_audio_r1.evaluate.scoring import RuleScorer, score
from mlx_audio_r1.tasks.boolean import Boolean
from mlx_audio_r1.tasks.choice import Choice
from mlx_audio_r1.tasks.item import Item
from mlx_audio_r1.tasks.judged import Judged
from mlx_audio_r1.tasks.label import Label
from mlx_audio_r1.tasks.number import Quantity
from mlx_audio_r1.tasks.reply import Reply
from tests.evaluate.verdicts import LEAST, choice_item, disagreements, value, verdicts

# ruff: noqa: RUF001  (full-width marks are meant)

@pytest.mark.parametrize("bench", ["mmau", "mmar"])
@pytest.mark.parametrize(("form", "column"), [("official", "lettered"), ("official_plain", "plain")])
def test_string_match_agrees_with_the_official_script(bench, form, column):
    name = f"{bench}.{form}"
    rows = verdicts(bench)
    assert disagreements(rows, lambda r: value(name, r["reply"], choice_item(r)), lambda r: r[column]) == []


def test_a_reply_without_words_matches_nothing():
    assert not string_match("?", "", ["?", "!"]) and string_match("?", "what", ["?", "!"])


@pytest.mark.parametrize("bench", ["mmsu", "airbench"])
def test_letter_rules_agree_with_the_official_script(bench):
    rows = verdicts(bench)
    assert (
        disagreements(
            rows, lambda r: value(f"{bench}.official", r["reply"], choice_item(r)), lambda r: r["official"]
        )
        == []
    )
    assert sum(r["official"] is None for r in rows) >= 100


def spoken_item(row):
    return Item("u", (), Judged(), groups={"split": row["split"]}, extra={"answer": row["answer"]})


def test_spoken_mqa_agrees_with_the_official_script():
    rows = verdicts("spokenmqa")
    assert disagreements(rows, lambda r: answer_of(r["reply"]), lambda r: r["number"]) == []
    assert (
        disagreements(
            rows, lambda r: value("spokenmqa.official", r["reply"], spoken_item(r)), lambda r: r["official"]
        )
        == []
    )


def test_with_nothing_left_out_what_mmsu_leaves_out_is_wrong():
    for row in verdicts("mmsu"):
        found = value("mmsu.official_all", row["reply"], choice_item(row))
        assert found == (row["official"] or False)


@pytest.mark.parametrize(
    ("reply", "official", "everything", "resolved"),
    [
        ("cough", None, 0.0, 1.0),
        ("Cough", 1.0, 1.0, 1.0),  # right by its first letter
        ("(C) cough", None, 0.0, 1.0),
        ("**C. cough**", None, 0.0, 1.0),
        ("The answer is C.", 1.0, 1.0, 1.0),
        ("The answer is C. cough", None, 0.0, 1.0),
        ("Burp", 0.0, 0.0, 0.0),
        ("C. cough", 1.0, 1.0, 1.0),
        ("", 0.0, 0.0, 0.0),
    ],
)
def test_the_faults_of_mmsu(reply, official, everything, resolved):
    item = choice_item({"choices": ["laugh", "Burp", "cough", "yawn"], "gold": 2})
    names = ("mmsu.official", "mmsu.official_all", "mcq.resolve")
    assert [value(name, reply, item) for name in names] == [official, everything, resolved]


def test_a_number_in_mmsus_file_is_no_text():
    raw = {"choices": [1, 2, 3, 4], "answer": "2"}
    assert value("mmsu.official", "B", choice_item({"choices": "1234", "gold": 1}, extra=raw)) == 0.0
    raw["answer"] = 2
    assert value("mmsu.official", "B", choice_item({"choices": "1234", "gold": 1}, extra=raw)) == 1.0


@pytest.mark.parametrize(
    ("reply", "lettered", "plain"),
    [
        ("A. Man", 1.0, 0.0),
        ("Man", 0.0, 1.0),
        ("A", 0.0, 0.0),
        ("The answer is A. Man", 1.0, 0.0),
        ("", 0.0, 0.0),
    ],
)
def test_the_letter_trap_of_mmau(reply, lettered, plain):
    item = choice_item({"choices": ["Man", "Woman", "A man and a child"], "gold": 0})
    assert [value(n, reply, item) for n in ("mmau.official", "mmau.official_plain")] == [lettered, plain]


def test_choices_that_come_with_letters_keep_the_rows_own():
    raw = {"choices": ["(A) bell", "(B) drum", "(C) bell"], "answer": "(C) bell"}
    item = Item("u", (), Choice(("bell", "drum", "bell"), (0, 2)), extra=raw)
    assert value("mmau.official", "C. bell", item) == 1.0 and value("mmau.official", "A. bell", item) == 0.0
    assert value("mmau.official_plain", "bell", item) == 1.0
    assert value("mcq.resolve", "A. bell", item) == value("mcq.resolve", "(C)", item) == 1.0


def test_without_displayed_letters_the_lettered_rule_is_the_plain_one():
    item = choice_item({"choices": ["Man", "Woman"], "gold": 0}, option_style="none")
    assert value("mmar.official", "Man", item) == 1.0


def test_an_unfinished_reply_is_an_empty_one():
    """mmsu counts it as wrong, AIR-Bench leaves it out: as their scripts do with the empty answer we write."""
    item, reply = choice_item({"choices": ["a", "b"], "gold": 0}), Reply("A. a", "A", closed=False)
    found = {name: score(scorer(name), item, reply).value for name in ("mmsu.official", "mcq.resolve", "world")}
    assert found == {"mmsu.official": 0.0, "mcq.resolve": 0.0, "world": 0.0}
    assert score(scorer("airbench.official"), item, reply).value is None
    assert score(scorer("mmau.official"), item, reply).how == "unfinished"


@pytest.mark.parametrize("name", ["voicebench.harm", "voicebench.mcq", "voicebench.bbh"])
def test_a_reply_without_an_end_gets_no_credit_for_its_silence(name):
    item = choice_item({"choices": ["w", "x", "y", "z"], "gold": 1}, extra={"reference": "B"})
    assert value(name, "", item) > 0 and score(scorer(name), item, Reply("B", "B", closed=False)).value == 0.0


def test_every_name_has_its_scorer():
    for name in SCORERS:
        assert scorer(name).name == name
    with pytest.raises(EvaluationError, match=r"no scorer 'mmau'; there are .*mmau.official"):
        scorer("mmau")


# Big Bench Audio

GOLDS = {
    "valid": Label("valid", ("valid", "invalid")), "invalid": Label("invalid", ("valid", "invalid")),
    "yes": Boolean(True), "no": Boolean(False), "7": Quantity(Fraction(7)), "21": Quantity(Fraction(21)),
}  # fmt: skip


def second_reading(reply, gold):
    """Big Bench's rule once more, word by word and without the library's text functions."""
    text = re.sub("[*_`]", "", reply).lower().replace("，", ",").replace("：", ":")
    words = re.findall(r"[a-z]+|-?[0-9]+(?:,[0-9]{3})*(?:\.[0-9]+)?", text)
    if gold in ("valid", "invalid"):
        pairs = list(itertools.pairwise(words))
        if "invalid" in words or ("in", "valid") in pairs or ("not", "valid") in pairs or "无效" in text:
            return "invalid"
        return "valid" if "valid" in words or "有效" in text else None
    if gold in ("yes", "no"):
        first = re.sub(r"^[^a-z\u4e00-\u9fff]*", "", text)[:1]
        if first in ("是", "否", "不"):
            return "yes" if first == "是" else "no"
        polar = [word for word in words if word in ("yes", "no")]
        begins = bool(words) and words[0] in ("yes", "no") and first == words[0][0]
        return polar[0 if begins else -1] if polar else None
    digits = [Fraction(word.replace(",", "")) for word in words if word[-1].isdigit()]
    named = [SPELLED[word] for word in re.findall("|".join(SPELLED), text)]
    found = digits or named
    return str(found[-1]) if found else None


SPELLED = {"twenty-one": 21, "seventeen": 17, "seven": 7, "二十一": 21, "十七": 17, "七": 7}
BIG_FORMS = (
    "{}", "{}.", " {} ", "**{}**", "The answer is {}.", "Answer: {}", "{}\n\nBecause of the rest.",
    "答案是{}。", "It is {}!", "So the result would be: {}", "`{}`", "I say {}", '"{}"', "({})", "{}，",
    "Hmm, {}?",
)  # fmt: skip
BIG_WORDS = (
    "valid", "invalid", "Valid", "INVALID", "not valid", "in valid", "有效", "无效", "yes", "Yes", "NO", "no",
    "是", "否", "不", "7", "7.0", "21", "1,234", "-7", "seven", "twenty-one", "seventeen", "二十一", "七",
    "yes and no", "valid, not invalid", "3 and then 7", "know", "maybe", "",
)  # fmt: skip


def test_big_bench_rule_agrees_with_a_second_reading():
    cases = list(itertools.product(BIG_FORMS, BIG_WORDS, GOLDS))
    assert len(cases) >= LEAST
    for form, word, gold in cases:
        reply = form.format(word)
        said = second_reading(reply, gold)
        found = scorer("bba.rule").rule(reply, Item("u", (), GOLDS[gold]))
        assert (found.parsed, found.value) == (said, float(said == gold)), (reply, gold)


@pytest.mark.parametrize(
    ("gold", "reply", "right"),
    [
        ("invalid", "invalid", 1.0), ("valid", "invalid", 0.0), ("invalid", "**Invalid**.", 1.0),
        ("valid", "The argument is deductively valid.", 1.0), ("valid", "validity", 0.0),
        *(("invalid", reply, 1.0) for reply in (
            "It isn't valid", "non-valid", "not a valid argument", "not deductively valid", "不是有效的",
            "in-valid")),
        ("invalid", "这个论证是无效的", 1.0), ("valid", "有效", 1.0), ("valid", "", 0.0),
        ("yes", "Yes", 1.0), ("yes", "Yes, there is no doubt", 1.0), ("yes", "不，他没有回到原点", 0.0),
        ("no", "No.", 1.0), ("no", "He does not tell the truth, so no", 1.0), ("no", "I do not know", 0.0),
        ("no", "no, although one may think yes", 1.0), ("yes", "是的", 1.0),
        ("7", "7", 1.0), ("7", "seven", 1.0), ("7", "3 + 4 = 7", 1.0), ("7", "I have 7 fruits.", 1.0),
        ("7", "17", 0.0), ("7", "七", 1.0), ("21", "二十一个", 1.0), ("21", "twenty-one objects", 1.0),
        ("7", "7 of 10", 0.0), ("7", "many", 0.0),
    ],
)  # fmt: skip
def test_big_bench_rule_by_hand(gold, reply, right):
    assert scorer("bba.rule").rule(reply, Item("u", (), GOLDS[gold])).value == right


def test_big_bench_reads_the_rows_answer_where_there_is_no_such_target():
    assert value("bba.rule", "Invalid.", Item("u", (), Judged(), extra={"official_answer": "invalid"})) == 1.0


# Ours

NUMBERS = {
    "7": (
        "7",
        "7.0",
        "#### 7",
        "5 + 2 = 7 apples",
        "\\boxed{7}",
        "seven",
        "七",
        "The answer is 7, because 10 - 3 = 7.",
    ),
    "3/5": ("0.6", "3/5", "\\frac{3}{5}", "\\boxed{\\frac35}", "three fifths", "0.6000004", "五分之三"),
    "1234": ("1,234", "1\\,234", "$1,234", "1{,}234", "1.234e3"),
}


@pytest.mark.parametrize(("gold", "reply"), [(gold, reply) for gold, said in NUMBERS.items() for reply in said])
def test_numbers_are_read_in_any_form(gold, reply):
    assert value("num.resolve", reply, Item("u", (), Quantity(Fraction(gold)))) == 1.0


@pytest.mark.parametrize("reply", ["8", "7 or 8", "between 7 and 9", "7.001", "77", "", "the answer is not 7"])
def test_another_number_is_wrong(reply):
    assert value("num.resolve", reply, Item("u", (), Quantity(Fraction(7)))) == 0.0


@pytest.mark.parametrize(
    ("reply", "right"), [("valid", 1.0), ("It is valid, not invalid.", 1.0), ("invalid", 0.0)]
)
def test_labels_are_read_with_their_denials(reply, right):
    assert value("label.resolve", reply, Item("u", (), GOLDS["valid"])) == right


@pytest.mark.parametrize(
    ("gold", "reply", "share"),
    [
        ("慢速", "说话人的语速是偏慢的。", 1.0),
        ("快速 ", "语速很快", 1.0),
        ("快速", "她听起来很愉快", 0.0),
        ("男；开心", "一位男性，听起来很快乐", 1.0),
        ("男；开心", "一位女性，听起来很快乐", 0.5),
        ("咳嗽/清嗓子", "有人清了清喉咙，清嗓", 1.0),
        ("女：成年", "女声", 1.0),
        ("male", "a female voice", 0.0),
        ("咳嗽", "没有咳嗽", 0.0),
        ("咳嗽", "", 0.0),
    ],
)
def test_dialogue_rule_gives_the_share_of_parts_named(gold, reply, share):
    assert value("du.rule", reply, Item("u", (), Judged((gold,)))) == share


@pytest.mark.parametrize(
    ("reply", "right"), [("语速中等", 1.0), ("中速。", 1.0), ("语速中等偏快", 0.0), ("", 0.0)]
)
def test_spqa_is_right_where_the_texts_are_equal(reply, right):
    item = Item("u", (), Judged(("语速中等。",)), extra={"label": "中速"})
    assert value("spqa.exact", reply, item) == right


OWN_TESTS = ("asr", "uro", "voicebench.ifeval")  # of any text


def test_rules_survive_any_text():
    items = [
        choice_item({"choices": ["A", "b"], "gold": 1}),
        Item("u", (), GOLDS["7"]),
        Item("u", (), Judged(("x",))),
    ]
    hostile = [
        "\0",
        "\ud800",
        "9" * 5000,
        "(" * 300,
        "\u202e7",
        "A" * 5000,
        "#### " * 400,
        "1/" * 500,
        "{" * 400,
    ]
    for name in SCORERS:
        found = scorer(name)
        if isinstance(found, RuleScorer) and not name.startswith(OWN_TESTS):
            own = [item for item in items if fits(name, item)]
            for item, reply in itertools.product(own, hostile):
                made = found.rule(reply, item)
                assert made.value is None or 0.0 <= made.value <= 1.0, (name, reply[:20])


def fits(name, item):
    """Does a scorer take items of this kind?"""
    of_choice = name.startswith(("mma", "mms", "air", "mcq", "voicebench"))
    return isinstance(item.target, Choice) == of_choice


def test_questions_of_another_kind_are_left_out():
    judged = Item("u", (), Judged(("x",)))
    assert [value(name, "x", judged) for name in ("mcq.resolve", "num.resolve", "label.resolve", "world")] == [
        None
    ] * 4
    assert value("num.resolve", "bell", choice_item({"choices": ["bell", "drum"], "gold": 0})) is None
