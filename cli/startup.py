"""Start quickly: import mlx-lm without the 1.3 s that transformers takes.

mlx-lm imports transformers for tokenizers of its own, which this program never uses. While mlx-lm is
imported, a stand-in answers for transformers; afterwards it is gone, so a later `import transformers`
gets the real one. This is done in the program's own process only, never by the library.
"""

from __future__ import annotations

import sys
import types

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
    """Import mlx-lm's generate module, quickly when the process is ours alone; `tuner` what adapters need."""
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
