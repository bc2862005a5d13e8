"""Constructed replies, on which official scripts and our rules have to agree. Taken from no data set."""

# ruff: noqa: RUF001  (full-width letters are meant)

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

from mlx_audio_r1.tasks.options import LETTERS

OPTION_SETS = (
    ("Man", "Woman", "Child", "A man and a child"),  # "A. Man" has a word of the last one
    ("A dog barks", "The cat", "A dog and a cat", "None of them"),
    ("cough", "laugh", "Burp", "yawn"),
    ("C", "A", "D", "B"),  # letters that are not their own
    ("A", "B", "C", "D"),
    ("A:maj/5", "C:min", "G:7", "E:maj"),
    ("Yes", "No"),
    ("No, twice", "Yes, twice"),
    ("bell", "drum", "bell", "horn"),  # one text twice
    ("first high then low", "first low then high", "only high", "only low"),  # the same words
    ("It is present", "It is not present"),
    ("3", "4", "34", "three"),
    ("1,200 Hz", "1200 Hz", "120 Hz", "12.5 Hz"),
    ("男", "女", "男和女", "孩子"),
    ("  leading", "trailing  ", "in the middle", "Leading"),
    ("Don't know", "The dog's bark", "I", "R&B"),
    ("Rock", "Rock and roll", "Punk-rock", "roll"),
    ("anger", "joy", "fear", "surprise", "disgust", "sadness", "calm", "other"),
)
FORMS = (  # {l} and {t}: letter and text of the option meant; {m} and {u}: of another
    "{t}", "{l}", "{l}.", "({l})", "{l}. {t}", "({l}) {t}", "{l}) {t}", "{l}: {t}", "**{l}. {t}**", "**{t}**",
    "`{l}`", "The answer is {l}.", "The answer is {l}. {t}", "The answer is {t}.", "The answer is: {l}",
    "answer: {t}", "Answer: ({l})", "\\boxed{{{l}}}", "\\boxed{{{t}}}", "{t}.", '"{t}"', "{t}\n", "\n{l}\n",
    "{l}\n{t}",
    "{l}. {t}\n{m}. {u}", "{t}, not {u}", "not {t}", "It is not {u} but {t}", "{l} or {m}", "{l}, {m}",
    "{t} / {u}",
    "I think it is {t} because I hear it", "option {l}", "Option {l} is right", "选{l}", "答案是{l}",
    "答案是{t}。",
    "答案:{l}.{t}", "<answer>{l}</answer>", '{{"answer": "{l}"}}', "{t} {t}", "The correct answer is {l}",
    "{l}{m}", "a {t}", "the {t}", "- {t}", "1. {t}", "#### {t}", "{l} - {t}", "「{t}」",
    "Final answer: **{l}**",
    "So the best choice would be {l}!",
)  # fmt: skip
ALONE = ("", " ", "\n", "None", "?", "!!", "I do not know.", "E", "A", "D.", "Dunno", "Because of the noise",
         "AB", "ABCD", "xB.", "xBx", "B.\n", "a.", "无法判断", "Ａ", "the", "1", "A.\n\nB.",
         "Both", "C:")  # fmt: skip


def choice_cases(skip: int = 0, step: int = 1) -> Iterator[tuple[tuple[str, ...], int, str]]:
    """(options, index of the right one, reply): every form, of the right option and of a wrong one."""
    for at, options in list(enumerate(OPTION_SETS))[skip::step]:
        gold = at % len(options)
        other = (gold + 1) % len(options)
        for form, (meant, not_meant) in product(FORMS, ((gold, other), (other, gold))):
            yield options, gold, said(form, options, meant, not_meant)
        yield from ((options, gold, reply) for reply in ALONE)


def said(form: str, options: tuple[str, ...], meant: int, not_meant: int) -> str:
    return form.format(l=LETTERS[meant], t=options[meant], m=LETTERS[not_meant], u=options[not_meant])


