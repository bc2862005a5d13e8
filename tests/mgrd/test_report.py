"""The page of a run of MGRD: whole, half, hardly begun, and what stands in it."""

import json
import re
import sys

import pytest
from click.testing import CliRunner

from mlx_audio_r1.cli.main import cli
from mlx_audio_r1.errors import TrainingError
from mlx_audio_r1.mgrd.report import write_report
from mlx_audio_r1.report import bars
from mlx_audio_r1.report.bars import Bar
from tests.mgrd.run_folder import REJECTED, a_run, decision, rollout, write_lines, write_object
from tests.report.test_page import Reader


def section(text: str, title: str) -> str:
    """The part of a page under a heading."""
    return text.split(f"<h2>{title}")[1].split("</section>")[0]


@pytest.fixture(scope="module")
def text(tmp_path_factory) -> str:
    folder = a_run(tmp_path_factory.mktemp("mgrd") / "run")
    path = write_report(folder)
    assert path == folder / "report.html"
    return path.read_text(encoding="utf-8")


def test_the_page_is_whole_and_asks_for_nothing_outside_itself(text):
    read = Reader(text)
    assert read.open == [] and "script" not in read.tags
    assert all(source.startswith(("#", "data:")) for source in read.sources)
    assert len(set(read.ids)) == len(read.ids)
    assert not re.search(r"#[0-9a-f]{6}\b", text.split("</style>")[1])  # every colour is the page's own


def test_measures_are_drawn_over_rounds(text):
    over = section(text, "Over the rounds")
    assert over.count("<svg") == 9
    assert "Accuracy over rounds: thinking from 0.5 to 0.7; no thinking from 0.55 to 0.61; silence" in over
    assert "Samples kept for learning over rounds: share from 0.2045 to 0.3171" in over  # 9 of 44, 13 of 41
    assert "reasoning allowed over budgets: round 0 from 0.3 to 0.5; round 1 from 0.3 to 0.6" in over
    assert "<dd>0.5 → 0.7</dd>" in text and "round 0 → round 2; measured on 200 questions" in text


def test_what_was_kept_and_rejected_is_counted_by_reason(text):
    kept = section(text, "What the filters kept")
    assert "round 1: 9 of 44 kept; round 2: 13 of 41 kept" in kept
    assert re.search(r"kept: it is learnt from</th><td>9 \(20 %\)</td><td>13 \(32 %\)", kept)
    assert re.search(r"judge: the judge rejected it</th><td>7 \(16 %\)</td><td>6 \(15 %\)", kept)
    assert re.search(r">gain</th><td>[\d.]+ → 0.125</td><td>[\d.]+ → 0.125</td>", kept)  # of all, of those kept


def test_every_reason_has_examples_with_their_words(text):
    examples = section(text, "Examples, by what became of them")
    headings = [words.split(":")[0] for words in re.findall(r'class="reason">(.*?)</h3>', examples)]
    assert headings == ["kept", "surplus", *(reason for reason in REJECTED if reason != "surplus")]
    assert examples.count("<article") == 2 * 8 - 1  # of `verdict` round 2 has one
    assert "answered B, expected C" in examples and "Thought of verdict" in examples
    assert "round 2, " in examples and "round 1, " not in examples


def test_right_samples_are_a_histogram(text):
    curation = section(text, "Curation")
    assert curation.count("Round 1: 26 of 60 questions kept</figcaption>") == 1
    assert "<td>60</td><td>26</td><td>43 %</td>" in curation and curation.count("<svg") == 2


def test_rounds_of_reinforcement_learning_stand_one_behind_the_other(text):
    learnt = section(text, "Reinforcement learning")
    assert "step, the rounds one behind the other" in learnt and ">round 2</text>" in learnt
    assert "<figcaption>Reward</figcaption>" in learnt
    assert "because of the clip" not in learnt  # all zeros are not drawn


def test_the_same_clip_by_round_with_its_sound(text):
    clips = section(text, "The same clips")
    assert clips.count("<article") == 1 and clips.count('src="data:audio/wav') == 1
    order = ("round 0, the cold start: wrong", "Round 0 thought", "after round 1: right", "Round 1 thought",
             "after round 2: right", "Round 2 thought")
    places = [clips.index(words) for words in order]
    assert places == sorted(places) and clips.count("as expected") == 2


