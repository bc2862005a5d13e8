"""VoiceBench's rules against its authors' scripts, and by hand where they need what is not here."""

import pytest

from mlx_audio_r1.errors import EvaluationError
from mlx_audio_r1.evaluate.scorers import scorer
from mlx_audio_r1.tasks.item import Item
from mlx_audio_r1.tasks.judged import Judged
from tests.evaluate.verdicts import choice_item, disagreements, value, verdicts


def test_voicebench_chooses_the_letters_of_the_official_script():
    rows = verdicts("voicebench_mcq")
    item = choice_item({"choices": ["w", "x", "y", "z"], "gold": 1})
    found = scorer("voicebench.mcq").rule
    assert disagreements(rows, lambda r: found(r["reply"], item).parsed, lambda r: r["letter"]) == []


def test_voicebench_refusals_are_the_official_ones():
    rows, item = verdicts("voicebench_harm"), Item("u", (), Judged())
    assert (
        disagreements(rows, lambda r: value("voicebench.harm", r["reply"], item), lambda r: r["refused"]) == []
    )
    assert {r["refused"] for r in rows} == {True, False}


@pytest.mark.parametrize(
    ("reply", "credit", "how"), [("B.", 1.0, "phrase"), ("C.", 0.0, "phrase"), ("x", 0.25, "lot of 4")]
)
def test_a_lot_is_worth_its_chance(reply, credit, how):
    found = scorer("voicebench.mcq").rule(reply, choice_item({"choices": ["w", "x", "y", "z"], "gold": 1}))
    assert (found.value, found.how) == (credit, how)


@pytest.mark.parametrize(
    ("task", "reference", "reply", "credit"),
    [
        ("navigate", "yes", "Yes.", 1.0),
        ("navigate", "no", "The answer is: No", 1.0),
        ("navigate", "no", "You are not at the starting point.", 1.0),
        ("navigate", "yes", "We end up back at the starting point.", 1.0),
        ("navigate", "no", "Nothing is clear", 1.0),  # it begins with "no"
        ("web_of_lies", "no", "Tom does not tell the truth", 1.0),
        ("web_of_lies", "yes", "So Tom tells the truth.", 1.0),
        ("sports_understanding", "no", "Yes, the sentence is plausible.", 0.0),
        ("hyperbaton", "(b)", "The answer is (B)", 1.0),
        ("hyperbaton", "(b)", "b", 0.0),  # as the script has it
        ("hyperbaton", "(a)", "A) old big dog", 1.0),
        ("navigate", "yes", "perhaps", 0.5),
        ("hyperbaton", "(a)", "", 0.5),
    ],
)
def test_voicebench_reads_yes_and_no_and_a_and_b(task, reference, reply, credit):
    item = Item("voicebench:1", (), Judged(), extra={"reference": reference, "id": f"{task}_7"})
    assert value("voicebench.bbh", reply, item) == credit


def instruction_item(*pairs):
    names, wanted = zip(*pairs, strict=True)
    return Item("u", (), Judged(), extra={"instruction_id_list": list(names), "kwargs": list(wanted)})


def test_instructions_are_kept_as_the_official_checks_say():
    pytest.importorskip("langdetect")

    def ours(row):
        found = scorer("voicebench.ifeval").rule(row["reply"], instruction_item((row["name"], row["kwargs"])))
        return found.counts["strict_prompts"], found.counts["loose_prompts"]

    rows = verdicts("ifeval")
    assert disagreements(rows, ours, lambda r: (r["strict"], r["loose"])) == []
    assert len({row["name"] for row in rows}) >= 20


def test_the_number_of_instructions_is_the_mean_of_four():
    item = instruction_item(("punctuation:no_comma", {}), ("startend:quotation", {}))
    rule, total = scorer("voicebench.ifeval").rule, scorer("voicebench.ifeval").total
    found = rule("no comma", item)
    assert (found.value, found.how) == (0.0, "1 of 2 kept")
    assert total(found.counts) == (0 + 1 / 2 + 0 + 1 / 2) / 4
    assert total(rule('"no comma"', item).counts) == 1.0


@pytest.mark.parametrize(
    ("name", "wanted", "reply", "kept"),
    [
        (
            "length_constraints:number_sentences",
            {"num_sentences": 3, "relation": "at least"},
            'It rang. Why? "Hm!"',
            True,
        ),
        (
            "length_constraints:number_sentences",
            {"num_sentences": 3, "relation": "less than"},
            "Dr. Who is e.g. in. So",
            True,
        ),
        (
            "change_case:capital_word_frequency",
            {"capital_frequency": 2, "capital_relation": "at least"},
            "ONE two THREE",
            True,
        ),
        (
            "change_case:capital_word_frequency",
            {"capital_frequency": 2, "capital_relation": "less than"},
            "ONE two THREE",
            False,
        ),
    ],
)
def test_sentences_and_capitals_by_hand(name, wanted, reply, kept):
    assert value("voicebench.ifeval", reply, instruction_item((name, wanted))) == kept


@pytest.mark.parametrize(
    ("name", "wanted", "said"),
    [("punctuation:commas", {}, "known are"), ("keywords:existence", {}, "has no keywords in kwargs"),
     ("keywords:existence", {"keywords": ["("]}, "is no pattern")],
)  # fmt: skip
def test_an_instruction_that_cannot_be_checked_is_said(name, wanted, said):
    with pytest.raises(EvaluationError, match=said):
        value("voicebench.ifeval", "x", instruction_item((name, wanted)))
