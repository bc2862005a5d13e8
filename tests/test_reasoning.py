"""The splitter: what it says, and that no cut of the stream changes it."""

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlx_audio_r1.reasoning import ReasoningSplitter, join_pieces, split_reply

CASES = [  # (reply, starts inside the reasoning, thinking, answer)
    ("I hear a bell.\n</think>\nA bell.", True, "I hear a bell.", "A bell."),
    ("<think>\nI hear.\n</think>\nA bell.", True, "I hear.", "A bell."),
    ("<think>\nI hear.\n</think>\nA bell.", False, "I hear.", "A bell."),
    ("\n</think>\nA bell.", True, "", "A bell."),
    ("never closed", True, "never closed", ""),
    ("at once", False, "", "at once"),
    ("a</think>b</think>c", True, "a", "bc"),
    ('\n</think>\n{"model":"x", "y": [1]}', True, "", '{"model":"x", "y": [1]}'),
    ("a < b and </b> </thin> x</think>y", True, "a < b and </b> </thin> x", "y"),
    ("say <think> aloud</think>ok", True, "say <think> aloud", "ok"),
    ("a</think>\n<think>b</think>c", True, "a\nb", "c"),
    ("a\n\n\nb\n\n</think>\n\n  c  \n", True, "a\n\n\nb", "c"),
    ("cut </thi", True, "cut </thi", ""),
    ("", True, "", ""),
    ("  \n ", True, "", ""),
]


@pytest.mark.parametrize(("reply", "inside", "thinking", "answer"), CASES)
def test_split(reply, inside, thinking, answer):
    assert split_reply(reply, inside) == (thinking, answer)


@pytest.mark.parametrize(("reply", "inside", "thinking", "answer"), CASES)
def test_every_way_to_cut_in_two_and_character_by_character(reply, inside, thinking, answer):
    cuts = [[reply[:i], reply[i:]] for i in range(len(reply) + 1)] + [list(reply)]
    for pieces in cuts:
        assert feed(pieces, inside) == (thinking, answer), pieces


parts = st.lists(
    st.sampled_from(["<think>", "</think>", "<", "</", "think", ">", "\n", " ", "a", "é", "{", "</thin"]),
    max_size=14,
)


@settings(max_examples=400, deadline=None)
@given(parts, st.booleans(), st.data())
def test_any_cut_of_any_text_gives_the_same(words, inside, data):
    reply = "".join(words)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(reply)), max_size=8)))
    edges = [0, *cuts, len(reply)]
    pieces = [reply[a:b] for a, b in pairwise(edges)]
    assert feed(pieces, inside) == split_reply(reply, inside)


@settings(max_examples=200, deadline=None)
@given(parts, st.booleans())
def test_no_close_tag_and_no_outer_whitespace_is_ever_shown(words, inside):
    thinking, answer = split_reply("".join(words), inside)
    assert thinking == thinking.strip() and answer == answer.strip()


def feed(pieces, inside) -> tuple[str, str]:
    splitter = ReasoningSplitter(inside)
    out = [p for text in pieces for p in splitter.push(text)]
    return join_pieces([*out, *splitter.finish()])


def test_thinking_streams_before_it_is_closed():
    splitter = ReasoningSplitter()
    assert [p.text for p in splitter.push("I hear a bell")] == ["I hear a bell"]
    assert not splitter.closed
