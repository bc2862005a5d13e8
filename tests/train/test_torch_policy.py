"""Policy and value loss and their gradients against PyTorch in float64, written out there as in the papers.

Ratios are spread far beyond the clip, so that about half of the tokens have no gradient on one side.
"""

from dataclasses import replace

import mlx.core as mx
import numpy as np
import pytest
from mlx.utils import tree_flatten

from mlx_audio_r1.train.forward import hidden_states
from mlx_audio_r1.train.logprobs import token_logprobs
from mlx_audio_r1.train.policy_losses import ALGORITHMS, policy_loss, value_loss
from mlx_audio_r1.train.values import ValueHead
from tests.train.test_torch_gradients import compare, torch_logprobs, torch_twin
from tests.train.tiny import WIDTH, batch_of, gradient, random_piece, tiny_model

pytestmark = pytest.mark.torch

TOLERANCE = 1e-5  # float32 against float64, relative to the largest value of a tensor; 3e-6 measured
LONGEST, TIS, KL = 20, 1.5, 0.07
SHAPES = [(21, 4, 2, 2, False), (22, 8, 1, 3, True)]  # seed, query heads, kv heads, layers, tied


def replies(seed):
    draw = np.random.default_rng(seed)
    lengths = draw.integers(5, 24, 4)
    return [random_piece(100 * seed + i, int(n), int(draw.integers(1, n - 1))) for i, n in enumerate(lengths)]


def arrays(seed, logp):
    """Per-token arrays around the log-probabilities (M,) float64."""
    draw = np.random.default_rng(seed)
    n = len(logp)
    return {
        "advantages": draw.normal(size=n), "logp_old": logp + draw.normal(0, 0.4, n),
        "logp_rollout": logp + draw.normal(0, 0.6, n), "logp_reference": logp + draw.normal(0, 0.5, n),
        "returns": draw.normal(size=n), "values": draw.normal(0, 0.3, n),
    }  # fmt: skip


def torch_policy(twin, pieces, extra, settings):
    """(total, count, share of tokens that the clip holds) of PPO's objective (equation 7) and its relatives."""
    import torch

    A, old, mu, ref = (torch.from_numpy(np.array(extra[name], np.float64)) for name in (
        "advantages", "logp_old", "logp_rollout", "logp_reference"))  # fmt: skip
    total, at, held = 0, 0, 0
    for piece in pieces:
        logp = torch_logprobs(twin, piece)
        own = slice(at, at + len(logp))
        at += len(logp)
        ratio = torch.exp(logp - old[own])
        near = torch.clamp(ratio, 1 - settings.clip_low, 1 + settings.clip_high)
        first, second = ratio * A[own], near * A[own]
        loss = -torch.minimum(first, second)
        held += (second < first).sum().item()
        if settings.tis_cap:
            loss = loss * torch.clamp(torch.exp(old[own] - mu[own]), max=settings.tis_cap)
        if settings.kl:
            loss = loss + settings.kl * (torch.exp(ref[own] - logp) - (ref[own] - logp) - 1)
        divide = {"token": 1, "sequence": len(logp), "constant": settings.longest}[settings.aggregation]
        total = total + loss.sum() / divide
    return total, at if settings.aggregation == "token" else len(pieces), held / at


