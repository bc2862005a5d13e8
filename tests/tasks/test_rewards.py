"""Rewards: the table of equations 6 and 7, what counts as reasoning, and the terms that are off by default."""

# ruff: noqa: RUF001  (full-width marks are meant)
import numpy as np
import pytest

from mlx_audio_r1.errors import TrainingError
from mlx_audio_r1.prompt import AudioPart
from mlx_audio_r1.tasks.choice import Choice
from mlx_audio_r1.tasks.item import Item, Turn
from mlx_audio_r1.tasks.lexicon import ACOUSTIC, acoustic_terms, grounding, surrogate_terms
from mlx_audio_r1.tasks.reply import read_reply
from mlx_audio_r1.tasks.rewards import RewardConfig, reward
from mlx_audio_r1.tasks.wording import Wording

TARGET = Choice(("drum", "bell"), (1,))
SOUND = AudioPart(np.zeros(16, np.float32), 16_000)
AUDIO = Item("a", (Turn("user", (SOUND, "Which?")),), TARGET)
TEXT = Item("t", (Turn("user", ("Which?",)),), TARGET)

# what the model writes behind "<think>\n", with the answer in place of {}
THOUGHT = "It rings.\n</think>\n{}"
EMPTY = "\n</think>\n{}"
SPACES = " \t\n\u3000\u200b\n</think>\n{}"
MISSING = "{}"
UNCLOSED = "<think>\nIt rings. The answer is {}"


@pytest.mark.parametrize(
    ("form", "answer", "audio", "text"),
    [
        (THOUGHT, "B. bell", 1.0, 1.0),
        (THOUGHT, "A. drum", 0.2, 0.0),
        (THOUGHT, "who knows", 0.2, 0.0),
        (THOUGHT, "", 0.2, 0.0),
        (EMPTY, "B. bell", 0.8, 1.0),
        (EMPTY, "A. drum", 0.0, 0.0),
        (SPACES, "B. bell", 0.8, 1.0),
        (SPACES, "A. drum", 0.0, 0.0),
        (MISSING, "B. bell", 0.0, 0.0),
        (MISSING, "A. drum", 0.0, 0.0),
        (UNCLOSED, "B. bell", 0.0, 0.0),
        (UNCLOSED, "A. drum", 0.0, 0.0),
    ],
)
def test_the_reward_table_of_the_paper(form, answer, audio, text):
    reply = form.format(answer)
    assert reward(reply, AUDIO).value == audio
    assert reward(reply, TEXT).value == text
    for item in (AUDIO, TEXT):
        cut = reward(reply, item, truncated=True)
        assert (cut.value, cut.masked, cut.truncated, cut.verdict.parsed) == (0.0, False, True, None)
        left_out = reward(reply, item, RewardConfig(truncated="mask"), truncated=True)
        assert (left_out.value, left_out.masked) == (0.0, True)


def test_behind_an_empty_reasoning_all_of_the_reply_is_the_answer():
    assert reward("B. bell", AUDIO, thinking=False).value == 0.8
    assert reward("B. bell", TEXT, thinking=False).value == 1.0
    assert reward("A. drum", AUDIO, thinking=False).value == 0.0


@pytest.mark.parametrize(
    ("reply", "thinking", "answer", "reasoned"),
    [
        ("Hm.</think>B", "Hm.", "B", True),
        ("<think>Hm.</think>B", "Hm.", "B", True),
        ("\n <think>\nHm.\n</think>\n\nB\n", "Hm.", "B", True),
        ("</think>B", "", "B", False),
        ("<think></think>B", "", "B", False),
        ("<think><think></think>B", "<think>", "B", False),
        ("</think></think>B", "", "B", False),
        ("</think>Hm.</think>B", "", "B", False),
        ("</think><think>Hm.</think>B", "", "B", False),
        ("Hm. </think>A</think>B", "Hm.", "B", True),
        ("Hm.</think>B<think>or A", "Hm.", "B", True),
        ("Hm.</think><think>B", "Hm.", "", True),
        ("\u200b\x00</think>B", "\u200b\x00", "B", False),
        (".</think>B", ".", "B", True),
        ("Hm. The answer is B</think>", "Hm. The answer is B", "", True),
    ],
)
def test_reasoning_is_before_the_first_closing_and_the_answer_behind_the_last(
    reply, thinking, answer, reasoned
):
    read = read_reply(reply)
    assert (read.thinking, read.answer, read.has_reasoning, read.closed) == (thinking, answer, reasoned, True)


def test_an_answer_that_stands_in_the_reasoning_alone_is_none():
    assert reward("The answer is B. bell.</think>", AUDIO).value == 0.2
    assert reward("The answer is B. bell.", AUDIO).verdict.why == "unfinished"


