"""Endless tasks: the acoustic world in three difficulties, and sums. Deterministic, balanced, truly scored."""

# ruff: noqa: RUF001  (full-width marks are meant)
import subprocess
import sys
from collections import Counter
from fractions import Fraction

import numpy as np
import pytest

from mlx_audio_r1.config import SAMPLE_RATE
from mlx_audio_r1.tasks import acoustic_world as w
from mlx_audio_r1.tasks.acoustic import speech
from mlx_audio_r1.tasks.acoustic.questions import Question
from mlx_audio_r1.tasks.acoustic.questions import score as score_of_the_world
from mlx_audio_r1.tasks.acoustic.world import FLOORS, Event, Truth
from mlx_audio_r1.tasks.arithmetic import DIFFICULTIES, arithmetic_item
from mlx_audio_r1.tasks.choice import Choice
from mlx_audio_r1.tasks.rewards import reward
from mlx_audio_r1.tasks.verify import verify

QUICK = ("compare", "contour", "loudness", "louder", "register", "noisy", "count")  # without voices and music
needs_espeak = pytest.mark.skipif(not speech.available(), reason="espeak-ng is not installed")


def pair(first, second, floor=40, **second_is):
    one = Event("sine tone", 0.2, 0.8, first, first)
    other = Event("sine tone", 1.2, 1.8, second, second, **second_is)
    return Truth("pair", 3.0, (one, other), floor)


@pytest.mark.parametrize("task", QUICK)
@pytest.mark.parametrize("difficulty", w.DIFFICULTIES)
def test_an_item_is_the_same_every_time_and_as_hard_as_asked(task, difficulty):
    one, other = (w.world_item(3, task, difficulty) for _ in range(2))
    assert np.array_equal(one.sounds[0].source, other.sounds[0].source)
    assert (one.uid, one.target, one.turns[0].parts[1]) == (other.uid, other.target, other.turns[0].parts[1])
    assert w.named(one.extra["hardness"]) in (difficulty, "any")
    assert one.groups["difficulty"] == difficulty and one.groups["task"] == task
    assert one.sounds[0].sample_rate == SAMPLE_RATE and one.sounds[0].source.dtype == np.float32
    assert one.has_audio and one.chance == 1 / len(one.target.options)


def test_other_seeds_tasks_and_difficulties_are_other_clips():
    items = [w.world_item(s, t, d) for s in (0, 1) for t in ("compare", "louder") for d in (None, "hard")]
    assert len({i.sounds[0].source.tobytes() for i in items}) == len(items) == len({i.uid for i in items})


@pytest.mark.parametrize("choice", [True, False])
def test_the_right_answer_is_right_and_scores_as_the_world_says(choice):
    for seed, task in enumerate(QUICK):
        item = w.world_item(seed, task, choice=choice)
        answer, options = item.ref["answer"], getattr(item.target, "options", ())
        gold = answer.split(". ")[1] if options else answer
        question = Question(task, "", "", answer, gold, options)
        assert verify(answer, item).correct == 1.0 == score_of_the_world(question, answer)
        assert reward(f"{item.ref['thinking']}\n</think>\n{answer}", item).value == 1.0
        for other in options or w.answers_of(task):
            assert verify(other, item).correct == score_of_the_world(question, other)


def test_answers_and_letters_are_balanced():
    items = [w.world_item(s, "louder") for s in range(50)]
    answers = Counter(i.target.gold_text for i in items)
    letters = Counter(i.target.gold[0] for i in items)
    assert set(answers) == {"first", "second"} and set(letters) == {0, 1}
    assert min(*answers.values(), *letters.values()) > 14  # of 50 with p = 1/2: 3 standard deviations below 25


@pytest.mark.parametrize(
    ("task", "easy", "hard"),
    [
        ("compare", pair(300, 900), pair(300, 350)),
        ("louder", pair(300, 300, level_db=-16), pair(300, 300, level_db=-8)),
        ("compare", pair(300, 900), pair(300, 900, floor=5)),
        ("noisy", pair(300, 300, floor=5), pair(300, 300, floor=15)),
    ],
)
def test_close_things_and_loud_backgrounds_are_hard(task, easy, hard):
    assert w.difficulty_of(task, easy) == 0.0
    assert w.difficulty_of(task, hard) == 1.0
    assert (w.named(0.0), w.named(1.0), w.named(None)) == ("easy", "hard", "any")


