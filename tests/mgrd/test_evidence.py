"""Evidence is the gain of two plain passes, and tells a chain about this clip from one about another."""

from itertools import pairwise

import mlx.core as mx
import numpy as np
import pytest

from mlx_audio_r1.errors import TrainingError
from mlx_audio_r1.mel import log_mel
from mlx_audio_r1.mgrd.controls import OtherSound, Silence, control_features
from mlx_audio_r1.mgrd.evidence import Evidence, evidence_of, summed_up, token_gains
from mlx_audio_r1.tasks.token_kinds import TokenKinds, spelled, token_kinds
from mlx_audio_r1.train.batches import collate
from mlx_audio_r1.train.features import LogMels
from mlx_audio_r1.train.sounds import Sounds


def plain_logprobs(world, candidate, heard):
    """(T,) by one forward over the sequence and a log-softmax over all words; heard: chunk -> (E, width)."""
    model, ids = world.r1.model, [*candidate.prompt.ids.tolist(), *candidate.rollout.ids]
    rows = [model.audio_adaptor(heard(c)[None])[0][: c.patches] for c in candidate.prompt.sounds]
    x = model.embed(mx.array(ids), rows, world.r1.tokenizer.audio_patch_id)
    logits = np.array(model(mx.array(ids)[None], input_embeddings=x[None])[0].astype(mx.float32), np.float64)
    logp = logits - np.log(np.exp(logits - logits.max(-1, keepdims=True)).sum(-1, keepdims=True))
    logp -= logits.max(-1, keepdims=True)
    start = len(candidate.prompt)
    return np.array([logp[at - 1, ids[at]] for at in range(start, len(ids))])


def waveform_of(world, chunk):
    ((_, waveform),) = Sounds(convention=world.r1.config.length_convention).waveforms([chunk])
    return waveform