def test_words_that_are_nearly_right_count_their_share_for_audio_and_nothing_for_text():
    words = Wording(("the cat sat on",), "wer")
    heard, read = Item("a", AUDIO.turns, words), Item("t", TEXT.turns, words)
    assert reward("Hm.</think>the cat sat", heard).value == pytest.approx(0.8 * 0.75 + 0.2)
    assert reward("Hm.</think>the cat sat", read).value == 0.0
    assert reward("Hm.</think>the cat sat on", read).value == 1.0


def test_weights_are_options():
    config = RewardConfig(correct=1.0, reasoning=0.0, text_correct=2.0)
    assert reward(THOUGHT.format("B"), AUDIO, config).value == 1.0
    assert reward(THOUGHT.format("A"), AUDIO, config).value == 0.0
    assert reward(THOUGHT.format("B"), TEXT, config).value == 2.0


@pytest.mark.parametrize(
    ("length", "tokens", "term"),
    [("overlong", 0, 0.0), ("overlong", 8_192, 0.0), ("overlong", 9_216, -0.5), ("overlong", 10_240, -1.0),
     ("overlong", 20_000, -1.0), ("linear", 0, 0.0), ("linear", 1_024, -0.1), ("linear", 10_240, -1.0)],
)  # fmt: skip
def test_length_terms_are_linear_between_their_ends(length, tokens, term):
    given = reward(THOUGHT.format("B"), AUDIO, RewardConfig(length=length), tokens=tokens)
    assert given.terms["length"] == pytest.approx(term) and given.value == pytest.approx(1.0 + term)
    half = reward(THOUGHT.format("B"), AUDIO, RewardConfig(length=length, length_weight=0.5), tokens=tokens)
    assert half.terms["length"] == pytest.approx(term / 2)


def test_a_length_term_without_a_length_is_refused():
    with pytest.raises(TrainingError, match="number of tokens"):
        reward("B", AUDIO, RewardConfig(length="linear"))
    with pytest.raises(TrainingError, match="number of tokens"):
        reward("x</think>B", TEXT, RewardConfig(length="overlong"))


@pytest.mark.parametrize(
    ("thinking", "term"),
    [
        ("The pitch rises.", 0.0),
        ("The transcript is sad.", -0.3),
        ("The pitch rises and the transcript is sad.", -0.15),
        ("Nothing of either.", 0.0),
        ("根据描述，他很难过。", -0.3),
        ("音高上升，语速很快；歌词也难过。", -0.1),
    ],
)
def test_textual_surrogates_cost_their_share_for_audio(thinking, term):
    config = RewardConfig(surrogate=0.3)
    given = reward(f"{thinking}</think>B", AUDIO, config)
    assert given.terms["surrogate"] == pytest.approx(term) and given.value == pytest.approx(1.0 + term)
    assert reward(f"{thinking}</think>B", TEXT, config).value == 1.0
    assert reward(f"{thinking}</think>B", AUDIO).value == 1.0


def test_extra_terms_do_not_touch_a_truncated_reply():
    config = RewardConfig(length="linear", surrogate=1.0)
    assert reward("The transcript</think>B", AUDIO, config, truncated=True).value == 0.0


@pytest.mark.parametrize(
    "wrong",
    [{"truncated": "drop"}, {"length": "long"}, {"correct": -0.1}, {"reasoning": float("nan")},
     {"surrogate": float("inf")}, {"length_free": 10, "length_limit": 10}, {"length_free": -1}],
)  # fmt: skip
def test_a_config_that_cannot_be_is_refused_in_one_line(wrong):
    with pytest.raises(TrainingError) as error:
        RewardConfig(**wrong)
    assert next(iter(wrong)) in str(error.value) and "\n" not in str(error.value)


def test_grounding_counts_by_category_and_language():
    found = grounding(
        "The pitch rises from 300 Hz to 600 Hz. 语速很快，有噪音。 According to the text she is sad."
    )
    assert {name: n for name, n in found.acoustic.items() if n} == {"pitch": 3, "rhythm": 1, "spectrum": 1}
    assert (found.terms, found.surrogate, found.ratio) == (5, 1, pytest.approx(5 / 6))
    assert found.breadth == 3 / 8 and len(ACOUSTIC) == 8
    assert found.words == 16 + 7  # Latin words and numbers, Chinese characters
    assert found.density == pytest.approx(1000 * 5 / 23)
    assert grounding("").ratio is None and grounding("").density == 0.0


@pytest.mark.parametrize(
    "text", ["Note that a single one fits", "software", "Since the keynote ran", "textile", ""]
)
def test_words_that_only_look_like_a_term_do_not_count(text):
    found = grounding(text)
    assert (found.terms, found.surrogate) == (0, 0)


def test_the_terms_of_a_text_can_be_shown():
    text = "The transcript says sad, but the voice trembles. 歌词欢快，音调低沉。"
    assert surrogate_terms(text) == ["transcript", "歌词"]
    assert acoustic_terms(text) == [
        ("voice", "voice"),
        ("voice", "trembles"),
        ("pitch", "音调"),
        ("timbre", "低沉"),
    ]
