"""Exercises without a sound end as real questions end, and words are typed in many ways."""

import re
from collections import Counter

import numpy as np
import pytest

from mlx_audio_r1.nano import drills, phrasing
from mlx_audio_r1.tasks.acoustic import questions as q
from mlx_audio_r1.tasks.acoustic.findings import pitch_relation, register
from mlx_audio_r1.tasks.acoustic.notes import evidence
from mlx_audio_r1.tasks.acoustic.world import make_clip

MADE = [drills.make_drill(np.random.default_rng(seed)) for seed in range(400)]


def test_the_answer_of_a_drill_is_right():
    assert all(q.score(drill, drill.answer) == 1.0 for drill in MADE)


def test_a_drill_names_its_word_and_ends_as_a_real_question_does():
    for drill in MADE:
        asked = drill.text.partition("\n")[0]
        assert drill.gold in asked
        if drill.options:
            assert drill.reasoning.endswith(f"So {drill.gold}: {drill.answer[0]}.")
            assert len(set(drill.options)) == len(drill.options) in (2, 3, 4)


def test_letters_are_balanced_and_every_answer_of_every_task_is_drilled():
    letters = Counter(drill.answer[0] for drill in MADE if len(drill.options) == 4)
    assert set(letters) == set("ABCD") and min(letters.values()) > 10
    golds = {drills.make_drill(np.random.default_rng(seed)).gold for seed in range(4000)}
    assert {answer for task in q.TASKS.values() for answer in task.answers} <= golds


def longer(first, second, word):
    return word == ("first" if float(first) > float(second) else "second")


def earlier(first, second, word):
    return word == ("yes" if float(first) < float(second) else "no")


RELATIONS = {  # sentence -> whether it is true
    r"(\d+), then (\d+): (\w+)\.": lambda a, b, word: word == pitch_relation(int(a), int(b))[0],
    r"(\S+) s, then (\S+) s: the (\w+) is": longer,
    r"(\S+), then [a-z ]+(\d\.\d): (yes|no)\.": earlier,
    r"(\d+) (Hz) is (\w+)\.": lambda a, _, word: word == register(float(a)),
}


@pytest.mark.parametrize("sentence", RELATIONS)
def test_comparisons_are_true(sentence):
    made = [drills.make_comparison(np.random.default_rng(seed)) for seed in range(80)]
    found = [match for drill in made for match in re.findall(sentence, drill.reasoning)]
    assert len(found) > 20 and all(RELATIONS[sentence](*match) for match in found)


def test_conclusions_are_real_questions_whose_answer_is_in_the_note():
    truth = make_clip(3, "pair").truth
    question = drills.make_conclusion(truth, np.random.default_rng(0), choice=True)
    assert question.reasoning.startswith(question.note) and question.note == evidence(truth)
    assert question.options and q.score(question, question.answer) == 1.0
    asked = {drills.make_conclusion(truth, np.random.default_rng(s), choice=False).task for s in range(80)}
    assert "noisy" not in asked and "compare" in asked


@pytest.mark.parametrize("seed", range(20))
def test_other_wordings_leave_the_options_alone(seed):
    text = q.make_question(make_clip(3, "pair").truth, 0, "compare", choice=True).text
    varied = phrasing.vary(np.random.default_rng(seed), text)
    assert varied.partition("\n")[2] == text.partition("\n")[2]


def test_most_questions_stay_and_no_question_is_lost():
    kept = [phrasing.vary(np.random.default_rng(seed), "How many sounds are there?") for seed in range(300)]
    assert 120 < kept.count("How many sounds are there?") < 240
    assert all("how many sounds are there" in text.lower() for text in kept)
    assert phrasing.vary(np.random.default_rng(0), "") == ""
