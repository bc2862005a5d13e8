"""Rules of coherence against a table of chains, and against what the embedded model is taught to write."""

from collections import Counter
from fractions import Fraction

import pytest

from mlx_audio_r1.mgrd.chain import Chain
from mlx_audio_r1.mgrd.coherence import RULES, CoherenceLimits, coherence_scores, incoherence
from mlx_audio_r1.mgrd.loops import repeated_runs, repeated_sentences, words_of
from mlx_audio_r1.tasks.acoustic.questions import make_question
from mlx_audio_r1.tasks.acoustic.world import make_clip
from mlx_audio_r1.tasks.acoustic_world import target_of, world_tasks
from mlx_audio_r1.tasks.boolean import Boolean
from mlx_audio_r1.tasks.choice import Choice
from mlx_audio_r1.tasks.item import Item
from mlx_audio_r1.tasks.label import Label
from mlx_audio_r1.tasks.number import Quantity
from mlx_audio_r1.tasks.wording import Wording
from tests.mgrd.coherence_cases import CASES

TARGETS = {
    "choice": Choice(("drum", "bell", "plucked string"), (1,)),
    "emotion": Choice(("高兴", "悲伤", "平静"), (0,)),
    "label": Label("higher", ("higher", "lower", "same")),
    "number": Quantity(Fraction(3)),
    "hertz": Quantity(Fraction(440), "Hz"),
    "yesno": Boolean(True),
    "words": Wording(("drum, bell",)),
}


def chain(kind, thinking, answer, **more):
    closed = answer is not None
    return Chain(thinking, answer or "", Item("uid", (), TARGETS[kind]), closed, **more)


@pytest.mark.parametrize(("rule", "kind", "thinking", "answer"), CASES)
def test_a_chain_breaks_the_rule_of_its_row_first(rule, kind, thinking, answer):
    found = incoherence(chain(kind, thinking, answer))
    assert (found[0] if found else "") == rule, found
    assert found is None or found[1]


def test_the_table_has_every_rule_in_both_languages():
    counted = Counter(rule for rule, *_ in CASES)
    assert counted.keys() == {"", *RULES} and min(counted.values()) >= 2 and len(CASES) >= 60
    chinese = {rule for rule, _, thinking, _ in CASES if any("\u3400" < c < "\u9fff" for c in thinking)}
    assert chinese == {"", *RULES}


def _questions():
    for seed in range(24):
        truth = make_clip(seed).truth
        for task in world_tasks():
            for choice in (True, False):
                try:
                    question = make_question(truth, seed, task, choice=choice)
                except ValueError:
                    continue
                yield question, Item("uid", (), target_of(question))


def test_what_the_embedded_model_is_taught_is_coherent_and_with_another_option_it_is_not():
    """Hundreds of chains of the acoustic world."""
    seen = 0
    for question, item in _questions():
        chain = Chain(question.reasoning, question.answer, item)
        assert incoherence(chain) is None, (question.reasoning, question.answer, incoherence(chain))
        seen += 1
        if question.options:
            at = (question.options.index(question.gold) + 1) % len(question.options)
            wrong = Chain(question.reasoning, f"{'ABCDEFGH'[at]}. {question.options[at]}", item)
            assert incoherence(wrong)[0] == "follows", question.reasoning
    assert seen > 200


def test_a_truncated_reply_is_not_whole():
    assert incoherence(chain("choice", "So it is a bell: B.", "B", truncated=True))[0] == "whole"


def test_the_reasons_say_what_was_read():
    assert incoherence(chain("choice", "So it is a bell.", "A")) == (
        "follows", "the last step names bell, the answer is drum")
    assert incoherence(chain("choice", "Bell.", "B")) == ("length", "1 words, the least is 3")
    assert incoherence(chain("label", "So it is higher. So it is lower.", "lower")) == (
        "one answer", "it concludes both higher and lower")


def test_limits_are_limits():
    short = chain("choice", "So it is a bell.", "B")
    assert incoherence(short, CoherenceLimits(words=5)) is None
    assert incoherence(short, CoherenceLimits(words=6))[0] == "length"
    twice = chain("choice", "So it is a bell. So it is a bell.", "B")
    assert incoherence(twice, CoherenceLimits(repeated=0.5)) is None
    assert incoherence(twice, CoherenceLimits(repeated=0.49))[0] == "loop"


def test_scores_count_rules_and_repetitions():
    good, bad = chain("choice", "So it is a bell.", "B"), chain("choice", "So it is a bell.", "A")
    assert coherence_scores(good) == {"coherent": 1.0, "repeated": 0.0}
    assert coherence_scores(bad)["coherent"] == pytest.approx(1 - 1 / len(RULES))


def test_repetition_by_hand():
    assert repeated_sentences(["a b", "A, b!", "c"]) == pytest.approx(1 / 3)
    assert repeated_sentences([]) == 0.0
    assert words_of("1.5 Hz, 音高 up-down.") == ["1.5", "hz", "音", "高", "up-down"]
    words = [f"w{i}" for i in range(10)]
    assert repeated_runs(" ".join(words * 2)) == pytest.approx(5 / 15)  # 15 runs of 6, of which 10 differ
    assert repeated_runs(" ".join(words)) == 0.0


ODD = ("", " ", "<think>", "?", "。。。", "\ud800", "A" * 9_000, "So " * 3_000, "[" * 999)


@pytest.mark.parametrize("text", ODD)
@pytest.mark.parametrize("kind", TARGETS)
def test_no_text_makes_a_rule_fail(text, kind):
    incoherence(chain(kind, text, text))
    for rule in RULES.values():
        assert isinstance(rule(chain(kind, text, text or None), CoherenceLimits()), str)
