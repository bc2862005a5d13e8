"""The head a chunk at a time is the head: any chunk, any kind of head, values and gradients."""

from dataclasses import replace
from functools import partial

import mlx.core as mx
import mlx.nn as nn
import pytest
from mlx.utils import tree_flatten, tree_map
from mlx_lm.tuner.dora import DoRALinear
from mlx_lm.tuner.lora import LoRAEmbedding, LoRALinear

from mlx_audio_r1.train.batch import as_tree, of_tree
from mlx_audio_r1.train.forward import ForwardOptions, hidden_states
from mlx_audio_r1.train.head import Head, head_logprobs
from mlx_audio_r1.train.logprobs import sequence_logprobs, token_logprobs
from tests.train.tiny import VOCAB, batch_of, distance, farthest, gradient, random_piece, tiny_model, with_lora

# Two orders of the same float32 sums; 2e-6 measured.
FP32 = 1e-5
ROWS = [[random_piece(1, 9, 3), random_piece(2, 8, 5)], [random_piece(3, 14, 4)]]
BATCH = batch_of(ROWS, padding=2, unlearnt=2)  # 21 learnt tokens
LEARNT = BATCH.targets.size


def changed(module):
    """Adapters that are not zero."""
    module.linear.freeze() if hasattr(module, "linear") else module.embedding.freeze()
    mx.random.seed(4)
    module.update(tree_map(lambda p: p + 0.1 * mx.random.normal(p.shape), module.trainable_parameters()))
    return module


def model_with_head(kind):
    """A frozen decoder, but for its last norm, with one of the heads below."""
    model = tiny_model(tied="tied" in kind)
    model.freeze()
    language_model = model.language_model
    language_model.model.norm.unfreeze()
    if kind in HEADS:
        HEADS[kind](language_model)
    return model


def quantised(bits):
    def put(language_model):
        nn.quantize(language_model, group_size=32, bits=bits,
                    class_predicate=lambda name, _: name in ("lm_head", "model.embed_tokens"))

    return put


HEADS = {
    "frozen": lambda lm: None,
    "frozen, tied": lambda lm: None,
    "trained": lambda lm: lm.lm_head.unfreeze(),
    "trained, tied": lambda lm: lm.model.embed_tokens.unfreeze(),
    "8 bits": quantised(8),
    "4 bits": quantised(4),
    "4 bits, tied": quantised(4),
    "LoRA": lambda lm: setattr(lm, "lm_head", changed(LoRALinear.from_base(lm.lm_head, r=4))),
    "DoRA": lambda lm: setattr(lm, "lm_head", changed(DoRALinear.from_base(lm.lm_head, r=4))),
    "LoRA, tied": lambda lm: setattr(
        lm.model, "embed_tokens", changed(LoRAEmbedding.from_base(lm.model.embed_tokens, r=4))),
    "LoRA on 4 bits": lambda lm: (
        quantised(4)(lm), setattr(lm, "lm_head", changed(LoRALinear.from_base(lm.lm_head, r=4)))),
}  # fmt: skip


def whole_logprobs(model, batch, options=None):
    """All logits at once, and MLX's own gradients."""
    h = hidden_states(model, batch)
    logits = Head.of(model).apply(h.reshape(-1, h.shape[-1])[batch.positions]).astype(mx.float32)
    logp = logits - mx.logsumexp(logits, axis=-1, keepdims=True)
    return mx.take_along_axis(logp, batch.targets[:, None], axis=-1)[:, 0], -(mx.exp(logp) * logp).sum(axis=-1)


def objective(way, options=None, batch=BATCH):
    """Both results under uneven weights, so that every gradient of theirs counts."""
    slope = mx.arange(batch.targets.size) / 7 - 1

    def of(model):
        logp, entropy = way(model, batch, options)
        return (logp * slope * batch.weights).sum() + 0.3 * (entropy * slope * slope).sum()

    return of


@pytest.mark.parametrize("kind", HEADS)
def test_chunks_give_what_the_whole_head_gives(kind):
    model = model_with_head(kind)
    expected = whole_logprobs(model, BATCH)
    value, grads = gradient(model, objective(whole_logprobs))
    for chunk in (1, 4, LEARNT, LEARNT + 1):
        options = ForwardOptions(head_chunk=chunk)
        got = token_logprobs(model, BATCH, options)
        assert max(map(distance, got, expected)) < FP32
        ours, our_grads = gradient(model, objective(token_logprobs, options))
        assert ours == pytest.approx(value, rel=FP32)
        assert farthest(our_grads, grads) < FP32
        assert all(mx.abs(g).max().item() > 1e-3 for g in our_grads.values()), "a gradient is zero"


@pytest.mark.parametrize("kind", ["trained", "trained, tied"])
def test_a_head_that_is_trained_gets_its_gradient(kind):
    name = "language_model.model.embed_tokens.weight" if "tied" in kind else "language_model.lm_head.weight"
    assert name in gradient(model_with_head(kind), objective(token_logprobs, ForwardOptions()))[1]


@pytest.mark.parametrize("kind", HEADS)
@pytest.mark.parametrize("training", [False, True])
def test_without_entropy_logprobs_and_gradients_are_the_same(kind, training):
    """Also where a model that is set to train has its gradient prepared."""
    model = model_with_head(kind)
    slope = mx.arange(LEARNT) / 7 - 1

    def summed(entropy):
        options = ForwardOptions(head_chunk=4)
        return lambda m: (token_logprobs(m, BATCH, options, entropy=entropy)[0] * slope).sum()

    model.eval()
    value, grads = gradient(model, summed(True))
    model.train(training)
    assert token_logprobs(model, BATCH, entropy=False)[1] is None
    ours, our_grads = gradient(model, summed(False))
    assert ours == value
    assert farthest(our_grads, grads) < FP32


