"""Prompts and readings of judges beside the authors' own code, which is no part of this repository.

Clone the repositories of SCRIPTS into one folder, each under its own name, and say where:

    OFFICIAL_SCRIPTS=FOLDER pytest tests/evaluate/test_official_judges.py

Functions are taken out of the scripts and run by themselves, so nothing else has to be installed.
"""

import ast
import itertools
import json
import logging
import os
import random
import re
from pathlib import Path

import numpy as np
import pytest

from mlx_audio_r1.evaluate.judge_words import words_of
from mlx_audio_r1.evaluate.scorers import scorer
from mlx_audio_r1.evaluate.scorers.judged_airbench import marks_of as line_marks
from mlx_audio_r1.evaluate.scorers.judged_mmar import mark_of
from mlx_audio_r1.evaluate.scorers.mmaupro_instructions import RULES, rule
from mlx_audio_r1.tasks.choice import Choice
from mlx_audio_r1.tasks.item import Item
from mlx_audio_r1.tasks.judged import Judged
from mlx_audio_r1.tasks.reply import Reply

FOLDER = os.environ.get("OFFICIAL_SCRIPTS", "")
SCRIPTS = {  # scorer -> repository, commit, file
    "wildspeech.judge": ("Tencent/WildSpeech-Bench", "d9d6b82", "WildSpeech-Bench/tools/api_judge.py"),
    "mmar.rubrics": ("ddlBoJack/MMAR", "3bce090", "MMAR/code/evaluation_rubrics.py"),
    "voicebench.open": ("MatthewCYM/VoiceBench", "5338154", "VoiceBench/api_judge.py"),
    "voicebench.qa": ("MatthewCYM/VoiceBench", "5338154", "VoiceBench/api_judge.py"),
    "airbench.chat": ("OFA-Sys/AIR-Bench", "9832476", "AIR-Bench/score_chat.py"),
    "mmaupro.open": ("sonalkum/MMAUPro", "960e93a", "MMAUPro/evaluate_mmau_pro_comprehensive.py"),
    "uro.judge": ("Ruiqi-Yan/URO-Bench", "9e74bc0", "URO-Bench/metrics/mark_gpt.py"),
}
pytestmark = pytest.mark.skipif(not FOLDER, reason="OFFICIAL_SCRIPTS names no folder with the authors' scripts")
QUESTION, ANSWER, REFERENCE = "Is she {sincere}?", "Yes {answer}, she\n  is.", "Yes {response}"
THOUGHT = "I hear\n   a {question} that rises."
REPLY = Reply(THOUGHT, ANSWER)
ITEM = Item("u", (), Judged((REFERENCE,), ("- names {x}",)), ref={"transcript": QUESTION, "question": ""})


def script(name):
    return Path(FOLDER) / SCRIPTS[name][2]


def functions(name, *wanted, **known):
    """These functions and constants of a script, with what they need."""
    tree = ast.parse(script(name).read_text(encoding="utf-8"))
    kept = [node for node in tree.body if getattr(node, "name", None) in wanted
            or (isinstance(node, ast.Assign) and getattr(node.targets[0], "id", None) in wanted)]  # fmt: skip
    space = dict(known)
    exec(compile(ast.Module(kept, []), str(script(name)), "exec"), space)
    return [space[one] for one in wanted]


def asked(name, item=ITEM, reply=REPLY):
    return scorer(name).prompts(item, reply, words_of(script(name), scorer(name)))


@pytest.mark.parametrize("name", SCRIPTS)
def test_the_authors_words_are_those_whose_digest_is_known(name):
    assert words_of(script(name), scorer(name)).sha256 == scorer(name).official


def test_wildspeech_is_asked_and_read_as_there():
    names = ("meta_prompt", "general_checklist", "extract_rating")
    prompt, general, rating = functions("wildspeech.judge", *names, re=re)
    wanted = prompt.format(query=QUESTION, response=ANSWER, checklist=general + "- names {x}")
    assert asked("wildspeech.judge") == [wanted]
    forms = ("Score: {}", "Score: [{}]", "Score:{}", "**Score: {}**", "score: {}", "Score: {}/10\nScore: 3")
    for form, mark in itertools.product(forms, range(1, 11)):
        theirs = rating(form.format(mark))
        score = scorer("wildspeech.judge").read(ITEM, Reply("", "Yes."), [form.format(mark)])
        assert score.value == (theirs or 0) / 10


RUBRIC = [{"name": f"C{n}", "scoring_point": f"Award 1 if\n  {n}.", "note": "x", "choices": [0, 1]}
          for n in range(5)]  # fmt: skip
MMAR = Item("u", (), Choice(("No", "Yes"), (1,)),
            ref={"question": QUESTION, "thinking": THOUGHT, "rubric": RUBRIC})  # fmt: skip


def test_mmar_is_asked_and_read_as_there():
    class Wrong(Exception):
        pass

    known = {"re": re, "json": json, "List": list, "Dict": dict, "Any": object,
             "ResponseValidationError": Wrong, "logger": logging.getLogger("rubrics")}  # fmt: skip
    names = ("clean", "create_evaluation_user_prompt", "validate_and_score")
    _, make, read = functions("mmar.rubrics", *names, **known)
    reply = Reply(THOUGHT, "Yes.")
    assert asked("mmar.rubrics", MMAR, reply) == [make(QUESTION, "Yes", THOUGHT, [], THOUGHT, "Yes.", RUBRIC)]
    draw = random.Random(0)
    for _ in range(2000):
        marks = [{"name": f"C{n}", "score": draw.choice((0, 1, 1.0, True, 2, "1", None))} for n in range(5)]
        for mark in marks[: draw.choice((0, 0, 0, 1))]:
            mark.pop(draw.choice(("name", "score")))
        form = draw.choice(("{}", "```json\n{}\n```", "x {} y", "{}]"))
        text = form.format(json.dumps(marks[draw.choice((0, 0, 1)) :]))
        try:
            theirs = read("id", text, RUBRIC)
        except Wrong:
            theirs = None
        assert mark_of(text, RUBRIC) == theirs, text


