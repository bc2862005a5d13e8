"""The benchmarks beside the paper's first: every layout imported, Step-* and conversations with their traps."""

# ruff: noqa: RUF001  (full-width marks are meant)
import json
from dataclasses import replace
from pathlib import Path

import pytest

from mlx_audio_r1.audio import duration
from mlx_audio_r1.errors import EvaluationError
from mlx_audio_r1.evaluate.arrange import rearranged
from mlx_audio_r1.evaluate.benches import bench
from mlx_audio_r1.evaluate.detect import detect
from mlx_audio_r1.evaluate.importing import ImportOptions, import_bench
from mlx_audio_r1.evaluate.judge_words import item_words
from mlx_audio_r1.tasks.item_files import read_items
from mlx_audio_r1.tasks.judged import Judged
from mlx_audio_r1.tasks.reply import Reply
from tests.evaluate import layouts_second as layouts
from tests.evaluate.imports import imported, kinds_of, words_of


@pytest.mark.parametrize("layout", layouts.LAYOUTS)
def test_every_layout_is_imported_and_recognised(tmp_path, layout):
    name, make, parquet, count = layouts.LAYOUTS[layout]
    if parquet:
        pytest.importorskip("pyarrow")
    path, out = make(tmp_path / "download"), tmp_path / "out"
    report = import_bench(bench(name), path, out, ImportOptions(check_audio=True))
    items = list(read_items(out / "items.jsonl"))
    assert detect(path).name == name
    assert (report.items, report.left_out) == (count, ()) and len({item.uid for item in items}) == count
    for item in items:
        assert item.bench == name and item.license and item.extra["profile"] == bench(name).profile().name
        # an MP3 decodes to whole frames of 576 samples at 24 kHz, up to two more than went in
        assert all(duration(sound.source) == pytest.approx(0.2, abs=0.06) for sound in item.sounds)


@pytest.mark.parametrize("layout", layouts.LAYOUTS)
def test_a_missing_sound_stops_every_import_in_one_line(tmp_path, layout):
    name, make, parquet, count = layouts.LAYOUTS[layout]
    if parquet:
        pytest.importorskip("pyarrow")
    path = make(tmp_path / "download")
    if not parquet or name.startswith("mmau-pro"):
        root = path if path.is_dir() else path.parent
        next(f for f in sorted(root.rglob("*")) if f.suffix in (".wav", ".mp3", ".flac")).unlink()
        if name in ("asr-zh", "mmau-pro-open", "mmau-pro-instructions"):
            return  # the first sound there is of none of their questions
        says = rf"1 of {count} sounds cannot be used.*is not there"
        with pytest.raises(EvaluationError, match=says) as error:
            import_bench(bench(name), path, tmp_path / "out")
        assert "\n" not in str(error.value)


@pytest.mark.parametrize(("name", "says"), [
    ("wildspeech", "no parquet file in it"), ("step-caption", "no metadata.jsonl"),
    ("step-spqa", "no metadata"),
    ("step-dialogue", "no metadata.jsonl"), ("audio-mc", "no parquet file"), ("mmau-pro", "no parquet file"),
    ("air-bench-foundation", "no Foundation_meta.json"), ("air-bench-chat", "no Chat_meta.json"),
    ("voicebench-open", "no parquet file below a folder called alpacaeval"), ("uro-bench", "no SET/test.jsonl"),
    ("asr", "no recordings with words in it"), ("asr-zh", "no recordings"), ("asr-mixed", "no recordings"),
])  # fmt: skip
def test_an_empty_folder_says_what_should_be_in_it(tmp_path, name, says):
    with pytest.raises(EvaluationError, match=says) as error:
        next(iter(bench(name).read(tmp_path)))
    assert "\n" not in str(error.value) and "give" in str(error.value)


# ---- WildSpeech


def test_wildspeech_asks_by_sound_alone_and_counts_by_task_and_noise(tmp_path):
    pytest.importorskip("pyarrow")
    items = imported("wildspeech", layouts.wildspeech(tmp_path / "p"), tmp_path / "out")
    assert [kinds_of(item) for item in items] == [["audio"]] * 4
    assert [item.uid for item in items] == [f"wildspeech:{k}" for k in range(4)]  # hashes come twice
    assert items[1].groups == {"task": "prosodical", "noise": "natural_noise"}
    assert items[1].target == Judged(rubric=("- names country 0",))
    assert items[1].ref["transcript"] == "Which country is number 0?"
    written = bench("wildspeech").predictions(items, {items[1].uid: Reply("Hm.", "France.")})
    assert json.loads(written["wildspeech_results.jsonl"]) == {
        "user_query": "Which country is number 0?", "taskType": "prosodical", "checklist": "- names country 0",
        "conversation_hash": "hash0", "modification_type": "natural_noise", "additional_info": "stuttering",
        "response": ["France."],
    }  # fmt: skip


