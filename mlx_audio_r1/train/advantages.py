"""Rewards -> how much better a token was than expected.

Everything is NumPy in float64: rewards are few, and what is a baseline here must cancel exactly. The
surprise: with gamma = lambda = 1 and one reward at the end, as in the paper (section 4.3), generalised
advantage estimation is R - V(s), whatever V is; a value function sets the variance and not the optimum.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence

import numpy as np

from mlx_audio_r1.errors import TrainingError

STD_EPSILON = 1e-6  # beside a group's standard deviation, as in verl
VARIANCE_EPSILON = 1e-8  # beside the variance of a batch
Array = np.ndarray


def gae(
    rewards: Array,
    values: Array,
    mask: Array | None = None,
    *,
    gamma: float = 1.0,
    lam: float = 1.0,
    after: float = 0.0,
) -> tuple[Array, Array]:
    """Advantages and returns (T,) of one reply (arXiv 1506.02438, equation 16).

    rewards, values: (T,), of each token and of the state before it. mask: False for tokens that were no
    choice of the policy; they are passed over as in verl, keep no advantage, and a reward on one counts
    for the choice before it. after: the value of the state behind the last token. A reply that ended has
    none, so 0; for a truncated one it is the value the policy gave up, or 0 where, as the paper implies,
    what was not finished is worth nothing.
    """
    rewards, values = np.asarray(rewards, np.float64), np.asarray(values, np.float64)
    chosen = np.ones(len(rewards), bool) if mask is None else np.asarray(mask, bool)
    advantages, running, ahead, waiting = np.zeros(len(rewards)), 0.0, after, 0.0
    for t in reversed(range(len(rewards))):
        waiting += rewards[t]
        if not chosen[t]:
            continue
        running = waiting + gamma * ahead - values[t] + gamma * lam * running
        advantages[t], ahead, waiting = running, values[t], 0.0
    return advantages, np.where(chosen, advantages + values, 0.0)


def at_the_end(reward: float, length: int) -> Array:
    """(T,) rewards of a reply that is judged as a whole: everything on its last token."""
    rewards = np.zeros(length)
    rewards[-1] = reward
    return rewards


# ---- without a value function: samples of one prompt are each other's baseline


def group_advantages(rewards: Sequence[float], groups: Sequence[Hashable], baseline: str) -> Array:
    """(n,) advantages of n replies, `groups` naming the prompt of each. Raises TrainingError.

    baseline: one of BASELINES, each from the rewards of the replies to the same prompt.
    """
    if baseline not in BASELINES:
        raise TrainingError(f"baseline is {baseline!r}; choose from {', '.join(BASELINES)}")
    rewards = np.asarray(rewards, np.float64)
    if not np.isfinite(rewards).all():
        raise TrainingError(f"a reward of {groups[int(np.argmin(np.isfinite(rewards)))]} is not a number")
    advantages = np.zeros(len(rewards))
    for group, members in members_of(groups).items():
        if len(members) < 2 and baseline != "none":
            raise TrainingError(f"{group}: one sample has no group; take 2 or more, or the baseline none")
        advantages[members] = BASELINES[baseline](rewards[members])
    return advantages


def members_of(groups: Sequence[Hashable]) -> dict[Hashable, list[int]]:
    """Numbers of the replies to each prompt, in order."""
    members: dict[Hashable, list[int]] = {}
    for i, group in enumerate(groups):
        members.setdefault(group, []).append(i)
    return members


def _leave_one_out(rewards: Array) -> Array:
    """Less the mean of the others: unbiased (RLOO, arXiv 2402.14740, section 2.2)."""
    n = len(rewards)
    return _centred(rewards) * n / (n - 1)


def _centred(rewards: Array) -> Array:
    """Less the mean of all; exactly 0 where all are equal, which a mean in floating point is not."""
    if (rewards == rewards[0]).all():
        return np.zeros(len(rewards))
    return rewards - rewards.mean()


def _standardised(rewards: Array) -> Array:
    """Less the mean, over the standard deviation of a sample (GRPO, arXiv 2402.03300, section 4.1.2)."""
    return _centred(rewards) / (rewards.std(ddof=1) + STD_EPSILON)


BASELINES: dict[str, Callable[[Array], Array]] = {
    "leave_one_out": _leave_one_out,
    "mean_std": _standardised,
    "mean": _centred,  # Dr. GRPO, arXiv 2503.20783, section 3.2
    "none": lambda rewards: rewards,
}


# ---- over the batch


def whiten(advantages: Sequence[Array], masks: Sequence[Array] | None = None,
           add: Callable[[Array], Array] = lambda sums: sums) -> list[Array]:
    """Mean 0 and variance 1 over the chosen tokens of all replies of a step.

    The paper does not say whether it does this; Open-Reasoner-Zero, its nearest relative, does. A token is
    one sample, so long replies weigh more. masks: as in `gae`, False tokens neither count nor change.
    add: sums over the ranks of a run, so that all of them see the global batch.
    """
    masks = masks or [np.ones(len(a), bool) for a in advantages]
    chosen = [a[m] for a, m in zip(advantages, masks, strict=True)]
    flat = np.concatenate([np.zeros(0), *chosen])
    count, total = add(np.array([len(flat), flat.sum()]))
    mean = total / max(count, 1)
    (square,) = add(np.array([np.square(flat - mean).sum()]))
    scale = 1 / np.sqrt(square / max(count, 1) + VARIANCE_EPSILON)
    return [np.where(m, (a - mean) * scale, a) for a, m in zip(advantages, masks, strict=True)]


def explained_variance(values: Array, returns: Array) -> float:
    """1 - Var(R - V) / Var(R): 1 for a perfect value function, 0 for a constant, below for a harmful one."""
    spread = np.var(np.asarray(returns, np.float64))
    error = np.var(np.asarray(returns, np.float64) - np.asarray(values, np.float64))
    return float(1 - error / spread) if spread else 0.0


# ---- which replies are worth a gradient


def informative(rewards: Sequence[float], groups: Sequence[Hashable]) -> list[int]:
    """Numbers of the replies whose group does not agree: the others have no advantage and teach nothing
    (dynamic sampling, DAPO, arXiv 2503.14476, section 3.2)."""
    rewards = list(rewards)
    return sorted(i for members in members_of(groups).values()
                  if len({rewards[i] for i in members}) > 1 for i in members)


def most_varied(rewards: Sequence[float], count: int) -> list[int]:
    """Numbers of the `count` replies whose rewards vary most (PODS, arXiv 2504.13818, section 3.2).

    The best subset is made of the lowest and the highest, so only the cut between them is searched. A
    subset chosen by reward is not a sample of the policy any more: a baseline of all replies, taken
    before, stays nearest to its gradient.
    """
    order = np.argsort(np.asarray(rewards, np.float64), kind="stable")
    if count >= len(order):
        return sorted(order.tolist())
    subsets = [np.concatenate([order[:low], order[len(order) - count + low :]]) for low in range(count + 1)]
    best = max(subsets, key=lambda subset: np.var(np.asarray(rewards, np.float64)[subset]))
    return sorted(best.tolist())
