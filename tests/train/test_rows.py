"""A line is a row whichever way it is spelled, or one clear fault with its place."""

import base64
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlx_audio_r1.errors import DataError
from mlx_audio_r1.prompt import AudioPart, parse_messages, render
from mlx_audio_r1.train.rows import Fault, Row, find_splits, parse_lines, read_rows
from tests.train.data_sets import asked, write_rows

ASSISTANT = {"role": "assistant", "content": "A"}


def parsed(folder, *rows):
    return list(parse_lines(write_rows(folder / "train.jsonl", rows)))


def messages(question, **more):
    return {"messages": [{"role": "user", "content": question}, ASSISTANT], **more}


PREFERENCES = [
    {"messages": [{"role": "system", "content": "S"}, {"role": "user", "content": "<audio>Q"}, ASSISTANT],
     "rejected_response": "B", "audios": ["a.wav"]},
    {"prompt": "<audio>Q", "chosen": "A", "rejected": "B", "system": "S", "audios": ["a.wav"]},
    {"prompt": [{"role": "user", "content": "<audio>Q"}], "chosen": [ASSISTANT], "system": "S",
     "rejected": {"from": "gpt", "value": "B"}, "audio_path": "a.wav"},
    {"conversations": [{"from": "human", "value": "<audio>Q"}], "chosen": {"from": "gpt", "value": "A"},
     "rejected": {"from": "gpt", "value": "B"}, "system": "S", "audio": ["a.wav"]},
    {"conversations": [{"from": "system", "value": "S"},
                       {"from": "human", "value": [{"type": "audio"}, {"type": "text", "text": "Q"}]},
                       {"from": "gpt", "value": "A"}],
     "rejected_response": "B", "audios": [{"path": "a.wav", "bytes": None}]},
]


@pytest.mark.parametrize("spelled", PREFERENCES)
def test_every_spelling_of_a_preference_is_the_same_row(tmp_path, spelled):
    (row,), (first,) = parsed(tmp_path, spelled), parsed(tmp_path, PREFERENCES[0])
    assert row == first
    assert (row.kind, row.reply, row.rejected, row.name) == ("preference", "A", "B", "train.jsonl:1")
    assert row.sounds == [AudioPart(str(tmp_path / "a.wav"))]


@pytest.mark.parametrize("spelled", [
    messages("<audio>Q", audios=["a.wav"]),
    {"messages": [{"role": "user", "content": [{"type": "audio", "audio": "a.wav"},
                                               {"type": "text", "text": "Q"}]}, ASSISTANT]},
    {"messages": [{"role": "user", "content": [{"type": "audio", "path": "a.wav"}, "Q"]}, ASSISTANT]},
    {"prompt": "<audio>Q", "completion": "A", "audio": "a.wav"},
    {"prompt": "<audio>Q", "response": "A", "audios": "a.wav", "rejected": None, "system": ""},
])  # fmt: skip
def test_every_spelling_of_an_answer_is_the_same_row(tmp_path, spelled):
    (row,), (first,) = parsed(tmp_path, spelled), parsed(tmp_path, messages("<audio>Q", audios=["a.wav"]))
    assert row == first and row.kind == "sft"


def test_rows_without_a_reply_keep_their_columns(tmp_path):
    told = {"messages": [{"role": "user", "content": "Q"}], "solution": 7, "problem_type": "n", "x": [1]}
    a, b = parsed(tmp_path, {"prompt": "Q", "answer": "A", "type": "mcq"}, told)
    assert (a.kind, a.solution, a.problem_type, a.reply) == ("prompt", "A", "mcq", None)
    assert (b.kind, b.solution, b.problem_type, b.columns["x"]) == ("prompt", 7, "n", [1])


@pytest.mark.parametrize(("text", "parts"), [
    ("<audio>Q", ["*", "Q"]),
    ("Q<audio>", ["Q", "*"]),
    ("Q\n<audio>", ["Q", "*"]),  # the prompt writes that newline
    ("Q\n\n<audio>", ["Q\n", "*"]),
    ("<audio>\nQ", ["*", "\nQ"]),  # this one it does not
    ("a <audio> b <audio>c", ["a ", "*", " b ", "*", "c"]),
    ("<audio>\n<audio>", ["*", "*"]),
])
def test_marks_put_sounds_in_their_place(tmp_path, text, parts):
    (row,) = parsed(tmp_path, messages(text, audios=[f"{i}.wav" for i in range(parts.count("*"))]))
    sounds = iter(row.sounds)
    assert list(row.turns[0].message.parts) == [next(sounds) if part == "*" else part for part in parts]


def test_a_row_is_rendered_as_the_same_messages_are_served(tmp_path):
    (row,) = parsed(tmp_path, messages("First\n<audio>then <audio>", audios=["/a.wav", "/b.wav"]))
    text, sound = (lambda t: {"type": "text", "text": t}), (lambda a: {"type": "audio", "audio": a})
    content = [text("First"), sound("/a.wav"), text("then "), sound("/b.wav")]
    served = render(parse_messages([{"role": "user", "content": content}]))
    assert render([turn.message for turn in row.history]) == served