# ---- Step-*


def test_captions_are_asked_in_the_words_of_the_download_and_judged_so(tmp_path):
    items = imported("step-caption", layouts.step_caption(tmp_path / "p"), tmp_path / "out")
    assert words_of(items[0]) == "请描述说话人。" and kinds_of(items[0]) == ["audio", "text"]
    other = rearranged(items[0], bench("step-caption").profile("text-first"))
    assert kinds_of(other) == ["text", "audio"]
    assert [len(item.ref["speakers"]) for item in items] == [1, 2]
    assert [item.groups["speakers"] for item in items] == ["one", "several"]
    words = item_words(items[1])
    assert words.system == "你是评委。" and words.user.endswith('{"overall_score": 0.0}')


def test_without_its_prompt_a_caption_cannot_be_asked(tmp_path):
    path = layouts.step_caption(tmp_path / "p", prompts=False)
    with pytest.raises(EvaluationError, match=r"no prompts/model_user_prompt.txt in it; give the folder"):
        imported("step-caption", path, tmp_path / "out")


@pytest.mark.parametrize(("changes", "says"), [
    ({"speakers": []}, "speakers: expected a list with an object"),
    ({"speakers": ["x"]}, "speakers: expected a list with an object"),
    ({"is_multi_speakers": "no"}, "is_multi_speakers 'no': expected true or false"),
    ({"audio": None}, "no audio; there are test_id"),
])  # fmt: skip
def test_captions_of_another_form_are_one_line(tmp_path, changes, says):
    rows = layouts.caption_rows()
    rows[1] |= changes
    with pytest.raises(EvaluationError, match=rf"metadata.jsonl:2: {says}"):
        imported("step-caption", layouts.step_caption(tmp_path / "p", rows), tmp_path / "out")


def test_spqa_is_spoken_and_judged_by_its_kind(tmp_path):
    items = imported("step-spqa", layouts.step_spqa(tmp_path / "p"), tmp_path / "out")
    by_task = {item.groups["task"]: item for item in items}
    assert all(kinds_of(item) == ["audio"] for item in items) and len(by_task) == 11
    asked = {task: item_words(item).user for task, item in by_task.items()}
    assert asked["speed"].startswith("语速") and asked["age"].startswith("一样")
    assert by_task["age"].target == Judged(("答案0。",)) and by_task["age"].extra["label"] == "标签0"
    assert by_task["age"].ref["transcript"] == "问题0？"
    assert not any("internal" in json.dumps(item.extra) for item in items)


def test_a_missing_judge_prompt_of_spqa_is_named(tmp_path):
    path = layouts.step_spqa(tmp_path / "p")
    (path / "prompts/judge_prompts/speed.txt").unlink()
    with pytest.raises(EvaluationError, match=r"speed.txt: cannot be read"):
        imported("step-spqa", path, tmp_path / "out")
    (path / "prompts/judge_prompts/prompt_map.json").write_text("[1]")
    with pytest.raises(EvaluationError, match=r"prompt_map.json: is no JSON object"):
        imported("step-spqa", path, tmp_path / "out")


@pytest.mark.parametrize("template", ["", "请回答：{question}"])
def test_dialogue_labels_lose_their_spaces(tmp_path, template):
    path = layouts.step_dialogue(tmp_path / "p", template=template)
    items = imported("step-dialogue", path, tmp_path / "out")
    assert words_of(items[0]) == f"{template[:4]}我说得怎么样0？" and items[0].target == Judged(("快速",))
    assert items[1].groups == {"dimension": "年龄", "kind": "副语言"}
    assert items[1].uid == "step-dialogue:901"


def test_a_dialogue_without_a_label_is_one_line(tmp_path):
    rows = layouts.dialogue_rows()
    rows[2].pop("recording_requirement_or_qa_category")
    with pytest.raises(EvaluationError, match=r"metadata.jsonl:3: no recording_requirement_or_qa_category"):
        imported("step-dialogue", layouts.step_dialogue(tmp_path / "p", rows), tmp_path / "out")


