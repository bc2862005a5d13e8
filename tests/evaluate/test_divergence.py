"""KL along a reasoning, against all of both distributions in float64, on nano and on nano in bits."""

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest

from mlx_audio_r1 import load
from mlx_audio_r1.evaluate import divergence as module
from mlx_audio_r1.evaluate.divergence import Reference, case_of, divergence, reference_of, spread_places
from mlx_audio_r1.evaluate.logprobs import Case, reply_logprobs
from mlx_audio_r1.hub import NANO


@pytest.fixture(scope="module")
def asked():
    """nano, a question with its sound, and the ids of nano's own reply."""
    r1 = load()
    messages = r1.question(NANO.parent / "sample.wav", "Name all sounds in order.")
    reply = r1.ask(NANO.parent / "sample.wav", "Name all sounds in order.", temperature=0.0)
    return r1, messages, reply


@pytest.fixture(scope="module")
def in_bits():
    r1 = load()
    nn.quantize(r1.model.language_model.model, group_size=32, bits=4)
    return r1


def whole(r1, messages, ids, places):
    """(T, V) log-probabilities in float64, by one plain forward pass."""
    prompt = r1.prepare(messages)
    x = r1.continued(prompt, ids[:-1]).embeddings
    logits = np.array(r1.model.language_model(mx.zeros((1, len(x)), mx.int32), input_embeddings=x[None])[0],
                      np.float64)  # fmt: skip
    logits = logits[[len(prompt.ids) - 1 + at for at in places]]
    top = logits.max(1, keepdims=True)
    return logits - top - np.log(np.exp(logits - top).sum(1, keepdims=True))


@pytest.mark.parametrize("top", [4_096, 16])
def test_it_is_the_divergence_of_the_distributions(asked, in_bits, monkeypatch, top, tmp_path):
    monkeypatch.setattr(module, "TOP", top)
    r1, messages, reply = asked
    case = case_of(messages, reply.token_ids, reply.usage.reasoning_tokens)
    reference = reference_of(r1, case)
    reference.save(tmp_path / "r.safetensors")
    found = divergence(in_bits, case, Reference.load(tmp_path / "r.safetensors"))
    p = whole(r1, messages, case.ids, case.places)
    q = whole(in_bits, messages, case.ids, case.places)
    exact = (np.exp(p) * (p - q)).sum(1)
    assert found.tokens == len(case.places) > 20
    assert found.agreement == np.mean(p.argmax(1) == q.argmax(1))
    if top >= p.shape[1]:
        assert found.kl == pytest.approx(exact.mean(), rel=1e-3)  # float32 logits
        assert found.kl > 1e-4
    else:
        assert 0 < found.kl <= exact.mean() + 1e-6  # a coarser alphabet tells less apart


def test_a_model_does_not_differ_from_itself(asked):
    r1, messages, reply = asked
    case = case_of(messages, reply.token_ids, reply.usage.reasoning_tokens)
    found = divergence(r1, case, reference_of(r1, case))
    assert found.kl == pytest.approx(0, abs=1e-6) and found.agreement == 1.0


def test_log_probabilities_of_some_places_are_those_of_all(asked):
    r1, messages, reply = asked
    ids = reply.token_ids[:20]
    [every] = reply_logprobs(r1, [Case(messages, ids)])
    [some] = reply_logprobs(r1, [Case(messages, ids, places=[0, 3, 19])])
    assert some == pytest.approx(every[[0, 3, 19]], abs=1e-6)


@pytest.mark.parametrize(("tokens", "places"), [(0, []), (1, [0]), (3, [0, 1, 2])])
def test_few_tokens_are_all_looked_at(tokens, places):
    assert spread_places(tokens) == places


def test_many_tokens_are_looked_at_from_end_to_end():
    places = spread_places(1_000, 5)
    assert places == [0, 249, 499, 749, 999]
