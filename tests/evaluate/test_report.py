"""The report of runs written by hand: every part is there, escaped, and nothing calls home."""

import json
import wave
from dataclasses import replace

import pytest

from mlx_audio_r1.errors import EvaluationError
from mlx_audio_r1.evaluate.failures import MISREAD, failures
from mlx_audio_r1.evaluate.meanings import GAINS, MEANINGS, meaning
from mlx_audio_r1.evaluate.paper import PUBLISHED, average, band
from mlx_audio_r1.evaluate.report import RunFolder, write_report
from mlx_audio_r1.evaluate.report_tables import extras, groups, headline, paper_table, scorers, table
from mlx_audio_r1.evaluate.results import FULL, RESULTS, SUMMARY, read_results
from tests.evaluate.hand import item, result, write_run
from tests.evaluate.hand import table as made

RIGHT, WRONG = "B. drum", "A. bell"


def test_the_paper_s_averages_are_those_of_its_columns():
    """The averages are printed in the paper; the columns were typed in."""
    of_five = {"Step-Audio 2": 68.3, "Gemini 2.5 Pro": 81.5, "Gemini 3 Pro": 85.1, "Step-Audio-R1": 83.6}
    assert {name: round(average(PUBLISHED[name]), 1) for name in of_five} == of_five
    of_eight = {
        "Gemini 3 Flash (R1.5)": 77.56, "Gemini 3 Pro (R1.5)": 79.67, "qwen3.5-omni-flash (R1.5)": 70.55,
        "qwen3.5-omni-plus (R1.5)": 75.77, "Step-Audio-R1 (R1.5)": 72.50, "Step-Audio-R1.5 (R1.5)": 77.97,
    }  # fmt: skip
    for name, mean in of_eight.items():
        assert sum(PUBLISHED[name].values()) / 8 == pytest.approx(mean, abs=0.011), name
    assert band("mmau") == (77.0, 77.7) and band("mmar") is None


def sound(path):
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, 16_000, 0, "NONE", ""))
        file.writeframes(b"\0\1" * 1_600)


@pytest.fixture
def full(tmp_path):
    """A run with everything: two benches, budgets, controls, samples, an error, an end that never came."""
    sound(tmp_path / "a.wav")
    items = [item(i, sound=str(tmp_path / "a.wav")) for i in range(6)]
    items += [item(i, bench="mmar", sound=str(tmp_path / "missing.wav")) for i in range(2)]
    said = [RIGHT, WRONG, WRONG, RIGHT, WRONG, "<b>&"]
    results = [result(i, said[i], sample=k) for i in range(6) for k in (0, 1)]
    results += [result(i, RIGHT if i < budget / 16 else WRONG, budget=budget) for budget in (0, 16, 64)
                for i in range(6)]  # fmt: skip
    results += [result(i, RIGHT if i == 2 else WRONG, control="silence") for i in range(6)]
    results.append(result(0, bench="mmar", error="a.wav: no sound"))
    results.append(result(1, bench="mmar", closed=False, answer=""))
    more = {"grounding": {"mmau": {"gain, thinking": [0.5, 0.25, 0.75], "auc": 0.9}},
            "comparable": {"mmau": {"reasons": ["6 of 1,000 questions"]}}}  # fmt: skip
    return write_run(tmp_path / "run", items, results, run={"model": "<R1>", "settings": {"n": 2}}, **more)


def test_every_part_is_on_the_page(full):
    html, markdown = write_report(full)
    text = html.read_text()
    for part in (
        "Beside the paper", "not paper-comparable: 6 of 1,000 questions", "Gemini 3 Pro", "&lt;R1&gt;",
        "tokens of reasoning allowed", "in the place of the sound", "maj@k", "chose B", "gain, thinking",
        "0.25 to 0.75", "telling failures", "data:audio/wav;base64,", "missing.wav", "&lt;b&gt;&amp;",
        "mmar", "Doubling the reasoning is worth", "settings.n", "prefers-color-scheme: dark",
    ):  # fmt: skip
        assert part in text, part
    assert text.count("<svg") >= 4 and "<script" not in text and "http" not in text.replace("http-equiv", "")
    said = markdown.read_text()
    for part in ("| benchmark | n | right |", "## Beside the paper's Table 1", "### Budgets", "### Grounding",
                 "<R1> (this run)", "| --- | ---: |"):  # fmt: skip
        assert part in said, part
    assert write_report(full) == (html, markdown) and html.read_text() == text


def test_denials_of_hearing_are_shown():
    rate = {"n": 50, "answer": [0.02, 0.004, 0.105], "thinking": [0.0, 0.0, 0.071]}
    [(title, (_, rows))] = extras({"hearing": {**rate, "by": {"sound=silence": {**rate, "n": 10}}}})
    assert title == "Claims that it cannot hear" and rows[1][:2] == ["sound=silence", "10"]
    assert rows[0] == ["all", "50", "2.0 %", "0.4 to 10.5", "0.0 %"]


def test_a_number_inside_the_band_is_said_to_be(tmp_path):
    own = {"value": 0.78, "low": 0.75, "high": 0.80}
    found = {"primary": "s", "scorers": {"s": own}, "comparable": {"reasons": []}}
    summary = {"run": {"model": "m"}, "benches": {"mmau": found}}
    columns, rows, [note] = paper_table(summary)
    assert columns[:2] == ["model", "average"] and rows[-1][0] == "m (this run)" and "78.0" in rows[-1]
    assert note == "mmau: paper-comparable; Step-Audio-R1's 77 to 77.7 is in the interval"
    own |= {"low": 0.5, "high": 0.6}
    assert "is outside the interval" in paper_table(summary)[2][0]


