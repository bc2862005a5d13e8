"""Which questions a round asks, and a reasoning cut short."""

import numpy as np
import pytest

from mlx_audio_r1 import load
from mlx_audio_r1.errors import TrainingError
from mlx_audio_r1.mgrd.budgets import cut_short
from mlx_audio_r1.mgrd.select import Selection, by_silence, by_words, draw, fates
from mlx_audio_r1.train.examples import Example
from mlx_audio_r1.train.rollouts import Rollout
from mlx_audio_r1.train.row_forms import parse_row


def question(text, line=1, sound=True):
    heard = {"prompt": f"<audio>{text}", "audios": ["a.wav"]} if sound else {"prompt": text}
    row = {**heard, "solution": "A"}
    return parse_row(row, f"train.jsonl:{line}", "")


@pytest.mark.parametrize(("text", "chosen"), [
    ("Is the pitch rising?", True), ("这段声音的音高怎样？", True), ("Which instrument is louder?", True),  # noqa: RUF001
    ("What colour is a bus?", False), ("Who wrote it?", False),
])  # fmt: skip
def test_by_words(text, chosen):
    assert by_words(question(text)).chosen is chosen


@pytest.mark.parametrize(("correct", "chosen"), [
    ([0, 0, 0, 0], True), ([1, 1, 0, 0], True), ([1, 1, 1, 0], False),
])  # fmt: skip
def test_by_silence(correct, chosen):
    fate = by_silence(question("Which?"), correct, Selection(perception="silence"))
    assert fate.chosen is chosen and fate.why == f"{sum(correct) / 4:.0%} right without the sound"


def test_as_many_as_are_wanted_and_others_each_round():
    rows = [question("Q", i) for i in range(20)] + [question("2 + 2?", 20 + i, sound=False) for i in range(5)]
    selection = Selection(questions=6, text_questions=2)
    one, again, other = (draw(rows, selection, 0, t) for t in (1, 1, 2))
    assert [row.where for row in one[0]] == [row.where for row in again[0]] != [row.where for row in other[0]]
    assert (len(one[0]), len(one[1])) == (6, 2) and all(row.sounds for row in one[0])
    lines = [int(row.where.partition(":")[2]) for row in one[0]]
    assert lines == sorted(lines)
    assert [len(part) for part in draw(rows, Selection(), 0, 1)] == [20, 5]
    assert all(fate.chosen for fate in fates(one[0], Selection()))


@pytest.mark.parametrize("given", [{"perception": "deep"}, {"silent_samples": 0}, {"most_silent": 1.5}])
def test_what_cannot_be_selected(given):
    with pytest.raises(TrainingError, match="select: "):
        Selection(**given)


@pytest.mark.parametrize(("budget", "kept"), [(0, 0), (2, 2), (3, 3), (50, 3)])
def test_a_reasoning_is_cut_at_its_own_tokens(budget, kept):
    tokenizer = load().tokenizer
    prompt = Example(np.array([5, 6, 7], np.int32), np.zeros(3, np.float32), "valid.jsonl:1")
    reply = Rollout(0, prompt.name, 0, 3, (11, 12, 13, 14, 15), (0.0,) * 5, "stop", "t", "a", thinking_tokens=3)
    cut = cut_short(prompt, reply, budget, tokenizer)
    closing = tokenizer.encode("\n</think>\n")
    assert cut.ids.tolist() == [5, 6, 7, *[11, 12, 13][:kept], *closing] and not cut.learnt
    assert cut.name == prompt.name
