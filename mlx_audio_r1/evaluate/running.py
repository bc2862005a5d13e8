"""How a run asks, and with what settings each item is asked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from mlx_audio_r1.errors import EvaluationError
from mlx_audio_r1.evaluate.controls import check_controls
from mlx_audio_r1.evaluate.grounding import LEVELS
from mlx_audio_r1.generate import Settings
from mlx_audio_r1.tasks.item import Item


@dataclass(frozen=True)
class Running:
    """How a run asks. settings: fields of `Settings` that replace those of each benchmark's profile. budgets:
    tokens of reasoning. answer_tokens: most of an answer behind a cut reasoning. control_budget: of reasoning
    under controls, None: as long as it wants. room: tokens of prompt and reply that memory has place for."""

    samples: int = 1
    seed: int = 0
    settings: Mapping[str, Any] = field(default_factory=dict)
    budgets: tuple[int, ...] = ()
    answer_tokens: int = 64
    controls: tuple[str, ...] = ()
    control_budget: int | None = None
    grounding: str = "fast"
    max_rows: int = 8
    retry_failed: bool = False
    room: int | None = None

    def __post_init__(self) -> None:
        check_controls(self.controls)
        if self.samples < 1 or self.answer_tokens < 1:
            raise EvaluationError("n and answer-tokens: give 1 or more")
        if self.grounding not in LEVELS:
            raise EvaluationError(f"no grounding {self.grounding!r}; there are {', '.join(LEVELS)}")
        Settings(**self.settings)  # raises PromptError for a value that is impossible

    @property
    def lengths(self) -> list[int]:
        """All budgets: controls that think less are compared with the true sound under the same one."""
        extra = [self.control_budget] if self.control_budget is not None and self.controls else []
        return sorted({*self.budgets, *extra})


def settings_of(item: Item, running: Running) -> dict[str, Any]:
    """What the item's profile says about generation, and what the run says above it."""
    thinking = {"thinking": bool(item.extra.get("thinking", True))}
    return {**item.extra.get("settings", {}), **thinking, **running.settings}