def test_failures_take_turns_and_say_why():
    items = [item(i) for i in range(12)]
    plain = [result(i, RIGHT if i == 11 else WRONG) for i in range(12)]
    plain[3] = result(3, "Hm.")
    plain[4] = result(4, "", closed=False, tokens=500)
    plain[5] = result(5, "", error="broken")
    others = [result(0, RIGHT, control="silence"), result(1, RIGHT, budget=16), result(1, RIGHT, budget=64)]
    found = failures(made(items, [*plain, *others]))
    assert len(found) == 10 and len({f.item.uid for f in found}) == 10
    why = {f.item.uid: f.why for f in found}
    assert found[0].why == "right with silence in the place of the sound"
    assert why["mmau:1"] == "right after 16 tokens of reasoning, wrong after all 10"
    assert why["mmau:4"] == "500 tokens of reasoning without an end" and why["mmau:5"] == "no reply: broken"
    assert why["mmau:2"] == "wrong" and "mmau:11" not in why


def test_the_same_wrong_answer_every_time():
    found = failures(made([item(0)], [result(0, WRONG, sample=k) for k in range(4)]))
    assert [f.why for f in found] == ["the same wrong answer in all 4 samples"]


def test_a_run_without_replies_has_a_page(tmp_path):
    html, _ = write_report(write_run(tmp_path / "run", [item(0)], []))
    assert "mmau" in html.read_text()


def test_every_measure_of_grounding_is_explained():
    over = [f"gain.{control}.{kind}" for control in ("silence", "shuffle") for kind in GAINS]
    assert all(map(meaning, [*over, *MEANINGS]))
    assert meaning("gain.silence.thinking").endswith("likelier than silence does")
    assert meaning("gain.noise.thinking") == meaning("new") == ""


def test_groups_stand_beside_no_thinking_and_another_sound(full):
    found = RunFolder(full).summary["benches"]["mmau"]
    columns, rows = groups(found, "task")
    assert columns == ["task", "n", "right", "95 % interval", "chance", "no thinking", "silence"]
    assert [row[:3] + row[4:] for row in rows] == [
        ["music", "3", "33.3 %", "25.0 %", "0.0 %", "0.0 %"],
        ["sound", "3", "33.3 %", "25.0 %", "0.0 %", "33.3 %"]]  # fmt: skip


def test_what_cannot_be_read_is_said(full):
    lines = (full / RESULTS).read_bytes()
    (full / RESULTS).write_bytes(lines + b'{"uid": "torn')
    assert len(read_results(full)) == lines.count(b"\n") - 1
    (full / RESULTS).write_text("head\n{}\n")
    with pytest.raises(EvaluationError, match=r"results\.jsonl: is of no run"):
        write_report(full)
    (full / SUMMARY).write_text(json.dumps({"run": {}}))
    with pytest.raises(EvaluationError, match=r"summary\.json: cannot be read; run audio-r1 eval score"):
        write_report(full)


def test_a_cell_of_markdown_stays_in_its_cell():
    assert table(["a|b", "c"], [["d\ne", "1"]]) == "| a\\|b | c |\n| --- | ---: |\n| d e | 1 |"


def test_a_rate_of_errors_is_not_called_right():
    own = {"title": "word error rate", "n": 2, "value": 0.05, "low": 0.0, "high": 0.1, "error": True,
           "left_out": 0, "unparsed": 0}  # fmt: skip
    found = {"scorers": {"asr.wer": own}, "primary": "asr.wer", "unfinished": 0, "errors": 0}
    assert headline({"asr": found})[1][0][2] == scorers(found)[1][0][2] == "5.0 % errors"


def test_a_bench_that_was_never_scored_has_a_line():
    columns, [row] = headline({"x": {"scorers": {}, "primary": "", "unfinished": 0, "errors": 3}})
    assert dict(zip(columns, row, strict=True))["errors"] == "3"
    assert FULL == -1


def test_a_right_reply_that_the_official_rule_calls_wrong_is_named_so():
    part = made([item(0), item(1)], [result(0, "drum"), result(1, WRONG)])  # by the lettered gold, "B. drum"
    assert {f.item.uid: f.why for f in failures(part)} == {"mmau:0": MISREAD, "mmau:1": "wrong"}


def test_another_scorer_than_the_benchmarks_own_is_named():
    own = {"title": "rule", "n": 4, "value": 0.5, "low": 0.2, "high": 0.8, "left_out": 0, "unparsed": 0}
    found = {"scorers": {"du.rule": own}, "primary": "du.rule", "unfinished": 0, "errors": 0}
    assert headline({"step-dialogue": found})[1][0][0] == "step-dialogue, by rule"


def test_a_reasoning_that_fills_pages_is_shortened(tmp_path):
    long = replace(result(0, WRONG), thinking="It begins. " + "It beats. " * 5_000 + "It ends.")
    html, _ = write_report(write_run(tmp_path / "run", [item(0)], [long]))
    text = html.read_text()
    assert "It begins." in text and "It ends." in text and "characters left out" in text and len(text) < 200_000


def test_errors_of_groups_are_called_errors():
    own = {"title": "word error rate", "n": 2, "value": 0.05, "low": 0.0, "high": 0.1, "chance": 0.0}
    scorer = {**own, "error": True, "groups": {"part": {"clean": own}}}
    assert groups({"scorers": {"asr.wer": scorer}, "primary": "asr.wer"}, "part")[1][0][2] == "5.0 % errors"
