"""The clipped policy loss of PPO and its relatives: one function, the algorithms are settings.

A batch carries in `extra`, beside the tokens of the replies, all (M,):
  advantages      of each token
  logp_rollout    its log-probability when it was sampled
  logp_old        under the policy before this step's first update, by the training forward. Left out where
                  there is one update a batch: the policy is then its own old one, the ratio 1.
  logp_reference  under the reference policy, where `kl` is not 0

The surprise: with one update a batch, as in the paper, nothing is ever clipped, and the gradient is that
of REINFORCE with a baseline, to the bit.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

import mlx.core as mx
import numpy as np

from mlx_audio_r1.errors import TrainingError
from mlx_audio_r1.models.step_audio_r1 import Model
from mlx_audio_r1.train.batch import Batch
from mlx_audio_r1.train.forward import DEFAULT, ForwardOptions
from mlx_audio_r1.train.logprobs import token_logprobs
from mlx_audio_r1.train.losses import Loss

AGGREGATIONS = ("token", "sequence", "constant")
MOST_LOG_RATIO = 20.0  # as in verl: exp(20) is finite; beyond it a token gives no gradient


@dataclass(frozen=True)
class PolicyLoss:
    """What the loss is made of. The defaults are the paper's (section 4.3)."""

    clip_low: float = 0.2  # the ratio counts from 1 - clip_low ...
    clip_high: float = 0.2  # ... to 1 + clip_high
    dual_clip: float | None = None  # the most a ratio counts where the advantage is negative; verl has 3
    aggregation: Literal["token", "sequence", "constant"] = "token"
    longest: int = 1  # tokens that `constant` divides every reply by: max_tokens
    kl: float = 0.0  # weight of the k3 divergence from the reference
    tis_cap: float | None = None  # weigh tokens by min(old / rollout, this), where precision differs
    entropy: bool = True  # log it; takes a third of the head's time on a CPU


@dataclass(frozen=True)
class Algorithm:
    """An algorithm by its settings. baseline: of `advantages.BASELINES`, where no value function is."""

    loss: PolicyLoss = PolicyLoss()
    baseline: str = "leave_one_out"
    whiten: bool = False
    mask_truncated: bool = False  # replies that were cut off have no loss
    drop_agreeing: bool = False  # groups whose rewards are all equal are sampled again, or left out


# Where a paper and its code differ, the paper counts.
ALGORITHMS: Mapping[str, Algorithm] = MappingProxyType({
    # arXiv 2511.15848, section 4.3; whitening after Open-Reasoner-Zero (arXiv 2503.24290)
    "ppo": Algorithm(whiten=True),
    # arXiv 2402.03300, equation 3: mean of the means of sequences, KL 0.04
    "grpo": Algorithm(PolicyLoss(aggregation="sequence", kl=0.04), "mean_std"),
    # arXiv 2402.14740: sums over a reply, whatever its length
    "rloo": Algorithm(PolicyLoss(aggregation="constant"), "leave_one_out"),
    # arXiv 2503.20783: neither length nor deviation divides
    "dr_grpo": Algorithm(PolicyLoss(aggregation="constant"), "mean"),
    # arXiv 2503.14476: clip-higher, token mean, dynamic sampling, overlong filtering
    "dapo": Algorithm(PolicyLoss(clip_high=0.28), "mean_std", mask_truncated=True, drop_agreeing=True),
})  # fmt: skip


def policy_loss(
    model: Model, batch: Batch, settings: PolicyLoss | None = None, options: ForwardOptions = DEFAULT
) -> Loss:
    """The loss of the batch's replies as (total, count, sums); see `of_logprobs`."""
    settings = settings or PolicyLoss()
    logp, entropy = token_logprobs(model, batch, options, entropy=settings.entropy)
    return of_logprobs(logp, entropy, batch, settings)