@pytest.mark.parametrize(("name", "shape"), [*((name, SHAPES[0]) for name in ALGORITHMS), ("ppo", SHAPES[1])])
def test_policy_loss_and_gradients_equal_torch_in_float64(name, shape):
    seed, heads, kv_heads, layers, tied = shape
    model = tiny_model(seed, tied=tied, heads=heads, kv_heads=kv_heads, layers=layers)
    model.freeze()
    model.language_model.unfreeze()
    twin = torch_twin(model, layers, tied, heads, kv_heads)
    pieces = replies(seed)
    logp = np.concatenate([torch_logprobs(twin, piece).detach().numpy() for piece in pieces])
    extra = {key: mx.array(x, mx.float32) for key, x in arrays(seed, logp).items()}
    settings = replace(ALGORITHMS[name].loss, longest=LONGEST)
    if name in ("grpo", "dapo"):
        settings = replace(settings, kl=KL, tis_cap=TIS)
    batch = batch_of([pieces[:2], pieces[2:]], **extra)
    value, grads = gradient(model, lambda m: policy_loss(m, batch, settings)[0])
    _, count, sums = policy_loss(model, batch, settings)
    expected, divisor, held = torch_policy(twin, pieces, extra, settings)
    expected.backward()
    assert value == pytest.approx(expected.item(), rel=TOLERANCE) and count.item() == divisor
    assert 0.1 < held < 0.7
    if settings.aggregation == "token":
        assert sums["clipped"].item() / count.item() == pytest.approx(held)
    compare(grads, dict(twin.named_parameters()), tied)


@pytest.mark.parametrize("clip", [None, 0.2])
def test_value_loss_and_gradients_equal_torch_in_float64(clip):
    """Through the decoder: what a critic with weights of its own learns."""
    torch = pytest.importorskip("torch")

    seed, heads, kv_heads, layers, tied = SHAPES[0]
    model = tiny_model(seed, heads=heads, kv_heads=kv_heads, layers=layers)
    model.freeze()
    model.language_model.model.unfreeze()
    model.head = ValueHead(WIDTH, 16)
    model.head.outer.weight = mx.random.normal((1, 16), key=mx.random.key(5))
    twin = torch_twin(model, layers, tied, heads, kv_heads)
    pieces = replies(seed)
    count = sum(len(piece.ids) - piece.prompt for piece in pieces)
    extra = {key: mx.array(x, mx.float32) for key, x in arrays(seed, np.zeros(count)).items()}
    batch = batch_of([pieces[:2], pieces[2:]], **extra)

    def ours(m):
        h = hidden_states(m, batch).reshape(-1, WIDTH)[batch.positions]
        return value_loss(m.head(h), batch.extra["returns"], batch.weights, batch.extra["values"], clip)[0]

    value, grads = gradient(model, ours)
    h = [twin.model(input_ids=torch.tensor([p.ids[:-1]])).last_hidden_state[0, p.prompt - 1 :] for p in pieces]
    head = {name: torch.from_numpy(np.array(x)).double().requires_grad_()
            for name, x in tree_flatten(model.head.parameters())}  # fmt: skip
    inner = torch.cat(h) @ head["inner.weight"].T + head["inner.bias"]
    v = (torch.nn.functional.gelu(inner) @ head["outer.weight"].T + head["outer.bias"])[:, 0]
    R, old = (torch.from_numpy(np.array(extra[name], np.float64)) for name in ("returns", "values"))
    errors = (v - R) ** 2
    if clip is not None:
        errors = torch.maximum(errors, (torch.clamp(v, old - clip, old + clip) - R) ** 2)
    expected = 0.5 * errors.sum()
    expected.backward()
    assert value == pytest.approx(expected.item(), rel=TOLERANCE)
    parameters = {n: p for n, p in twin.named_parameters() if n != "lm_head.weight"}
    of_head = {n.removeprefix("head."): g for n, g in grads.items() if n.startswith("head.")}
    compare({n: g for n, g in grads.items() if not n.startswith("head.")}, parameters, tied=False)
    compare(of_head, head, tied=False)


def test_entropy_equals_torch_in_float64():
    torch = pytest.importorskip("torch")

    model = tiny_model(23, layers=2)
    twin = torch_twin(model, 2, False, 4, 2)
    pieces = replies(23)
    _, entropy = token_logprobs(model, batch_of([pieces]))
    logits = [twin(input_ids=torch.tensor([p.ids[:-1]])).logits[0, p.prompt - 1 :] for p in pieces]
    theirs = torch.distributions.Categorical(logits=torch.cat(logits)).entropy().detach().numpy()
    assert np.array(entropy) == pytest.approx(theirs, rel=1e-5)