def test_entropy_of_a_uniform_guess_is_the_log_of_the_vocabulary():
    model = tiny_model()
    model.language_model.lm_head.weight = mx.zeros((VOCAB, 64))
    logp, entropy = token_logprobs(model, BATCH)
    assert distance(entropy, mx.full((LEARNT,), mx.log(mx.array(VOCAB)))) < 1e-6
    assert distance(logp, -entropy) < 1e-6


def test_bfloat16_logits_get_a_float32_softmax():
    """Logits of a size of 2 are rounded at 2^-8 of it, which is all that is lost: 1e-2 of a nat."""
    model = tiny_model()
    model.set_dtype(mx.bfloat16)
    h = mx.random.normal((40, 64), key=mx.random.key(1)).astype(mx.bfloat16)
    targets = mx.random.randint(0, VOCAB, (40,), key=mx.random.key(2))
    rounded = head_logprobs(Head.of(model), h, targets, 16)
    model.set_dtype(mx.float32)
    exact = head_logprobs(Head.of(model), h.astype(mx.float32), targets, 16)
    assert all(x.dtype == mx.float32 for x in rounded)
    assert max(mx.abs(a - b).max().item() for a, b in zip(rounded, exact, strict=True)) < 0.02


def test_the_gradient_of_a_bfloat16_head_is_a_bfloat16_gradient():
    model = model_with_head("trained")
    model.set_dtype(mx.bfloat16)
    whole, whole_grads = gradient(model, objective(whole_logprobs))
    value, grads = gradient(model, objective(token_logprobs, ForwardOptions(head_chunk=4)))
    assert value == pytest.approx(whole, rel=0.01)
    assert {g.dtype for g in grads.values()} == {mx.bfloat16}
    # Both are sums of products of 8 bits; chunks are added in float32. 5e-3 measured.
    assert farthest(grads, whole_grads) < 0.02


def test_compiled_is_eager_with_every_option_on():
    """Dropout draws from MLX's stream while it is traced, too: a second call gets other masks."""
    model = with_lora(tiny_model(layers=1), dropout=0.3)
    options = ForwardOptions(checkpoint=True, attention="blockwise", head_chunk=9)
    loss = of_tree(lambda model, batch: objective(token_logprobs, options, batch)(model))
    eager = partial(nn.value_and_grad(model, loss), model)
    state = [model.state, mx.random.state]
    results = []
    for step in (eager, mx.compile(eager, inputs=state, outputs=state)):
        mx.random.seed(8)
        results.append([step(as_tree(BATCH)) for _ in range(2)])
        mx.eval(results[-1])
    for (value, grads), (ours, our_grads) in zip(*results, strict=True):
        assert ours.item() == pytest.approx(value.item(), rel=FP32)
        assert farthest(dict(tree_flatten(our_grads)), dict(tree_flatten(grads))) < FP32
    assert results[0][0][0].item() != results[0][1][0].item()


def test_it_can_be_checkpointed():
    model = tiny_model()
    h = mx.random.normal((10, 64), key=mx.random.key(3))
    targets = mx.arange(10)

    def summed(h):
        logp, entropy = head_logprobs(Head.of(model), h, targets, 3)
        return logp.sum() + entropy.sum()

    assert distance(mx.grad(mx.checkpoint(summed))(h), mx.grad(summed)(h)) < 1e-6


def test_nothing_to_learn_is_no_error():
    learnt = ("positions", "targets", "weights", "owners")
    batch = replace(BATCH, **{name: getattr(BATCH, name)[:0] for name in learnt})
    logp, entropy = token_logprobs(tiny_model(), batch)
    assert logp.shape == entropy.shape == (0,)


def test_sequences_are_weighted_sums_over_their_own_tokens():
    logp = -mx.arange(1.0, LEARNT + 1)
    batch = replace(BATCH, weights=mx.where(BATCH.owners == 1, 2.0, BATCH.weights))
    # 6 tokens of the first example, 3 of the second, which count twice, 10 of the third, 2 of no weight.
    expected = [-sum(range(1, 7)), -2 * sum(range(7, 10)), -sum(range(10, 20))]
    assert sequence_logprobs(logp, batch).tolist() == expected


@pytest.mark.parametrize("ahead", [False, True])
def test_logits_never_exist_as_a_whole(ahead):
    """8 arrays of the logits of 32 of the 2048 tokens are 0.125 of all of them."""
    V, T = 20_000, 2048
    linear = nn.Linear(16, V, bias=False)
    linear.freeze()
    head, h, targets = Head(linear, linear), mx.random.normal((T, 16)), mx.random.randint(0, V, (T,))
    mx.eval(h, targets, linear.parameters())
    mx.clear_cache()
    mx.reset_peak_memory()
    before = mx.get_active_memory()

    def loss(h):
        return head_logprobs(head, h, targets, 32, entropy=False, ahead=ahead)[0].sum()

    mx.eval(mx.value_and_grad(loss)(h))
    assert mx.get_peak_memory() - before < 0.3 * T * V * 4
