"""Synthetic downloads of the benchmarks beside the paper's first five: their layouts, other words and sounds.

    name, make, parquet, count = LAYOUTS["step-spqa"]
    path = make(tmp_path / "download")
"""

# ruff: noqa: RUF001  (full-width marks are meant)
from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import soundfile

from tests.evaluate.layouts import Rows, mp3, tone, wav, write, write_json, write_jsonl, write_parquet

TASKS = ("age", "emotions", "event", "gender", "pitch", "rhythm", "scene", "speed", "vocalsound",
         "voice_styles", "voice_tone")  # fmt: skip
FIELDS = ("language", "gender", "age_group", "speech_rate", "rhythm", "pitch", "clarity", "background_sound",
          "timbre", "language_style", "paralinguistic_features", "emotion", "overall_impression",
          "dialect_or_accent", "formality_level")  # fmt: skip


def flac(number: int) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, tone(number), 16_000, format="FLAC")
    return file.getvalue()


# WildSpeech


def wildspeech_rows(n: int = 4) -> Rows:
    """The same question twice, clean and in noise: its hash is no name."""
    return [
        {
            "audio": {"bytes": wav(k), "path": f"{k}.wav"}, "user_query": f"Which country is number {k // 2}?",
            "taskType": ("information_inquiry", "prosodical")[k % 2], "checklist": f"- names country {k // 2}",
            "conversation_hash": f"hash{k // 2}", "modification_type": ("clean", "natural_noise")[k % 2],
            "additional_info": "stuttering" if k % 2 else "",
        }
        for k in range(n)
    ]  # fmt: skip


def wildspeech(folder: Path, rows: Rows | None = None) -> Path:
    write_parquet(folder / "data" / "train-00000-of-00001.parquet", wildspeech_rows() if rows is None else rows)
    return folder


# Step-*


def caption_rows() -> Rows:
    one = {name: "中" for name in FIELDS} | {"language": "中文", "emotion": "无法判断"}
    two = {name: "高" for name in FIELDS} | {"language": "英文", "dialect_or_accent": "无"}
    return [
        {"test_id": "test_0001", "audio": "test_0001.mp3", "is_multi_speakers": False, "speakers": [one]},
        {"test_id": "test_0002", "audio": "test_0002.mp3", "is_multi_speakers": True, "speakers": [one, two]},
    ]


def step_caption(folder: Path, rows: Rows | None = None, prompts: bool = True) -> Path:
    for k, row in enumerate(caption_rows()):
        write(folder / "audio" / row["audio"], mp3(k))
    write_jsonl(folder / "metadata.jsonl", caption_rows() if rows is None else rows)
    if prompts:
        write(folder / "prompts/model_user_prompt.txt", "请描述说话人。\n".encode())
        write(folder / "prompts/judge_system_prompt.txt", "你是评委。\n".encode())
        template = '{ground_truth} {num_speakers} {model_output} {speakers_str} {"overall_score": 0.0}\n'
        write(folder / "prompts/judge_user_prompt_template.txt", template.encode())
    return folder


def spqa_rows() -> Rows:
    return [
        {
            "id": f"{task}:{k}", "audio_id": f"{k}", "audio_path": f"audio/{task}/{k}_input.wav",
            "task_type": task, "task_name": task, "label": f"标签{k} ", "question": "",
            "reference_answer": f"答案{k}。 ", "audio_only_input": True, "legacy_question": f"问题{k}？",
            "source_text": "你好", "audio_order": "question_first", "input_path": "/internal/x.wav",
        }
        for k, task in enumerate(TASKS)
    ]  # fmt: skip


def step_spqa(folder: Path, rows: Rows | None = None) -> Path:
    rows = spqa_rows() if rows is None else rows
    for k, row in enumerate(spqa_rows()):
        write(folder / row["audio_path"], wav(k))
    write_jsonl(folder / "metadata.jsonl", rows)
    judges = folder / "prompts/judge_prompts"
    write_json(judges / "prompt_map.json", {"default": "default.txt", "speed": "speed.txt"})
    write(judges / "default.txt", "一样吗？{text1} {text2}".encode())
    write(judges / "speed.txt", "语速一样吗？{text1} {text2}".encode())
    return folder


