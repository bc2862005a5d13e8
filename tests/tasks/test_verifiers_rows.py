"""Rows of RL data and lines of a task file become items with the right verifier, or one clear line."""

# ruff: noqa: RUF001  (full-width marks are meant)
import json
from fractions import Fraction

import numpy as np
import pytest

from mlx_audio_r1.errors import DataError, PromptError
from mlx_audio_r1.prompt import AudioPart, Message, multiple_choice
from mlx_audio_r1.tasks.boolean import Boolean
from mlx_audio_r1.tasks.choice import Choice
from mlx_audio_r1.tasks.from_rows import item_from_row
from mlx_audio_r1.tasks.item import OPTIONS, Item, Turn
from mlx_audio_r1.tasks.item_files import item_to_json, read_items
from mlx_audio_r1.tasks.label import Label
from mlx_audio_r1.tasks.number import Quantity
from mlx_audio_r1.tasks.options import read_options, without_letters, write_options
from mlx_audio_r1.tasks.reply import read_reply
from mlx_audio_r1.tasks.verify import judge, verify
from mlx_audio_r1.tasks.wording import Wording
from mlx_audio_r1.train.rows import parse_lines

BELL = Choice(("drum", "bell"), (1,))
TWO = {"options": ["drum", "bell"]}


def item(question="Which is it?", **columns):
    return item_from_row(columns, (Message("user", (question,)),), "train.jsonl:3")


@pytest.mark.parametrize(
    ("columns", "target"),
    [
        ({"solution": "B", "problem_type": "multiple choice", "options": ["A. drum", "B. bell"]}, BELL),
        ({"answer": "bell", "type": "mcq", **TWO}, BELL),
        ({"solution": "(B) bell", "type": "multiple_choice", **TWO}, BELL),
        ({"solution": "<answer>B</answer>", "problem_type": "multiple-choice", **TWO}, BELL),
        ({"solution": "B. bell", "choices": {"A": "drum", "B": "bell"}}, BELL),
        ({"solution": "bell", "multi_choice": '["drum", "bell"]'}, BELL),
        ({"solution": "Cello", "options": ["Cello", "Oboe", "Cello"]},
         Choice(("Cello", "Oboe", "Cello"), (0, 2))),
        ({"solution": 3, "options": [2, 3]}, Choice(("2", "3"), (1,))),
        ({"solution": "A:maj/5", "options": ["A:maj/5", "B:min"]}, Choice(("A:maj/5", "B:min"), (0,))),
        ({"solution": "F:min", "options": ["A:maj/5", "F:min"]}, Choice(("A:maj/5", "F:min"), (1,))),
        ({"solution": 7}, Quantity(Fraction(7))),
        ({"solution": 0.1}, Quantity(Fraction(1, 10))),
        ({"answer": "1,234", "type": "math"}, Quantity(Fraction(1234))),
        ({"answer": ["7", "7.0"], "type": "number"}, Quantity(Fraction(7))),
        ({"answer": "3 + 4 = 7 #### 7", "type": "number"}, Quantity(Fraction(7))),
        ({"answer": "two thirds", "type": "number"}, Quantity(Fraction(2, 3))),
        ({"solution": "440 Hz", "type": "number", "tolerance": 5}, Quantity(Fraction(440), "Hz", Fraction(5))),
        ({"solution": 440, "unit": "hertz", "type": "number"}, Quantity(Fraction(440), "hertz")),
        ({"solution": 200, "tolerance": "5%"}, Quantity(Fraction(200), relative=Fraction(1, 20))),
        ({"solution": True}, Boolean(True)),
        ({"solution": "No."}, Boolean(False)),
        ({"solution": "是", "problem_type": "判断题"}, Boolean(True)),
        ({"solution": 1, "problem_type": "boolean"}, Boolean(True)),
        ({"solution": "invalid", "type": "label", "labels": ["valid", "invalid"]},
         Label("invalid", ("valid", "invalid"))),
        ({"solution": "male", "type": "classification", "labels": {"male": ["man"], "female": ["woman"]}},
         Label("male", ("male", "female"), {"male": ("man",), "female": ("woman",)})),
        ({"solution": "angry", "type": "label", "synonyms": ["furious"]},
         Label("angry", (), {"angry": ("furious",)})),
        ({"solution": "drum, bell", "type": "text"}, Wording(("drum, bell",))),
        ({"solution": ["a", "b"], "type": "text"}, Wording(("a", "b"))),
        ({"solution": "hello there", "problem_type": "ASR"}, Wording(("hello there",), "wer")),
        ({"solution": "你好", "problem_type": "cer"}, Wording(("你好",), "cer")),
    ],
)  # fmt: skip
def test_a_row_becomes_the_item_that_it_means(columns, target):
    assert item(**columns).target == target


