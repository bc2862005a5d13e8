"""Which option a reply chooses: a table of replies, and made option sets by the thousand."""

# ruff: noqa: RUF001  (full-width letters and other quotes are meant)

import itertools
import random

import pytest

from mlx_audio_r1.tasks.choice import choose
from mlx_audio_r1.tasks.options import LETTERS

OPTIONS = ("drum", "bell", "horn", "flute")
BELL = (
    "b", "(b)", "b.", "b) bell", "Option B: bell", "B: bell - because it rings", "**Answer:** B",
    "Answer: B) bell", "My answer is B", "The correct option is (B) bell.", "It's B.", "It’s B",
    "B is the correct answer", "The sound is a bell, so B.", "Based on the audio, the answer is **B. bell**.",
    "bell (B)", "B (bell)", "选项B", "答案：B", "我选B。", "应该是B", "正确答案是 B. bell", "B、bell", "Ｂ",
    "B．", "Ｂ．bell", "It isn't A, it's B", "A is wrong; B is right", "I first thought A but the answer is B",
    "Final Answer: B", "Answer is option B", "choice B", "\\text{B}", "\\boxed{\\text{B}}", "$B$",
    "$\\boxed{B}$", "<answer>B</answer>", "{\"answer\":\"B\"}",
    "B\n\nExplanation: it is not A because there is no drum.", "The answer is B, not A.", "A bell", "a bell",
    "The bell", "Bell.", "BELL", "It is a bell.", "I hear a bell", "I hear a bell, not a drum",
    "There is no drum; it is a bell", "bell!", "\"bell\"", "“bell”", "'bell'", "`bell`", "- bell", "* bell",
    "1) bell", "B. Bell", "B.bell", "B)bell", "(B)bell", "[B]", "[B] bell", "B -> bell", "B = bell",
    "B – bell", "**B**", "__B__", "*B*", "B: **bell**", "**B:** bell", "Answer: bell", "answer=B", "Ans: B",
    "The answer: B", "The answer is\nB", "The answer is: \n\n**B. bell**", "So, the answer is B",
    "Therefore B.", "Hence, option B.", "Thus the correct answer is B: bell.", "The correct choice is B",
    "The best answer is B", "I would choose B", "I'd go with B", "I pick B", "I choose option B.",
    "My choice: B", "Choice: B", "Option: B", "Letter B", "B, bell", "B bell", "bell, B", "选择B", "选（B）",
    "答案是：B", "答案为B", "答案是bell", "最终答案：B", "正确选项是B", "B选项", "是B", "B。", "B，bell",
    "应选B", "故选B", "所以选B。", "因此答案是B", "听起来是bell", "乙",
    "B is right because the drum is absent", "After listening: B", "The answer is (B).", "The answer is ( B )",
    "Answer: (B) bell", "Answer - B", "ANSWER: B", "answer b", "the answer is b", "option b", "B;", "B,", "B!",
    "bell?", "bell...", "bell\n", "  bell  ", "The instrument is the bell.", "It sounds like a bell to me.",
    "This is most likely a bell", "It must be the bell", "Definitely bell", "Probably B",
    "Most likely B. bell", "I think B", "I think the answer is B", "I believe it's B) bell",
    "bell\n\nThe drum would be lower.", "Not A, C or D, so B", "A drum? No, a bell.",
    "Option A is incorrect. Option B is correct.", "Between A and B, the answer is B", "Correct answer: B",
    "Correct: B", "Result: B", "Response: B", "Final: B", "The second option, bell", "<response>B</response>",
    "<b>B</b>", "> B", "# B", "## Answer\nB", "### Final Answer\nB. bell", "```\nB\n```",
    "```json\n{\"answer\": \"B\"}\n```", "{\"choice\": \"B\"}", "{'answer': 'B'}", "['B']", "[\"B\"]",
    "B. bell.", "B . bell", "B.  bell", "(B.) bell", "(B). bell", "B)", "B):", "B:)", "<B>", "【B】",
    "《bell》", "『B』", "Answer:B", "答案:B", "答：B", "B\u200b", "\u200bB", "B\ufeff",
)  # fmt: skip
NOT_BELL = (
    "", "A", "C", "drum", "A. drum", "I", "A bell and a drum", "A or B", "A and B", "B or C", "Both A and B",
    "Neither", "None", "None of the above", "not B", "Not a bell", "It isn't a bell", "It is not B",
    "A, not B", "drum, not bell", "The answer is A, not B", "The answer is not B", "B is wrong",
    "B is incorrect", "I don't know", "unsure", "E", "Z", "AB", "BC", "A/B", "A, B, C", "ABCD", "all of them",
    "doorbell", "bells and drums", "A. bell or drum", "The drum, although a bell was heard",
    "Maybe A, maybe B", "B? No, A.", "Is it B?", "bell or drum", "bell and horn",
    "I cannot tell whether it is a bell or a drum", "不是B", "不是bell，是drum", "选A不选B", "B不对",
    "C. bell and horn", "I would never choose B", "A because the bell is absent", "anything but the bell",
    "everything except bell", "no bell", "without a bell", "labell", "belly", "incorrect: B", "not correct: B",
    "wrong: B", "I don't think B", "B?", "I think so, but it may be a drum", "['A']", "{'answer': 'C'}",
)  # fmt: skip


