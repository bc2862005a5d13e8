"""Which benchmark a download is: the one whose reader takes its first question.

Readers are strict about columns, so two rarely take the same; `generic`, which takes nearly everything, is
asked last. What is built in is never meant.
"""

from __future__ import annotations

from pathlib import Path

from mlx_audio_r1.errors import EvaluationError
from mlx_audio_r1.evaluate.bench import Bench
from mlx_audio_r1.evaluate.benches import BENCHES, bench

LAST = "generic"


def detect(path: Path) -> Bench:
    """Raises EvaluationError where no benchmark, or more than one, reads it."""
    if not path.exists():
        raise EvaluationError(f"{path}: no such file or folder")
    names = [name for name in BENCHES if name != LAST and not bench(name).make and _reads(bench(name), path)]
    if not names and _reads(bench(LAST), path):
        names = [LAST]
    if not names:
        raise EvaluationError(f"{path}: no benchmark has this layout; name the one it is to see why not")
    if len(names) > 1:
        raise EvaluationError(f"{path}: may be {' or '.join(names)}; name the one it is")
    return bench(names[0])


def _reads(bench: Bench, path: Path) -> bool:
    try:
        return next(iter(bench.read(path)), None) is not None
    except EvaluationError:
        return False
