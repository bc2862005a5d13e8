"""A batch goes through the model as its examples would alone, and gradients reach whatever is trained."""

from dataclasses import replace

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from mlx.utils import tree_flatten

from mlx_audio_r1.train.batch import MEL_FRAMES
from mlx_audio_r1.train.forward import ForwardOptions, embedded, first_trained, hidden_states, is_blockwise
from mlx_audio_r1.train.logprobs import token_logprobs
from tests.train.tiny import (
    batch_of,
    distance,
    farthest,
    gradient,
    random_features,
    random_piece,
    tiny_model,
    with_lora,
)

# Log-probabilities of size 5 out of float32 sums in another order; 1.9e-6 measured.
LOGP = 1e-5
# The same for gradients, relative to the largest of a tensor; 4.1e-6 measured.
GRADIENT = 1e-5
FEATURES = random_features(2, 6)  # 2 chunks of 6 frames, 3 rows of sound each
PIECES = [
    random_piece(1, 11, 5, patches={1: 0, 2: 1, 3: 2}),
    random_piece(2, 7, 3),
    random_piece(3, 9, 6, patches={2: 3, 3: 4}),
    random_piece(4, 6, 2, weight=0.5),
]


@pytest.fixture(scope="module")
def model():
    return tiny_model()


def loss_of(batch, options=ForwardOptions()):  # noqa: B008
    return lambda model: -(token_logprobs(model, batch, options)[0] * batch.weights).sum()


def by_example(model, batch, options=ForwardOptions()):  # noqa: B008
    """Name -> log-probabilities of its learnt tokens."""
    logp, owners = np.array(token_logprobs(model, batch, options)[0]), np.array(batch.owners)
    logp, owners = logp[np.array(batch.weights) > 0], owners[np.array(batch.weights) > 0]
    return {name: logp[owners == i] for i, name in enumerate(batch.names)}


ALONE = [batch_of([[piece]], features=FEATURES) for piece in PIECES]
TOGETHER = {
    "rows": batch_of([[p] for p in PIECES], features=FEATURES),
    "another order": batch_of([[p] for p in PIECES[::-1]], features=FEATURES),
    "padded": batch_of([[p] for p in PIECES], features=FEATURES, padding=7, unlearnt=3),
    "packed": batch_of([PIECES[:3], PIECES[3:]], features=FEATURES),
    "all in one row": batch_of([PIECES[::-1]], features=FEATURES, padding=2),
}


@pytest.mark.parametrize("attention", ["plain", "blockwise"])
@pytest.mark.parametrize("how", TOGETHER)
def test_an_example_is_the_same_in_any_company(model, how, attention):
    options = ForwardOptions(attention=attention)
    alone = {name: logp for batch in ALONE for name, logp in by_example(model, batch, options).items()}
    together = by_example(model, TOGETHER[how], options)
    assert together.keys() == alone.keys()
    for name, logp in together.items():
        assert np.abs(logp - alone[name]).max() < LOGP


@pytest.mark.parametrize("how", TOGETHER)
def test_the_gradient_of_a_batch_is_the_sum_of_its_examples(model, how):
    alone = [gradient(model, loss_of(batch)) for batch in ALONE]
    value, grads = gradient(model, loss_of(TOGETHER[how]))
    assert value == pytest.approx(sum(v for v, _ in alone), rel=LOGP)
    summed = {name: sum(g[name] for _, g in alone) for name in grads}
    assert farthest(grads, summed) < GRADIENT


def test_training_sees_what_inference_sees(model):
    """The same log-probabilities as from the prompt that `ask` would read."""
    piece = PIECES[0]
    ids = mx.array([0 if i in piece.patches else token for i, token in enumerate(piece.ids)])
    rows = model.audio_adaptor(FEATURES)[0, :3]
    x = model.embed(ids, [rows], patch_id=0)
    logp = nn.log_softmax(model(ids[None], input_embeddings=x[None])[0])
    expected = [logp[i - 1, piece.ids[i]].item() for i in range(piece.prompt, len(piece.ids))]
    assert np.abs(by_example(model, ALONE[0])[piece.name] - expected).max() < LOGP


def test_the_prompt_counts_and_is_not_learnt(model):
    """Another prompt changes the loss; its own tokens get none, and later ones do not reach back."""
    piece = PIECES[1]
    base = by_example(model, batch_of([[piece]]))[piece.name]
    assert len(base) == len(piece.ids) - piece.prompt

    def with_token(at):
        changed = replace(piece, ids=[*piece.ids[:at], (piece.ids[at] + 1) % 97, *piece.ids[at + 1 :]])
        return by_example(model, batch_of([[changed]]))[piece.name]

    assert np.abs(with_token(0) - base).min() > 1e-4
    assert np.array_equal(with_token(len(piece.ids) - 1)[:-1], base[:-1])


# ---- sound