@pytest.mark.parametrize(
    "question",
    ["Which? A. drum B. bell", "Which?\nA. drum\nB. bell\n", "Which? (A) drum (B) bell",
     "Which?\n(A) drum\n(B) bell",
     "Is A. Smith speaking? A) drum B) bell", multiple_choice("Which?", ("drum", "bell"))],
)  # fmt: skip
def test_options_may_stand_in_the_question_alone(question):
    assert item(question, answer="B", type="mcq").target == BELL
    assert item(question, answer="A").target == Choice(("drum", "bell"), (0,))


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ({"type": "mcq", **TWO}, "no solution to check a reply against: give solution (or answer)"),
        ({"solution": "", **TWO}, "no solution"),
        ({"solution": [], "type": "text"}, "no solution"),
        ({"solution": {"a": 1}, "type": "text"}, "solution {'a': 1}: expected text, a number or true or false"),
        (
            {"solution": "x", "type": "essay"},
            "problem_type 'essay': known are mcq, number, label, boolean, text, asr",
        ),
        ({"solution": "x", "type": 5}, "problem_type 5: known are"),
        ({"solution": "some words"}, "no problem_type, and the solution 'some words' does not tell"),
        ({"solution": "click", **TWO}, "solution 'click' is none of the options (drum, bell): give a letter"),
        ({"solution": "C", **TWO}, "solution 'C' is none of the options"),
        ({"solution": "A. bell", **TWO}, "solution 'A. bell' is none of the options"),
        ({"solution": 1, **TWO}, "solution '1' is none of the options"),
        ({"solution": "A", "type": "mcq"}, "multiple choice with 0 options: give 2 to 26 in options"),
        ({"solution": "A", "options": ["one"]}, "multiple choice with 1 options"),
        ({"solution": "A", "options": "drum or bell"}, "options 'drum or bell' are text, expected a list"),
        (
            {"solution": "A", "options": {"X": "drum"}},
            "options {'X': 'drum'}: expected the keys A, B, C in order",
        ),
        ({"solution": "A", "options": ["drum", " "]}, "an option is empty"),
        (
            {"solution": "A", "options": ["drum", ["bell"]]},
            "options ['drum', ['bell']]: expected a list of texts",
        ),
        ({"solution": "A", "options": 4}, "options 4: expected a list of texts"),
        ({"solution": "many", "type": "number"}, "solution 'many' is no number (no number)"),
        ({"solution": "3 or 4", "type": "number"}, "solution '3 or 4' is no number (several numbers)"),
        ({"solution": float("nan")}, "solution nan is no number"),
        ({"solution": 5, "unit": "furlong"}, "unit 'furlong' is not known"),
        ({"solution": 5, "tolerance": "much"}, "tolerance 'much': expected a number, or a share like \"5%\""),
        ({"solution": 5, "tolerance": -1}, "tolerance -1 is negative"),
        ({"solution": "maybe", "type": "boolean"}, "solution 'maybe' is neither yes nor no"),
        ({"solution": "x", "type": "label", "labels": ["y"]}, "solution 'x' is none of the labels (y)"),
        ({"solution": "x", "type": "label", "labels": "y"}, "labels 'y': expected a list"),
    ],
)
def test_a_row_that_cannot_be_checked_is_one_line_with_its_place(columns, words):
    with pytest.raises(DataError) as error:
        item(**columns)
    assert str(error.value).startswith(f"train.jsonl:3: {words}") and "\n" not in str(error.value)


def test_rows_of_a_training_file_are_items(tmp_path):
    lines = [
        {"messages": [{"role": "user", "content": "<audio>Which? A. drum B. bell"}], "audios": ["a.wav"],
         "solution": "B", "problem_type": "mcq", "category": "sound", "id": "one"},
        {"prompt": "What is 3 + 4?", "answer": "7", "type": "math"},
    ]  # fmt: skip
    path = tmp_path / "train.jsonl"
    path.write_text("\n".join(map(json.dumps, lines)))
    rows = list(parse_lines(path))
    heard, read = (item_from_row(r.columns, [t.message for t in r.history], r.name) for r in rows)
    assert (heard.uid, heard.has_audio, heard.chance, heard.groups) == ("one", True, 0.5, {"category": "sound"})
    assert heard.sounds[0].source == str(tmp_path / "a.wav")
    assert heard.messages() == [t.message for t in rows[0].history]
    assert (read.uid, read.has_audio, read.chance) == ("train.jsonl:2", False, 0.0)
    assert judge(read_reply("3 + 4 makes 7.</think>7"), read).correct == 1.0


@pytest.mark.parametrize(
    ("given", "bare"),
    [
        (["(A) drum", "(B) bell"], ("drum", "bell")),
        (["A. drum", "B. bell"], ("drum", "bell")),
        (["A drum", "B bell"], ("A drum", "B bell")),
        (["A. drum", "C. bell"], ("A. drum", "C. bell")),
        (["A. drum", "bell"], ("A. drum", "bell")),
        (["（A）鼓", "（B）铃"], ("鼓", "铃")),
        (["A", "B"], ("A", "B")),
        (["A. drum"], ("A. drum",)),
    ],
)  # fmt: skip
def test_letters_are_taken_off_where_every_option_has_its_own(given, bare):
    assert without_letters(given) == bare


