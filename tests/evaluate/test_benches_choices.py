"""MMAU, MMSU and MMAR: their rows as questions, traps and all, and the files their scripts read."""

import json

import pytest

from mlx_audio_r1.errors import EvaluationError
from mlx_audio_r1.evaluate.bench import Embedded
from mlx_audio_r1.evaluate.benches import bench
from mlx_audio_r1.evaluate.importing import import_bench
from mlx_audio_r1.evaluate.rows import Row
from mlx_audio_r1.evaluate.scorers import scorer
from mlx_audio_r1.evaluate.scorers.string_match import string_match
from mlx_audio_r1.tasks.item_files import read_items
from mlx_audio_r1.tasks.options import LETTERS
from mlx_audio_r1.tasks.reply import Reply
from tests.evaluate import layouts


def imported(name, path, out):
    import_bench(bench(name), path, out)
    return list(read_items(out / "items.jsonl"))


# MMAU


def test_mmau_questions_are_the_files(tmp_path):
    rows = layouts.mmau_rows()
    items = imported("mmau", layouts.mmau_json(tmp_path / "p"), tmp_path / "out")
    assert [item.uid for item in items] == [f"mmau:test-mini:{row['id']}" for row in rows]
    assert [list(item.target.options) for item in items] == [row["choices"] for row in rows]
    assert [item.extra["row"] for item in items] == rows


def test_mmau_equal_choices_are_both_right_and_a_category_may_be_a_list(tmp_path):
    items = imported("mmau", layouts.mmau_json(tmp_path / "p"), tmp_path / "out")
    assert items[2].target.gold == (0, 1) and items[2].chance == 0.5
    assert items[1].groups["category"] == "Reasoning"
    assert items[3].target.gold == (7,) and len(items[3].target.options) == 8
    assert items[6].messages()[0].parts[0].endswith("\nA.  fast\nB. slow\nC. steady\nD. none\n")  # as it is


def test_mmau_parquet_is_the_same_without_its_letters(tmp_path):
    pytest.importorskip("pyarrow")
    plain = imported("mmau", layouts.mmau_json(tmp_path / "p"), tmp_path / "out")
    lettered = imported("mmau", layouts.mmau_parquet(tmp_path / "q"), tmp_path / "out2")
    for one, other in zip(plain, lettered, strict=True):
        assert (one.uid, one.target.gold, one.groups) == (other.uid, other.target.gold, other.groups)
        # "(A)  fast" loses its space
        assert [option.strip() for option in one.target.options] == list(other.target.options)
    assert lettered[0].extra["choices"] == ["(A) cello", "(B) oboe", "(C) harp", "(D) snare"]
    assert lettered[0].extra["answer"] == "(C) harp"


@pytest.mark.parametrize("as_json", [True, False])
def test_mmau_copies_have_choices_as_a_list_or_as_text(tmp_path, as_json):
    pytest.importorskip("pyarrow")
    path = layouts.mmau_others(tmp_path / "p", as_json=as_json)
    items = imported("mmau", path, tmp_path / "out")
    assert [item.uid for item in items] == [f"mmau:test:{k}" for k in range(8)]
    assert items[3].target.options == layouts.WORDS
    assert items[0].groups == {"task": "sound", "difficulty": "easy"}


REPLIES = ("{text}", "{letter}. {text}", "{letter}", "The answer is {letter}. {text}", "**{letter}. {text}**",
           "")  # fmt: skip


def replies_to(items):
    """Right, and in every form in turn; the last item is not asked, the one before never ends."""
    made = {}
    for k, item in enumerate(items[:-1]):
        gold = item.target.gold[0]
        text = REPLIES[k % len(REPLIES)].format(letter=LETTERS[gold], text=item.target.options[gold])
        made[item.uid] = Reply("I hear it.", text, closed=k < len(items) - 2)
    return made