def dialogue_rows() -> Rows:
    gold = ("快速 ", "青年；男", "叹气 / 叹息：说话前", "咳嗽")
    return [
        {
            "id": 900 + k, "primary_dimension": "副语言", "secondary_dimension": ("语速理解", "年龄")[k % 2],
            "qa_pair": "…", "recording_requirement_or_qa_category": gold[k], "source_audio_name": f"{k}.wav",
            "audio_path": f"audio/{900 + k}.wav", "input_question_text": f"我说得怎么样{k}？",
            "question_notes": "",
        }
        for k in range(4)
    ]  # fmt: skip


def step_dialogue(folder: Path, rows: Rows | None = None, template: str = "") -> Path:
    for k in range(4):
        write(folder / f"audio/{900 + k}.wav", wav(k))
    write_jsonl(folder / "metadata.jsonl", dialogue_rows() if rows is None else rows)
    write(folder / "prompts/judge_system_prompt.txt", "评分。".encode())
    words = "{secondary_dimension}|{question}|{reference_answer}|{model_answer}"
    write(folder / "prompts/judge_user_prompt_template.txt", words.encode())
    if template:
        write(folder / "prompts/model_user_prompt_template.txt", template.encode())
    return folder


# Audio MultiChallenge


def audio_mc_rows() -> Rows:
    """Two turns and one; the rubric as JSON, and as Python writes a list."""
    rows = []
    rubrics = ('["names the cat", "does not shout"]', "['keeps the \"rule\"', 'is short']")
    for k, turns in enumerate((2, 1)):
        row = {"id": f"conv{k}", "axis": ("VOICE_EDITING", "SELF_COHERENCE")[k], "rubric": rubrics[k]}
        for n in range(1, 9):
            there = n <= turns
            row[f"user_turn_{n}_audio"] = {"bytes": wav(10 * k + n, 48_000), "path": None} if there else None
            row[f"user_turn_{n}_transcript"] = f"user {k}.{n}" if there else None
            if n < 8:
                row[f"assistant_turn_{n}_transcript"] = f"assistant {k}.{n}" if n < turns else None
        rows.append(row)
    return rows


def audio_mc(folder: Path, rows: Rows | None = None) -> Path:
    write_parquet(folder / "data" / "test-00000-of-00001.parquet", audio_mc_rows() if rows is None else rows)
    return folder


# MMAU-Pro


def mmau_pro_rows() -> Rows:
    """A choice with two sounds, a choice whose answer is written otherwise, an open one, an instruction."""
    shared = {"length_type": "short", "perceptual_skills": ["pitch"], "transcription": "hi", "sub-cat": "y"}
    kwargs = {"N": None, "keyword": None}
    rows = [
        {"id": "p0", "audio_path": ["data/0.wav", "data/1.wav"], "question": "Which is higher?",
         "answer": "the first", "choices": ["the first", "the second"], "category": "sound",
         "task_identifier": None, "kwargs": kwargs},
        {"id": "p1", "audio_path": ["data/1.wav"], "question": "Which?", "answer": "Oboe ",
         "choices": ["Cello", "oboe", "harp"], "category": "music", "task_identifier": None, "kwargs": kwargs},
        {"id": "p2", "audio_path": ["data/2.wav"], "question": "What happens?", "answer": "A dog barks.",
         "choices": None, "category": "open", "task_identifier": None, "kwargs": kwargs},
        {"id": "p3", "audio_path": ["data/3.wav"], "question": "Say dog twice.", "answer": "", "choices": None,
         "category": "instruction following", "task_identifier": "Keyword Frequency",
         "kwargs": {"N": 2, "keyword": "dog"}},
    ]  # fmt: skip
    return [{**shared, **row} for row in rows]


