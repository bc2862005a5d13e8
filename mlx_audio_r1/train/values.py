"""How good a state is: a small head on the decoder's hidden states, alone or with an adapter of its own.

Three value functions, of which the policy loss sees none:
  group, none   no model at all: `advantages.group_advantages`
  head          a head on the policy's own hidden states, which it does not change
  lora          a head, and a second adapter on the same (quantised) base, which it does train

The surprise: one model can wear only one adapter, so `lora` is a set of arrays that takes the place of the
policy's for the length of a block; both adapters have the same rank and keys.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optim
import numpy as np
from mlx.utils import tree_flatten, tree_map

from mlx_audio_r1.adapters import adapter_arrays
from mlx_audio_r1.errors import TrainingError
from mlx_audio_r1.models.step_audio_r1 import Model
from mlx_audio_r1.train.advantages import explained_variance
from mlx_audio_r1.train.batch import Batch
from mlx_audio_r1.train.experience import Experience
from mlx_audio_r1.train.features import Features
from mlx_audio_r1.train.forward import DEFAULT, ForwardOptions, hidden_states
from mlx_audio_r1.train.policy_losses import value_loss
from mlx_audio_r1.train.rollout_batch import known_by, micro_batches, rollout_batch
from mlx_audio_r1.train.wearing import wearing

HEAD_WIDTH = 64
HEAD, ADAPTER = "head.", "adapter."  # names of its arrays begin so
Arrays = dict[str, mx.array]


class ValueHead(nn.Module):
    """Hidden states (..., hidden_size) -> values (...), float32; a fresh one says 0 everywhere."""

    def __init__(self, hidden_size: int, width: int = HEAD_WIDTH, seed: int = 0):
        super().__init__()
        self.inner, self.outer = nn.Linear(hidden_size, width), nn.Linear(width, 1)
        bound = hidden_size**-0.5
        self.inner.weight = mx.random.uniform(-bound, bound, (width, hidden_size), key=mx.random.key(seed))
        self.inner.bias = mx.zeros(width)
        self.outer.update(tree_map(mx.zeros_like, self.outer.parameters()))

    def __call__(self, hidden: mx.array) -> mx.array:
        return self.outer(nn.gelu(self.inner(hidden.astype(mx.float32))))[..., 0]


class Critic:
    """A value function that learns. lora: with an adapter of its own, which begins as the policy's.

    Its model is the policy's; only `worn` puts the second adapter on it. Raises CheckpointError for `lora`
    on a model without an adapter. Values are float32, of the states before the tokens.
    """

    def __init__(self, model: Model, *, lora: bool = False, width: int = HEAD_WIDTH, seed: int = 0):
        self.head = ValueHead(model.config.text.hidden_size, width, seed)
        self._model = model  # the policy's
        self._own: Arrays | None = adapter_arrays(model) if lora else None

    @property
    def lora(self) -> bool:
        return self._own is not None

    @contextmanager
    def worn(self) -> Iterator[None]:
        """The critic's adapter in the place of the policy's, and back; what it learnt inside is kept.

        Do not save the policy inside the block. Without `lora` nothing happens.
        """
        if self._own is None:
            yield
            return
        with wearing(self._model, self._own, "the critic's adapter"):
            try:
                yield
            finally:
                self._own = adapter_arrays(self._model)

    def values(self, batch: Batch, options: ForwardOptions = DEFAULT) -> mx.array:
        """(M,) values of the states before the learnt tokens, with gradients; call it within `worn`."""
        h = hidden_states(self._model, batch, options)
        h = h.reshape(-1, h.shape[-1])[batch.positions]
        return self.head(h if self.lora else mx.stop_gradient(h))

    def of(
        self, experiences: Sequence[Experience], features: Features | None, max_tokens: int,
        options: ForwardOptions = DEFAULT,
    ) -> list[np.ndarray]:  # fmt: skip
        """(T,) values of each reply's states, without gradients or dropout."""
        with self._mode(train=False), self.worn():
            return known_by(lambda batch: self.values(batch, options), experiences, features, max_tokens)

    @contextmanager
    def _mode(self, train: bool) -> Iterator[None]:
        before = self._model.training
        self._model.train(train)
        try:
            yield
        finally:
            self._model.train(before)

    # ---- its training

    def trained(self) -> dict[str, Any]:
        """What an optimizer moves, as `optimizer.init` takes it; call it within `worn`."""
        adapter = self._model.trainable_parameters() if self.lora else {}
        return {"head": self.head.trainable_parameters(), "model": adapter}

    def learn(
        self,
        experiences: Sequence[Experience],
        features: Features | None,
        optimizer: optim.Optimizer,
        max_tokens: int,
        options: ForwardOptions = DEFAULT,
        *,
        clip_norm: float = 1.0,
        clip: float | None = None,
    ) -> dict[str, float]:
        """One update towards the experiences' returns, and how it stood before it: value_loss, a mean over
        tokens, and value_explained. clip: of `value_loss`, against the experiences' values."""
        numbers = micro_batches([len(e) for e in experiences], max_tokens)
        with self._mode(train=self.lora), self.worn():
            total = count = mx.array(0.0)
            gradients: Any = None
            seen: list[np.ndarray] = []
            for batch in (rollout_batch([experiences[i] for i in part], features) for part in numbers):
                (loss, tokens, values), new = self._gradient(batch, options, clip)
                gradients = new if gradients is None else tree_map(mx.add, gradients, new)
                total, count = total + loss, count + tokens
                mx.eval(gradients, total, count, values)
                used = np.array(batch.weights) > 0
                seen.append(np.stack([np.array(values)[used], np.array(batch.extra["returns"])[used]]))
            self._step(optimizer, tree_map(lambda g: g / count, gradients), clip_norm)
        told, returns = np.concatenate(seen, axis=1)
        return {"value_loss": (total / count).item(), "value_explained": explained_variance(told, returns)}

    def _gradient(self, batch: Batch, options: ForwardOptions, clip: float | None) -> Any:
        def loss(trained: Mapping[str, Any]) -> tuple[mx.array, mx.array, mx.array]:
            self._put(trained)
            values = self.values(batch, options)
            old = batch.extra.get("values")
            total, count = value_loss(values, batch.extra["returns"], batch.weights, old, clip)
            return total, count, mx.stop_gradient(values)

        now = self.trained()
        try:
            return mx.value_and_grad(loss)(now)
        finally:
            self._put(now)  # not the tracers

    def _step(self, optimizer: optim.Optimizer, gradients: Any, clip_norm: float) -> None:
        if clip_norm:
            gradients, _ = optim.clip_grad_norm(gradients, clip_norm)
        moved = optimizer.apply_gradients(gradients, self.trained())
        self._put(moved)
        mx.eval(moved, optimizer.state)

    def _put(self, trained: Mapping[str, Any]) -> None:
        self.head.update(trained["head"])
        if self.lora:
            self._model.update(trained["model"])

    # ---- its arrays

    def arrays(self) -> Arrays:
        """Everything learnt, by name, for a checkpoint: the head's and the adapter's."""
        head = {f"{HEAD}{name}": x for name, x in tree_flatten(self.head.parameters())}
        return head | {f"{ADAPTER}{name}": x for name, x in (self._own or {}).items()}

    def restore(self, arrays: Mapping[str, mx.array]) -> None:
        """Put `arrays` back. Raises TrainingError where they are of another critic."""
        mine = self.arrays()
        if {n: x.shape for n, x in mine.items()} != {n: x.shape for n, x in arrays.items()}:
            raise TrainingError("the critic's arrays are of another critic; begin anew with --overwrite")
        self.head.load_weights(_under(arrays, HEAD))
        if self.lora:
            self._own = dict(_under(arrays, ADAPTER))


def _under(arrays: Mapping[str, mx.array], start: str) -> list[tuple[str, mx.array]]:
    return [(name.removeprefix(start), x) for name, x in arrays.items() if name.startswith(start)]
