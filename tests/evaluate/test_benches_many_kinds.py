"""MMAU-Pro, AIR-Bench, VoiceBench, URO-Bench and speech recognition: kinds of questions, traps, faults."""


import json

import pytest

from mlx_audio_r1.errors import EvaluationError
from mlx_audio_r1.evaluate.arrange import rearranged
from mlx_audio_r1.evaluate.benches import bench
from mlx_audio_r1.evaluate.detect import detect
from mlx_audio_r1.tasks.boolean import Boolean
from mlx_audio_r1.tasks.choice import Choice
from mlx_audio_r1.tasks.judged import Judged
from mlx_audio_r1.tasks.reply import Reply
from mlx_audio_r1.tasks.verify import verify
from mlx_audio_r1.tasks.wording import Wording
from tests.evaluate import layouts_second as layouts
from tests.evaluate.imports import imported, kinds_of, words_of

# ---- MMAU-Pro


def test_mmau_pro_is_three_benchmarks_by_how_they_are_scored(tmp_path):
    pytest.importorskip("pyarrow")
    path = layouts.mmau_pro(tmp_path / "p")
    choices = imported("mmau-pro", path, tmp_path / "c")
    assert [len(item.sounds) for item in choices] == [2, 1]
    assert [item.groups["sounds"] for item in choices] == ["several", "one"]
    assert choices[1].target == Choice(("Cello", "oboe", "harp"), (1,))  # the answer is "Oboe "
    (opened,) = imported("mmau-pro-open", path, tmp_path / "o")
    assert opened.target == Judged(("A dog barks.",))
    (told,) = imported("mmau-pro-instructions", path, tmp_path / "i")
    assert told.extra["task_identifier"] == "Keyword Frequency"
    assert told.extra["kwargs"] == {"N": 2, "keyword": "dog"}
    with pytest.raises(EvaluationError, match="may be mmau-pro or mmau-pro-open or mmau-pro-instructions"):
        detect(path)


def test_a_choice_whose_answer_is_none_of_them_is_kept_and_cannot_be_right(tmp_path):
    pytest.importorskip("pyarrow")
    rows = layouts.mmau_pro_rows()[:2]
    rows[0]["answer"] = "neither"
    rows[1]["choices"] = ["Cello", None, "oboe", " "]
    items = imported("mmau-pro", layouts.mmau_pro(tmp_path / "p", rows), tmp_path / "out")
    assert items[0].target == Judged(("neither",))
    assert items[1].target == Choice(("Cello", "oboe"), (1,))


def test_what_an_instruction_asks_for_may_be_written_down_as_text(tmp_path):
    pytest.importorskip("pyarrow")
    rows = layouts.mmau_pro_rows()[3:]
    rows[0] |= {"kwargs": '{"N": 2, "keyword": "dog"}', "audio_path": "data/3.wav"}
    (told,) = imported("mmau-pro-instructions", layouts.mmau_pro(tmp_path / "p", rows), tmp_path / "out")
    assert told.extra["kwargs"] == {"N": 2, "keyword": "dog"} and len(told.sounds) == 1
    rows[0]["kwargs"] = "dog"
    with pytest.raises(EvaluationError, match="row 1: kwargs: is not JSON"):
        imported("mmau-pro-instructions", layouts.mmau_pro(tmp_path / "q", rows), tmp_path / "again")


# ---- AIR-Bench


def test_foundation_asks_in_its_own_words_and_finds_flac(tmp_path):
    items = imported("air-bench-foundation", layouts.air_foundation(tmp_path / "p"), tmp_path / "out")
    assert words_of(items[1]) == (
        "Choose the most suitable answer from options A, B, C, and D to respond the question in next line, you "
        "may only choose A or B or C or D.\nIs it?\nA. yes\nB. no"
    )
    assert [len(item.target.options) for item in items] == [4, 2, 4]
    assert items[2].sounds[0].source.endswith(".flac") and items[2].groups["task"] == "Audio_Grounding"
    written = bench("air-bench-foundation").predictions(items, {items[0].uid: Reply("", "B.")})
    row = json.loads(written["Foundation_result.jsonl"])
    assert row["response"] == "B." and row["answer_gt"] == "dog" and row["uniq_id"] == 0


def test_an_answer_that_is_no_choice_is_one_line(tmp_path):
    rows = layouts.foundation_rows()
    rows[1]["answer_gt"] = "perhaps"
    with pytest.raises(EvaluationError, match="item 2: answer 'perhaps' is none of the choices"):
        imported("air-bench-foundation", layouts.air_foundation(tmp_path / "p", rows), tmp_path / "out")