def mmau_pro(folder: Path, rows: Rows | None = None) -> Path:
    for k in range(4):
        write(folder / f"data/{k}.wav", wav(k))
    write_parquet(folder / "test.parquet", mmau_pro_rows() if rows is None else rows)
    return folder


# AIR-Bench


def foundation_rows() -> Rows:
    """Four choices, two with nothing for C and D, and a sound that ends in .flac."""
    return [
        {"path": "0.wav", "question": "Which?", "choice_a": "cat", "choice_b": "dog", "choice_c": "cow",
         "choice_d": "hen", "answer_gt": "dog", "task_name": "Sound_AQA", "dataset_name": "made", "uniq_id": 0},
        {"path": "1.wav", "question": "Is it?", "choice_a": "yes", "choice_b": "no", "choice_c": None,
         "answer_gt": "yes", "task_name": "Sound_AQA", "dataset_name": "made", "uniq_id": 1},
        {"path": "2.wav", "question": "When?", "choice_a": "1 s", "choice_b": "2 s", "choice_c": "3 s",
         "choice_d": "4 s", "answer_gt": "4 s", "task_name": "Audio_Grounding", "dataset_name": "made",
         "uniq_id": 2},
    ]  # fmt: skip


def air_foundation(folder: Path, rows: Rows | None = None) -> Path:
    for k in range(2):
        write(folder / f"Sound_AQA_made/{k}.wav", wav(k))
    write(folder / "Audio_Grounding_made/2.flac", flac(2))
    write_json(folder / "Foundation_meta.json", foundation_rows() if rows is None else rows)
    return folder


def chat_rows() -> Rows:
    return [
        {"path": f"{k}.wav", "question": f"What is {k}?", "answer_gt": f"It is {k}.", "task_name": task,
         "dataset_name": "made", "uniq_id": k, "meta_info": f"sound number {k}"}
        for k, task in enumerate(("speech_QA", "music_generation_analysis_QA"))
    ]  # fmt: skip


def air_chat(folder: Path, rows: Rows | None = None) -> Path:
    for k, row in enumerate(chat_rows()):
        write(folder / f"{row['task_name']}_made/{k}.wav", wav(k))
    write_json(folder / "Chat_meta.json", chat_rows() if rows is None else rows)
    return folder


# VoiceBench

VOICE = {  # subset -> its columns beside the sound and the prompt
    "alpacaeval": {"output": "Paris."}, "sd-qa": {"reference": "Mount Everest"},
    "openbookqa": {"reference": "B"}, "bbh": {"reference": "(b)", "id": "hyperbaton_3"}, "advbench": {},
    "ifeval": {"key": 7, "instruction_id_list": ["punctuation:no_comma"],
               "kwargs": [{"N": None, "keyword": "x"}]},
}  # fmt: skip


def voice_rows(subset: str, n: int = 2) -> Rows:
    return [{"audio": {"bytes": wav(k), "path": None}, "prompt": f"Question {k}?", **VOICE[subset]}
            for k in range(n)]  # fmt: skip


def voicebench(folder: Path, subset: str, rows: Rows | None = None, split: str = "test") -> Path:
    file = folder / subset / f"{split}-00000-of-00001.parquet"
    write_parquet(file, voice_rows(subset) if rows is None else rows)
    return folder


# URO-Bench

URO = {  # set -> its rows' columns beside the sound
    "AlpacaEval": {"source_text": "Name a city."}, "Gsm8kEval": {"source_text": "2 + 2?", "target_text": "4"},
    "Repeat-zh": {"source_text": "你好", "target_text": "你好"},
    "UnderEmotion-en": {"source_text": "I lost.", "target_text": ["I am sorry.", "Oh no."], "emotion": "sad"},
    "Multilingual": {"source_text": "Answer in French.", "requirement": "French"},
}  # fmt: skip


