"""Wired heads attend where the docstring says, before any training."""

import mlx.core as mx
import numpy as np
import pytest

from mlx_audio_r1.config import parse_config
from mlx_audio_r1.nano.make import TEXT
from mlx_audio_r1.nano.reason import new_model
from mlx_audio_r1.nano.wiring import wire

WORDS, PLACES = 200, 60


@pytest.fixture(scope="module")
def model():
    model = new_model(parse_config({"text_config": {**TEXT, "vocab_size": WORDS},
                                    "audio_encoder_config": {"llm_dim": TEXT["hidden_size"]}}))  # fmt: skip
    wire(model)
    return model.language_model.model


def attention(layer, x, head):
    """(L, L) weights of one head."""
    attn, (_, length, _) = layer.self_attn, x.shape
    query, key = (
        attn.rope(p(layer.input_layernorm(x)).reshape(1, length, -1, 32).swapaxes(1, 2))
        for p in (attn.q_proj, attn.k_proj)
    )
    scores = query[0, head] @ key[0, head // 3].T * attn.scale
    return np.array(mx.softmax(mx.where(mx.tril(mx.ones((length, length))) > 0, scores, -1e9), axis=-1))


def embedded(model, ids):
    return model.embed_tokens(mx.array([ids]))


@pytest.mark.parametrize("back", [0, 1, 2])
def test_the_first_layer_looks_back(model, back):
    x = embedded(model, np.random.default_rng(0).integers(0, WORDS, PLACES).tolist())
    weights = attention(model.layers[0], x, back)
    assert all(weights[i, i - back] > 0.9 for i in range(2, PLACES))


def test_the_second_layer_repeats_and_looks_up(model):
    ids = np.random.default_rng(1).permutation(WORDS)[:PLACES].tolist()
    ids[50] = ids[20]
    x = model.layers[0](embedded(model, ids), "causal", None)
    repeat, look_up = attention(model.layers[1], x, 0), attention(model.layers[1], x, 3)
    assert repeat[50].argmax() == 21
    assert look_up[51, [20, 50]].sum() > 0.6
