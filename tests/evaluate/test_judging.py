"""A run before its judges: a real server, people with a file, authors' prompts, and whatever is cut short."""

import json
from contextlib import contextmanager

import pytest
from click.testing import CliRunner

from mlx_audio_r1.cli.main import cli
from mlx_audio_r1.errors import EvaluationError, JudgeError
from mlx_audio_r1.evaluate.benches import bench
from mlx_audio_r1.evaluate.importing import import_bench
from mlx_audio_r1.evaluate.judge_words import OURS, SYSTEM_TURN, Words, assigned_texts, words_of
from mlx_audio_r1.evaluate.judging import REPORT, judge_replies, reasons_against, with_judged
from mlx_audio_r1.evaluate.results import Result
from mlx_audio_r1.evaluate.score_rows import score_row
from mlx_audio_r1.evaluate.scorers import scorer
from mlx_audio_r1.evaluate.scoring import Score
from mlx_audio_r1.judges.judge import CACHE, REQUESTS, RESPONSES, JudgeConfig, rows_of
from mlx_audio_r1.tasks.item_files import read_items
from tests.evaluate import layouts_second as layouts
from tests.evaluate.test_scores import folder as run_folder
from tests.mgrd.test_judges import server

MINI = "gpt-4o-mini"


def asked(name, path, out):
    """(items by uid, their uids) of an import."""
    import_bench(bench(name), path, out)
    items = {item.uid: item for item in read_items(out / "items.jsonl")}
    return items, list(items)


def result(uid, answer="Rome.", **more):
    return Result(uid, uid.partition(":")[0], thinking="Hm.", answer=answer, **more)


@pytest.fixture
def dialogue(tmp_path):
    """Four questions of Step-DU; their prompts are those of the download."""
    return asked("step-dialogue", layouts.step_dialogue(tmp_path / "p"), tmp_path / "import")


def by_label(body):
    """A judge of Step-DU that marks by the prompt: its label, and what was answered."""
    label, answer = body["messages"][-1]["content"].split("|")[2:]
    return json.dumps({"score": 1.0 if answer in label else 0.0})


# ---- a server


def test_a_server_judges_every_reply_in_the_words_of_the_download(tmp_path, dialogue):
    items, uids = dialogue
    results = [result(uid, answer) for uid, answer in zip(uids, ("快速", "老人", "叹气", "笑"), strict=True)]
    with server([by_label]) as (url, seen):
        judged = judge_replies(items, results, tmp_path, JudgeConfig(url, MINI))
    assert [judged.scores[r.key]["du.judge"].value for r in results] == [1.0, 0.0, 1.0, 0.0]
    assert judged.scores[results[0].key]["du.judge"].how == f"mark ({MINI}, its download)"
    assert all(body["messages"][0] == {"role": "system", "content": "评分。"} for _, _, body in seen)
    # several are asked at once, so they arrive in any order
    assert {body["messages"][1]["content"].partition("|")[0] for _, _, body in seen} == {"语速理解", "年龄"}
    assert seen[0][2]["temperature"] == 0 and seen[0][2]["max_tokens"] == 1024
    assert judged.waiting == 0
    told = json.loads((tmp_path / REPORT).read_text())["step-dialogue"]["du.judge"]
    reason = f"judge differs: {MINI}, published numbers are of a judge they do not name"
    assert told == {"judge": MINI, "words": "its download", "replies": 4, "waiting": 0, "unreadable": 0,
                    "reasons": [reason]}  # fmt: skip


def test_nothing_is_asked_twice_and_a_judge_that_fails_keeps_what_was_judged(tmp_path, dialogue):
    items, uids = dialogue
    results, broken = [result(uid, "快速") for uid in uids], [True]

    def judge(body):
        later = any(f"怎么样{n}" in body["messages"][-1]["content"] for n in (2, 3))
        return 401 if later and broken else by_label(body)

    with server([judge]) as (url, seen):
        config = JudgeConfig(url, MINI)
        with pytest.raises(JudgeError, match="refused"):
            judge_replies(items, results, tmp_path, config)
        assert len(rows_of(tmp_path / CACHE)) == 2 and not (tmp_path / REPORT).exists()
        broken.clear()
        seen.clear()
        first = judge_replies(items, results, tmp_path, config)
        assert len(seen) == 2 and len(first.scores) == 4
        assert judge_replies(items, results, tmp_path, config).scores == first.scores and len(seen) == 2