def of_logprobs(logp: mx.array, entropy: mx.array | None, batch: Batch, settings: PolicyLoss) -> Loss:
    """(M,) log-probabilities with gradients, (M,) entropies -> total, what to divide it by, sums.

    A token costs -A min(r, 1 + clip_high) where A > 0 and -A max(r, 1 - clip_low) where A < 0, which is
    equation 7 of arXiv 1707.06347. token: all tokens of all micro-batches and ranks weigh the same;
    sequence: all replies do; constant: a reply is its sum over tokens by `longest`. Every reply must be
    whole in its batch. The sums are means over tokens (over replies of means over tokens, unless
    aggregation is token) once they are divided by the count:
      clipped        tokens without a gradient because of the clip
      entropy        nats, of the predictions
      rollout_diff   |log p - log p at sampling|, before the step's first update
      max_rollout_ratio  the largest ratio of the two, either way
      rollout_kl     k3 divergence between the same two; 0 but for rounding, or something is wrong
      update_kl      k3 divergence of the policy now from the old one; 0 with one update a batch
      reference_kl   k3 divergence from the reference, when there is one
      tis            truncated importance weights, when they are used
    """
    advantages, mu = _extra(batch, "advantages"), _extra(batch, "logp_rollout")
    old = batch.extra.get("logp_old", mx.stop_gradient(logp))
    ratio = mx.exp(_log_ratio(logp, old))
    limited = clipped_ratio(ratio, advantages, settings)
    losses = -advantages * limited
    found: dict[str, mx.array] = {}
    if settings.tis_cap is not None:
        found["tis"] = mx.minimum(mx.exp(_log_ratio(mx.stop_gradient(old), mu)), settings.tis_cap)
        losses = losses * found["tis"]
    if settings.kl:
        found["reference_kl"] = k3(logp, _extra(batch, "logp_reference"))
        losses = losses + settings.kl * found["reference_kl"]
    found |= {
        "clipped": (limited != ratio) & (advantages != 0),
        "rollout_diff": mx.abs(old - mu),
        "rollout_kl": k3(mu, old),
        "update_kl": k3(old, logp),
    }
    if entropy is not None:
        found["entropy"] = entropy
    weights, means, count = _weights(batch, settings)
    sums = {name: mx.stop_gradient((means * values.astype(mx.float32)).sum()) for name, values in found.items()}
    apart = mx.where(batch.weights > 0, mx.abs(_log_ratio(old, mu)), 0.0).max()
    sums["max_rollout_ratio"] = mx.stop_gradient(mx.exp(apart))
    return (weights * losses).sum(), count, sums


def clipped_ratio(ratio: mx.array, advantages: mx.array, settings: PolicyLoss) -> mx.array:
    """(M,) what of the ratio counts; where it is limited it has no gradient."""
    above = mx.where(ratio > 1 + settings.clip_high, 1 + settings.clip_high, ratio)
    below = mx.where(ratio < 1 - settings.clip_low, 1 - settings.clip_low, ratio)
    if settings.dual_clip is not None:
        below = mx.where(below > settings.dual_clip, settings.dual_clip, below)
    return mx.where(advantages > 0, above, mx.where(advantages < 0, below, ratio))


def k3(logp: mx.array, other: mx.array) -> mx.array:
    """(M,) estimate of KL(p || q) from tokens sampled from p: q/p - 1 - log(q/p), never below 0.

    logp, other: log p and log q. Source: J. Schulman, Approximating KL divergence (2020).
    """
    x = _log_ratio(other, logp)
    return mx.exp(x) - 1 - x


def _log_ratio(logp: mx.array, other: mx.array) -> mx.array:
    return mx.clip(logp - other, -MOST_LOG_RATIO, MOST_LOG_RATIO)


def _weights(batch: Batch, settings: PolicyLoss) -> tuple[mx.array, mx.array, mx.array]:
    """(M,) weights of the losses and of the statistics, and what both are divided by."""
    if settings.aggregation == "token":
        return batch.weights, batch.weights, batch.weights.sum()
    lengths = mx.zeros((batch.examples,)).at[batch.owners].add(batch.weights)
    means = batch.weights / mx.where(lengths > 0, lengths, 1.0)[batch.owners]
    count = (lengths > 0).sum().astype(mx.float32)
    return means if settings.aggregation == "sequence" else batch.weights / settings.longest, means, count


def _extra(batch: Batch, name: str) -> mx.array:
    values = batch.extra.get(name)
    if values is None or values.shape != batch.positions.shape:
        where = batch.names[0] if batch.names else "a batch of no examples"
        raise TrainingError(f"{where}: the policy loss needs {name} of every token; use rollout_batch")
    return values


def value_loss(
    values: mx.array,
    returns: mx.array,
    weights: mx.array,
    old: mx.array | None = None,
    clip: float | None = None,
) -> tuple[mx.array, mx.array]:
    """Half the squared error of (M,) values, summed by weight, and the sum of the weights.

    clip: values may move so far from `old` at a time; the larger of both errors counts (OpenAI's PPO).
    """
    errors = mx.square(values - returns)
    if clip is not None and old is not None:
        near = old + mx.clip(values - old, -clip, clip)
        errors = mx.maximum(errors, mx.square(near - returns))
    return 0.5 * (errors * weights).sum(), weights.sum()


def compared(rollout: mx.array, training: mx.array, weights: mx.array | None = None) -> dict[str, float]:
    """How far the log-probabilities of a step's tokens at sampling are from those of the training forward.

    rollout_diff: mean |difference|; rollout_kl: k3; rollout_ratio: the largest ratio either way.
    """
    mu, pi = np.asarray(rollout, np.float64), np.asarray(training, np.float64)
    used = np.ones(len(mu), bool) if weights is None else np.asarray(weights) > 0
    x = (pi - mu)[used]
    if not len(x):
        return {"rollout_diff": 0.0, "rollout_kl": 0.0, "rollout_ratio": 1.0}
    return {
        "rollout_diff": float(np.abs(x).mean()),
        "rollout_kl": float((np.expm1(x) - x).mean()),
        "rollout_ratio": float(np.exp(np.abs(x).max())),
    }
