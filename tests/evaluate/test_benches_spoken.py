"""Big Bench Audio and Spoken-MQA: four kinds of answers, four splits, and numbers behind solutions."""

import json
from fractions import Fraction

import pytest

from mlx_audio_r1.errors import EvaluationError
from mlx_audio_r1.evaluate.benches import bench
from mlx_audio_r1.evaluate.importing import import_bench
from mlx_audio_r1.tasks.boolean import Boolean
from mlx_audio_r1.tasks.item_files import read_items
from mlx_audio_r1.tasks.label import Label
from mlx_audio_r1.tasks.number import Quantity
from mlx_audio_r1.tasks.reply import Reply
from mlx_audio_r1.tasks.verify import verify
from tests.evaluate import layouts


def imported(name, path, out):
    import_bench(bench(name), path, out)
    return list(read_items(out / "items.jsonl"))


def test_big_bench_has_a_target_for_each_category(tmp_path):
    items = imported("big-bench-audio", layouts.big_bench(tmp_path / "p"), tmp_path / "out")
    kinds = {"formal_fallacies": Label, "navigate": Boolean, "web_of_lies": Boolean,
             "object_counting": Quantity}  # fmt: skip
    assert [type(item.target) for item in items] == [kinds[item.groups["category"]] for item in items]
    assert [item.chance for item in items] == [0.5, 0.5, 0.5, 0.0] * 2
    assert [item.uid for item in items] == [f"big-bench-audio:{3 * k}" for k in range(8)]  # ids have gaps


@pytest.mark.parametrize(("reply", "right"), [
    ("invalid", {4}), ("valid", {0}), ("Not valid.", {4}), ("无效", {4}), ("Yes", {1, 6}), ("no", {2, 5}),
    ("7", {3}), ("twelve", {7}),
])  # fmt: skip
def test_big_bench_answers_are_verified_by_their_kind(tmp_path, reply, right):
    items = imported("big-bench-audio", layouts.big_bench(tmp_path / "p"), tmp_path / "out")
    assert {k for k, item in enumerate(items) if verify(reply, item).correct} == right


def test_big_bench_parquet_has_the_transcript_too(tmp_path):
    pytest.importorskip("pyarrow")
    items = imported("big-bench-audio", layouts.big_bench_parquet(tmp_path / "p"), tmp_path / "out")
    assert items[0].ref["transcript"] == "Is it so?" and items[0].sounds[0].source.endswith(".mp3")


@pytest.mark.parametrize(("changes", "message"), [
    ({"category": "riddles"}, "metadata.jsonl:2: category 'riddles': known are formal_fallacies, navigate"),
    ({"official_answer": "perhaps"}, "metadata.jsonl:2: official_answer 'perhaps': not what navigate has"),
    ({"category": "object_counting"}, "metadata.jsonl:2: official_answer 'Yes': not what object_counting has"),
    ({"category": "formal_fallacies"}, "metadata.jsonl:2: official_answer 'Yes': not what formal_f"),
])  # fmt: skip
def test_big_bench_answers_of_another_form_are_one_line(tmp_path, changes, message):
    rows = layouts.big_bench_rows()
    rows[1] |= changes
    with pytest.raises(EvaluationError, match=message):
        imported("big-bench-audio", layouts.big_bench(tmp_path / "p", rows), tmp_path / "out")


def test_spoken_mqa_splits_come_from_the_names_of_files(tmp_path):
    pytest.importorskip("pyarrow")
    items = imported("spoken-mqa", layouts.spoken_mqa(tmp_path / "p"), tmp_path / "out")
    assert {item.groups["split"] for item in items} == set(layouts.SPLITS)
    assert {item.uid for item in items} == {f"spoken-mqa:{s}:{k}" for s in layouts.SPLITS for k in (0, 1)}


def test_spoken_mqa_answers_are_numbers_behind_whatever_stands_before(tmp_path):
    pytest.importorskip("pyarrow")
    items = {i.uid: i for i in imported("spoken-mqa", layouts.spoken_mqa(tmp_path / "p"), tmp_path / "out")}
    values = {uid.removeprefix("spoken-mqa:"): item.target.value for uid, item in items.items()}
    assert values["short_digit:1"] == Fraction(3, 5)
    assert values["multi_step_reasoning:1"] == 1207
    assert items["spoken-mqa:short_digit:1"].extra["answer"] == "0.60"  # raw, as the official rule wants it
    assert items["spoken-mqa:multi_step_reasoning:0"].extra["answer"] == ["7"]


def test_spoken_mqa_predictions_are_a_file_a_split(tmp_path):
    pytest.importorskip("pyarrow")
    items = imported("spoken-mqa", layouts.spoken_mqa(tmp_path / "p"), tmp_path / "out")
    replies = {item.uid: Reply("", "7", closed=item.uid.endswith("0")) for item in items}
    files = bench("spoken-mqa").predictions(items, replies)
    assert set(files) == {f"spoken-mqa_{split}.json" for split in layouts.SPLITS}
    first, second = json.loads(files["spoken-mqa_multi_step_reasoning.json"])
    assert first == {
        "audio_gt": "Tom has three apples.", "instruction": "Solve the given math question step by step.",
        "answer": ["7"], "task_type": "MathQA", "model_prediction": "7",
    }  # fmt: skip
    assert second["model_prediction"] == "" and second["answer"] == ["3 and 4 are 7. #### 1,207"]


def test_spoken_mqa_an_answer_without_a_number_is_one_line(tmp_path):
    pytest.importorskip("pyarrow")
    rows = layouts.spoken_mqa_rows("short_digit")
    rows[1]["answer"] = {"text": "unknown", "audio": None}
    layouts.write_parquet(tmp_path / "p" / "short_digit.parquet", rows)
    with pytest.raises(EvaluationError, match=r"short_digit\.parquet: row 2: answer 'unknown' has no number"):
        imported("spoken-mqa", tmp_path / "p", tmp_path / "out")