@pytest.mark.parametrize("control", ["silence", "other"])
def test_gains_are_those_of_a_straightforward_computation_one_candidate_at_a_time(world, control):
    candidates = world.sampled
    pool = [chunk for c in candidates for chunk in c.prompt.sounds]
    instead = control_features(control, world.r1.model, world.features, pool, 3)
    gains = token_gains(world.r1, candidates, world.features, instead, max_tokens=700)

    def heard(chunk):
        return world.r1.model.audio_features(log_mel(waveform_of(world, chunk)))

    def control_heard(chunk):
        if control == "silence":
            return world.r1.model.audio_features(log_mel(np.zeros(chunk.samples, np.float32)))
        other, rows = heard(OtherSound(world.features, pool, 3).of(chunk)), heard(chunk).shape[0]
        return mx.concatenate([other] * (rows // other.shape[0] + 1))[:rows]

    found = evidence_of(world.r1, candidates, world.features, control=control, pool=pool, seed=3)
    for candidate, gain, evidence in zip(candidates, gains, found, strict=True):
        wanted = plain_logprobs(world, candidate, heard) - plain_logprobs(world, candidate, control_heard)
        assert np.abs(gain - wanted).max() < 1e-4
        text = world.r1.tokenizer.decode(candidate.rollout.ids)
        thinking = len(world.r1.tokenizer.encode(text.partition("</think>")[0]))
        assert evidence.thinking == pytest.approx(wanted[:thinking].mean(), abs=1e-4)
        assert evidence.grounded == pytest.approx((wanted[:thinking] > 0.5).mean(), abs=0.02)


@pytest.mark.parametrize("control", ["silence", "other"])
def test_a_true_chain_gains_by_its_clip_and_more_than_one_about_another_clip(world, control):
    true = world.sampled
    wrong = [world.misheard(i, (i + 1) % 4) for i in range(4)]
    found = evidence_of(world.r1, true + wrong, world.features, control=control)
    for own, other in zip(found[:4], found[4:], strict=True):
        assert own.thinking > 0 and own.thinking > other.thinking + 0.1
    assert np.mean([e.answer for e in found[:4]]) > np.mean([e.answer for e in found[4:]])


def test_batches_and_company_do_not_matter(world):
    candidates = world.sampled[:4]
    together = evidence_of(world.r1, candidates, world.features)
    alone = [evidence_of(world.r1, [c], world.features, max_tokens=1)[0] for c in candidates]
    for one, other in zip(together, alone, strict=True):
        assert one.scores() == pytest.approx(other.scores(), abs=1e-4)
    assert evidence_of(world.r1, candidates, world.features) == together


def test_a_question_without_sound_has_no_evidence(world):
    sum_, clip = world.written(4, thinking="1 + 2 = 3.", answer="3"), world.written(0)
    found = evidence_of(world.r1, [sum_, clip], world.features)
    assert found[0] is None and found[1].thinking > 0
    assert evidence_of(world.r1, [sum_], world.features) == [None]


# ---- controls


def test_silence_is_zeros_of_the_same_length_and_made_once(world):
    silence = Silence(world.r1.model, world.features)
    (chunk,) = world.prompts[0].sounds
    made = silence(chunk)
    assert made.shape == world.features(chunk).shape and silence(chunk) is made
    wanted = world.r1.model.audio_features(log_mel(np.zeros(chunk.samples, np.float32)))
    assert mx.array_equal(made, wanted) and not mx.array_equal(made, world.features(chunk))
    assert silence.rows(7) == world.features.rows(7) and not silence.log_mels


def test_another_sound_is_never_the_own_one_and_has_its_rows(world):
    chunks = [p.sounds[0] for p in world.prompts[:4]]
    other = OtherSound(world.features, chunks, seed=1)
    for chunk in chunks:
        theirs = world.features(other.of(chunk))
        rows = world.features(chunk).shape[0]
        assert other.of(chunk).digest != chunk.digest and other(chunk).shape == world.features(chunk).shape
        shared = min(rows, theirs.shape[0])
        assert mx.array_equal(other(chunk)[:shared], theirs[:shared])
        if rows > theirs.shape[0]:
            assert mx.array_equal(other(chunk)[shared : 2 * shared], theirs[: min(rows - shared, shared)])


def test_which_other_sound_depends_on_the_seed_alone(world):
    chunks = [p.sounds[0] for p in world.prompts[:4]]
    drawn = [[OtherSound(world.features, pool, seed).of(c).digest for c in chunks]
             for pool in (chunks, chunks[::-1]) for seed in range(6)]  # fmt: skip
    assert drawn[:6] == drawn[6:] and len({tuple(d) for d in drawn}) > 1


def test_one_clip_alone_cannot_be_compared_with_another(world):
    with pytest.raises(TrainingError, match="needs a second clip"):
        evidence_of(world.r1, [world.written(0)], world.features, control="other")
    with pytest.raises(TrainingError, match="control 'noise': one of silence, other"):
        evidence_of(world.r1, [world.written(0)], world.features, control="noise")


def test_controls_of_log_mels_are_log_mels(world):
    mels = LogMels(Sounds(convention=world.r1.config.length_convention), world.r1.config.audio.n_mels)
    silence = Silence(world.r1.model, mels)
    (chunk,) = world.prompts[0].sounds
    assert silence.log_mels and silence(chunk).shape == mels(chunk).shape
    assert collate([world.prompts[0]], silence).features.shape[-1] == world.r1.config.audio.n_mels


# ---- which tokens


def test_tokens_of_reasoning_answer_and_acoustic_terms_by_hand(world):
    tokenizer = world.r1.tokenizer
    candidate = world.written(0, thinking="1 bell at 0.3; the pitch stays.", answer="A. bell")
    ids = candidate.rollout.ids
    kinds = token_kinds(tokenizer, ids)
    words = {name: "".join(tokenizer.decode([i]) for i, of in zip(ids, mask, strict=True) if of)
             for name, mask in vars(kinds).items()}  # fmt: skip
    assert words["thinking"] == "1 bell at 0.3; the pitch stays.\n"
    assert words["answer"].strip() == "A. bell"
    assert words["acoustic"].split() == ["bell", "pitch"]
    assert not (kinds.thinking & kinds.answer).any() and len(kinds.thinking) == len(ids)
    assert not kinds.thinking[-1] and not kinds.answer[-1]  # the end


def test_a_reasoning_that_never_ends_is_all_reasoning(world):
    kinds = token_kinds(world.r1.tokenizer, world.written(0, closed=False, finish="length").rollout.ids)
    assert kinds.thinking.all() and not kinds.answer.any()


def test_every_token_knows_its_characters_those_of_half_a_character_too(world):
    text = "The 音高 rises — né."
    ids = world.r1.tokenizer.encode(text)
    said, spans = spelled(world.r1.tokenizer, ids)
    assert said == text and len(spans) == len(ids)
    assert spans[0][0] == 0 and spans[-1][1] == len(text)
    assert all(a <= b for (a, _), (b, _) in pairwise(spans))


def test_means_by_hand():
    gain = np.array([1.0, 0.5, 0.6, -1.0, 2.0, 9.0])
    masks = np.array([[1, 1, 1, 1, 0, 0], [1, 0, 1, 0, 0, 0], [0, 0, 0, 0, 1, 0]], bool)
    found = summed_up(gain, TokenKinds(*masks))
    assert found == Evidence(pytest.approx(0.275), 2.0, pytest.approx(0.8), -0.25, 0.5)
    assert found.selectivity == pytest.approx(1.05)
    none = summed_up(gain, TokenKinds(*np.zeros((3, 6), bool)))
    assert none == Evidence(None, None, None, None, None) and none.scores() == {}
