"""Constructed instructions and replies, on which VoiceBench's ifeval.py and our checks have to agree.

Left out are sentences and words in capitals: the authors count them with a library that downloads its data.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from typing import Any

RELATIONS = ("less than", "at least")
INSTRUCTIONS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("keywords:existence", {"keywords": ["bell", "drum"]}),
    *(("keywords:frequency", {"keyword": "bell", "frequency": 2, "relation": r}) for r in RELATIONS),
    ("keywords:forbidden_words", {"forbidden_words": ["bell", "horn"]}),
    *(("keywords:letter_frequency", {"letter": "l", "let_frequency": 3, "let_relation": r}) for r in RELATIONS),
    ("length_constraints:number_paragraphs", {"num_paragraphs": 2}),
    *(("length_constraints:number_words", {"num_words": 6, "relation": r}) for r in RELATIONS),
    ("length_constraints:nth_paragraph_first_word",
     {"num_paragraphs": 2, "nth_paragraph": 2, "first_word": "drum"}),
    ("detectable_content:number_placeholders", {"num_placeholders": 2}),
    ("detectable_content:postscript", {"postscript_marker": "P.S."}),
    ("detectable_content:postscript", {"postscript_marker": "P.P.S"}),
    ("detectable_format:number_bullet_lists", {"num_bullets": 2}),
    ("detectable_format:constrained_response", {}),
    ("detectable_format:number_highlighted_sections", {"num_highlights": 2}),
    ("detectable_format:multiple_sections", {"section_spliter": "Section", "num_sections": 2}),
    ("detectable_format:json_format", {}),
    ("detectable_format:title", {}),
    ("combination:two_responses", {}),
    ("combination:repeat_prompt", {"prompt_to_repeat": "Ring the bell."}),
    ("startend:end_checker", {"end_phrase": "That is all."}),
    ("startend:quotation", {}),
    ("change_case:english_capital", {}),
    ("change_case:english_lowercase", {}),
    ("language:response_language", {"language": "de"}),
    ("punctuation:no_comma", {}),
)  # fmt: skip
REPLIES = (
    "", " ", "The bell rang, and the drum rolled, and the bell fell silent.", "bell", "BELL DRUM BELL",
    "a bell", "bells and doorbells", "Ring the bell. Then the drum.", "ring the BELL. and so on",
    "First part\n\ndrum roll", "First part\n\n'Drum, roll", "One\n\n\n\ndrum", "One *** two",
    "*** One *** two ***", "One *** *** two", "One\n***\ntwo\n***\nthree", "[name] and [place]", "[a][b]",
    "[]", "Text\nP.S. more", "Text\np. s. more", "Text P.P.S. more", "Text\nP. P. S more", "* one\n* two",
    "- one\n- two\n- three", "* one\n- two", "** one\n* two", "My answer is yes.",
    "So: My answer is no. Really.", "My answer is perhaps.", "*one* and *two*", "**one** two", "**one** *two*",
    "** **", "Section 1 a\nSection 2 b", "Section 1 a", "SECTION 1\nSECTION 2", '{"a": 1}',
    '```json\n{"a": [1, 2]}\n```', "```\n[1]\n```", "{'a': 1}", "<<Title>>\ntext", "<< >>", "<<>>", "<<a\nb>>",
    "one\n******\ntwo", "one ****** one", "one ****** two ****** three", "******one******two",
    "one******\n******two", "And so it ends. That is all.", 'It ends. That is all."', "That is all. Or not",
    '"quoted"', '"', '"open', "THIS IS ALL IN CAPITALS AND IT IS ENGLISH",
    "this is all in small letters and it is english", "12 34",
    "Das ist ein ganz gewöhnlicher deutscher Satz über das Wetter.",
    "Une phrase tout à fait ordinaire en français.", "Here is the reply:\n\"quoted\"",
    "Sure!\n* one\n* two\nBye", "<1> My answer is yes.", "no comma here",
    "Intro line\nTHE REST OF IT IS IN CAPITALS\nend", "one two three four five six", "one two three four five",
    "这是一个中文句子。", "lll", "l l", "P.S.", "Title\n<<x>>\n", "*a*b*c*", "***", "one***two", "******",
    "\n\n\n",
)  # fmt: skip


def instruction_cases() -> Iterator[tuple[str, dict[str, Any], str]]:
    """(instruction, its arguments, reply)"""
    for (name, wanted), reply in product(INSTRUCTIONS, REPLIES):
        yield name, wanted, reply