@pytest.mark.parametrize("reply", BELL)
def test_a_reply_that_chooses_the_bell(reply):
    assert choose(reply, OPTIONS).option == "bell"


@pytest.mark.parametrize("reply", NOT_BELL)
def test_a_reply_that_does_not(reply):
    assert choose(reply, OPTIONS).option != "bell"


def test_letters_that_are_texts_of_other_options_are_texts():
    options = ("C", "A", "D", "B")
    assert [choose(reply, options).option for reply in ("B", "B.", "The answer is B", "B, not C")] == ["B"] * 4
    assert choose("A. C", options).option == "C"


@pytest.mark.parametrize(
    "reply", ["dog barking", "The dog barking", "B. dog barking", "A dog barking", "(B) the dog barking"]
)
def test_an_article_of_the_option_may_be_left_out(reply):
    assert choose(reply, ("door slam", "a dog barking", "a cat", "a dog")).option == "a dog barking"


def test_but_not_where_it_tells_options_apart():
    assert choose("cats", ("A cats", "The cats")).option is None
    assert (
        choose("dog", ("dog", "A dog")).option == "dog" and choose("A dog", ("dog", "A dog")).option == "A dog"
    )


def test_a_number_right_behind_its_letter():
    assert choose("A.1,200 Hz", ("1,200 Hz", "120 Hz")).option == "1,200 Hz"
    assert choose("A.120 Hz", ("1,200 Hz", "120 Hz")).option != "1,200 Hz"


# Sets like those of MMAU and MMAR: articles, denials, numbers, chords, lists that differ in their order.
NOUNS = (
    "man", "woman", "child", "dog", "cat", "bell", "drum", "horn", "flute", "siren", "engine", "train",
    "crowd", "rain", "piano", "guitar", "clock",
)  # fmt: skip
MOODS = (
    "loud", "quiet", "high", "low", "fast", "slow", "happy", "sad", "angry", "calm", "old", "young", "male",
    "female", "distant", "bright", "dark",
)  # fmt: skip
FIXED = (
    "男", "女", "高兴的", "钢琴声", "两个人", "No", "Yes", "None of the above", "I don't know",
    "rock 'n' roll", "R&B", "Don't worry!", "C# minor",
)  # fmt: skip
FORMS = (
    "{t}",
    "{l}. {t}",
    "({l}) {t}",
    "**{l}. {t}**",
    "{l}",
    "{l}.",
    "The answer is {l}. {t}",
    "The answer is {t}.",
)


def phrase(rng):
    (noun, other), (mood, change) = rng.sample(NOUNS, 2), rng.sample(MOODS, 2)
    return rng.choice([
        noun, noun.capitalize(), f"A {noun}", f"The {mood} {noun}", f"A {noun} and a {other}", f"{noun} stops",
        f"{mood} then {change}", f"{noun}, {other}", f"Not {mood}", f"It is {mood}", str(rng.randrange(60)),
        f"{rng.randrange(40, 200)} BPM", f"{rng.choice('ABCDEFG')}:{rng.choice(['maj', '7', 'maj/5'])}",
        f"{rng.randrange(1, 5)}/{rng.choice([2, 4, 8])}", rng.choice(FIXED),
    ])  # fmt: skip


def option_set(rng):
    if rng.random() < 0.15:
        orders = [", ".join(order) for order in itertools.permutations(rng.sample(MOODS, 3))]
        return tuple(rng.sample(orders, 4))
    return tuple(dict.fromkeys(phrase(rng) for _ in range(rng.choice([2, 3, 4, 4, 4, 5, 8])))) or ("a", "b")


def test_right_replies_are_accepted_and_wrong_ones_are_not():
    """benchmarks ask for 99.8 % of right replies and 3 wrong ones of 8,874; without options that are letters
    themselves, which no rule can tell from letters, all go right."""
    rng = random.Random(7)
    for options in (option_set(rng) for _ in range(120)):
        for i, form in itertools.product(range(len(options)), FORMS):
            reply = form.format(l=LETTERS[i], t=options[i])
            assert choose(reply, options).option == options[i], (reply, options)
