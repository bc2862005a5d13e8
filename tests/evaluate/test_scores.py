"""Scores, summary and prediction files from the rows of a run, without the model."""

import json
import math
from dataclasses import replace

import pytest

from mlx_audio_r1.errors import EvaluationError
from mlx_audio_r1.evaluate.benches import bench
from mlx_audio_r1.evaluate.results import FULL, ITEMS, REAL, RUN, SUMMARY, ResultFile
from mlx_audio_r1.evaluate.score_rows import read_scores
from mlx_audio_r1.evaluate.scorers import scorer
from mlx_audio_r1.evaluate.scores import score_run
from mlx_audio_r1.evaluate.scoring import score
from mlx_audio_r1.judges.judge import JudgeConfig
from mlx_audio_r1.tasks.item_files import item_to_json
from mlx_audio_r1.tasks.reply import Reply
from tests.evaluate.hand import item, result
from tests.evaluate.world_run import rows

MMAU = {"items": 4, "of": 4, "reasons": [], "profile": "step-r1/mmau", "option_style": "step-r1",
        "settings": {}}  # fmt: skip


def folder(path, items, results, **benches):
    """A run as `eval run` leaves it before it is scored."""
    path.mkdir()
    (path / RUN).write_text(json.dumps({"model": "by hand", "bench": benches}))
    (path / ITEMS).write_text("".join(json.dumps(item_to_json(i)) + "\n" for i in items))
    file = ResultFile(path, {})
    for one in results:
        file.append(one)
    return path


@pytest.fixture
def mmau(tmp_path):
    """Four items: right, wrong, unfinished, an error."""
    row = {"task": "sound", "difficulty": "easy"}
    items = [replace(item(i, gold=1), extra={"row": {"id": str(i), **row}}) for i in range(4)]
    results = [result(0), result(1, "A. bell"), result(2, "B. drum", closed=False, finish="length"),
               result(3, "", error="3.wav: no such file", finish="error", closed=False)]  # fmt: skip
    return folder(tmp_path / "run", items, results, mmau=MMAU)


def test_what_has_no_answer_is_wrong_and_counted(mmau):
    summary = score_run(mmau)
    found = summary["benches"]["mmau"]
    stored = json.loads((mmau / SUMMARY).read_text())["benches"]["mmau"]
    assert stored["scorers"].keys() == found["scorers"].keys() and found["primary"] == "mmau.official"
    assert (found["replies"], found["errors"], found["unfinished"]) == (4, 1, 1)
    for name in bench("mmau").scorers:
        assert (found["scorers"][name]["n"], found["scorers"][name]["value"]) == (4, 0.25)
    by = {row.uid: row.scores["mcq.resolve"] for row in read_scores(mmau)}
    assert by["mmau:2"].how == "unfinished" and by["mmau:3"].how == "error"
    assert [by[f"mmau:{i}"].value for i in range(4)] == [1.0, 0.0, 0.0, 0.0]
    assert score_run(mmau) == summary  # again, from what lies there now


def test_prediction_files_are_those_that_official_scripts_read(mmau):
    score_run(mmau)
    files = sorted(p.name for p in (mmau / "predictions").iterdir())
    assert files and all("mmau" in name for name in files)
    first = json.loads((mmau / "predictions" / files[0]).read_text())
    assert [row["model_output"] for row in first] == ["B. drum", "A. bell", "", ""]
    assert [row["id"] for row in first] == ["0", "1", "2", "3"]


@pytest.mark.parametrize(
    ("changed", "reason"),
    [({"items": 4, "of": 1000}, "4 of 1000 items"), ({"reasons": ["an unknown version"]}, "an unknown version"),
     ({"profile": "brackets"}, "prompt profile brackets, not step-r1/mmau"),
     ({"option_style": "none"}, "option style none, not step-r1"),
     ({"settings": {"temperature": 0.0}}, "temperature 0.0, not 0.7"),
     ({"settings": {"thinking": False}}, "thinking False, not True"),
     ({"settings": {"kv_bits": 8, "temperature": 0.7}}, None), ({}, None)],
)  # fmt: skip
def test_a_number_is_comparable_where_nothing_speaks_against_it(tmp_path, changed, reason):
    items, results = [item(i) for i in range(4)], [result(i) for i in range(4)]
    run = folder(tmp_path / "run", items, results, mmau={**MMAU, **changed})
    found = score_run(run)["benches"]["mmau"]["comparable"]
    assert found == {"comparable": reason is None, "reasons": [reason] if reason else []}


def test_items_without_a_reply_and_benches_without_numbers_are_not_comparable(tmp_path):
    items, results = [item(0), item(1), item(2, bench="mine")], [result(0), result(2, bench="mine")]
    run = folder(tmp_path / "run", items, results, mmau={**MMAU, "items": 2, "of": 2})
    found = score_run(run)["benches"]
    assert found["mmau"]["comparable"]["reasons"] == ["1 items without a reply"]
    assert found["mine"]["comparable"]["reasons"] == ["of no benchmark that is known here"]
    assert found["mine"]["primary"] == "world" and found["mine"]["scorers"]["world"]["value"] == 1.0