def test_only_replies_to_the_true_sound_with_all_their_thinking_are_judged(tmp_path, dialogue):
    items, uids = dialogue
    results = [result(uids[0]), result(uids[0], budget=64), result(uids[0], control="silence"),
               result(uids[1], closed=False), result(uids[2], error="no"), result("step-dialogue:unknown"),
               result("another:1")]  # fmt: skip
    with server([by_label]) as (url, seen):
        judged = judge_replies(items, results, tmp_path, JudgeConfig(url, MINI))
    assert len(seen) == 1 and set(judged.scores) == {results[n].key for n in (0, 3, 4)}
    assert judged.scores[results[3].key]["du.judge"] == Score(0.0, None, "unfinished")


def test_three_replies_of_one_server_are_three_though_the_prompt_is_one(tmp_path):
    pytest.importorskip("pyarrow")
    path = layouts.voicebench(tmp_path / "p", "alpacaeval")
    items, uids = asked("voicebench-open", path, tmp_path / "import")
    with server(["1", "2", "5", "3"]) as (url, seen):
        judged = judge_replies(items, [result(uids[0])], tmp_path, JudgeConfig(url, MINI))
        again = judge_replies(items, [result(uids[0])], tmp_path, JudgeConfig(url, MINI))
    assert len(seen) == 3 and len({json.dumps(body) for _, _, body in seen}) == 1
    assert "rater" not in seen[0][2] and seen[0][2]["top_p"] == 0.95
    score = judged.scores[result(uids[0]).key]["voicebench.open"]
    assert score.value == pytest.approx((1 + 2 + 5) / 15) and again.scores == judged.scores
    assert score.how == f"mean of 3 marks ({MINI}, {OURS})"


def test_verdicts_that_cannot_be_read_are_counted(tmp_path, dialogue):
    items, uids = dialogue
    told = []
    with server(["hm", '{"score": 1}']) as (url, _):
        judged = judge_replies(items, [result(uids[0])], tmp_path, JudgeConfig(url, MINI),
                               tell=lambda done, total: told.append((done, total)))  # fmt: skip
    report = judged.reports["step-dialogue"]["du.judge"]
    assert (report.unreadable, report.replies) == (1, 1) and told == [(1, 1)]
    assert judged.scores[result(uids[0]).key]["du.judge"].value == 0


def test_rows_have_the_judges_scores_in_the_order_of_the_benchmark(tmp_path, dialogue):
    items, uids = dialogue
    one = result(uids[0], "快速")
    row = score_row(one, {"du.rule": Score(1.0, "x")})
    with server([by_label]) as (url, _):
        (made,) = with_judged([row], judge_replies(items, [one], tmp_path, JudgeConfig(url, MINI)))
    assert list(made.scores) == ["du.judge", "du.rule"] and made.scores["du.rule"] == Score(1.0, "x")


# ---- people


def test_people_are_waited_for_and_a_half_judged_reply_has_no_score(tmp_path):
    pytest.importorskip("pyarrow")
    items, uids = asked("audio-mc", layouts.audio_mc(tmp_path / "p"), tmp_path / "import")
    results, config = [result(uid) for uid in uids], JudgeConfig("file", "Ann")
    judged = judge_replies(items, results, tmp_path, config)
    requests = rows_of(tmp_path / REQUESTS)
    assert len(requests) == 4 and judged.scores == {}  # two points each; both scorers ask the same
    assert judged.waiting == 4 and requests[0]["expects"]["criteria_met"] == "true or false"
    answers = [{"id": requests[0]["id"], "criteria_met": True},
               {"id": requests[1]["id"], "criteria_met": False},
               {"id": requests[2]["id"], "response": '{"criteria_met": true}'}]  # fmt: skip
    (tmp_path / RESPONSES).write_text("".join(json.dumps(answer) + "\n" for answer in answers))
    judged = judge_replies(items, results, tmp_path, config)
    assert len(rows_of(tmp_path / REQUESTS)) == 4 and judged.waiting == 1
    found = judged.scores[results[0].key]
    assert (found["audiomc.judge"].value, found["audiomc.ars"].value) == (0.0, 0.5)
    assert found["audiomc.ars"].how == f"1 of 2 points (file: Ann, {OURS})"
    assert results[1].key not in judged.scores


def test_raters_of_a_file_are_asked_one_by_one(tmp_path):
    pytest.importorskip("pyarrow")
    items, uids = asked("voicebench-qa", layouts.voicebench(tmp_path / "p", "sd-qa"), tmp_path / "import")
    judge_replies(items, [result(uids[0])], tmp_path, JudgeConfig("file"))
    rows = rows_of(tmp_path / REQUESTS)
    assert len({row["id"] for row in rows}) == 3
    assert [row["params"].get("rater", 0) for row in rows] == [0, 1, 2]


# ---- may the numbers be compared?


