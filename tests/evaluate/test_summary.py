"""What a run comes to, against numbers worked out by hand."""

import json
from fractions import Fraction

import numpy as np
import pytest

from mlx_audio_r1.evaluate.failures import failures
from mlx_audio_r1.evaluate.results import FULL, REAL, SUMMARY
from mlx_audio_r1.evaluate.summary import summarise, summary_of, tables
from mlx_audio_r1.prompt import AudioPart
from mlx_audio_r1.tasks.item import Item, Turn
from mlx_audio_r1.tasks.number import Quantity
from mlx_audio_r1.tasks.statistics import bootstrap_slope, maj_at_k, wilson
from mlx_audio_r1.tasks.wording import Wording
from tests.evaluate.hand import item, result, scored, table, write_run

RIGHT, WRONG, NOTHING = "B. drum", "A. bell", "Hm."


def test_numbers_of_a_bench():
    items = [item(i) for i in range(8)]
    answers = [RIGHT] * 4 + [WRONG, NOTHING, "", RIGHT]
    results = [result(i, a, closed=i != 6, error="broken" if i == 7 else "") for i, a in enumerate(answers)]
    found = summary_of(table(items, results))
    own = found["scorers"]["mcq.resolve"]
    assert found["primary"] == "mmau.official" and found["items"] == 8 and found["samples"] == 1
    assert (own["n"], own["unparsed"], own["left_out"]) == (8, 3, 0)
    assert (own["value"], own["low"], own["high"]) == wilson(4, 8)
    assert own["groups"]["task"]["sound"]["value"] == 2 / 4 and own["groups"]["task"]["sound"]["chance"] == 0.25
    assert own["groups"]["task"]["music"]["n"] == 4
    assert (found["replies"], found["errors"], found["unfinished"]) == (8, 1, 1)
    assert found["tokens"] == 8 * 13 and found["prompt_tokens"] == 320 and found["audio_seconds"] == 16.0
    assert found["thinking_tokens"] == {"mean": 10.0, "median": 10.0, "most": 10.0}
    assert found["chance"] == 0.25 and found["votes"] == found["budgets"] == found["controls"] == {}


def test_what_the_official_rule_leaves_out_leaves_its_number_alone():
    items = [item(i, bench="mmsu") for i in range(4)]
    results = [result(i, a, bench="mmsu") for i, a in enumerate(["B", "A", "drum", "cough"])]
    found = summary_of(table(items, results, ("mmsu.official", "mmsu.official_all", "mcq.resolve")))["scorers"]
    counted = {name: (s["n"], s["left_out"], s["value"]) for name, s in found.items()}
    assert counted == {"mmsu.official": (2, 2, 0.5), "mmsu.official_all": (4, 0, 0.25),
                       "mcq.resolve": (4, 0, 0.5)}  # fmt: skip


def test_a_rate_of_counts_is_summed_over_the_corpus():
    turns = (Turn("user", ("?",)),)
    items = [Item("asr:0", turns, Wording(("one two three four five six seven eight",)), bench="asr"),
             Item("asr:1", turns, Wording(("nine",)), bench="asr")]  # fmt: skip
    results = [result(0, "one two three four five six seven eight", bench="asr"), result(1, "ten", bench="asr")]
    own = summary_of(table(items, results, ("asr.mer",)))["scorers"]["asr.mer"]
    assert own["value"] == pytest.approx(1 / 9) and own["error"]  # and not the mean of 0 and 1
    assert own["low"] == 0.0 and own["high"] == 1.0  # two items drawn: both of one, or of the other


def test_samples_vote_and_pass():
    items = [item(0), item(1)]
    said = {0: [RIGHT, RIGHT, WRONG, NOTHING], 1: [WRONG, "C. harp", "C. harp", RIGHT]}
    results = [result(i, a, sample=k) for i, own in said.items() for k, a in enumerate(own)]
    found = summary_of(table(items, results))
    assert found["samples"] == 4 and found["scorers"]["mcq.resolve"]["value"] == pytest.approx(3 / 8)
    assert found["scorers"]["mcq.resolve"]["n"] == 2  # items, not samples
    votes = found["votes"]
    assert set(votes) == {"1", "2", "4"}
    assert votes["2"]["pass"] == pytest.approx(((1 - 1 / 6) + (1 - 3 / 6)) / 2)
    assert votes["2"]["guess"] == pytest.approx(1 - 0.75**2)
    texts = {0: ["drum", "drum", "bell", None], 1: ["bell", "harp", "harp", "drum"]}
    for k in (1, 2, 4):
        assert votes[str(k)]["maj"] == pytest.approx(sum(maj_at_k(t, "drum", k) for t in texts.values()) / 2)
    assert votes["4"]["maj"] == 0.5
    assert found["repeats"]["values"] == [0.5, 0.5, 0.0, 0.5]
    assert (found["repeats"]["mean"], found["repeats"]["sd"]) == (pytest.approx(3 / 8), pytest.approx(0.25))