def test_sound_lies_where_the_patches_are(model):
    x = embedded(model, TOGETHER["rows"])
    rows = model.audio_adaptor(FEATURES).reshape(-1, 64)
    tokens = model.language_model.model.embed_tokens(TOGETHER["rows"].ids)
    assert mx.array_equal(x[0, 1:4], rows[:3])
    assert mx.array_equal(x[2, 2:4], rows[3:5])
    assert mx.array_equal(x[0, 4:], tokens[0, 4:])
    assert mx.array_equal(x[1], tokens[1])


@pytest.mark.parametrize("frames", range(1, 8))
def test_zeros_behind_a_short_chunk_change_none_of_its_rows(model, frames):
    """The adaptor's convolution pads with zeros itself; what comes later are rows that no patch takes."""
    chunk = random_features(1, frames)
    alone = model.audio_adaptor(chunk)[0]
    padded = model.audio_adaptor(mx.pad(chunk, [(0, 0), (0, 10 - frames), (0, 0)]))[0]
    assert alone.shape[0] == (frames + 1) // 2
    assert distance(padded[: alone.shape[0]], alone) < 1e-6


def directional(model, batch, path, options):
    """(gradient of the adaptor's weight along itself, the same by central differences)."""
    _, grads = gradient(model, loss_of(batch, options))
    direction = grads[path] / mx.linalg.norm(grads[path].reshape(-1))
    start = dict(tree_flatten(model.parameters()))[path]
    values = []
    for step in (0.01, -0.01):
        model.load_weights([(path, start + step * direction)], strict=False)
        values.append(loss_of(batch, options)(model).item())
    model.load_weights([(path, start)], strict=False)
    return (grads[path] * direction).sum().item(), (values[0] - values[1]) / 0.02


@pytest.mark.parametrize("checkpoint", [False, True])
@pytest.mark.parametrize("path", ["audio_adaptor.conv.weight", "audio_adaptor.linear2.weight"])
def test_the_gradient_of_sound_reaches_the_adaptor(path, checkpoint):
    model = tiny_model()
    model.freeze()
    model.audio_adaptor.unfreeze()
    options = ForwardOptions(checkpoint=checkpoint)
    predicted, measured = directional(model, TOGETHER["packed"], path, options)
    # The third-order term of steps of 0.01, and float32 losses of size 90; 3.3e-3 measured.
    assert predicted == pytest.approx(measured, rel=0.02)
    assert predicted > 0.1


@pytest.mark.parametrize("checkpoint", [False, True])
def test_a_trained_encoder_is_given_log_mels_and_gets_its_gradient(checkpoint):
    """A short chunk is encoded without its padding, and its sound ends where its rows do."""
    model = tiny_model()
    mels = mx.random.normal((2, 24, 16), key=mx.random.key(4))
    lengths = mx.array([24, 17])
    heard = [model.audio_features(mel[:n]) for mel, n in zip(mels, lengths.tolist(), strict=True)]
    features = mx.stack([mx.pad(x, [(0, 6 - x.shape[0]), (0, 0)]) for x in heard])
    frozen = loss_of(replace(TOGETHER["rows"], features=features))(model).item()
    model.freeze()
    model.audio_encoder.unfreeze()
    batch = replace(TOGETHER["rows"], features=mels, extra={MEL_FRAMES: lengths})
    value, grads = gradient(model, loss_of(batch, ForwardOptions(checkpoint=checkpoint)))
    assert value == pytest.approx(frozen, rel=1e-6)
    assert all(mx.abs(g).max().item() > 1e-5 for g in grads.values())


def test_features_are_features_whatever_is_trainable():
    """They were once taken for log-mels where nothing was frozen, and rows beyond the end were read."""
    model = tiny_model()
    free = embedded(model, TOGETHER["rows"])
    model.freeze()
    assert mx.array_equal(free, embedded(model, TOGETHER["rows"])).item()


# ---- forgetting


def quantised_lora(bits, **more):
    model = tiny_model()
    nn.quantize(model.language_model, group_size=32, bits=bits)
    return with_lora(model, **more)


def adaptor_and_lora():
    model = with_lora(tiny_model(), layers=1)
    model.audio_adaptor.unfreeze()
    return model


MODELS = {
    "full": tiny_model,
    "full, tied": lambda: tiny_model(tied=True),
    "LoRA": lambda: with_lora(tiny_model()),
    "LoRA on the top layer": lambda: with_lora(tiny_model(), layers=1),
    "LoRA with dropout": lambda: with_lora(tiny_model(), dropout=0.4),
    "DoRA with dropout": lambda: with_lora(tiny_model(), dora=True, dropout=0.4),
    "LoRA on 4 bits": lambda: quantised_lora(4, dropout=0.4),
    "DoRA on 8 bits": lambda: quantised_lora(8, dora=True),
    "LoRA and adaptor": adaptor_and_lora,
}


