"""How Step-Audio-R1's authors ask, and the ways of others for comparison.

The settings are those of the authors' examples: no top-p or top-k was sent, so theirs were the server's.
"""

from __future__ import annotations

from typing import Any

from mlx_audio_r1.evaluate.bench import Profile

STEP_SETTINGS = {"temperature": 0.7, "repetition_penalty": 1.0, "max_tokens": 32_000}


def step_profile(name: str, **fields: Any) -> Profile:
    """`step-r1/NAME`, thinking, with the authors' settings."""
    settings = {**STEP_SETTINGS, **fields.pop("settings", {})}
    return Profile(f"step-r1/{name}", settings=settings, **fields)


# Multiple choice in other words than the authors': for every benchmark with options.
OTHER_CHOICES = (
    Profile("official/mmsu", option_style="mmsu", settings=STEP_SETTINGS),
    Profile("brackets", option_style="brackets", settings=STEP_SETTINGS),
    Profile("none", option_style="none", settings=STEP_SETTINGS),
)