def test_chat_is_reported_by_area(tmp_path):
    items = imported("air-bench-chat", layouts.air_chat(tmp_path / "p"), tmp_path / "out")
    assert [item.groups["area"] for item in items] == ["speech", "music"]
    assert items[0].ref["description"] == "sound number 0" and items[0].target == Judged(("It is 0.",))
    rows = [{**row, "meta_info": None} for row in layouts.chat_rows()]
    with pytest.raises(EvaluationError, match="item 1: no meta_info"):
        imported("air-bench-chat", layouts.air_chat(tmp_path / "q", rows), tmp_path / "again")


# ---- VoiceBench and URO-Bench


@pytest.mark.parametrize(("kind", "subset", "target"), [
    ("open", "alpacaeval", Judged(("Paris.",))), ("qa", "sd-qa", Judged(("Mount Everest",))),
    ("mcq", "openbookqa", Choice(("A", "B", "C", "D"), (1,))), ("bbh", "bbh", Choice(("A", "B"), (1,))),
    ("ifeval", "ifeval", Judged()), ("harm", "advbench", Judged()),
])  # fmt: skip
def test_voicebench_is_a_benchmark_for_each_way_of_scoring(tmp_path, kind, subset, target):
    pytest.importorskip("pyarrow")
    items = imported(f"voicebench-{kind}", layouts.voicebench(tmp_path / "p", subset), tmp_path / "out")
    assert [item.target for item in items] == [target, target] and kinds_of(items[0]) == ["audio"]
    assert items[0].groups == {"subset": subset, "split": "test"}
    assert items[0].ref["transcript"] == "Question 0?"
    written = bench(f"voicebench-{kind}").predictions(items, {items[1].uid: Reply("", "so")})
    assert json.loads(written[f"{subset}-test-audio.jsonl"]) == {
        "prompt": "Question 1?", **layouts.VOICE[subset], "response": "so",
    }  # fmt: skip


def test_voicebench_takes_its_own_subsets_of_the_whole_folder(tmp_path):
    pytest.importorskip("pyarrow")
    for subset in ("alpacaeval", "sd-qa", "bbh"):
        layouts.voicebench(tmp_path / "p", subset)
    layouts.voicebench(tmp_path / "p", "sd-qa", split="aus")
    write = tmp_path / "p" / "mtbench" / "test-00000-of-00001.parquet"
    write.parent.mkdir()
    write.write_bytes(b"of another layout")
    items = imported("voicebench-qa", tmp_path / "p", tmp_path / "out")
    assert sorted(item.uid for item in items) == [
        f"voicebench-qa:{split}:sd-qa:{k}" for split in ("aus", "test") for k in (0, 1)
    ]  # fmt: skip
    assert len(imported("voicebench-open", tmp_path / "p", tmp_path / "open")) == 2


@pytest.mark.parametrize(("subset", "reference", "target"), [
    ("bbh", "Yes", Boolean(True)), ("bbh", "no", Boolean(False)), ("bbh", "(A)", Choice(("A", "B"), (0,))),
    ("bbh", "maybe", "expected yes, no, (a) or (b)"), ("openbookqa", "E", "expected A, B, C or D"),
])  # fmt: skip
def test_voicebench_references_have_few_forms(tmp_path, subset, reference, target):
    pytest.importorskip("pyarrow")
    rows = [{**row, "reference": reference} for row in layouts.voice_rows(subset)]
    path, name = layouts.voicebench(tmp_path / "p", subset, rows), "bbh" if subset == "bbh" else "mcq"
    if isinstance(target, str):
        with pytest.raises(EvaluationError, match="expected") as error:
            imported(f"voicebench-{name}", path, tmp_path / "out")
        assert target in str(error.value)
    else:
        assert imported(f"voicebench-{name}", path, tmp_path / "out")[0].target == target


def test_spoken_options_are_answered_by_their_letter(tmp_path):
    pytest.importorskip("pyarrow")
    items = imported("voicebench-mcq", layouts.voicebench(tmp_path / "p", "openbookqa"), tmp_path / "out")
    assert items[0].target == Choice(("A", "B", "C", "D"), (1,)) and verify("B", items[0]).correct
    rows = layouts.voice_rows("openbookqa")
    rows[0]["prompt"] = "What pulls iron? A. a leaf B. a magnet C. rain D. a bell"
    path = layouts.voicebench(tmp_path / "q", "openbookqa", rows)
    told = imported("voicebench-mcq", path, tmp_path / "again")[0]
    assert told.target == Choice(("a leaf", "a magnet", "rain", "a bell"), (1,)) and kinds_of(told) == ["audio"]
    assert verify("The answer is B. A magnet.", told).correct and not verify("(C)", told).correct