@pytest.mark.parametrize(("name", "one", "words", "model", "reasons"), [
    ("wildspeech", "wildspeech.judge", "official", MINI, ()),
    ("wildspeech", "wildspeech.judge", "official", f"openai/{MINI}", ()),
    ("wildspeech", "wildspeech.judge", "official", "other",
     (f"judge differs: other, published numbers are of {MINI}",)),
    ("wildspeech", "wildspeech.judge", "ours", MINI, (OURS,)),
    ("wildspeech", "wildspeech.judge", "mine", MINI, ("mine.txt: another prompt than the authors'",)),
    ("mmar", "mmar.rubrics", "official", "gpt-4o-2024-11-20", ()),
    ("mmar", "mmar.rubrics", "official", "gpt-4o", ("judge differs: gpt-4o, published numbers are of "
                                                    "gpt-4o-2024-11-20",)),
    ("step-spqa", "spqa.judge", "mine", MINI,
     (f"judge differs: {MINI}, published numbers are of a judge they do not name",)),
])  # fmt: skip
def test_a_number_is_comparable_with_its_judge_and_its_prompt(name, one, words, model, reasons):
    asked_in = {"official": Official(source="api_judge.py"), "ours": scorer(one).words,
                "mine": Words("{response}", source="mine.txt")}[words]  # fmt: skip
    Official.sha256 = scorer(one).official
    assert reasons_against(bench(name), scorer(one), asked_in, JudgeConfig("http://h/v1", model)) == reasons


def test_a_local_model_is_not_the_one_it_is_called_and_other_parameters_are_told():
    wild, one = bench("wildspeech"), scorer("wildspeech.judge")
    local = reasons_against(wild, one, one.words, JudgeConfig("mlx:a/b", MINI))
    assert local[0] == f"judge differs: mlx:a/b, published numbers are of {MINI}"
    hotter = JudgeConfig("http://h/v1", MINI, params={"temperature": 1, "top_p": 0.95, "seed": 3})
    assert reasons_against(wild, one, one.words, hotter) == (OURS, "judge's temperature 1, not 0.5")
    people = reasons_against(wild, one, one.words, JudgeConfig("file", MINI))
    assert people == (OURS,)  # who says that this judge wrote the file is believed


def test_a_download_whose_prompt_has_no_place_for_the_reply_is_one_line(tmp_path):
    path = layouts.step_dialogue(tmp_path / "p")
    (path / "prompts/judge_user_prompt_template.txt").write_text("Is it right?")
    items, uids = asked("step-dialogue", path, tmp_path / "import")
    with refused(r"its download: a prompt for du.judge needs \{model_answer\}, where the reply goes"):
        judge_replies(items, [result(uids[0])], tmp_path, JudgeConfig("file"))


class Official(Words):
    """Words that have the digest of the authors' prompt, which is no part of this repository."""

    sha256 = ""


# ---- the authors' words

SCRIPT = '''
general = "- be kind\\n"
meta = """Ask {query}: {response}
{checklist}"""

def judge(item):
    section = f"""
    ### {item['name']}: {item['scoring_point']}
    """
    prompt = f"{{\\"a\\": 1}} {thinking_prediction}".strip()
    send(messages=[{"role": "system", "content": "Judge."}, {"role": "user", "content": prompt}])
'''


def test_a_script_is_read_and_not_run(tmp_path):
    found = assigned_texts(SCRIPT)
    assert found["general"] == ["- be kind\n"]
    assert found["section"][0].strip() == "### {item['name']}: {item['scoring_point']}"
    assert found["prompt"] == ['{"a": 1} {thinking_prediction}'] and found[SYSTEM_TURN] == ["Judge."]
    script = tmp_path / "api_judge.py"
    named = SCRIPT.replace("general ", "general_checklist ").replace("meta ", "meta_prompt ")
    script.write_text(named + "raise SystemExit")
    words = words_of(script, scorer("wildspeech.judge"))
    assert words.user.startswith("Ask {query}") and words.parts == {"checklist": "- be kind\n"}
    assert words.source == str(script) and words.sha256 != scorer("wildspeech.judge").official


@contextmanager
def refused(says):
    with pytest.raises(EvaluationError, match=says) as error:
        yield
    assert "\n" not in str(error.value)


def test_prompts_that_cannot_be_used_are_one_line(tmp_path):
    one, folder = scorer("bba.judge"), tmp_path / "prompts"
    folder.mkdir()
    text = tmp_path / "prompt.txt"
    with refused("prompt.txt: cannot be read"):
        words_of(text, one)
    text.write_text(" \n")
    with refused("prompt.txt: is empty"):
        words_of(text, one)
    text.write_text("Is it right?")
    with refused(r"a prompt for bba.judge needs \{candidate_answer\}, where the reply goes"):
        words_of(text, one)
    text.write_bytes(b"\xff\xfe{candidate_answer}")
    with refused("not UTF-8"):
        words_of(text, one)
    with refused("no judge_user_prompt_template.txt in it"):
        words_of(folder, one)
    script = tmp_path / "judge.py"
    script.write_text("prompt = (")
    with refused("no script has the prompt of bba.judge"):
        words_of(script, one)
    with refused("judge.py: is no Python"):
        words_of(script, scorer("wildspeech.judge"))
    script.write_text("meta_prompt = '{response}'")
    with refused("judge.py: no text general_checklist in it"):
        words_of(script, scorer("wildspeech.judge"))


