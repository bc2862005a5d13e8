"""Start quickly: import mlx-lm without the 1.3 s that transformers takes. And set the switch of kernels.

mlx-lm imports transformers for tokenizers of its own, which this program never uses. While mlx-lm is
imported, a stand-in answers for transformers; afterwards it is gone, so a later `import transformers`
gets the real one. This is done in the program's own process only, never by the library.
"""

from __future__ import annotations

import os
import sys
import types

KERNELS_VARIABLE = "AUDIO_R1_KERNELS"
_MODULES = ("transformers", "transformers.tokenization_utils_base")


class _StandIn(type):
    """A class with any attribute, callable or not; used for registration calls at import time."""

    def __getattr__(cls, name: str) -> object:
        if name.startswith("__"):
            raise AttributeError(name)
        return lambda *args, **kwargs: None


class _Module(types.ModuleType):
    __path__ = ()

    def __getattr__(self, name: str) -> type:
        if name.startswith("__"):
            raise AttributeError(name)
        return _StandIn(name, (), {})


own_process = False  # set by the console script: nobody else's transformers is at stake


def import_engine(tuner: bool = False) -> None:
    """What every command needs that loads a model; `tuner`: and adapters."""
    _import_mlx_lm(tuner)
    switch_kernels()


def switch_kernels() -> None:
    """As AUDIO_R1_KERNELS says; what was found out about kernels on this device lies in the cache folder."""
    from mlx_audio_r1.cli.model_choice import cache_folder
    from mlx_audio_r1.errors import AudioR1Error
    from mlx_audio_r1.kernels.choice import configure

    try:
        configure(os.environ.get(KERNELS_VARIABLE, ""), cache_folder() / "kernels.json")
    except AudioR1Error as error:
        raise AudioR1Error(f"{KERNELS_VARIABLE}: {error}") from None


def _import_mlx_lm(tuner: bool) -> None:
    """Its generate module, quickly when the process is ours alone."""
    if not own_process or any(m in sys.modules for m in (*_MODULES, "mlx_lm")):
        return
    sys.modules.update({name: _Module(name) for name in _MODULES})
    try:
        import mlx_lm.generate

        if tuner:
            import mlx_lm.tuner.utils  # noqa: F401
    finally:
        for name in _MODULES:
            sys.modules.pop(name, None)
