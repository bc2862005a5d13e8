"""Benchmarks by name, imported when they are asked for: each module has a BENCH."""

from __future__ import annotations

from importlib import import_module

from mlx_audio_r1.errors import EvaluationError
from mlx_audio_r1.evaluate.bench import Bench

BENCHES: dict[str, str] = {  # name -> module below this package
    "mmau": "mmau", "mmsu": "mmsu", "mmar": "mmar", "big-bench-audio": "bba", "spoken-mqa": "spoken_mqa",
    "acoustic-world": "acoustic_world", "generic": "generic",
}  # fmt: skip


def bench(name: str) -> Bench:
    """Raises EvaluationError for a name nobody knows."""
    if name not in BENCHES:
        raise EvaluationError(f"no benchmark {name!r}; there are {', '.join(BENCHES)}")
    found: Bench = import_module(f"{__name__}.{BENCHES[name]}").BENCH
    return found