def test_a_mark_in_the_assistants_words_is_text(tmp_path):
    told = [{"role": "user", "content": "Which tag?"}, {"role": "assistant", "content": "<audio>"}]
    (row,) = parsed(tmp_path, {"messages": told})
    assert row.reply == "<audio>" and row.sounds == []


def test_sounds_inside_the_file(tmp_path):
    data = base64.b64encode(b"RIFF").decode()
    part = {"type": "input_audio", "input_audio": {"data": data, "format": "wav"}}
    rows = parsed(tmp_path, {"messages": [{"role": "user", "content": [part]}, ASSISTANT]},
                  messages("<audio>", audios=[f"data:audio/wav;base64,{data}"]))
    assert [row.sounds for row in rows] == [[AudioPart(b"RIFF")]] * 2


def test_paths_count_from_the_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_rows(tmp_path / "train.jsonl", [messages("<audio><audio>", audios=["-", "/x.wav"])])
    assert [part.source for part in next(read_rows("train.jsonl")).sounds] == ["./-", "/x.wav"]


def test_reasoning_in_a_field_of_its_own(tmp_path):
    told = {"role": "assistant", "content": "A", "reasoning_content": "because"}
    (row,) = parsed(tmp_path, {"messages": [{"role": "user", "content": "Q"}, told]})
    assert row.reply == "<think>\nbecause\n</think>\nA"


@pytest.mark.parametrize(("flags", "weight"), [
    ({}, None), ({"loss": True}, 1.0), ({"loss": False}, 0.0), ({"loss_scale": 0.25}, 0.25),
    ({"loss": True, "loss_scale": 3}, 3.0), ({"loss": False, "loss_scale": 3}, 0.0), ({"loss": None}, None),
])  # fmt: skip
def test_loss_flags_become_one_weight(tmp_path, flags, weight):
    (row,) = parsed(tmp_path, {"messages": [{"role": "user", "content": "Q"}, {**ASSISTANT, **flags}]})
    assert row.turns[-1].loss == weight


def turn(**fields):
    return {"messages": [{"role": "user", "content": "Q"}, {"role": "assistant", **fields}]}


FAULTS = [
    ("not json", "json", "column 1"),
    ('{"messages": [', "json", "ends too early"),
    ("[", "json", "one object a line"),
    ('{"a": 1} {}', "json", "a second value at column 10"),
    ("[1]", "json", "an array"),
    ("null", "json", "null"),
    ('{"prompt": "a", "prompt": "b"}', "json", "'prompt' twice"),
    ("[" * 100_000, "json", "nested too deeply"),
    ('{"n": ' + "1" * 5_000 + "}", "json", "digits"),
    ('{"prompt": "\\ud800"}', "form", "surrogate"),
    ({}, "form", "neither messages nor a prompt"),
    ({"messages": []}, "form", "at least one"),
    ({"messages": "Q"}, "form", "expected a list"),
    ({"messages": ["Q"]}, "form", "message 0"),
    ({"messages": [{"role": "user"}]}, "form", "no content"),
    ({"messages": [{"role": "asistant", "content": "x"}]}, "form", "asistant"),
    ({"messages": [{"role": ["user"], "content": "x"}]}, "form", "role"),
    ({"messages": [{"role": "user", "content": 3}]}, "form", "content is int"),
    ({"messages": [{"role": "user", "content": [{"type": "video"}]}]}, "form", "video"),
    ({"messages": [{"role": "user", "from": "human", "content": "x"}]}, "form", "role and from"),
    ({"messages": [{"role": "user", "content": "Q"}], "prompt": "Q"}, "form", "messages and a prompt"),
    ({"prompt": "<audio>", "audio": "a.wav", "audios": ["a.wav"]}, "form", "audios and audio"),
    ({"prompt": "<audio>", "audios": [3]}, "form", "a sound is 3"),
    ({"prompt": "<audio>", "audios": [""]}, "form", "a sound is ''"),
    ({"prompt": "<audio>", "audios": ["data:audio/wav;base64,%"]}, "form", "base64"),
    ({"prompt": "Q", "chosen": "A"}, "form", "nothing rejected"),
    ({"prompt": "Q", "rejected": "A"}, "form", "no chosen"),
    ({"prompt": "Q", "chosen": ["A", "B"], "rejected": "C"}, "form", "a reply is"),
    ({"prompt": "Q", "chosen": {"role": "user", "content": "A"}, "rejected": "C"}, "form", "role user"),
    ({"prompt": "Q", "images": ["a.png"]}, "form", "images"),
    ({"prompt": "Q", "rejected_messages": [ASSISTANT]}, "form", "rejected_response"),
    ({"prompt": "Q", "tools": "{"}, "form", "tools"),
    ({"prompt": "Q", "tools": [3]}, "form", "tools"),
    ({"messages": [ASSISTANT]}, "form", "nobody asks"),
    ({"messages": [{"role": "user", "content": "Q"}, ASSISTANT, ASSISTANT]}, "form", "two assistant's turns"),
    ({"messages": [{"role": "user", "content": "Q", "loss": True}, ASSISTANT]}, "form", "user's turn"),
    (turn(content="A", loss="yes"), "form", "true or false"),
    (turn(content="A", loss_scale=-1), "form", "loss_scale"),
    (json.dumps(turn(content="A", loss_scale=float("nan"))), "form", "loss_scale is nan"),
    (turn(content="A", tool_calls=[{}]), "form", "tool_calls"),
    (turn(content="<think>\nx\n</think>\nA", reasoning_content="x"), "form", "twice"),
    (turn(content=[{"type": "audio", "audio": "a.wav"}]), "form", "model writes text"),
    ({"messages": [{"role": "user", "content": "Q"}, {**ASSISTANT, "loss": False}], "rejected_response": "B"},
     "form", "preference"),
    (messages("Q", audios=["a.wav"]), "marks", "1 sounds in audios but 0 <audio> marks"),
    (messages("<audio>Q"), "marks", "0 sounds in audios but 1 <audio> marks"),
    ({"messages": [{"role": "user", "content": "Q"}, {"role": "assistant", "content": "<audio>"}],
      "audios": ["a.wav"]}, "marks", "1 more in the assistant's words"),
    (turn(content=""), "empty", "it is empty"),
    (turn(), "empty", "it is empty"),
    (turn(content="<think>\n\n</think>\n \n"), "empty", "it is empty"),
    (turn(content="<think>\nno end"), "empty", "</think> missing"),
    ({"prompt": "Q", "chosen": "A", "rejected": ""}, "empty", "rejected reply"),
    ({"prompt": ""}, "empty", "without words"),
]  # fmt: skip