def uro(folder: Path, *names: str) -> Path:
    for name in names:
        level = "basic" if name in ("AlpacaEval", "Gsm8kEval", "Repeat-zh") else "pro"
        rows = [{"id": k, "source_wav": f"wav/{k}.wav", **URO.get(name, {})} for k in range(2)]
        for k in range(2):
            write(folder / level / name / f"wav/{k}.wav", wav(k))
        write_jsonl(folder / level / name / "test.jsonl", rows)
    return folder


# Speech recognition


def librispeech(folder: Path) -> Path:
    chapter = folder / "LibriSpeech/test-clean/1089/134686"
    lines = [f"1089-134686-000{k} HE HOPED {word}" for k, word in enumerate(("SO", "NOT"))]
    write(chapter / "1089-134686.trans.txt", ("\n".join(lines) + "\n").encode())
    for k in range(2):
        write(chapter / f"1089-134686-000{k}.flac", flac(k))
    return folder


def aishell(folder: Path) -> Path:
    """A recording without words, as the real one has, and words with spaces between."""
    write(folder / "transcript/aishell_transcript_v0.8.txt", "S1W1 你 好 世界\nS9W9 别处\n".encode())
    for k in (1, 2):
        write(folder / f"wav/test/S1/S1W{k}.wav", wav(k))
    return folder


def kaldi(folder: Path, scp: str = "u1 sounds/1.wav\nu2 sounds/2.wav\n") -> Path:
    write(folder / "wav.scp", scp.encode())
    write(folder / "text", b"u1 one two\nu2 three\n")
    for k in (1, 2):
        write(folder / f"sounds/{k}.wav", wav(k))
    return folder


def manifest(folder: Path, rows: Rows | None = None) -> Path:
    made = [{"audio": f"{name}.wav", "text": f"words {name}", "lang": "en"} for name in "ab"]
    for k, name in enumerate("ab"):
        write(folder / f"{name}.wav", wav(k))
    return write_jsonl(folder / "list.jsonl", made if rows is None else rows)


LAYOUTS: dict[str, tuple[str, Callable[[Path], Path], bool, int]] = {  # name, maker, parquet?, questions
    "wildspeech": ("wildspeech", wildspeech, True, 4),
    "step-caption": ("step-caption", step_caption, False, 2),
    "step-spqa": ("step-spqa", step_spqa, False, 11),
    "step-dialogue": ("step-dialogue", step_dialogue, False, 4),
    "audio-mc": ("audio-mc", audio_mc, True, 2),
    "mmau-pro": ("mmau-pro", lambda p: mmau_pro(p, mmau_pro_rows()[:2]), True, 2),
    "mmau-pro-open": ("mmau-pro-open", lambda p: mmau_pro(p, mmau_pro_rows()[2:3]), True, 1),
    "mmau-pro-instructions": ("mmau-pro-instructions", lambda p: mmau_pro(p, mmau_pro_rows()[3:]), True, 1),
    "air-bench-foundation": ("air-bench-foundation", air_foundation, False, 3),
    "air-bench-chat": ("air-bench-chat", air_chat, False, 2),
    **{
        f"voicebench-{kind}": (f"voicebench-{kind}", lambda p, s=subset: voicebench(p, s), True, 2)
        for kind, subset in (("open", "alpacaeval"), ("qa", "sd-qa"), ("mcq", "openbookqa"), ("bbh", "bbh"),
                             ("ifeval", "ifeval"), ("harm", "advbench"))
    },
    "uro-bench": ("uro-bench", lambda p: uro(p, "AlpacaEval", "Gsm8kEval", "UnderEmotion-en", "Multilingual"),
                  False, 8),
    "uro-repeat": ("uro-repeat", lambda p: uro(p, "Repeat-zh"), False, 2),
    "librispeech": ("asr", librispeech, False, 2),
    "aishell": ("asr-zh", aishell, False, 1),
    "manifest": ("asr", manifest, False, 2),
}  # fmt: skip
