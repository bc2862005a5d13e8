"""Several questions behind one clip cost exactly what they cost one by one."""

import mlx.core as mx
import numpy as np
import pytest

from mlx_audio_r1.config import parse_config, patch_count
from mlx_audio_r1.mel import log_mel
from mlx_audio_r1.models.step_audio_r1 import Model
from mlx_audio_r1.nano import reason
from mlx_audio_r1.nano.clips import Clips
from mlx_audio_r1.nano.cpu_speed import cpu_speed
from mlx_audio_r1.nano.make import HERE
from mlx_audio_r1.nano.vocabulary import Prompts
from mlx_audio_r1.tasks.acoustic import questions as q
from mlx_audio_r1.tasks.acoustic.world import make_clip
from mlx_audio_r1.tokenizer import Tokenizer
from mlx_audio_r1.train.losses import IGNORE, mean_token_loss

WIDTH = 32


@pytest.fixture(scope="module")
def prompts():
    return Prompts(Tokenizer.from_folder(HERE / "checkpoint"))


@pytest.fixture(scope="module")
def model():
    text = {"vocab_size": 1100, "hidden_size": WIDTH, "intermediate_size": 48, "num_hidden_layers": 2,
            "num_attention_heads": 4, "num_key_value_heads": 2, "rms_norm_eps": 1e-6, "rope_theta": 10000.0,
            "tie_word_embeddings": True}  # fmt: skip
    audio = {"n_audio_state": WIDTH, "n_audio_head": 2, "n_audio_layer": 1, "adaptor_width": 24}
    return reason.new_model(parse_config({"text_config": text, "audio_encoder_config": audio}))


@pytest.fixture(scope="module")
def lessons(model, prompts):
    clips = [make_clip(seed, kind) for seed, kind in enumerate(["pair", "repeat", "single", "pair"] * 2)]
    length = min(len(c.waveform) for c in clips)
    mels = [np.array(log_mel(c.waveform[:length])) for c in clips]
    outputs = [np.array(model.audio_encoder(mx.array(m)[None])[0]) for m in mels]
    return reason.Lessons(Clips(mels, [c.truth for c in clips]), outputs, prompts, seed=0)


def shared_and_alone(lessons):
    """A batch of each sort."""
    batches = [lessons(step) for step in range(40)]
    return next(b for b in batches if b[1].shape[1]), next(b for b in batches if not b[1].shape[1])


def loss_one_by_one(model: Model, batch):
    """The same loss from whole prompts through the model's own embed and forward."""
    features, prefix, patches, ids, targets, _ = batch
    copies, rows = ids.shape[0] // features.shape[0], model.audio_adaptor(features)
    logits, wanted = [], []
    for i in range(ids.shape[0]):
        clip, start = i // copies, prefix.shape[1]
        whole = mx.concatenate([prefix[clip], ids[i]])
        has_sound = bool((patches[clip] >= 0).any())
        is_patch = mx.pad(patches[clip], [(0, whole.size - patches.shape[1])], constant_values=-1) >= 0
        marked = mx.where(is_patch, 1099, whole)
        x = model.embed(marked, [rows[clip]] if has_sound else [], patch_id=1099)
        logits.append(model(whole[None], input_embeddings=x[None])[0, start:])
        wanted.append(targets[i])
    return mean_token_loss(mx.stack(logits), mx.stack(wanted)).item()


@pytest.mark.parametrize("sort", [0, 1], ids=["shared", "alone"])
def test_packed_loss_equals_the_loss_one_by_one(model, lessons, sort):
    batch = shared_and_alone(lessons)[sort]
    packed = reason.reasoning_loss(reason.Reasoner(model), batch)[0].item()
    assert packed == pytest.approx(loss_one_by_one(model, batch), rel=1e-5)


def test_the_fast_functions_give_the_same_loss(model, lessons):
    batch = shared_and_alone(lessons)[0]
    plain = reason.reasoning_loss(reason.Reasoner(model), batch)[0].item()
    with cpu_speed():
        assert reason.reasoning_loss(reason.Reasoner(model), batch)[0].item() == pytest.approx(plain, rel=1e-5)


def test_a_step_is_a_batch(lessons):
    one, other = lessons(3), lessons(3)
    assert all(mx.array_equal(a, b).item() for a, b in zip(one, other, strict=False))


def test_only_completions_are_supervised(lessons, prompts):
    ids, targets = (np.array(a) for a in shared_and_alone(lessons)[1][3:5])
    for row, wanted in zip(ids, targets, strict=False):
        where = np.flatnonzero(wanted != IGNORE)
        assert wanted[where[-1]] == prompts.end_turn
        assert np.array_equal(row[where[1:]], wanted[where[:-1]])
        assert prompts.tokenizer.decode(row[: where[0] + 1].tolist()).endswith(("<think>\n", "</think>\n"))


def test_what_follows_from_a_note_is_asked_behind_it(lessons, prompts):
    question = q.make_question(make_clip(3, "pair").truth, 0, "compare", choice=True)
    whole = prompts.prompt(question.text, []), prompts.completion(question)
    prompt, completion = lessons._with_note(question, whole)
    assert prompt + completion == whole[0] + whole[1]
    assert prompts.tokenizer.decode(prompt).endswith(question.note)
    assert prompts.tokenizer.decode(completion).lstrip() == (
        question.reasoning.removeprefix(question.note).lstrip() + f"\n</think>\n{question.answer}<|EOT|>"
    )


def test_only_the_first_question_of_a_clip_is_asked_for_the_note(lessons):
    shared = [np.array(batch[4]) for batch in map(lessons, range(40)) if batch[1].shape[1]]
    first, second = (sum((t[i :: reason.PER_CLIP] != IGNORE).sum() for t in shared) for i in range(2))
    assert first > 1.5 * second


def test_prompts_have_as_many_patches_as_the_clip(prompts):
    ids = prompts.prompt("What is it?", [patch_count(20_000)])
    assert ids.count(prompts.tokenizer.audio_patch_id) == 16
    expected = "<|BOT|>human\n<audio_start>" + "<audio_patch>" * 16 + (
        "<audio_end>What is it?<|EOT|><|BOT|>assistant\n<think>\n")
    assert prompts.tokenizer.decode(ids) == expected
