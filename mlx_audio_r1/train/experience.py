"""Judged rollouts -> what each of their tokens is to be credited with.

The surprise: a group baseline and a value function differ here alone; the loss behind sees advantages.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from mlx_audio_r1.errors import TrainingError
from mlx_audio_r1.train.advantages import (
    at_the_end,
    gae,
    group_advantages,
    informative,
    members_of,
    most_varied,
    whiten,
)
from mlx_audio_r1.train.examples import Example
from mlx_audio_r1.train.policy_losses import Algorithm
from mlx_audio_r1.train.rollouts import Rollout

Add = Callable[[np.ndarray], np.ndarray]  # sums over the ranks of a run


@dataclass(frozen=True, eq=False)
class Experience:
    """A prompt, a reply to it, and arrays (T,) over the reply's tokens by the names of `policy_losses`:
    advantages, returns, and later logp_old, logp_reference, values."""

    prompt: Example
    rollout: Rollout
    tokens: Mapping[str, np.ndarray]

    def __len__(self) -> int:
        return len(self.prompt) + len(self.rollout)

    def with_tokens(self, **tokens: np.ndarray) -> Experience:
        """The same with more known of each token."""
        return replace(self, tokens={**self.tokens, **tokens})


def as_experiences(prompts: Sequence[Example], rollouts: Sequence[Rollout]) -> list[Experience]:
    """All of the rollouts in their order, with the returns of gamma = 1 where they have a reward."""
    by_name = {prompt.name: prompt for prompt in prompts}
    return [Experience(by_name[r.prompt], r, {"returns": np.full(len(r), r.reward or 0.0)}) for r in rollouts]


def credited(
    prompts: Sequence[Example],
    rollouts: Sequence[Rollout],
    algorithm: Algorithm,
    values: Sequence[np.ndarray] | None = None,
    *,
    gamma: float = 1.0,
    lam: float = 1.0,
    per_prompt: int | None = None,
    add: Add = lambda sums: sums,
) -> list[Experience]:
    """The rollouts worth a gradient, in their order, with advantages and returns; may be none.

    values: (T,) of each rollout, of the state before every token; without them the algorithm's baseline.
    per_prompt: train on so many replies of each prompt, those whose rewards vary most; their advantages
    are still against all. Whitening is over what is left. Raises TrainingError without a reward.
    """
    rewards = _rewards(rollouts)
    groups = [rollout.prompt for rollout in rollouts]
    by_name = {prompt.name: prompt for prompt in prompts}
    if values is None:
        each = group_advantages(rewards, groups, algorithm.baseline)
        found = [(np.full(len(r), a), np.full(len(r), reward))
                 for r, a, reward in zip(rollouts, each, rewards, strict=True)]
    else:
        found = [gae(at_the_end(reward, len(r)), v, gamma=gamma, lam=lam)
                 for r, v, reward in zip(rollouts, values, rewards, strict=True)]
    kept = _kept(rollouts, rewards, algorithm, per_prompt)
    advantages = [found[i][0] for i in kept]
    if algorithm.whiten:
        advantages = whiten(advantages, add=add)
    experiences = []
    for i, a in zip(kept, advantages, strict=True):
        tokens = {"advantages": a, "returns": found[i][1]}
        if values is not None:
            tokens["values"] = np.asarray(values[i])
        experiences.append(Experience(by_name[rollouts[i].prompt], rollouts[i], tokens))
    return experiences


def _kept(
    rollouts: Sequence[Rollout], rewards: Sequence[float], algorithm: Algorithm, per_prompt: int | None
) -> list[int]:
    groups = [rollout.prompt for rollout in rollouts]
    kept = informative(rewards, groups) if algorithm.drop_agreeing else list(range(len(rollouts)))
    if algorithm.mask_truncated:
        kept = [i for i in kept if not rollouts[i].truncated]
    if per_prompt is None:
        return kept
    chosen: list[int] = []
    for places in members_of([groups[i] for i in kept]).values():
        members = [kept[place] for place in places]
        chosen += [members[i] for i in most_varied([rewards[i] for i in members], per_prompt)]
    return sorted(chosen)


def _rewards(rollouts: Sequence[Rollout]) -> list[float]:
    for rollout in rollouts:
        if rollout.reward is None:
            raise TrainingError(f"sample {rollout.sample} of {rollout.prompt} has no reward")
    return [float(rollout.reward) for rollout in rollouts if rollout.reward is not None]