def test_a_question_without_options_has_none():
    assert read_options("What does A. Smith say?") == () == read_options("") == read_options("A. alone")
    assert read_options("B. bell A. drum") == ()


def test_options_are_shown_in_the_style_that_was_asked_for():
    options = ("drum", "bell")
    assert write_options("Which?", options) == multiple_choice("Which?", options)
    assert write_options("Which?", options, "none").endswith("or content:\ndrum\nbell\n")
    assert write_options("Which?", options, "brackets") == "Which?\n(A) drum\n(B) bell"
    with pytest.raises(PromptError, match="option style 'roman'; known are step-r1, none, brackets"):
        write_options("Which?", options, "roman")


def test_an_items_options_are_joined_to_its_question():
    asked = Item("x", (Turn("user", ("Which?", OPTIONS, AudioPart("a.wav"))),), Choice(("drum", "bell"), (0,)))
    assert asked.messages()[0].parts == (multiple_choice("Which?", ("drum", "bell")), AudioPart("a.wav"))
    assert asked.messages("brackets")[0].parts[0] == "Which?\n(A) drum\n(B) bell"


TARGETS = [
    Choice(("drum", "bell"), (1,)), Quantity(Fraction(2, 3), "Hz", Fraction(1, 10)), Boolean(False),
    Label("male", ("male", "female"), {"male": ("man",)}), Wording(("a b", "c"), "wer"),
]  # fmt: skip


@pytest.mark.parametrize("target", TARGETS, ids=lambda t: type(t).__name__)
def test_an_item_comes_back_from_its_line(tmp_path, target):
    turns = (Turn("user", ("Which?", OPTIONS, AudioPart(str(tmp_path / "a.wav")))), Turn("assistant", ("Hm.",)))
    one = Item(
        "x", turns, target, bench="b", chance=0.5, groups={"task": "t"}, extra={"k": 1}, option_style="none"
    )
    path = tmp_path / "task.jsonl"
    path.write_text(json.dumps(item_to_json(one)) + "\n\n")
    (other,) = read_items(path)
    assert vars(other) == vars(one)


def test_the_schema_of_other_tools_is_read(tmp_path):
    line = {"schema": "audio-r1.task/1", "uid": "mmau:1", "turns": [{"role": "human", "parts": [{"text": "Q"},
            {"options": True}, {"audio": "audio/1.wav"}]}], "target": {"kind": "mcq",
            "choices": ["Cello", "Harp"], "gold": [1], "gold_text": "Harp"},
            "prompt_profile": "step-r1/mmau", "primary": "mmau.official"}  # fmt: skip
    path = tmp_path / "task.jsonl"
    path.write_text(json.dumps(line))
    (read,) = read_items(path)
    assert read.turns[0].role == "user" and read.sounds[0].source == str(tmp_path / "audio/1.wav")
    assert read.extra == {"prompt_profile": "step-r1/mmau", "primary": "mmau.official"}
    assert verify("B. Harp", read).correct == 1.0


LINE = {"schema": "audio-r1.task/1", "uid": "x", "turns": [], "target": {"kind": "boolean", "gold": True}}


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("{", "is not JSON"),
        ("[]", "'list' object has no attribute 'get'"),
        (LINE | {"schema": "x/2"}, "schema 'x/2', expected 'audio-r1.task/1'"),
        ({k: v for k, v in LINE.items() if k != "target"}, "no target; a line looks like"),
        (LINE | {"target": {"kind": "essay"}}, "target kind 'essay': known here are mcq, number"),
        (LINE | {"target": {"kind": "mcq", "choices": ["a"], "gold": [1]}},
         "gold [1] points outside 1 choices"),
        (LINE | {"target": {"kind": "mcq", "choices": ["a"], "gold": []}}, "gold [] points outside"),
        (LINE | {"target": {"kind": "boolean", "gold": "yes"}}, "gold 'yes': expected true or false"),
        (LINE | {"target": {"kind": "number", "value": "x"}}, "Invalid literal for Fraction"),
        (LINE | {"target": {"kind": "text", "references": [], "metric": "bleu"}}, "metric 'bleu': one of"),
        (LINE | {"turns": [{"role": "user", "parts": [{"video": "x"}]}]},
         "a part {'video': 'x'}: expected text"),
    ],
)  # fmt: skip
def test_a_line_that_is_no_item_is_named_with_its_place(tmp_path, line, words):
    path = tmp_path / "task.jsonl"
    path.write_text("\n" + (line if isinstance(line, str) else json.dumps(line)))
    with pytest.raises(DataError) as error:
        list(read_items(path))
    assert str(error.value).startswith(f"{path}:2: {words}") and "\n" not in str(error.value)


def test_a_sound_in_memory_has_no_line():
    heard = Item("x", (Turn("user", (AudioPart(np.zeros(4, np.float32), 16_000),)),), Boolean(True))
    with pytest.raises(DataError, match="item x: its sound is in memory"):
        item_to_json(heard)
