"""Attention heads that start wired: they look back, repeat and look up; training goes on from there.

Finding the letter of a word among options takes two heads that agree: one that knows what stands before a
word, and one that compares words. Neither is of use alone, so a small model finds them by chance and late
(house rules of induction heads: Olsson et al., 2022). Here the first layer is given three heads that
attend to one, two and three places before, and the second two heads that compare:

    repeat   a place whose *previous* token is this one  ->  the token there
    look up  a place whose token is the *previous* one   ->  the token two places before it: its letter

Tokens are compared in a random projection of the embeddings, in the slow rotations of RoPE alone, so that
distance hardly matters. The gains are near one: wires much thinner than a step of the optimizer would
be gone after a few.
"""

from __future__ import annotations

from dataclasses import dataclass

import mlx.core as mx
import numpy as np

from mlx_audio_r1.models.step_audio_r1 import Model

LOOK_BACK, FAST = 6.0, 8  # size of the biases that point back; how many of the fast rotations have one
COMPARE = 1.3  # gain of queries and keys that compare


@dataclass(frozen=True)
class Rows:
    """(d, hidden) orthonormal rows: how a token is read, where the first layer writes it and the tokens one
    and two places before."""

    token: mx.array
    written: tuple[mx.array, mx.array, mx.array]


def wire(model: Model, seed: int = 0) -> None:
    """Wire the first two layers of a fresh decoder in place; whatever else writes starts at nothing, so
    that the wires are heard. Needs three heads or more a key, and two keys or more."""
    for layer in model.language_model.model.layers:
        for projection in (layer.self_attn.o_proj, layer.mlp.down_proj):
            projection.weight = mx.zeros_like(projection.weight)
    args = model.language_model.args
    width = args.hidden_size // args.num_attention_heads
    square = np.linalg.qr(np.random.default_rng(seed).standard_normal((args.hidden_size,) * 2))[0]
    parts = [mx.array(square[i * width : (i + 1) * width].astype(np.float32)) for i in range(4)]
    rows = Rows(parts[0], (parts[1], parts[2], parts[3]))
    first, second = (layer.self_attn for layer in model.language_model.model.layers[:2])
    _look_back(first, rows, width, args.rope_theta)
    each = args.num_attention_heads // args.num_key_value_heads
    here, before, twice = rows.written
    _compare(second, 0, 0, query=here, key=before, value=here, write=rows.token)
    _compare(second, each, 1, query=before, key=here, value=twice, write=rows.token)


def _look_back(attention, rows: Rows, width: int, theta: float) -> None:
    """Biases of queries and keys turn with the position, so they alone can point a fixed way back."""
    half = width // 2
    turn = theta ** (-mx.arange(half) / half)  # radians a place
    strength = mx.where(mx.arange(half) < FAST, LOOK_BACK, 0.0)
    for head, written in enumerate(rows.written):
        angle = -turn * head
        at = slice(head * width, (head + 1) * width)
        attention.q_proj.bias[at] = mx.concatenate([strength * mx.cos(angle), strength * mx.sin(angle)])
        attention.q_proj.weight[at] = 0.0
        attention.o_proj.weight[:, at] = written.T
    attention.k_proj.bias[:width] = mx.concatenate([strength, mx.zeros(half)])
    attention.k_proj.weight[:width] = 0.0
    attention.v_proj.weight[:width] = rows.token
    attention.v_proj.bias[:width] = 0.0


def _compare(
    attention, head: int, group: int, query: mx.array, key: mx.array, value: mx.array, write: mx.array
) -> None:
    width = len(query)
    slow = (mx.arange(width) % (width // 2) >= FAST)[:, None]
    at, shared = (slice(n * width, (n + 1) * width) for n in (head, group))
    attention.q_proj.weight[at] = mx.where(slow, COMPARE * query, 0.0)
    attention.k_proj.weight[shared] = mx.where(slow, COMPARE * key, 0.0)
    attention.v_proj.weight[shared] = value
    attention.q_proj.bias[at] = 0.0
    for projection in (attention.k_proj, attention.v_proj):
        projection.bias[shared] = 0.0
    attention.o_proj.weight[:, at] = write.T
