"""A critic with its optimizer, as a checkpoint keeps both."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import mlx.core as mx
import mlx.optimizers as optim
import numpy as np
from mlx.utils import tree_flatten, tree_unflatten

from mlx_audio_r1.errors import TrainingError
from mlx_audio_r1.models.step_audio_r1 import Model
from mlx_audio_r1.train.experience import Experience
from mlx_audio_r1.train.features import Features
from mlx_audio_r1.train.forward import ForwardOptions
from mlx_audio_r1.train.rl_config import RLConfig
from mlx_audio_r1.train.values import Critic

OPTIMIZER = "optimizer."  # names of its state begin so


class CriticState:
    """A `state.Beside`: the value function of a run, whose adapter begins as the policy's is now."""

    def __init__(self, model: Model, config: RLConfig, options: ForwardOptions):
        self.critic = Critic(model, lora=config.value == "lora", seed=config.seed)
        self._optimizer = optim.AdamW(config.critic_learning_rate, bias_correction=True)
        self._config, self._options = config, options
        with self.critic.worn():
            self._optimizer.init(self.critic.trained())

    def values(self, experiences: Sequence[Experience], features: Features | None) -> list[np.ndarray]:
        """(T,) of each, as the critic is."""
        return self.critic.of(experiences, features, self._config.micro_tokens, self._options)

    def learn(self, experiences: Sequence[Experience], features: Features | None) -> dict[str, float]:
        """One update; value_loss and value_explained before it."""
        config = self._config
        return self.critic.learn(experiences, features, self._optimizer, config.micro_tokens, self._options,
                                 clip_norm=config.clip_norm)  # fmt: skip

    def arrays(self) -> dict[str, mx.array]:
        state = {OPTIMIZER + name: x for name, x in tree_flatten(self._optimizer.state)}
        return self.critic.arrays() | state

    def restore(self, arrays: Mapping[str, mx.array]) -> None:
        """Raises TrainingError where they are of another critic."""
        if not arrays:
            raise TrainingError("the checkpoint has no critic; begin anew with --overwrite")
        state = {name: x for name, x in arrays.items() if name.startswith(OPTIMIZER)}
        self.critic.restore({name: x for name, x in arrays.items() if name not in state})
        self._optimizer.state = tree_unflatten([(name.removeprefix(OPTIMIZER), x) for name, x in state.items()])
