"""The held-out table: balanced items, finite shares, and batches that answer as the session does."""

import math
from collections import Counter

import mlx.core as mx
import numpy as np
import pytest

from mlx_audio_r1.nano import table
from mlx_audio_r1.nano.clips import TEST_SEEDS, TRAIN_SEEDS
from mlx_audio_r1.nano.vocabulary import Prompts
from mlx_audio_r1.session import load
from mlx_audio_r1.tasks.acoustic import questions as q
from mlx_audio_r1.tasks.acoustic import speech
from mlx_audio_r1.tasks.acoustic.balanced import FIRST_SEED
from mlx_audio_r1.tokenizer import Tokenizer
from mlx_audio_r1.weights import load_model

PER_TASK = 4


@pytest.fixture(scope="module")
def items():
    return table.draw_items(PER_TASK, seed=3)


@pytest.fixture(scope="module")
def model():
    model = load_model(table.CHECKPOINT)
    model.set_dtype(mx.float32)
    return model


@pytest.fixture(scope="module")
def prompts():
    return Prompts(Tokenizer.from_folder(table.CHECKPOINT))


@pytest.fixture(scope="module")
def replies(model, prompts, items):
    return table.answer(model, prompts, items)


def test_every_task_is_asked_and_its_answers_are_spread(items):
    asked = Counter(i.question.task for i in items)
    silent = set() if speech.available() else {"voice"}
    assert set(asked) == set(q.TASKS) - silent
    for task in ("before", "noisy", "louder", "longer"):
        assert max(Counter(i.question.gold for i in items if i.question.task == task).values()) <= 2


def test_the_same_seed_draws_the_same_items(items):
    again = table.draw_items(PER_TASK, seed=3)
    assert [i.question for i in again] == [i.question for i in items]
    assert np.array_equal(again[0].clip.waveform, items[0].clip.waveform)


def test_held_out_words_are_asked_on_demand():
    for item in table.draw_items(1, seed=4, held_out_words=True):
        if item.question.task != "before":
            ways = q.TASKS[item.question.task].ways[-q.HELD_OUT_WAYS :]
            assert item.question.text.split("\n")[0] in ways


def test_table_clips_are_in_no_training_set():
    assert TRAIN_SEEDS + 10_000_000 < FIRST_SEED < TEST_SEEDS


def test_no_share_is_missing(model, prompts, items):
    rows = table.measure(model, prompts, items[:: 2 * PER_TASK])
    text = table.markdown(rows)
    for row in [*rows, table.mean_row(rows)]:
        shares = (row.thinking, row.direct, row.silence, row.chance)
        assert all(math.isfinite(v) and 0 <= v <= 1 for v in shares)
    assert "nan" not in text and text.count("\n") == len(rows) + 2


def test_a_batch_answers_as_one_prompt_does(replies, items):
    session = load(table.CHECKPOINT)
    session.model.set_dtype(mx.float32)
    same = 0
    for item, (thinking, answer) in list(zip(items, replies, strict=False))[::13]:
        reply = session.ask((item.clip.waveform, 16_000), item.question.text)
        same += (reply.thinking, reply.answer) == (thinking, answer)
    assert same >= len(items[::13]) - 1  # one near tie may fall the other way


def test_the_embedded_model_hears(replies, items):
    free = [k for k, item in enumerate(items) if not item.question.options]
    scores = table.scores(items, replies)[free]
    chance = np.mean([items[k].question.chance for k in free])
    assert scores.mean() > chance + 0.2


def test_reasoning_names_evidence_with_numbers(replies):
    with_numbers = sum(any(c.isdigit() for c in thinking) for thinking, _ in replies)
    assert with_numbers > 0.9 * len(replies)


def test_the_checkpoint_is_small_and_complete(model):
    folder = table.CHECKPOINT
    names = {"config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json",
             "generation_config.json", "README.md"}  # fmt: skip
    assert names == {p.name for p in folder.iterdir()}
    assert sum(p.stat().st_size for p in folder.iterdir()) <= 8 << 20
    assert mx.load(str(folder / "model.safetensors"), return_metadata=True)[1]["format"] == "mlx"
    assert model.config.raw["nano"]["hears"] == q.HEARS
