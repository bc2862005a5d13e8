"""What a reinforcement learning run is told, beside what every run is: mlx-lm-lora's names where it has them.

The defaults are the paper's where it speaks (section 4.3): PPO on samples of the policy itself, 16 a prompt,
one update a batch, clip 0.2, no KL, gamma = lambda = 1, sequences of up to 10,240 tokens. What it leaves open
is Open-Reasoner-Zero's, times ten for LoRA's learning rate. The surprise: most settings are None, which is
"as the algorithm has it".
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from mlx_audio_r1.errors import TrainingError
from mlx_audio_r1.tasks.rewards import RewardConfig
from mlx_audio_r1.train.config import TrainConfig, checked_keys
from mlx_audio_r1.train.policy_losses import AGGREGATIONS, ALGORITHMS, Algorithm
from mlx_audio_r1.train.rollouts import RolloutConfig

VALUES = ("group", "none", "head", "lora")  # what stands for the value of a state
QUANTISED_TIS_CAP = 2.0  # where rollouts read quantised keys and values, as in ms-swift
OF_THE_LOSS = {  # field here -> of PolicyLoss
    "epsilon": "clip_low", "epsilon_high": "clip_high", "dual_clip": "dual_clip", "kl": "kl",
    "aggregation": "aggregation",
}  # fmt: skip
OF_THE_ALGORITHM = {"whiten": "whiten", "mask_truncated": "mask_truncated", "dynamic_sampling": "drop_agreeing"}


@dataclass(frozen=True)
class RLConfig(TrainConfig):
    """A run of `train rl`. `iters` counts optimizer steps; `batch_size` prompts a batch of rollouts."""

    train_mode: str = "rl"
    iters: int = 60
    batch_size: int = 8
    max_seq_length: int = 10_240  # tokens of prompt and reply together
    steps_per_report: int = 1
    steps_per_eval: int = 20
    save_every: int = 5
    algo: str = "ppo"
    group_size: int = 16  # samples a prompt
    max_completion_length: int | None = None  # tokens of a reply; None: what max_seq_length leaves
    max_rows: int = 32  # replies that decode at once: 8, or a multiple of 32, on a Mac
    kv_bits: int | None = None  # of the rollouts' keys and values
    kv_group_size: int = 64
    quantized_kv_start: int = 5_000
    updates: int = 1  # optimizer steps a batch of rollouts, each over all of it
    value: str = "group"
    critic_learning_rate: float = 5e-5
    critic_updates: int = 4  # of a batch
    critic_rollouts: str | None = None  # judged rollouts of the same prompts to learn values from before step 1
    critic_warmup: int = 20  # updates on them
    gamma: float = 1.0
    lam: float = 1.0
    epsilon: float | None = None
    epsilon_high: float | None = None
    dual_clip: float | None = None
    kl: float | None = None  # weight of the divergence from the policy as the run began
    aggregation: str | None = None  # of AGGREGATIONS
    whiten: bool | None = None
    mask_truncated: bool | None = None
    dynamic_sampling: bool | None = None
    resample: int = 3  # times that many more prompts are tried where groups agree and are dropped
    train_samples: int | None = None  # learn from so many of a group's samples, whose rewards vary most
    tis_cap: float | None = None  # None: 2 with kv_bits; 0: never
    reward: dict[str, Any] = field(default_factory=dict)  # fields of RewardConfig
    reward_functions_file: str | None = None
    reward_functions: str | None = None  # names in it, with commas; None: all
    reward_weights: str | None = None  # "[1.0, 0.5]", or {"name": 0.5}

    def check(self) -> None:
        super().check()
        for name, known in _CHOICES.items():
            if getattr(self, name) not in known:
                raise TrainingError(f"{name} is {getattr(self, name)!r}; choose from {_listed(known)}")
        for name, least in _LEAST.items():
            value = getattr(self, name)
            if value is not None and not value >= least:
                raise TrainingError(f"{name} is {value}; {least} is the least")
        for name in ("gamma", "lam"):
            if not 0 <= getattr(self, name) <= 1:
                raise TrainingError(f"{name} is {getattr(self, name)}; give a share from 0 to 1")
        if self.value != "none" and not self.critic and self.group_size < 2:
            raise TrainingError("group_size is 1, and samples of a prompt are each other's baseline; take 2 or "
                                "more, or value none, head or lora")
        if self.fine_tune_type == "full" and (self.value == "lora" or self.algorithm.loss.kl):
            raise TrainingError("fine_tune_type full goes with neither --value lora nor kl: both keep a second "
                                "adapter; train lora, or take --value head and kl 0")
        self.rewards  # noqa: B018  (raises)
        self.weights  # noqa: B018  (raises)

    @property
    def critic(self) -> bool:
        """Does a model say what a state is worth?"""
        return self.value in ("head", "lora")

    @property
    def rewards(self) -> RewardConfig:
        """The terms of the reward. Raises TrainingError."""
        limit = {"length_limit": self.longest, "length_free": int(0.8 * self.longest)}
        return RewardConfig(**{**limit, **checked_keys(self.reward, "reward", RewardConfig)})

    @property
    def weights(self) -> Mapping[str, float] | list[float]:
        """Of the reward functions. Raises TrainingError."""
        try:
            found = json.loads(self.reward_weights or "[]")
        except ValueError:
            found = None
        if not isinstance(found, list | dict):
            raise TrainingError(f'reward_weights is {self.reward_weights!r}; give [1, 0.5] or {{"name": 0.5}}')
        return found

    @property
    def longest(self) -> int:
        """Tokens a reply may have where its prompt leaves them."""
        return min(self.max_completion_length or self.max_seq_length, self.max_seq_length)

    @property
    def micro_tokens(self) -> int:
        """Tokens of a micro-batch, padding included."""
        return self.max_tokens_per_batch or self.max_seq_length

    @property
    def algorithm(self) -> Algorithm:
        """The named algorithm with what was changed of it."""
        base = ALGORITHMS[self.algo]
        loss = self._given(OF_THE_LOSS)
        if self.epsilon is not None and self.epsilon_high is None and base.loss.clip_high == base.loss.clip_low:
            loss["clip_high"] = self.epsilon
        changed = self._given(OF_THE_ALGORITHM)
        if self.rewards.truncated == "mask":
            changed["mask_truncated"] = True
        if self.value == "none":
            changed["baseline"] = "none"
        loss |= {"longest": self.longest, "tis_cap": self._tis}
        return replace(base, loss=replace(base.loss, **loss), **changed)

    def _given(self, names: Mapping[str, str]) -> dict[str, Any]:
        found = {theirs: getattr(self, ours) for ours, theirs in names.items()}
        return {name: value for name, value in found.items() if value is not None}

    @property
    def _tis(self) -> float | None:
        cap = self.tis_cap if self.tis_cap is not None else QUANTISED_TIS_CAP if self.kv_bits else 0.0
        return cap or None

    @property
    def rollouts(self) -> RolloutConfig:
        """How a batch is sampled."""
        names = ("seed", "max_rows", "kv_bits", "kv_group_size", "quantized_kv_start")
        return RolloutConfig(samples=self.group_size, max_tokens=self.longest, max_sequence=self.max_seq_length,
                             **{name: getattr(self, name) for name in names})  # fmt: skip


_CHOICES = {"algo": tuple(ALGORITHMS), "value": VALUES, "aggregation": (None, *AGGREGATIONS),
            "kv_bits": (None, 2, 3, 4, 6, 8)}  # fmt: skip
_LEAST = {
    "group_size": 1, "max_completion_length": 1, "max_rows": 1, "updates": 1, "critic_updates": 0,
    "critic_warmup": 0, "epsilon": 0.0, "epsilon_high": 0.0, "dual_clip": 1.0, "kl": 0.0, "resample": 0,
    "train_samples": 1, "tis_cap": 0.0, "critic_learning_rate": 0.0,
}  # fmt: skip


def _listed(known: tuple[Any, ...]) -> str:
    return ", ".join(str(name) for name in known if name is not None)