# ---- Audio MultiChallenge


def test_conversations_are_sounds_of_the_person_and_texts_of_the_assistant(tmp_path):
    pytest.importorskip("pyarrow")
    two, one = imported("audio-mc", layouts.audio_mc(tmp_path / "p"), tmp_path / "out")
    assert [turn.role for turn in two.turns] == ["user", "assistant", "user"]
    assert two.turns[1].parts == ("assistant 0.1",) and len(two.sounds) == 2 and kinds_of(two) == ["audio"]
    assert [turn.role for turn in one.turns] == ["user"]
    assert two.target.rubric == ("names the cat", "does not shout")
    assert one.target.rubric == ('keeps the "rule"', "is short")  # a list as Python writes it
    assert two.ref["conversation"] == [{"role": "user", "text": "user 0.1"},
                                       {"role": "assistant", "text": "assistant 0.1"},
                                       {"role": "user", "text": "user 0.2"}]  # fmt: skip
    assert two.groups == {"axis": "VOICE_EDITING", "turns": "2"}


def test_the_card_of_the_conversations_has_what_a_judge_is_asked(tmp_path):
    pytest.importorskip("pyarrow")
    path = layouts.audio_mc(tmp_path / "p")
    assert item_words(imported("audio-mc", path, tmp_path / "a")[0]) is None
    prompt = "Look at «conversation_history».\n```json\n{}\n```\nPoint: «rubric_item»"
    (path / "README.md").write_text(f"# Card\n```\nother\n```\n````\n{prompt}\n````\nEnd\n", encoding="utf-8")
    words = item_words(imported("audio-mc", path, tmp_path / "b")[0])
    assert (words.user, words.source) == (prompt, "its card")


@pytest.mark.parametrize(("changes", "says"), [
    ({"rubric": "be nice"}, "rubric 'be nice': expected a list of points"),
    ({"rubric": "[]"}, r"rubric '\[\]': expected a list of points"),
    ({"rubric": "[3]"}, "rubric: a point '3' is no text"),
    ({"assistant_turn_1_transcript": None}, "no assistant_turn_1_transcript"),
    ({"user_turn_1_audio": None}, "user_turn_1_audio is empty, and later turns are not"),
])  # fmt: skip
def test_conversations_of_another_form_are_one_line(tmp_path, changes, says):
    pytest.importorskip("pyarrow")
    rows = layouts.audio_mc_rows()
    rows[0] |= changes
    rows[1]["user_turn_1_audio"] = rows[1]["user_turn_1_audio"] or {"bytes": b"", "path": None}
    with pytest.raises(EvaluationError, match=rf"row 1: {says}"):
        imported("audio-mc", layouts.audio_mc(tmp_path / "p", rows), tmp_path / "out")


def test_a_rubric_of_objects_is_read_too(tmp_path):
    pytest.importorskip("pyarrow")
    rubric = json.dumps([{"rubric_item": "says so", "weight": 1}])
    rows = [{**row, "rubric": rubric} for row in layouts.audio_mc_rows()]
    items = imported("audio-mc", layouts.audio_mc(tmp_path / "p", rows), tmp_path / "out")
    assert items[0].target.rubric == ("says so",)


# ---- columns


@pytest.mark.parametrize(("layout", "column"), [
    ("wildspeech", "checklist"), ("audio-mc", "rubric"), ("mmau-pro", "choices"), ("voicebench-open", "prompt"),
])  # fmt: skip
def test_a_missing_column_is_named(tmp_path, layout, column):
    pytest.importorskip("pyarrow")
    import pyarrow.parquet as pq

    name, make, _, _ = layouts.LAYOUTS[layout]
    path = make(tmp_path / "p")
    (file,) = path.rglob("*.parquet")
    pq.write_table(pq.read_table(file).drop_columns([column]), file)
    with pytest.raises(EvaluationError, match=rf"{file.name}: no column {column}; it has"):
        imported(name, path, tmp_path / "out")


def test_counts_that_differ_from_the_published_set_are_told(tmp_path):
    report = import_bench(bench("step-spqa"), layouts.step_spqa(tmp_path / "p"), tmp_path / "out")
    assert "11 of 550 items" in report.reasons and "1 of 50 age" in report.reasons
    known = replace(bench("step-spqa"), expected={"task": dict.fromkeys(layouts.TASKS, 1)})
    assert import_bench(known, Path(tmp_path / "p"), tmp_path / "out").comparable