@pytest.mark.parametrize("layout", ["mmau-json", "mmau-parquet", "mmar-jsonl"])
@pytest.mark.parametrize("style", ["step-r1", "none"])
def test_predictions_give_the_official_rule_what_our_scorers_saw(tmp_path, layout, style):
    name, make, parquet = layouts.LAYOUTS[layout]
    if parquet:
        pytest.importorskip("pyarrow")
    items = imported(name, make(tmp_path / "p"), tmp_path / "out")
    items = [type(item)(**{**vars(item), "option_style": style}) for item in items]
    replies = replies_to(items)
    files = bench(name).predictions(items, replies)
    key = {"mmau": "model_output", "mmar": "answer_prediction"}[name]
    for end, official in (("", f"{name}.official"), ("_plain", f"{name}.official_plain")):
        text = next(files[file] for file in files if file.startswith(f"{name}_predictions{end}."))
        rows = json.loads(text) if text.startswith("[") else [json.loads(line) for line in text.splitlines()]
        assert [row["id"] for row in rows] == [item.extra["row"]["id"] for item in items[:-1]]
        assert rows[-1][key] == ""  # it never ended
        found = [string_match(row["answer"], row[key], row["choices"]) for row in rows]
        ours = [scorer(official).rule(row[key], item).value for row, item in zip(rows, items, strict=False)]
        assert found == [bool(value) for value in ours] and any(found) and not all(found)


def test_mmau_predictions_have_the_columns_its_script_counts_by(tmp_path):
    items = imported("mmau", layouts.mmau_json(tmp_path / "p"), tmp_path / "out")
    rows = json.loads(bench("mmau").predictions(items, replies_to(items))["mmau_predictions_plain.json"])
    for row, official in zip(rows, layouts.mmau_rows(), strict=False):
        assert {k: v for k, v in row.items() if k != "model_output"} == official


def test_nothing_asked_gives_no_predictions(tmp_path):
    for name, make in (("mmau", layouts.mmau_json), ("mmsu", layouts.mmsu_jsonl), ("mmar", layouts.mmar_jsonl)):
        items = imported(name, make(tmp_path / name), tmp_path / f"{name}-out")
        assert bench(name).predictions(items, {}) == {}


# MMSU


def test_mmsu_numbers_are_shown_as_text_and_given_back_as_they_are(tmp_path):
    items = imported("mmsu", layouts.mmsu_jsonl(tmp_path / "p"), tmp_path / "out")
    assert items[1].target.options == ("1", "2", "3", "4") and items[1].target.gold == (1,)
    assert items[1].extra["choices"] == [1, 2, 3, 4] and items[1].extra["answer"] == 2
    assert scorer("mmsu.official").rule("B", items[1]).value == 1.0
    [first, second, *_] = bench("mmsu").predictions(
        items, {item.uid: Reply("", "B", True) for item in items}
    )["mmsu_predictions.jsonl"].splitlines()
    assert json.loads(second) == {**layouts.mmsu_rows()[1], "response": "B"}
    assert json.loads(first)["response"] == "B"


def test_mmsu_empty_choices_are_not_shown(tmp_path):
    items = imported("mmsu", layouts.mmsu_jsonl(tmp_path / "p"), tmp_path / "out")
    assert items[2].target.options == ("yes", "no")
    assert items[2].extra["choices"] == ["yes", "no", "", ""]


def test_mmsu_groups_and_both_layouts_agree(tmp_path):
    pytest.importorskip("pyarrow")
    lines = imported("mmsu", layouts.mmsu_jsonl(tmp_path / "p"), tmp_path / "out")
    shards = imported("mmsu", layouts.mmsu_parquet(tmp_path / "q"), tmp_path / "out2")
    assert [item.uid for item in lines] == [item.uid for item in shards]
    assert [item.target for item in lines] == [item.target for item in shards]
    assert lines[0].groups == shards[0].groups == {
        "category": "Perception", "sub_category": "Paralinguistics", "sub_sub_category": "Speaking Style",
        "task": "task 0",
    }  # fmt: skip


def test_mmsu_may_be_given_as_the_file_itself(tmp_path):
    path = layouts.mmsu_jsonl(tmp_path / "p") / "question" / "mmsu.jsonl"
    assert len(imported("mmsu", path, tmp_path / "out")) == 6


