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

OTHER_SETS = (  # options, the right one, replies that choose it, replies that do not
    ((
         "Yes", "No",
     ), "Yes", (
         "Yes", "yes.", "A", "A. Yes", "(A) Yes", "Yes, it is", "The answer is yes", "是", "是的", "对",
         "True", "Yes, because I hear no drum", "It is true", "Yeah",
     ), (
         "No", "no, not yes", "B", "yes or no", "Is it yes? No.", "neither", "not yes", "unknown",
         "Yes and no",
     )),
    ((
         "No", "Yes",
     ), "No", (
         "No", "A", "A. No", "No, there is not", "no.", "否", "不是", "The answer is No.",
         "There is no bell, so no.",
     ), (
         "Yes", "B", "B. Yes", "Yes, no doubt", "I know",
     )),
    ((
         "2", "3", "4", "12",
     ), "2", (
         "2", "A", "A. 2", "There are 2", "2 times", "The answer is 2.", "A) 2", "2.", "(A) 2", "**2**",
         "2个",
     ), (
         "12", "3", "1.2", "22", "B", "2 or 3", "2, 3", "20", "between 2 and 3", "not 2", "B. 2 3",
     )),
    ((
         "120 BPM", "60 BPM", "90 BPM", "150 BPM",
     ), "120 BPM", (
         "120 BPM", "A. 120 BPM", "120 bpm", "About 120 BPM", "The tempo is 120 BPM",
     ), (
         "60", "1200 BPM", "60 BPM, not 120", "B",
     )),
    ((
         "male", "female",
     ), "male", (
         "male", "A", "A. male", "Male.", "a male voice", "The speaker is male", "It's a male, not a female",
     ), (
         "female", "B", "B. female", "a female voice", "not male", "male or female",
     )),
    ((
         "happy", "unhappy",
     ), "happy", (
         "happy", "A. happy", "The speaker sounds happy", "not unhappy, but happy",
     ), (
         "unhappy", "B. unhappy", "not happy", "sounds unhappy",
     )),
    ((
         "None of the above", "bell", "drum", "All of the above",
     ), "None of the above", (
         "None of the above", "A", "none of the above.", "A. None of the above",
         "The answer is none of the above",
     ), (
         "bell", "All of the above", "none", "B", "not A",
     )),
    ((
         "Both A and B", "Only A", "Only B", "Neither",
     ), "Both A and B", (
         "Both A and B", "A. Both A and B", "(A) Both A and B", "The answer is: Both A and B",
     ), (
         "Only A", "B", "B. Only A", "Neither", "C. Only B",
     )),
    ((
         "钢琴", "小提琴", "吉他", "鼓",
     ), "钢琴", (
         "钢琴", "A", "A. 钢琴", "A、钢琴", "答案是钢琴", "答案：A", "选A", "是钢琴的声音", "我听到的是钢琴",
         "A.钢琴", "（A）钢琴", "钢琴。", "应该选择A", "【A】", "正确答案：A. 钢琴", "钢琴，不是吉他",
         "不是吉他，而是钢琴",
     ), (
         "小提琴", "B", "不是钢琴", "钢琴和吉他", "B. 小提琴", "没有钢琴", "电子钢琴还是鼓", "选B",
     )),
    ((
         "It is loud", "It is not loud", "It is quiet", "unclear",
     ), "It is loud", (
         "It is loud", "A. It is loud", "A", "It is loud.",
     ), (
         "It is not loud", "B. It is not loud", "not loud", "It is quiet", "It isn't loud",
     )),
    ((
         "C major", "A minor", "G major", "D major",
     ), "C major", (
         "C major", "A. C major", "A", "C major.", "The key is C major", "(A) C major",
         "the answer is C major",
     ), (
         "A minor", "B. A minor", "C", "C.", "G major", "B", "D major",
     )),
    ((
         "A", "B", "C", "D",
     ), "C", (
         "C", "C.", "(C)", "C. C", "The answer is C", "option C", "C is played", "note C",
     ), (
         "A", "B", "D. D", "not C", "C or D",
     )),
    ((
         "rising", "falling", "rising then falling", "flat",
     ), "rising", (
         "rising", "A. rising", "The pitch is rising", "rising.",
     ), (
         "rising then falling", "falling", "C", "first rising then falling", "rising, then falling",
     )),
    ((
         "John", "Mary", "John and Mary", "nobody",
     ), "John and Mary", (
         "John and Mary", "C", "both John and Mary", "C. John and Mary",
     ), (
         "John", "Mary", "A", "John or Mary", "nobody",
     )),
    ((
         "I", "II", "III", "IV",
     ), "II", (
         "II", "B", "B. II", "(B) II", "The answer is II",
     ), (
         "I", "III", "IV", "A. I", "C",
     )),
    ((
         "a", "b",
     ), "a", (
         "a", "A", "(a)", "a.",
     ), (
         "b", "B",
     )),
    ((
         "door slam", "a dog barking", "glass breaking", "a cat",
     ), "a dog barking", (
         "a dog barking", "dog barking", "A dog barking", "B. dog barking", "The dog barking", "B",
         "I hear a dog barking.", "the sound of a dog barking",
     ), (
         "A", "a cat", "door slam", "A dog meowing", "a cat, no dog barking",
     )),
)  # fmt: skip


@pytest.mark.parametrize(("options", "gold", "right", "wrong"), OTHER_SETS)
def test_other_options(options, gold, right, wrong):
    """Yes and no, numbers, units, denials, Chinese, letters, chords, options that name others."""
    assert [reply for reply in right if choose(reply, options).option != gold] == []
    assert [reply for reply in wrong if choose(reply, options).option == gold] == []


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


INSTRUMENTS = ("cello", "oboe", "harp", "snare")
ZH = ("大提琴", "双簧管", "竖琴", "小军鼓")
TEMPI = ("120 BPM", "90 BPM", "1120 BPM", "150 BPM")
MORE = [  # options, reply, what it chooses: forms that were read wrong once, and their neighbours
    *((INSTRUMENTS, reply, "harp") for reply in (
        "My choice is C.", "My pick would be C", "My guess: C", "C项正确", "故选：C", "故選：C", "選C", "選擇C",
        "選項C", "C選項", "答案為C", "結果：C", "應該選C", "大提琴吗？不，是harp。")),
    *((INSTRUMENTS, reply, None) for reply in (
        "My choice is not C.", "不選C", "harp吗？", "是harp嗎？", "C项错误", "C項錯誤", "故选：C或D",
        "My choice is C or D.")),
    (ZH, "竖琴吗？", None), (ZH, "大提琴吗？不，是竖琴。", "竖琴"),
    *((TEMPI, reply, chosen) for reply, chosen in (
        ("120bpm", "120 BPM"), ("A. 120bpm", "120 BPM"), ("120", None), ("1120bpm", "1120 BPM"))),
    *((("yes", "no"), reply, chosen) for reply, chosen in (
        ("I have no idea", None), ("There is no way to tell.", None), ("There is no bell, so no.", "no"),
        ("I had no idea at first, but yes.", "yes"), ("No doubt: yes", "yes"))),
]  # fmt: skip


@pytest.mark.parametrize(("options", "reply", "chosen"), MORE)
def test_replies_that_were_read_wrong(options, reply, chosen):
    assert choose(reply, options).option == chosen
