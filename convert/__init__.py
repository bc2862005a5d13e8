"""PyTorch checkpoints -> MLX folders: from a folder or straight from the hub, resumable."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from mlx_audio_r1.convert.pulled import DEFAULT_REPO, find_pulled, pulled_folder

if TYPE_CHECKING:
    from mlx_audio_r1.convert.flow import Options, convert
    from mlx_audio_r1.convert.hub import check_login, upload
    from mlx_audio_r1.convert.recipe import Recipe

__all__ = [
    "DEFAULT_REPO",
    "Options",
    "Recipe",
    "check_login",
    "convert",
    "find_pulled",
    "pulled_folder",
    "upload",
]
_LAZY = {
    "Options": "flow",
    "convert": "flow",
    "Recipe": "recipe",
    "check_login": "hub",
    "upload": "hub",
}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_LAZY[name]}"), name)