# MMAR


def test_mmar_reasoning_cues_and_rubrics_are_references(tmp_path):
    item = imported("mmar", layouts.mmar_jsonl(tmp_path / "p"), tmp_path / "out")[0]
    row = layouts.mmar_rows()[0]
    assert item.ref == {"thinking": row["thinking"], "cues": row["cue"], "rubric": row["rubric"],
                        "question": row["question"]}  # fmt: skip
    assert item.groups == {"modality": "sound", "category": "Signal Layer", "sub_category": "Kind 0"}


def test_mmar_an_empty_last_choice_is_not_shown_but_kept(tmp_path):
    item = imported("mmar", layouts.mmar_jsonl(tmp_path / "p"), tmp_path / "out")[2]
    assert item.target.options == ("slow", "fast", "both", "neither")
    assert item.extra["choices"] == ["slow", "fast", "both", "neither", ""]


def test_mmar_of_2025_has_no_rubrics_and_sounds_in_an_archive(tmp_path):
    path = layouts.mmar_json(tmp_path / "p")
    questions = list(bench("mmar").read(path))
    assert [q.id for q in questions] == [f"made{k}_00-00-00_00-00-10" for k in (5, 4, 3, 2, 1, 0)]
    assert all(isinstance(q.sounds[0], Embedded) and q.sounds[0].content == layouts.wav(k)
               for k, q in zip((5, 4, 3, 2, 1, 0), questions, strict=True))  # fmt: skip
    assert questions[0].ref == {"thinking": None, "cues": [], "rubric": []}
    items = imported("mmar", path, tmp_path / "out")
    files = bench("mmar").predictions(items, {items[0].uid: Reply("So.", "yes", True)})
    assert set(files) == {"mmar_predictions.jsonl", "mmar_predictions_plain.jsonl"}


def test_mmar_rubrics_have_what_the_judges_script_reads(tmp_path):
    items = imported("mmar", layouts.mmar_jsonl(tmp_path / "p"), tmp_path / "out")
    files = bench("mmar").predictions(items, {items[1].uid: Reply("It rises.", "a drum", True)})
    [line] = files["mmar_rubrics.jsonl"].splitlines()
    official = {"thinking_prediction": "It rises.", "answer_prediction": "a drum"}
    assert json.loads(line) == {**layouts.mmar_rows()[1], **official}


def test_a_broken_archive_is_one_line(tmp_path):
    path = layouts.mmar_json(tmp_path / "p")
    whole = (path / "mmar-audio.tar.gz").read_bytes()
    (path / "mmar-audio.tar.gz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(EvaluationError, match=r"mmar-audio\.tar\.gz: cannot be unpacked"):
        imported("mmar", path, tmp_path / "out")


def test_a_sound_the_archive_lacks_is_missing(tmp_path):
    rows = layouts.mmar_rows()
    rows[0]["audio_path"] = "./audio/other.wav"
    path = layouts.mmar_json(tmp_path / "p")
    layouts.write_json(path / "MMAR-meta.json", rows)
    with pytest.raises(EvaluationError, match="1 of 6 sounds cannot be used, the first of mmar:made0"):
        imported("mmar", path, tmp_path / "out")


# Rows


def test_a_row_tells_what_it_lacks():
    row = Row("x.json: item 1", {"a": 1, "b": None, "c": [1, "x"], "d": "[1, 2]", "e": {"f": 1}})
    assert (row.text("a"), row.text("z", "a"), row.text_or("b", "none")) == ("1", "1", "none")
    assert row.texts("c") == row.texts("c") == ("1", "x") and row.texts("d") == ("1", "2")
    assert not row.has("a", "b") and row.nested("e").text("f") == "1"
    for call in (lambda: row.text("b"), lambda: row.text("c"), lambda: row.texts("a"), lambda: row.nested("a")):
        with pytest.raises(EvaluationError, match=r"x\.json: item 1: "):
            call()
