"""Which checkpoint to use when several could be meant; the environment is read here alone."""

from __future__ import annotations

import os
from pathlib import Path

import click

MODEL_VARIABLE = "AUDIO_R1_MODEL"
CACHE_VARIABLE = "AUDIO_R1_CACHE"

NANO_NOTICE = (
    "This is the embedded nano model. {hears}\n"
    "For the real one: audio-r1 pull stepfun-ai/Step-Audio-R1.1 (about 20 GB of unified memory)."
)


def cache_folder() -> Path:
    """Where pulled checkpoints live."""
    default = Path.home() / ".cache" / "mlx-audio-r1"
    return Path(os.environ.get(CACHE_VARIABLE) or default).expanduser()


def choose_model(given: str | None) -> str | None:
    """--model, then AUDIO_R1_MODEL, then a pulled Step-Audio-R1, then None: the nano model."""
    named = given or os.environ.get(MODEL_VARIABLE)
    if named:
        return named
    from mlx_audio_r1.convert import find_pulled

    pulled = find_pulled(cache_folder())
    return str(pulled) if pulled else None


def notice_nano(config_values: dict) -> None:
    """Say on stderr that this is the nano model, what it can hear, and how to get the real one."""
    nano = config_values.get("nano")
    if nano:
        click.secho(NANO_NOTICE.format(hears=nano.get("hears", "")), dim=True, err=True)