def test_a_prompt_file_and_a_prompts_folder_are_taken_as_they_are(tmp_path):
    text = tmp_path / "bba.txt"
    text.write_text("\ufeffIs {candidate_answer} like {official_answer}?\n", encoding="utf-8")
    assert words_of(text, scorer("bba.judge")).user == "Is {candidate_answer} like {official_answer}?"
    path = layouts.step_dialogue(tmp_path / "p")
    words = words_of(path / "prompts", scorer("du.judge"))
    assert words.system == "评分。" and words.user.endswith("|{model_answer}")


def test_given_words_come_before_those_of_the_download(tmp_path, dialogue):
    items, uids = dialogue
    given = {"du.judge": Words("Mark {model_answer}", source="mine.txt")}
    with server(['{"score": 0.5}']) as (url, seen):
        judged = judge_replies(items, [result(uids[0])], tmp_path, JudgeConfig(url, MINI), words=given)
    assert seen[0][2]["messages"] == [{"role": "user", "content": "Mark Rome."}]
    assert judged.reports["step-dialogue"]["du.judge"].words == "mine.txt"


# ---- as a person calls it


def called(*arguments):
    return CliRunner().invoke(cli, ["eval", "score", *map(str, arguments), "--no-progress"])


def value_of(folder, name, one):
    return json.loads((folder / "summary.json").read_text())["benches"][name]["scorers"][one]["value"]


def test_people_are_asked_waited_for_and_heard(tmp_path, dialogue):
    items, uids = dialogue
    out = run_folder(tmp_path / "run", items.values(), [result(uid) for uid in uids])
    first = called(out, "--judge", "file", "--judge-model", "Ann")
    assert first.exit_code == 3
    assert f"{out / REQUESTS}: 4 verdicts are still to come; write them to {RESPONSES}" in first.stderr
    marks = [{"id": row["id"], "score": n / 4} for n, row in enumerate(rows_of(out / REQUESTS))]
    (out / RESPONSES).write_text("".join(json.dumps(mark) + "\n" for mark in marks))
    second = called(out, "--judge", "file", "--judge-model", "Ann")
    assert second.exit_code == 0 and "still to come" not in second.stderr
    assert value_of(out, "step-dialogue", "du.judge") == pytest.approx((0 + 1 + 2 + 3) / 16)
    assert called(out).exit_code == 0  # without a judge what was said stays
    assert value_of(out, "step-dialogue", "du.judge") == pytest.approx((0 + 1 + 2 + 3) / 16)


def test_a_server_and_a_prompt_file_from_the_command_line(tmp_path, dialogue):
    items, uids = dialogue
    out = run_folder(tmp_path / "run", items.values(), [result(uid) for uid in uids])
    prompt = tmp_path / "mine.txt"
    prompt.write_text("Mark {model_answer}")
    with server(['{"score": 0.5}']) as (url, seen):
        done = called(out, "--judge", url, "--judge-model", MINI, "--judge-prompt", f"du.judge={prompt}",
                      "--judge-api-key", "secret")  # fmt: skip
    assert done.exit_code == 0 and value_of(out, "step-dialogue", "du.judge") == 0.5
    assert seen[0][1]["Authorization"] == "Bearer secret"
    assert seen[0][2]["messages"] == [{"role": "user", "content": "Mark Rome."}] and len(seen) == 1
    assert not any("secret" in file.read_text("utf-8", "replace") for file in out.iterdir() if file.is_file())
    with server(['{"score": 1}']) as (other, seen):
        params = ["--judge-param", "max_tokens=", "--judge-param", "max_completion_tokens=900"]
        assert called(out, "--judge", other, "--judge-model", "o", *params).exit_code == 0
    assert {**seen[0][2], "messages": 0} == {"model": "o", "messages": 0, "temperature": 0,
                                             "max_completion_tokens": 900}  # fmt: skip
    assert called(out, "--judge", other, "--judge-param", "temperature").exit_code == 2
    wrong = called(out, "--judge", url, "--judge-prompt", f"du.judge={tmp_path / 'none.txt'}")
    assert wrong.exit_code == 1
    assert wrong.stderr.strip().endswith("none.txt: cannot be read (No such file or directory)")
