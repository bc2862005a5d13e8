"""Step-Audio-R1 on Apple's MLX: ask a sound a question and read what the model hears.

    from mlx_audio_r1 import load
    r1 = load()
    print(r1.ask("clip.wav", "What instrument is this?").answer)
"""

from typing import TYPE_CHECKING, Any

from mlx_audio_r1 import blas

__version__ = "0.1.0"
__all__ = ["AudioR1", "AudioR1Error", "load"]

blas.preload()  # before anything imports mlx.core

if TYPE_CHECKING:
    from mlx_audio_r1.errors import AudioR1Error
    from mlx_audio_r1.session import AudioR1, load

_LAZY = {"AudioR1": "session", "load": "session", "AudioR1Error": "errors"}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_LAZY[name]}"), name)
