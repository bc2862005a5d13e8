"""The paper's rewards: equation 6 for text, 7 for audio, and terms beside them that are off by default.

    R_text  = 1 where the answer is right, else 0
    R_audio = 0.8 * right + 0.2 * reasoning present

Reasoning is present where a word stands before `</think>`; without `</think>` there is no answer and no
reasoning. A truncated reply gets 0, as the paper implies, and can be left out of the loss (`masked`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from mlx_audio_r1.errors import TrainingError
from mlx_audio_r1.tasks.item import Item, Verdict
from mlx_audio_r1.tasks.lexicon import grounding
from mlx_audio_r1.tasks.reply import Reply, read_reply
from mlx_audio_r1.tasks.verify import judge

TRUNCATED = ("zero", "mask")
LENGTHS = ("off", "overlong", "linear")


@dataclass(frozen=True)
class RewardConfig:
    """Weights of the terms. The defaults are the paper's."""

    correct: float = 0.8  # audio: the answer is right
    reasoning: float = 0.2  # audio: there is reasoning
    text_correct: float = 1.0  # text: the answer is right
    truncated: str = "zero"  # or mask: the reward is 0 either way, masked replies are not learnt from
    length: str = "off"  # overlong: 0 up to `length_free`, -1 at `length_limit`; linear: -tokens / length_limit
    length_weight: float = 1.0
    length_free: int = 8_192  # tokens
    length_limit: int = 10_240  # tokens, the paper's longest sequence
    surrogate: float = 0.0  # audio: taken away for a reasoning made of textual surrogates alone, or its share

    def __post_init__(self) -> None:
        """Raises TrainingError naming the value that cannot be."""
        for name, known in (("truncated", TRUNCATED), ("length", LENGTHS)):
            if getattr(self, name) not in known:
                raise TrainingError(f"reward {name} {getattr(self, name)!r}: one of {', '.join(known)}")
        if not 0 <= self.length_free < self.length_limit:
            raise TrainingError(f"reward length_free {self.length_free}: from 0 to below {self.length_limit}")
        for name in ("correct", "reasoning", "text_correct", "length_weight", "surrogate"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise TrainingError(f"reward {name} {getattr(self, name)}: not negative, not infinite")


@dataclass(frozen=True)
class Reward:
    """`value` is the sum of `terms`. `masked`: not to be learnt from."""

    value: float
    verdict: Verdict
    reply: Reply
    terms: Mapping[str, float] = field(default_factory=dict)
    truncated: bool = False
    masked: bool = False


def reward(
    completion: str,
    item: Item,
    config: RewardConfig | None = None,
    *,
    truncated: bool = False,
    tokens: int | None = None,
    thinking: bool = True,
) -> Reward:
    """The reward of what a model wrote behind a prompt that ends in `<think>\\n` (`thinking`).

    tokens: the reply's length, needed by the length terms alone. Raises TrainingError where it is missing.
    """
    config = config or RewardConfig()
    reply = read_reply(completion, thinking)
    if truncated:
        verdict = Verdict(0.0, None, "truncated")
        return Reward(0.0, verdict, reply, truncated=True, masked=config.truncated == "mask")
    verdict = judge(reply, item)
    terms = _paper(verdict, reply, item, config) | _beside(reply, item, config, tokens)
    return Reward(sum(terms.values()), verdict, reply, terms)


def _paper(verdict: Verdict, reply: Reply, item: Item, config: RewardConfig) -> dict[str, float]:
    """Equation 7, or 6, where a text that is nearly right is wrong."""
    if not item.has_audio:
        return {"correct": config.text_correct * float(verdict.correct == 1.0)}
    return {
        "correct": config.correct * verdict.correct,
        "reasoning": config.reasoning * float(reply.has_reasoning),
    }


def _beside(reply: Reply, item: Item, config: RewardConfig, tokens: int | None) -> dict[str, float]:
    """What the paper does not have; nothing by default."""
    terms = {}
    if config.length != "off":
        if tokens is None:
            raise TrainingError("a length term needs the reply's number of tokens: give tokens")
        terms["length"] = config.length_weight * _length(tokens, config)
    if config.surrogate and item.has_audio:
        ratio = grounding(reply.thinking).ratio
        terms["surrogate"] = -config.surrogate * (0.0 if ratio is None else 1 - ratio)
    return terms


def _length(tokens: int, config: RewardConfig) -> float:
    """0 to -1. `overlong` is DAPO's soft punishment (arXiv 2503.14476, equation 13)."""
    if config.length == "linear":
        return -min(tokens / config.length_limit, 1.0)
    beyond = tokens - config.length_free
    return -min(max(beyond / (config.length_limit - config.length_free), 0.0), 1.0)