def test_self_cognition_has_rates_with_intervals(text):
    said = section(text, "What it says it is")
    assert "Rate of errors: base 6.7 %; distilled 2.6 %; DPO 0 %" in said
    assert "<td>1,000</td><td>67</td><td>6.7 %</td><td>5.3 % to 8.4 %</td>" in said


def test_phases_and_settings_close_the_page(text):
    assert "1/rl, 2 retries</th><td>done</td><td>30 of 30</td><td>10 h</td>" in text
    assert "filter.gain</th><td>0.05</td>" in text and "text.jsonl" in section(text, "Settings")


# ---- runs that are not whole


@pytest.mark.parametrize("files", [("mgrd.json",), ("state.json",), ("mgrd.json", "state.json")])
def test_a_report_can_be_made_before_anything_is_there(tmp_path, files):
    for name in files:
        write_object(tmp_path / name, {})
    text = write_report(tmp_path).read_text(encoding="utf-8")
    assert "No round has been measured yet." in text and "<svg" not in text and Reader(text).open == []


def test_torn_lines_and_missing_texts_do_no_harm(tmp_path):
    write_object(tmp_path / "mgrd.json", {"name": "torn"})
    here = tmp_path / "rounds" / "1"
    decided = [decision("a:1", 0, "kept"), decision("a:2", 3, "odd")]
    write_lines(here / "decisions.jsonl", [{"decisions": 1}, *decided])
    write_lines(here / "rollouts.jsonl", [{"rollouts": 1}, rollout("a:1", 0, "<b>loud</b>")])
    for name in ("decisions.jsonl", "rollouts.jsonl"):
        with (here / name).open("a") as file:
            file.write('{"prompt": "a:9", "sample": 1, "th')
    (here / "rl").mkdir()
    (here / "rl" / "metrics.jsonl").write_text('{"step": 1, "rew')
    text = write_report(tmp_path).read_text(encoding="utf-8")
    assert "&lt;b&gt;loud&lt;/b&gt;" in text and "its text is not in rollouts.jsonl" in text
    assert "round 1: 1 of 2 kept" in text and ">odd</th>" in text


def test_a_phase_that_failed_is_told_first(tmp_path):
    phase = {"name": "1/rl", "state": "failed", "note": "no memory"}
    write_object(tmp_path / "state.json", {"phases": [phase]})
    text = write_report(tmp_path).read_text(encoding="utf-8")
    assert 'class="warning">1/rl failed: no memory</p>' in section(text, "Outcome")


def test_without_matplotlib_numbers_remain(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    text = write_report(a_run(tmp_path / "run")).read_text(encoding="utf-8")
    assert "<svg" not in text and "pip install" in section(text, "Outcome") and "9 (20 %)" in text


def test_a_folder_that_is_no_run_is_named(tmp_path):
    with pytest.raises(TrainingError, match=r"no mgrd.json and no state.json; give the folder of an MGRD run"):
        write_report(tmp_path)
    (tmp_path / "mgrd.json").write_text("{")
    with pytest.raises(TrainingError, match=r"mgrd.json: not JSON"):
        write_report(tmp_path)


def test_the_command_prints_where_the_page_is(tmp_path):
    write_object(tmp_path / "mgrd.json", {"name": "small"})
    done = CliRunner().invoke(cli, ["mgrd", "report", str(tmp_path)])
    assert done.exit_code == 0 and done.output.strip() == str(tmp_path / "report.html")
    assert "give the folder" in CliRunner().invoke(cli, ["mgrd", "report", str(tmp_path / "no")]).output


# ---- bars


def test_wide_parts_have_their_numbers_and_narrow_ones_none():
    svg = bars.lying(["round 1", "round 2"], [Bar("kept", "three", [1_000, 0]), Bar("judge", "one", [9, 2])],
                     "label", "samples")  # fmt: skip
    assert ">1,000</text>" in svg and ">9</text>" not in svg and "var(--three)" in svg and "var(--paper)" in svg
    assert Reader(bars.lying([], [], "none", "samples")).open == []


def test_intervals_of_no_errors_at_all_can_be_drawn():
    assert json.dumps(bars.intervals({"base": (0.0, 0.0, 0.0)}, "label", "unit")).count("0 %") >= 1