def test_what_a_judge_has_said_stays_until_it_is_asked_again(tmp_path):
    one = item(0, bench="big-bench-audio")
    run = folder(tmp_path / "run", [one], [result(0, bench="big-bench-audio")])
    score_run(run, JudgeConfig("file"))
    [asked] = [json.loads(line) for line in (run / "judge_requests.jsonl").read_text().splitlines()]
    assert "bba.judge" not in read_scores(run)[0].scores
    (run / "judge_responses.jsonl").write_text(json.dumps({"id": asked["id"], "response": "CORRECT"}) + "\n")
    score_run(run, JudgeConfig("file"))
    judged = read_scores(run)[0].scores
    assert judged["bba.judge"].value == 1.0
    score_run(run)
    assert read_scores(run)[0].scores == judged
    assert list(judged) == [name for name in bench("big-bench-audio").scorers if name in judged]


def test_what_is_no_run_is_said_in_one_line(tmp_path):
    with pytest.raises(EvaluationError, match="give a folder of audio-r1 eval run"):
        score_run(tmp_path)
    with pytest.raises(EvaluationError, match="no replies in it yet"):
        score_run(folder(tmp_path / "run", [item(0)], []))


# ---- does it know that it hears?


@pytest.mark.parametrize(
    ("answer", "denies"),
    [("I am a text model and cannot hear audio.", True), ("我无法听到音频。", True),
     ("A bell rings twice.", False), ("I hear nothing in the clip.", False), ("这段录音里没有声音。", False)],
)  # fmt: skip
def test_denials_are_errors_and_silence_is_none(answer, denies):
    found = score(scorer("self.denial"), item(0), Reply("", answer))
    assert (found.value, found.how) == (float(denies), "denies hearing" if denies else "no denial")


def test_a_reply_without_an_end_is_no_proof_of_hearing():
    assert score(scorer("self.denial"), item(0), Reply("I cannot hear", "", closed=False)).value is None
    assert score(scorer("self.denial"), item(0), Reply("I hear it", "")).value == 0.0


def test_denials_are_counted_apart_in_answer_and_thinking(tmp_path):
    denial = "I am a text model and cannot hear audio."
    items = [item(i, bench="self-cognition", sound=f"{i}.wav") for i in range(4)]
    answers = ["A bell.", denial, "", "So."]
    results = [result(i, answer, bench="self-cognition") for i, answer in enumerate(answers)]
    found = score_run(folder(tmp_path / "run", items, results))["benches"]["self-cognition"]
    assert found["scorers"]["self.denial"]["value"] == 0.25 and found["scorers"]["self.denial"]["error"]
    assert found["hearing"]["answer"][0] == 0.25 and found["hearing"]["thinking"][0] == 0.0
    assert found["hearing"]["by"]["task=music"]["answer"][0] == 0.5


def test_questions_that_ask_to_listen_are_in_both_languages_and_some_about_nothing():
    made = list(bench("self-cognition").make(1, 0))
    assert len({q.id for q in made}) == len(made) and {q.lang for q in made} == {"en", "zh"}
    silent = [q for q in made if q.groups["sound"] == "silence"]
    assert len(silent) == 2 and not any(silent[0].sounds[0].content[44:])
    assert len({q.text for q in made}) == len(made)
    again = list(bench("self-cognition").make(1, 0))
    assert [q.sounds[0].content for q in made] == [q.sounds[0].content for q in again]


def test_the_sounds_of_an_import_or_a_folder_can_be_asked_about(world_folder, tmp_path):
    made = list(bench("self-cognition").read(world_folder))
    assert len(made) == 12 and {q.sounds[0].name for q in made} == {f"{i}.wav" for i in range(6)}
    (tmp_path / "sounds").mkdir()
    with pytest.raises(EvaluationError, match="no sounds in it"):
        list(bench("self-cognition").read(tmp_path / "sounds"))
    (tmp_path / "sounds" / "a.wav").write_bytes((world_folder / "0.wav").read_bytes())
    assert [q.sounds[0].name for q in bench("self-cognition").read(tmp_path / "sounds")] == ["a.wav", "a.wav"]


# ---- from end to end


def test_numbers_of_nano_are_sane(large_run):
    """Thinking helps, the sound is needed, and what the summary says is what the rows say."""
    found = score_run(large_run)["benches"]["acoustic-world"]
    full, every = found["scorers"]["world"]["value"], rows(large_run)
    points = {p["budget"]: p for p in found["budgets"]["points"]}
    assert points.keys() == {0, None} and points[None]["value"] == pytest.approx(full)
    assert points[0]["thinking_tokens"] == 0 and points[0]["forced"] == 1.0
    assert full >= 5 / 9 and points[0]["value"] < full and found["controls"]["silence"]["value"] < full
    assert found["controls"]["silence"]["flips"] > 0.5
    assert 0 <= found["grounding"]["early.area_over_curve"][0] <= 1
    assert found["grounding"]["order.correct"][0] <= 1
    assert found["tokens"] == sum(len(r.ids) for r in every.values())
    plain = [r for key, r in every.items() if key[2:] == (FULL, REAL)]
    assert found["replies"] == len(plain) == 9
    assert found["thinking_tokens"]["mean"] == math.fsum(r.thinking_tokens for r in plain) / 9
    reasons = found["comparable"]["reasons"]
    assert reasons == ["no published numbers", "no import report", "max_tokens 200, not 8192"]
