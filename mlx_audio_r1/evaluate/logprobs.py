"""How likely a reply is under a prompt: teacher forcing, nothing is decoded.

    [logp] = reply_logprobs(r1, [Case(messages, reply_ids)])      # (T,) in nats

Rows of several prompts go through the decoder together, padded on the right, where causal attention does not
see it. The surprise: logits exist for the tokens of replies alone, and for HEAD_ROWS of them at a time; all at
once they would be the largest array by far.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import mlx.core as mx
import numpy as np

from mlx_audio_r1.models.step_audio_r1 import Model
from mlx_audio_r1.prompt import Message
from mlx_audio_r1.session import AudioR1

Reader = Callable[[mx.array, mx.array], np.ndarray]  # logits (C, V), targets (C,) -> (C, ...)
MAX_TOKENS = 8_192  # of rows that go together, padding included
HEAD_ROWS = 128  # tokens whose logits exist at once


@dataclass(frozen=True, eq=False)
class Case:
    """ids: of the reply, behind the prompt. thinking: does the prompt end inside the reasoning? places: the
    tokens of the reply that are looked at, all where None."""

    messages: Sequence[Message]
    ids: Sequence[int]
    thinking: bool = True
    places: Sequence[int] | None = None


@dataclass(frozen=True, eq=False)
class _Row:
    embeddings: mx.array  # (L + T, D), without the last token, which predicts nothing
    before: list[int]  # the places that predict the tokens looked at
    ids: list[int]  # those tokens


def reply_logprobs(r1: AudioR1, cases: Sequence[Case], max_tokens: int = MAX_TOKENS) -> list[np.ndarray]:
    """log p(token | prompt, tokens before) of every reply's tokens, (T,) float64, in the order of the cases.

    Raises AudioR1Error for a prompt that cannot be made, PromptError for a row beyond the context.
    """
    return over_logits(r1, cases, _logprobs, max_tokens)


def over_logits(
    r1: AudioR1, cases: Sequence[Case], read: Reader, max_tokens: int = MAX_TOKENS
) -> list[np.ndarray]:
    """What `read` makes of the logits that predict the tokens of each reply, (T, ...), in the cases' order.

    Logits are in the model's dtype, everything behind them in float32.
    """
    rows = [_row(r1, case) for case in cases]
    found: list[np.ndarray] = [np.zeros(0)] * len(rows)
    training = r1.model.training
    r1.model.eval()
    try:
        for numbers in _together([row.embeddings.shape[0] for row in rows], max_tokens):
            values = _forward(r1.model, [rows[i] for i in numbers], read)
            for i, own in zip(numbers, values, strict=True):
                found[i] = own
    finally:
        r1.model.train(training)
    return found


def _row(r1: AudioR1, case: Case) -> _Row:
    prompt = r1.prepare(case.messages, thinking=case.thinking)
    whole = r1.continued(prompt, case.ids[:-1]) if len(case.ids) > 1 else prompt
    places = range(len(case.ids)) if case.places is None else case.places
    return _Row(whole.embeddings, [len(prompt.ids) - 1 + at for at in places], [case.ids[at] for at in places])


def _together(lengths: Sequence[int], max_tokens: int) -> Iterator[list[int]]:
    """Numbers of rows of about one length, as many as fit; one that is longer is alone."""
    group: list[int] = []
    for i in sorted(range(len(lengths)), key=lambda i: lengths[i]):
        if group and (len(group) + 1) * lengths[i] > max_tokens:
            yield group
            group = []
        group.append(i)
    if group:
        yield group


def _forward(model: Model, rows: Sequence[_Row], read: Reader) -> list[np.ndarray]:
    width = max(row.embeddings.shape[0] for row in rows)
    x = mx.stack([mx.pad(r.embeddings, [(0, width - r.embeddings.shape[0]), (0, 0)]) for r in rows])
    h = model.language_model.model(mx.zeros(x.shape[:2], mx.int32), input_embeddings=x)
    states = mx.concatenate([h[i, mx.array(row.before, mx.int32)] for i, row in enumerate(rows)])
    targets = mx.array([token for row in rows for token in row.ids])
    values = [read(_logits(model, states[at : at + HEAD_ROWS]), targets[at : at + HEAD_ROWS])
              for at in range(0, len(targets), HEAD_ROWS)]  # fmt: skip
    flat = np.concatenate(values) if values else np.zeros(0)
    return np.split(flat, np.cumsum([len(row.ids) for row in rows])[:-1])


def _logits(model: Model, states: mx.array) -> mx.array:
    """(C, D) -> (C, V) float32"""
    language_model = model.language_model
    tied = language_model.args.tie_word_embeddings
    head = language_model.model.embed_tokens.as_linear if tied else language_model.lm_head
    return head(states).astype(mx.float32)


def _logprobs(logits: mx.array, targets: mx.array) -> np.ndarray:
    """(C, V), (C,) -> (C,)"""
    logp = mx.take_along_axis(logits, targets[:, None], axis=-1)[:, 0] - mx.logsumexp(logits, axis=-1)
    return np.array(logp, np.float64)