@pytest.mark.parametrize(("line", "kind", "words"), FAULTS)
def test_what_cannot_be_used_is_one_line_with_its_place(tmp_path, line, kind, words):
    good = json.dumps({"prompt": "Q"})
    before, fault, after = parsed(tmp_path, good, line, good)
    assert isinstance(before, Row) and isinstance(after, Row)
    assert isinstance(fault, Fault) and fault.kind == kind and words in fault.text
    assert fault.where == f"{tmp_path / 'train.jsonl'}:2"
    assert str(fault.error()).startswith(f"{fault.where}: ") and "\n" not in str(fault.error())


def test_training_stops_at_the_first_fault(tmp_path):
    path = write_rows(tmp_path / "train.jsonl", [asked("Q", "A"), asked("Q", ""), "{"])
    with pytest.raises(DataError, match=r"train\.jsonl:2: the answer cannot be learnt"):
        list(read_rows(path))


def test_byte_order_marks_line_ends_and_blank_lines_do_not_matter(tmp_path):
    row = json.dumps(asked("Ü", "A"), ensure_ascii=False).encode()
    path = tmp_path / "train.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + row + b"\r\n\r\n  \n" + row)
    assert [r.where.rpartition(":")[2] for r in read_rows(path)] == ["1", "4"]


def test_other_encodings_and_empty_files_are_said(tmp_path):
    path = tmp_path / "train.jsonl"
    path.write_bytes(json.dumps(asked("Q", "A")).encode("utf-16"))
    assert next(parse_lines(path)).text.startswith("is not UTF-8")
    path.write_bytes(b"\n\n")
    (fault,) = parse_lines(path)
    assert (fault.kind, fault.where) == ("file", str(path)) and "no rows" in fault.text
    (fault,) = parse_lines(tmp_path / "none.jsonl")
    assert "No such file" in fault.text


def test_a_folder_gives_its_splits_and_a_file_itself(tmp_path):
    for name in ("train", "test", "other"):
        write_rows(tmp_path / f"{name}.jsonl", [asked("Q", "A")])
    assert list(find_splits(tmp_path)) == ["train", "test"]
    assert find_splits(tmp_path / "other.jsonl") == {"other": tmp_path / "other.jsonl"}
    for missing, words in ((tmp_path / "none", "no such folder"), ("a\0b", "no such folder")):
        with pytest.raises(DataError, match=words):
            find_splits(missing)


KEYS = st.sampled_from([
    "messages", "conversations", "role", "from", "content", "value", "audios", "audio", "prompt", "chosen",
    "rejected", "system", "loss", "loss_scale", "type", "text", "input_audio", "data", "tools", "reasoning",
])  # fmt: skip
LEAVES = st.sampled_from([None, True, 0, -1.5, "", "user", "assistant", "text", "audio", "<audio>", "data:,"])
VALUES = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=4), max_leaves=20
)


@settings(max_examples=300, deadline=None)
@given(st.dictionaries(KEYS, VALUES, max_size=4) | VALUES)
def test_any_json_is_a_row_or_a_fault(tmp_path_factory, value):
    path = tmp_path_factory.getbasetemp() / "any.jsonl"
    path.write_text(json.dumps(value) + "\n", encoding="utf-8")
    (found,) = parse_lines(path)
    assert isinstance(found, Row | Fault)
