"""What the tokens of a reply gain by the true sound, summed up by what they are for (measure G4).

    gain(t) = log p(token t | sound, before) - log p(token t | control, before)      in nats
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mlx_audio_r1.tasks.token_kinds import TokenKinds

GROUNDED_NATS = 0.5  # gain from which a token counts as heard


@dataclass(frozen=True)
class Evidence:
    """Mean gains in nats a token; None where there is no such token. grounded: the share of the reasoning's
    tokens that gain more than GROUNDED_NATS."""

    thinking: float | None
    answer: float | None
    acoustic: float | None  # tokens of acoustic terms in the reasoning
    other: float | None  # the rest of the reasoning
    grounded: float | None

    @property
    def selectivity(self) -> float | None:
        """Do the words of listening need the sound more than the others?"""
        return None if self.acoustic is None or self.other is None else self.acoustic - self.other

    def scores(self) -> dict[str, float]:
        """What is known, by the names that decisions have."""
        named = {"gain": self.thinking, "gain_answer": self.answer, "gain_acoustic": self.acoustic,
                 "selectivity": self.selectivity, "grounded": self.grounded}  # fmt: skip
        return {name: value for name, value in named.items() if value is not None}


def summed_up(gain: np.ndarray, kinds: TokenKinds) -> Evidence:
    """Means of (T,) gains over the kinds of tokens."""
    thinking = gain[kinds.thinking]
    return Evidence(
        thinking=_mean(thinking),
        answer=_mean(gain[kinds.answer]),
        acoustic=_mean(gain[kinds.acoustic]),
        other=_mean(gain[kinds.thinking & ~kinds.acoustic]),
        grounded=_mean(thinking > GROUNDED_NATS),
    )


def _mean(values: np.ndarray) -> float | None:
    return float(values.mean()) if values.size else None