def test_budgets_are_the_same_items_at_every_point():
    items = [item(i) for i in range(4)]
    right = {0: [0], 16: [0, 1], 64: [0, 1, 2], FULL: [0, 1, 3]}
    tokens = {0: 0, 16: 20, 64: 20, FULL: 90}
    results = [result(i, RIGHT if i in own else WRONG, budget=b, tokens=tokens[b],
                      finish="stop" if b else "budget")
               for b, own in right.items() for i in range(4)]  # fmt: skip
    found = summary_of(table(items, results))["budgets"]
    assert [(p["budget"], p["value"], p["forced"]) for p in found["points"]] == [
        (0, 0.25, 1.0), (16, 0.5, 0.0), (64, 0.75, 0.0), (None, 0.75, 0.0)]  # fmt: skip
    marks = [[float(i in right[b]) for b in (0, 16, 64)] for i in range(4)]
    assert found["slope"] == bootstrap_slope(np.log2([1, 17, 65]).tolist(), np.array(marks))
    assert found["scaling"] == pytest.approx((0.25 / 16 + 0.5 / 64 + 0.25 / 48) / 3)
    assert found["best"] == 0.75 and found["control"] == pytest.approx(2 / 3)  # 20 tokens are not within 16
    assert found["groups"]["task"] == {"music": [0.0, 0.5, 0.5, 1.0], "sound": [0.5, 0.5, 1.0, 0.5]}


def test_controls_are_paired_with_the_true_sound():
    items = [item(i) for i in range(4)]
    results = [result(i, RIGHT if i < 3 else WRONG) for i in range(4)]
    results += [result(i, [RIGHT, "C. harp", WRONG, WRONG][i], control="silence") for i in range(4)]
    found = summary_of(table(items, results))["controls"]["silence"]
    assert found["value"] == 0.25 and found["difference"][0] == 0.5
    assert found["contribution"] == pytest.approx((0.75 - 0.25) / 0.75)
    assert found["retention"] == pytest.approx(1 / 3) and found["flips"] == 0.5
    assert found["groups"]["task"] == {"music": 0.0, "sound": 0.5}


def test_letters_chosen_against_letters_right():
    items = [item(0, gold=0), item(1, gold=1), item(2, gold=1), item(3, gold=3)]
    results = [result(i, a) for i, a in enumerate(["A. bell", "A. bell", "B. drum", NOTHING])]
    assert summary_of(table(items, results))["positions"] == [
        [1, 0, 0, 0, 0], [1, 1, 0, 0, 0], [0, 0, 0, 0, 0], [0, 0, 0, 0, 1]]  # fmt: skip


def test_benches_stand_apart_and_a_file_has_no_nan(tmp_path):
    items = [item(0), item(0, bench="mmar")]
    results = [result(0), result(0, WRONG, bench="mmar")]
    parts = tables(items, results, scored(items, results))
    found = summarise(parts, {"model": "m"}, grounding={"mmar": {"a": 1}})
    assert list(found["benches"]) == ["mmau", "mmar"]
    assert "grounding" not in found["benches"]["mmau"] and found["benches"]["mmar"]["grounding"] == {"a": 1}
    text = (write_run(tmp_path / "run", items, []) / SUMMARY).read_text()
    assert json.loads(text)["benches"]["mmau"]["replies"] == 0 and "NaN" not in text


def transcribed():
    """Two sentences of two words, each without thinking, with the sound, and with silence, twice."""
    turns = (Turn("user", ("?", AudioPart("a.wav"))),)
    items = [Item(f"asr:{i}", turns, Wording(("good day",)), bench="asr") for i in range(2)]
    said = {(FULL, REAL): "good day", (0, REAL): "good bye", (4, REAL): "good day", (FULL, "none"): "no no"}
    results = [result(i, answer, bench="asr", sample=k, budget=budget, control=control)
               for i in range(2) for k in range(2) for (budget, control), answer in said.items()]  # fmt: skip
    return table(items, results, ("asr.mer",))


def test_fewer_errors_are_better_under_budgets_and_controls():
    found = summary_of(transcribed())
    assert found["scorers"]["asr.mer"]["value"] == 0.0 and found["votes"] == {}
    assert [point["value"] for point in found["budgets"]["points"]] == [0.5, 1.0, 1.0]
    assert found["budgets"]["slope"][0] > 0
    silence = found["controls"]["none"]
    assert silence["value"] == 0.0 and silence["difference"][0] == silence["contribution"] == 1.0


def test_failures_of_an_error_rate_are_its_errors():
    part = transcribed()
    assert failures(part) == []
    [item_0, item_1] = part.items.values()
    spoiled = [result(0, "good bye", bench="asr"), result(1, "good day", bench="asr")]
    [shown] = failures(table([item_0, item_1], spoiled, ("asr.mer",)))
    assert shown.result.answer == "good bye"


def test_what_is_not_for_a_scorer_to_read_is_not_unparsed():
    items = [item(0), Item("mmau:1", (Turn("user", ("How many?",)),), Quantity(Fraction(3)), bench="mmau")]
    found = summary_of(table(items, [result(0, NOTHING), result(1, "three")], ("mcq.resolve", "num.resolve")))
    own = {name: (s["n"], s["left_out"], s["unparsed"]) for name, s in found["scorers"].items()}
    assert own == {"mcq.resolve": (1, 1, 1), "num.resolve": (1, 1, 0)}


def test_an_interval_is_not_made_of_items_that_are_all_alike():
    turns = (Turn("user", ("?",)),)
    items = [Item(f"asr:{i}", turns, Wording(("good day",)), bench="asr") for i in range(3)]
    found = summary_of(table(items, [result(i, "good day", bench="asr") for i in range(3)], ("asr.mer",)))
    own = found["scorers"]["asr.mer"]
    assert own["value"] == 0.0 and np.isnan([own["low"], own["high"]]).all()


def test_unparsed_counts_replies_as_unfinished_and_errors_do():
    said = [RIGHT, NOTHING, "", "Hm?"]
    part = table([item(0)], [result(0, answer, sample=k) for k, answer in enumerate(said)])
    assert summary_of(part)["scorers"]["mcq.resolve"]["unparsed"] == 3
