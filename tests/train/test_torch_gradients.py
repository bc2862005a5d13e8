"""Losses and gradients against PyTorch in float64: transformers' Qwen2 with our weights, its own attention,
and the loss written out there. Shapes and seeds of its own; run with `make test-torch`."""

from dataclasses import replace

import mlx.core as mx
import numpy as np
import pytest
from mlx.utils import tree_flatten

from mlx_audio_r1.train.forward import ForwardOptions
from mlx_audio_r1.train.losses import dpo_loss, sft_loss
from tests.train.tiny import WIDTH, batch_of, gradient, random_piece, tiny_model

pytestmark = pytest.mark.torch

# float32 against float64, relative to the largest value of a tensor; 2.7e-6 measured.
TOLERANCE = 1e-5
BETA = 0.3
SHAPES = [  # seed, query heads, kv heads, layers, tied
    (11, 4, 4, 2, False),
    (12, 4, 2, 3, True),
    (13, 8, 1, 2, False),
    (14, 8, 4, 1, True),
]
OPTIONS = {
    "as it comes": ForwardOptions(),
    "all on": ForwardOptions(checkpoint=True, attention="blockwise", head_chunk=7),
}


def pieces_of(seed):
    """Four examples of ragged lengths and prompts, one of which counts a half."""
    draw = np.random.default_rng(seed)
    lengths = draw.integers(5, 24, 4)
    return [random_piece(100 * seed + i, int(n), int(draw.integers(1, n - 1)), weight=0.5 if i == 2 else 1.0)
            for i, n in enumerate(lengths)]  # fmt: skip


def torch_twin(model, layers, tied, heads, kv_heads):
    """transformers' model in float64 with the weights of ours."""
    torch = pytest.importorskip("torch")
    from transformers import Qwen2Config, Qwen2ForCausalLM

    twin = Qwen2ForCausalLM(Qwen2Config(
        vocab_size=97, hidden_size=WIDTH, intermediate_size=96, num_hidden_layers=layers,
        num_attention_heads=heads, num_key_value_heads=kv_heads, rms_norm_eps=1e-6,
        rope_parameters={"rope_type": "default", "rope_theta": 1e4}, max_position_embeddings=32768,
        tie_word_embeddings=tied, attn_implementation="eager", use_sliding_window=False,
    )).double()  # fmt: skip
    state = {name: torch.from_numpy(np.array(x)).double() for name, x in decoder_of(model).items()}
    missing = twin.load_state_dict(state, strict=False)
    assert not missing.unexpected_keys
    assert set(missing.missing_keys) <= ({"lm_head.weight"} if tied else set())
    return twin


def decoder_of(model):
    return dict(tree_flatten(model.language_model.parameters()))


def torch_logprobs(twin, piece):
    """(n,) log-probabilities of the learnt tokens of one example, alone and without padding."""
    import torch

    ids = torch.tensor([piece.ids])
    logp = torch.log_softmax(twin(input_ids=ids[:, :-1]).logits[0], -1)
    return logp.gather(-1, ids[0, 1:, None])[piece.prompt - 1 :, 0]


def torch_sft(twin, pieces):
    return -sum((torch_logprobs(twin, piece) * piece.weight).sum() for piece in pieces)


def torch_dpo(twin, pieces, reference):
    """The sigmoid loss of TRL's DPOTrainer, summed."""
    import torch

    sums = [torch_logprobs(twin, piece).sum() for piece in pieces]
    total = 0
    for i in range(0, len(pieces), 2):
        logits = (sums[i] - sums[i + 1]) - (reference[i] - reference[i + 1])
        total = total - torch.nn.functional.logsigmoid(BETA * logits)
    return total


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("recipe", ["sft", "dpo"])
def test_loss_and_gradients_equal_torch_in_float64(recipe, shape, options):
    seed, heads, kv_heads, layers, tied = shape
    model = tiny_model(seed, tied=tied, heads=heads, kv_heads=kv_heads, layers=layers)
    model.freeze()
    model.language_model.unfreeze()
    twin = torch_twin(model, layers, tied, heads, kv_heads)
    pieces = pieces_of(seed)
    if recipe == "sft":
        batch = batch_of([pieces[:2], pieces[2:]], unlearnt=3)
        expected = torch_sft(twin, pieces)
        value, grads = gradient(model, lambda m: sft_loss(m, batch, options)[0])
    else:
        pieces = [replace(piece, weight=1.0) for piece in pieces]
        sums = [torch_logprobs(twin, piece).sum().item() for piece in pieces]
        reference = [x + shift for x, shift in zip(sums, (3, -2, 1, 4), strict=True)]
        batch = batch_of([[p] for p in pieces], reference=mx.array(reference))
        expected = torch_dpo(twin, pieces, reference)
        value, grads = gradient(model, lambda m: dpo_loss(m, batch, options, BETA)[0])
    expected.backward()
    assert value == pytest.approx(expected.item(), rel=TOLERANCE)
    compare(grads, dict(twin.named_parameters()), tied)


def compare(grads, parameters, tied):
    ours = {name.removeprefix("language_model."): np.array(g, np.float64) for name, g in grads.items()}
    assert ours.keys() == parameters.keys() - ({"lm_head.weight"} if tied else set())
    for name, g in ours.items():
        theirs = parameters[name].grad.numpy()
        assert np.abs(g - theirs).max() < TOLERANCE * np.abs(theirs).max(), name
