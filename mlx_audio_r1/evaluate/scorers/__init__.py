"""Scorers by name, found when they are asked for: `<name>` -> `module:attribute` below this package."""

from __future__ import annotations

from importlib import import_module

from mlx_audio_r1.errors import EvaluationError
from mlx_audio_r1.evaluate.scoring import Scorer

SCORERS: dict[str, str] = {}


def scorer(name: str) -> Scorer:
    """Raises EvaluationError for a name nobody knows."""
    if name not in SCORERS:
        raise EvaluationError(f"no scorer {name!r}; there are {', '.join(sorted(SCORERS))}")
    module, _, attribute = SCORERS[name].partition(":")
    found: Scorer = getattr(import_module(f"{__name__}.{module}"), attribute)
    return found