@pytest.mark.parametrize("attention", ["plain", "blockwise"])
@pytest.mark.parametrize("kind", MODELS)
def test_forgetting_changes_neither_loss_nor_gradient(kind, attention):
    """With dropout on: the second computation draws the masks of the first."""
    model, results = MODELS[kind](), []
    for options in (ForwardOptions(), ForwardOptions(checkpoint=True, attention=attention, head_chunk=5)):
        mx.random.seed(3)
        results.append(gradient(model, loss_of(TOGETHER["packed"], options)))
    (value, grads), (again, others) = results
    assert again == pytest.approx(value, rel=1e-6)
    assert farthest(others, grads) < GRADIENT
    assert all(mx.abs(g).max().item() > 1e-4 for g in grads.values())


def test_dropout_is_another_one_each_step_and_the_same_under_the_same_seed():
    model, loss = MODELS["LoRA with dropout"](), loss_of(TOGETHER["rows"], ForwardOptions(checkpoint=True))

    def steps(seed):
        mx.random.seed(seed)
        return [loss(model).item() for _ in range(3)]

    first = steps(1)
    assert steps(1) == first
    assert len({*first, *steps(2)}) == 6
    model.eval()
    before = mx.random.state[0].tolist()
    assert loss(model).item() == loss(model).item()
    assert mx.random.state[0].tolist() == before, "evaluation drew a random number"


class Counted(nn.Module):
    """A layer that counts how often it is run."""

    def __init__(self, layer):
        super().__init__()
        self.layer, self.runs = layer, 0

    def __call__(self, *arguments):
        self.runs += 1
        return self.layer(*arguments)


@pytest.mark.parametrize(("kind", "first", "runs"), [
    ("LoRA", 0, [2, 2, 2]), ("LoRA on the top layer", 2, [1, 1, 2]), ("LoRA and adaptor", 0, [2, 2, 2]),
])  # fmt: skip
def test_nothing_is_computed_again_below_the_first_trained_layer(kind, first, runs):
    model = MODELS[kind]()
    decoder = model.language_model.model
    decoder.layers = [Counted(layer) for layer in decoder.layers]
    assert first_trained(model) == first
    gradient(model, loss_of(TOGETHER["rows"], ForwardOptions(checkpoint=True)))
    assert [layer.runs for layer in decoder.layers] == runs


def test_a_model_is_left_as_it_was():
    """No class is patched, and no array of a trace stays in a layer."""
    model = MODELS["LoRA"]()
    layer = model.language_model.model.layers[0]
    call = type(layer).__call__
    before = {name: np.array(x) for name, x in tree_flatten(layer.parameters())}
    gradient(model, loss_of(TOGETHER["rows"], ForwardOptions(checkpoint=True)))
    assert type(layer).__call__ is call
    assert all(np.array_equal(before[name], x) for name, x in tree_flatten(layer.parameters()))


def held(layers, checkpoint):
    """Bytes above the model that loss and gradient take; as it is run, so with arrays made ahead."""
    model = with_lora(tiny_model(layers=layers), layers=layers)
    batch = batch_of([[random_piece(5, 256, 250)]])
    mx.clear_cache()
    mx.reset_peak_memory()
    before = mx.get_active_memory()
    gradient(model, loss_of(batch, ForwardOptions(checkpoint, "blockwise")))
    return mx.get_peak_memory() - before


def test_a_layer_more_costs_little_more_than_its_hidden_state():
    state = 256 * 64 * 4
    few, many = held(2, True), held(6, True)
    assert (many - few) / 4 < 3 * state  # 1.4 measured
    assert (held(6, False) - held(2, False)) / 4 > 10 * state  # 16 measured


def test_auto_is_blockwise_for_long_rows():
    assert [is_blockwise(ForwardOptions(), T) for T in (2047, 2048)] == [False, True]
    assert [is_blockwise(ForwardOptions(attention=a), 5000) for a in ("plain", "blockwise")] == [False, True]
    assert hidden_states(tiny_model(), ALONE[1]).shape == (1, 7, 64)


def test_in_bfloat16_every_way_is_as_near_to_float32():
    """2.4 % of the gradient's norm is what 8 bits of mantissa cost, with options or without."""

    def grads(dtype, options):
        model = tiny_model()
        model.set_dtype(mx.bfloat16)
        model.set_dtype(dtype)
        found = gradient(with_lora(model), loss_of(TOGETHER["packed"], options))[1]
        return mx.concatenate([g.astype(mx.float32).reshape(-1) for g in found.values()])

    exact = grads(mx.float32, ForwardOptions())
    for options in (ForwardOptions(), ForwardOptions(checkpoint=True, attention="blockwise", head_chunk=5)):
        error = grads(mx.bfloat16, options) - exact
        assert (mx.linalg.norm(error) / mx.linalg.norm(exact)).item() < 0.05