def test_uro_has_a_mode_and_what_it_tells_a_judge_more(tmp_path):
    path = layouts.uro(tmp_path / "p", "AlpacaEval", "UnderEmotion-en", "Multilingual", "Repeat-zh", "SRT-en")
    items = {item.groups["set"]: item for item in imported("uro-bench", path, tmp_path / "out")}
    assert items["UnderEmotion-en"].extra["mode"] == "ue" and items["UnderEmotion-en"].extra["about"] == "sad"
    assert items["Multilingual"].extra["about"] == "French"
    assert items["UnderEmotion-en"].target == Judged(("I am sorry.", "Oh no."))
    assert items["AlpacaEval"].target == Judged(("Name a city.",)) and len(items) == 3
    (repeated, _) = imported("uro-repeat", path, tmp_path / "repeat")
    assert repeated.target == Wording(("你好",), "cer") and repeated.lang == "zh"


def test_uro_sets_that_must_be_heard_are_refused_by_name(tmp_path):
    with pytest.raises(EvaluationError, match="SRT-en is answered by voice or in several rounds"):
        imported("uro-bench", layouts.uro(tmp_path / "p", "SRT-en"), tmp_path / "out")
    row = {"source_wav": "wav/0.wav", "source_text": "x"}
    (tmp_path / "q/GenStyle-en").mkdir(parents=True)
    (tmp_path / "q/GenStyle-en/test.jsonl").write_text(json.dumps(row))
    with pytest.raises(EvaluationError, match=r"test.jsonl:1: no style"):
        imported("uro-bench", tmp_path / "q", tmp_path / "out")


# ---- speech recognition


def test_librispeech_knows_its_parts(tmp_path):
    items = imported("asr", layouts.librispeech(tmp_path / "p"), tmp_path / "out")
    assert [item.target for item in items] == [Wording((f"HE HOPED {w}",), "wer") for w in ("SO", "NOT")]
    assert items[0].groups == {"part": "test-clean"} and items[0].uid == "asr:1089-134686-0000"
    assert items[0].extra["thinking"] is False and kinds_of(items[0]) == ["audio", "text"]
    asked = rearranged(items[0], bench("asr").profile("ultraeval"))
    assert words_of(asked) == 'listen the audio, output the audio content with format {"content": ""}'


def test_aishell_has_no_spaces_and_recordings_without_words(tmp_path):
    items = imported("asr-zh", layouts.aishell(tmp_path / "p"), tmp_path / "out")
    assert [(item.uid, item.target) for item in items] == [("asr-zh:S1W1", Wording(("你好世界",), "cer"))]
    with pytest.raises(EvaluationError, match="S1W1 is zh; import it as asr-zh"):
        imported("asr", tmp_path / "p", tmp_path / "again")


def test_kaldi_is_files_not_commands(tmp_path):
    items = imported("asr", layouts.kaldi(tmp_path / "p"), tmp_path / "out")
    assert [item.target.references for item in items] == [("one two",), ("three",)]
    for scp, says in (("u1 sox a.wav -t wav - |\nu2 b.wav\n", r"u1 is a command \(sox a.wav"),
                      ("u2 sounds/2.wav\n", "no sound for u1")):  # fmt: skip
        with pytest.raises(EvaluationError, match=says):
            imported("asr", layouts.kaldi(tmp_path / "q", scp), tmp_path / "again")
    (tmp_path / "p/text").unlink()
    with pytest.raises(EvaluationError, match="text: is not there; a Kaldi folder has"):
        imported("asr", tmp_path / "p", tmp_path / "again")


@pytest.mark.parametrize(("name", "row", "says"), [
    ("asr", {"audio": "a.wav", "text": "你好"}, "1 is Chinese; import it as asr-zh or asr-mixed"),
    ("asr", {"audio": "a.wav", "text": "x", "lang": "zh-CN"}, "1 is zh; import it as asr-zh"),
    ("asr-zh", {"audio": "a.wav", "text": "x", "lang": "English"}, "1 is en; import it as asr"),
    ("asr", {"audio": "a.wav", "text": "x", "lang": "de"}, "lang 'de': counted are en, zh and mixed"),
    ("asr", {"audio": "a.wav", "text": "x", "question": "?"}, "has a question"),
    ("asr", {"audio": "a.wav"}, "no text; there are audio"), ("asr", {"text": "x"}, "no audio or audio_path"),
])  # fmt: skip
def test_lists_of_another_language_or_form_are_one_line(tmp_path, name, row, says):
    with pytest.raises(EvaluationError, match=says) as error:
        imported(name, layouts.manifest(tmp_path / "p", [row]), tmp_path / "out")
    assert "\n" not in str(error.value)


def test_a_mixed_list_counts_both(tmp_path):
    rows = [{"audio": "a.wav", "text": "打开 bluetooth", "lang": "zh-en", "id": "one", "subset": "car"}]
    (item,) = imported("asr-mixed", layouts.manifest(tmp_path / "p", rows), tmp_path / "out")
    assert item.target.metric == "mer" and item.uid == "asr-mixed:one" and item.groups == {"part": "car"}