LETTER_PHRASES = (
    "I would choose {l}.", "I'd say {l}.", "It is likely {l}.", "The answer is option {l}: {t}",
    "Based on this, **{l}) {t}** is right.", "The correct option is **{l}**.", "My answer:\n\n{l}. {t}",
    "The answer is:\n\n**{l}) {t}**", "is \\( \\boxed{{{l}}} \\)", "It would be {l}", "<1> {l}. {t}",
    'the best choice is "{l}"', "So {l}.", "{t} ({l})", "I pick ({l}).", "{l} is the best answer", "答案选{l}",
    "答案应该是{l}", "选项{l}是最合适的", "The answer is actually {l}.",
)  # fmt: skip
REPLIES_TO_HARM = (
    "I'm sorry, but I can't.", "Sorry!", "As an AI, I must not.", "She was an engineer.", "Sure, here is how.",
    "First, take a hammer.", "I cannot help with that.", "I can’t assist with that request.", "I can’t do it.",
    "", " ", "That would be ILLEGAL.", "This is unethical.", "I won't.", "I will not.", "抱歉，我不能。",
    "这是违法的。", "好的，第一步", "I don't think so", "It is wrong.", "It's wrong.", "I am unable to",
    "We are unable to", "Instead, I'll tell you", "No.", "I do not know", "as an aside, do this",
    "Legal and ethical standards apply", "我不能告诉你", "我不能帮你",
)  # fmt: skip
NUMBERS = ("7", "42", "-3", "0", "3.5", "3.50", "0.60", "1,234", "1234567", "3/4", "0.75", "12.", "007", "-0.5",
           "100000000000000000000", "2.4999", "2.5", "1e5", "5/0", "1/03", "8/.5", "٣", "99.0")  # fmt: skip
NUMBER_FORMS = (
    "{n}", "{n}.", "The answer is {n}", "The answer is {n}.", "The answer is: {n}", "the answer is {n} apples.",
    "#### {n}", "First 5 and then 6, so 5 + 6 = {n}", "{n} because 2 + 2 = 4", "The answer is {n}, not 9.",
    "\\boxed{{{n}}}", "\\(\\frac{{1}}{{2}} = {n}\\)", "$\\text{{{n}}}$", "**{n}**", "${n}", "{n} %", "= {n}/",
    "The answer is 8.\n\nThe answer is {n}", "#### 8\n\n#### {n}", "The answer is 8. The answer is {n}",
    "Answer: {n}", "The Answer is {n} or 9", "答案是{n}。", "so {n}, 8", "The answer is\n{n}\n", "{n} - 2",
    "\n\n{n}\n\n", "Step 1: add.\n\nStep 2: {n}\n\nThe answer is: ", "The answer is **{n}** ####",
)  # fmt: skip
NUMBER_REFERENCES = (
    ("short_digit", "7"), ("short_digit", "0.60"), ("short_digit", "3.5"), ("long_digit", "1,234"),
    ("long_digit", "1234567"), ("long_digit", "100.0"), ("short_digit", ""), ("short_digit", ["7", 7]),
    ("short_digit", ["x", 2]), ("short_digit", ["x", 3.5]), ("long_digit", ["x", 42]),
    ("long_digit", ["0.75", 0.75]),
    ("single_step_reasoning", ["7"]), ("single_step_reasoning", ["5 + 2 = 7 #### 7"]),
    ("single_step_reasoning", ["0.60"]), ("multi_step_reasoning", ["#### 1,234"]),
    ("multi_step_reasoning", ["3/4"]),
    ("multi_step_reasoning", ["42", "42"]), ("multi_step_reasoning", []),
    ("multi_step_reasoning", ["\\text{42}"]),
    ("multi_step_reasoning", ["-3.0"]), ("multi_step_reasoning", "42"), ("single_step_reasoning", ["apples"]),
)  # fmt: skip
NO_NUMBERS = (
    "",
    " ",
    "seven",
    "The answer is",
    "####",
    "The answer is seven",
    "I do not know",
    "七",
    "empty",
    "-",
)


NEAR_REFERENCES = tuple(["x", number] for number in (100.0, 100, -2.5, 0.0, 2))  # "x" is never met
NEAR_NUMBERS = (
    "96", "95.99", "104", "104.01", "100.4", "99.6", "100.5", "101", "-2.5", "-2.6", "-2.61", "-2.4", "0",
    "0.001", "-0", "1.5", "2.5", "2.51",
)  # fmt: skip


def number_cases() -> Iterator[tuple[str, object, str]]:
    """(split, the row's answer, reply): every form, each with two of the references."""
    for i, (number, form) in enumerate(product(NUMBERS, NUMBER_FORMS)):
        for split, answer in (NUMBER_REFERENCES[i % len(NUMBER_REFERENCES)], _own(number, i)):
            yield split, answer, form.format(n=number)
    for (split, answer), reply in product(NUMBER_REFERENCES, NO_NUMBERS):
        yield split, answer, reply
    for answer, reply in product(NEAR_REFERENCES, NEAR_NUMBERS):
        yield "long_digit", answer, reply


def _own(number: str, i: int) -> tuple[str, object]:
    """A reference that the number should meet."""
    return (
        ("short_digit", number),
        ("multi_step_reasoning", [number.replace(",", "")]),
        ("long_digit", ["x", 7]),
    )[i % 3]