@pytest.mark.parametrize(("name", "constant"), [("voicebench.open", "meta_prompt_open"),
                                                ("voicebench.qa", "meta_prompt_qa")])  # fmt: skip
def test_voicebench_is_asked_as_there(name, constant):
    (prompt,) = functions(name, constant)
    item = Item("u", (), Judged(("the sea",)), ref={"transcript": "Where?"})
    shown = {"{prompt}": "Where?", "{reference}": "the sea", "{response}": "A lake."}
    for mark, text in shown.items():
        prompt = prompt.replace(mark, text)
    assert asked(name, item, Reply("", "A lake.")) == [prompt]


def test_a_line_of_air_bench_is_read_as_there():
    """Its script reads line by line at module level; this is what it does with one."""
    draw = random.Random(0)
    for _ in range(5000):
        text = "".join(draw.choices(("1", "2", "9", "10", " ", " ", "\n", "."), k=draw.randint(1, 5)))
        pieces = text.strip().replace("\n", "").split(" ")
        whole = len(pieces) == 2 and all(piece.isdigit() for piece in pieces)
        theirs = (int(pieces[0]), int(pieces[1])) if whole else None
        if theirs and max(theirs) > 10:
            theirs = None  # there the script ends
        assert line_marks(text) == theirs, repr(text)


def test_mmau_pro_is_asked_and_read_as_there():
    names = ("create_evaluation_prompt", "extract_scores_from_evaluation")
    make, read = functions("mmaupro.open", *names, re=re, np=np)
    assert asked("mmaupro.open") == [make(QUESTION, REFERENCE, ANSWER, "open")]
    draw = random.Random(0)
    for _ in range(2000):
        written = [draw.choice(("", "**")) + name + draw.choice((":", ":** ", " -", ": [", ": "))
                   + draw.choice("12345x") for name in CRITERIA if draw.random() < 0.9]  # fmt: skip
        text = "\n".join(written)
        ours = scorer("mmaupro.open").read(ITEM, Reply("", ""), [text]).value
        assert ours == pytest.approx(read(text)["overall"] / 5)


CRITERIA = ("CORRECTNESS", "Relevance", "COMPLETENESS", "CLARITY", "OVERALL")
PIECES = ("HELLO", "world", "*note*", "* a bullet\n", "\n* x ", "***", "[name]", "<<Title>>", "P.S.", "******",
          '"', ",", "Dog", "dogs", "dog.", "The end.", "C!", "\n\n", "SECTION", "x")  # fmt: skip
TOLD = ({"keywords": "dog, world"}, {"keyword": "dog", "N": 1}, {"forbidden_words": "dog, cat"}, {"N": 2},
        {"N": 1}, {"N1": 2, "N2": 5}, {"postscript_marker": "P.S."}, {"N": 2, "section_splitter": "SECTION"},
        {"start_phrase": "Hello world"}, {"end_phrase": "the end"}, {})  # fmt: skip


def test_instructions_of_mmau_pro_are_obeyed_as_there():
    """But for sentences, which are counted by nltk there; here by a full stop and a space in both."""
    helpers = re.findall(r"^def (\w+)\(text", script("mmaupro.open").read_text(encoding="utf-8"), re.MULTILINE)

    def sentences(text):
        return [piece for piece in re.split(r"(?<=[.!?])[\"')]*\s+", text) if piece.strip()]

    (obeys,) = functions("mmaupro.open", *helpers, "evaluate_aif_sample", re=re, sent_tokenize=sentences)[-1:]
    draw = random.Random(0)
    for _ in range(6000):
        reply = " ".join(draw.choice(PIECES) for _ in range(draw.randint(0, 8)))
        reply = draw.choice((str, str, str.upper, str.lower, lambda text: f'"{text}"'))(reply)
        kind, told, question = draw.choice(list(RULES)), draw.choice(TOLD), draw.choice(("Hello", "", "x"))
        extra = {"task_identifier": kind, "kwargs": told}
        item = Item("u", (), Judged(), ref={"question": question}, extra=extra)
        theirs = obeys(reply, {"task_identifier": kind, "kwargs": told, "prompt_transcription": question})
        assert rule(reply, item).value == float(bool(theirs)), (kind, told, reply)


@pytest.mark.parametrize(("mode", "more"), [("open", {}), ("semi-open", {}), ("qa", {}), ("sf", {}),
                                            ("gs", {"style": "calm"}), ("ue", {"emotion": "sad"}),
                                            ("ml", {"language": "French"})])  # fmt: skip
def test_uro_is_asked_as_there(mode, more):
    (make,) = functions("uro.judge", "get_prompt")
    shown = {"question": "Where?", "answer": "A lake.", "reference": "the sea / a lake", **more}
    item = Item("u", (), Judged(("the sea", "a lake")), ref={"transcript": "Where?"},
                extra={"mode": mode, "about": next(iter(more.values()), None)})  # fmt: skip
    assert asked("uro.judge", item, Reply("", "A lake.")) == [make(mode, shown)]
