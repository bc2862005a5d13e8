"""Questions: right for their clip, balanced, scored strictly, and readable evidence before the answer."""

import re
from collections import Counter

import numpy as np
import pytest

from mlx_audio_r1.prompt import multiple_choice
from mlx_audio_r1.tasks.acoustic import questions as q
from mlx_audio_r1.tasks.acoustic.world import Event, Truth, make_clip


def truth(*events, kind="sequence", floor=40):
    return Truth(kind, 3.0, tuple(events), floor)


DRUM_THEN_BELL = truth(Event("drum", 0.31, 0.5), Event("bell", 1.52, 2.0, 470.0, 470.0))
RISING = truth(Event("sine tone", 0.2, 1.1, 440.0, 880.0, "rising", 15), kind="single")
HIGH, LOW = Event("sine tone", 0.2, 0.6, 300.0, 300.0), Event("sine tone", 1.0, 1.9, 200.0, 200.0, level_db=-8)
PAIR = truth(HIGH, LOW, kind="pair")
SEQUENCE = "1 drum at 0.3; 2 bell at 1.5."
GLIDE = "1 sine tone at 0.2 for 0.9 s, 430 to 910 Hz, up 15 dB."
TWO = "1 sine tone at 0.2 for 0.4 s, 300 Hz; 2 at 1.0 for 0.9 s, 200 Hz, -8 dB."


@pytest.mark.parametrize(
    ("where", "task", "answer", "evidence"),
    [
        (DRUM_THEN_BELL, "first", "drum", SEQUENCE),
        (DRUM_THEN_BELL, "last", "bell", SEQUENCE),
        (DRUM_THEN_BELL, "order", "drum, bell", SEQUENCE),
        (DRUM_THEN_BELL, "count", "2", f"{SEQUENCE} That makes 2."),
        (DRUM_THEN_BELL, "speech", "no", f"{SEQUENCE} No voice."),
        (RISING, "contour", "rising", f"{GLIDE} 430, then 910: higher."),
        (RISING, "loudness", "growing", f"{GLIDE} The end is louder."),
        (PAIR, "compare", "lower", f"{TWO} 300, then 200: lower."),
        (PAIR, "longer", "second", f"{TWO} 0.4 s, then 0.9 s: the second is longer."),
        (PAIR, "louder", "first", f"{TWO} The first is stronger."),
        (PAIR, "noisy", "clean", f"{TWO} The background is 40 dB below the sound."),
    ],
)
def test_answer_and_evidence_follow_from_the_truth(where, task, answer, evidence):
    question = q.make_question(where, 0, task, choice=False)
    assert (question.answer, question.reasoning) == (answer, evidence)


def test_the_same_seed_asks_the_same_question():
    assert q.make_question(PAIR, 3) == q.make_question(PAIR, 3)


def test_a_task_that_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="'voice' does not fit a clip of kind 'pair'"):
        q.make_question(PAIR, 0, "voice")


@pytest.mark.parametrize("seed", range(5))
def test_options_are_written_as_the_command_line_writes_them(seed):
    question = q.make_question(DRUM_THEN_BELL, seed, "first", choice=True)
    way = question.text.split("\n")[0]
    assert question.text == multiple_choice(way, question.options)
    letter, gold = question.answer.split(". ")
    assert question.options["ABCD".index(letter)] == gold == "drum"


def test_reasoning_names_the_option_it_chooses():
    question = q.make_question(DRUM_THEN_BELL, 0, "first", choice=True)
    assert question.reasoning == f"{SEQUENCE} So drum: {question.answer[0]}."


def test_the_letter_says_nothing_about_the_answer():
    letters = Counter(q.make_question(DRUM_THEN_BELL, s, "first", choice=True).answer[0] for s in range(400))
    assert set(letters) == set("ABCD") and min(letters.values()) > 70


def test_yes_and_no_are_balanced():
    answers = Counter(q.make_question(DRUM_THEN_BELL, s, "before").gold for s in range(400))
    assert 150 < answers["yes"] < 250


def test_what_is_said_to_come_first_is_checked_in_that_order():
    right, wrong = f"{SEQUENCE} Drum 0.3, then bell 1.5: yes.", f"{SEQUENCE} Bell 1.5, then drum 0.3: no."
    asked = [q.make_question(DRUM_THEN_BELL, s, "before", choice=False) for s in range(60)]
    assert {(a.reasoning, a.answer) for a in asked} == {(right, "yes"), (wrong, "no")}
    true = {"Does the drum come before the bell?", "Is the bell later than the drum?"}
    assert {a.answer for a in asked if a.text in true} == {"yes"}


@pytest.mark.parametrize("task", list(q.TASKS))
def test_held_out_words_are_never_used_in_training(task):
    ways = q.TASKS[task].ways
    assert len(set(ways)) == len(ways) >= 14
    assert not set(ways[-q.HELD_OUT_WAYS :]) & set(ways[: -q.HELD_OUT_WAYS])


@pytest.mark.parametrize(
    ("reply", "expected"),
    [("B", 1.0), ("B. bell", 1.0), ("b)", 1.0), ("bell", 1.0), ("Bell.", 1.0), ("A", 0.0), ("A. drum", 0.0),
     ("drum", 0.0), ("", 0.0), ("B or A? bell it is not", 1.0)],
)  # fmt: skip
def test_scores_with_options(reply, expected):
    question = q.Question("first", "?", "", "B. bell", "bell", ("drum", "bell"), 0.5)
    assert q.score(question, reply) == expected


@pytest.mark.parametrize(("reply", "expected"), [("2", 1.0), (" 2.\n", 1.0), ("12", 0.0), ("two", 0.0)])
def test_scores_of_free_answers(reply, expected):
    assert q.score(q.Question("count", "?", "", "2", "2"), reply) == expected


def test_its_own_answer_scores_one_for_every_clip():
    for seed in range(60):
        rng = np.random.default_rng(seed)
        clip = make_clip(rng, str(rng.choice(["single", "pair", "repeat", "noise", "music", "silence"])))
        for task in q.fitting_tasks(clip.truth):
            for choice in (True, False):
                question = q.make_question(clip.truth, seed, task, choice=choice)
                assert q.score(question, question.answer) == 1.0
                assert not question.options or question.gold in question.options
                assert re.search(r"\d|No sound", question.reasoning)


def test_captions_and_refusals():
    assert q.make_caption(RISING).answer == "A sine tone rising from 430 to 910 Hz."
    assert q.make_caption(DRUM_THEN_BELL).answer == "A drum, then a bell."
    assert q.make_caption(truth(kind="silence")).answer == "Almost silence."
    assert q.make_off_topic(0).answer == q.HEARS
