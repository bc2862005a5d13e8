"""Judged rollouts -> the numbers of a log: sums that may be added over ranks, and the means they give."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from mlx_audio_r1.train.advantages import members_of
from mlx_audio_r1.train.rollouts import Rollout

SUMS = ("replies", "reward", "verified", "correct", "reasoning", "tokens", "thinking_tokens", "truncated",
        "unparsed", "groups", "agreeing", "sampled", "seconds")  # fmt: skip


def tally(rollouts: Sequence[Rollout], sampled: int = 0, seconds: float = 0.0) -> dict[str, float]:
    """Sums over replies, and over groups of them; `sampled` tokens were drawn now and took `seconds`."""
    groups = members_of([r.prompt for r in rollouts]).values()
    rewards = [r.reward or 0.0 for r in rollouts]
    verified = [r for r in rollouts if "correct" in r.scores]
    found = {
        "replies": len(rollouts), "reward": sum(rewards), "verified": len(verified),
        **{name: sum(r.scores[name] for r in verified) for name in ("correct", "reasoning", "unparsed")},
        "tokens": sum(map(len, rollouts)), "thinking_tokens": sum(r.thinking_tokens for r in rollouts),
        "truncated": sum(r.truncated for r in rollouts), "groups": len(groups),
        "agreeing": sum(len({rewards[i] for i in members}) == 1 for members in groups),
        "sampled": sampled, "seconds": seconds,
    }  # fmt: skip
    return {name: float(found[name]) for name in SUMS}


def means(sums: Mapping[str, float], prefix: str = "") -> dict[str, float]:
    """What metrics.jsonl shows of them. length and thinking_length: tokens of a reply."""
    n, verified = max(sums["replies"], 1.0), sums["verified"]
    found = {"reward": sums["reward"] / n}
    if verified:
        found |= {"accuracy": sums["correct"] / verified, "reasoning": sums["reasoning"] / verified,
                  "unparsed": sums["unparsed"] / verified}  # fmt: skip
    found |= {"length": sums["tokens"] / n, "thinking_length": sums["thinking_tokens"] / n,
              "truncated": sums["truncated"] / n}  # fmt: skip
    if sums["sampled"]:
        found |= {"sampled_per_second": sums["sampled"] / sums["seconds"]}
    return {prefix + name: value for name, value in found.items()}