def test_where_nothing_can_be_close_a_clip_is_as_hard_as_any():
    assert w.difficulty_of("noisy", pair(300, 300, floor=40)) is None
    assert w.difficulty_of("main", Truth("silence", 2.0, (), None)) is None


def test_free_questions_have_the_verifier_of_their_task():
    kinds = {
        t: type(w.world_item(1, t, choice=False).target).__name__
        for t in ("count", "before", "order", "contour")
    }
    assert kinds == {"count": "Quantity", "before": "Boolean", "order": "Wording", "contour": "Label"}
    assert w.world_item(1, "order").chance == 0.0
    count = w.world_item(2, "count", choice=False)
    words = ["zero", "one", "two", "three", "four", "five", "six"]
    assert verify(words[int(count.ref["answer"])], count).correct == 1.0


def test_the_text_may_stand_in_front_of_the_sound():
    sound_first, text_first = (w.world_item(4, "louder", text_first=t) for t in (False, True))
    assert sound_first.turns[0].parts[0].sample_rate == SAMPLE_RATE
    assert text_first.turns[0].parts[0] == sound_first.turns[0].parts[1]


def test_any_task_and_difficulty_may_be_left_to_the_seed():
    items = [w.world_item(s) for s in range(8)]
    assert len({i.groups["task"] for i in items}) > 3
    assert {i.groups["difficulty"] for i in items} <= {*w.DIFFICULTIES, "any"}


@pytest.mark.parametrize("wrong", [{"task": "taste"}, {"difficulty": "harder"}])
def test_what_is_not_there_is_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong.values()))):
        w.world_item(0, **wrong)


def test_without_espeak_nobody_speaks(monkeypatch):
    monkeypatch.setattr(speech, "available", lambda: False)
    assert "voice" not in w.world_tasks() and "speech" not in w.world_tasks()
    assert "speech" not in w.answers_of("main") and "speech" not in w.answers_of("first")
    assert w.world_item(0, "main").target.options


@needs_espeak
def test_voices_are_asked_about_in_every_difficulty():
    for difficulty in ("easy", "hard"):
        item = w.world_item(1, "voice", difficulty)
        assert isinstance(item.target, Choice) and set(item.target.options) == {"male", "female"}


def test_every_background_of_the_world_has_a_difficulty():
    assert set(w.BACKGROUND) == set(FLOORS)


def test_every_task_has_kinds_and_every_answer_of_the_split_ones():
    assert {*w.KINDS, *w.ANSWER_KINDS} == set(w.TASKS)
    for task, kinds in w.ANSWER_KINDS.items():
        assert set(kinds) == set(w.TASKS[task].answers)


# Sums


@pytest.mark.parametrize("difficulty", list(DIFFICULTIES))
def test_sums_are_right_and_within_bounds(difficulty):
    most = 0
    for seed in range(80):
        item = arithmetic_item(seed, difficulty)
        expression, value = item.extra["expression"], item.target.value
        assert eval(expression.replace("×", "*").replace("÷", "/")) == value >= 0
        assert value.denominator == 1 and expression in item.messages()[0].parts[0] and not item.has_audio
        assert verify(f"The answer is {value}.", item).correct == 1.0
        assert verify(f"{expression} = {value}", item).correct == 1.0
        assert verify(str(value + 1), item).correct == 0.0
        most = max(most, value)
    count, largest = DIFFICULTIES[difficulty]
    assert largest < most <= count * largest


def test_sums_are_the_same_every_time_and_speak_chinese():
    one, other = arithmetic_item(5, "hard"), arithmetic_item(5, "hard")
    assert one.messages() == other.messages() and one.target == other.target
    assert arithmetic_item(6, "hard").target != one.target
    zh = arithmetic_item(5, "hard", "zh")
    assert (zh.lang, zh.target) == ("zh", one.target)
    assert reward(f"Hm.</think>答案是{one.target.value}", zh).value == 1.0
    assert one.target.value == Fraction(int(one.target.value))


def test_tasks_and_rewards_load_no_mlx():
    modules = [
        "verify",
        "rewards",
        "reward_functions",
        "from_rows",
        "item_files",
        "acoustic_world",
        "arithmetic",
    ]
    load = f"for m in {modules}: __import__('mlx_audio_r1.tasks.' + m)"
    code = f"import sys\n{load}\nprint('mlx.core' in sys.modules)"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "False"
