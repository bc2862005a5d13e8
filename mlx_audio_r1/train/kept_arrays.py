"""What is known of each token of a batch of rollouts, kept for its later updates.

The policy has moved by then: log-probabilities from before the first update, values of the critic before it
learnt, and the advantages made of them cannot be computed again by a run that was killed in between.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import mlx.core as mx
import numpy as np

from mlx_audio_r1.errors import TrainingError
from mlx_audio_r1.files import write_arrays
from mlx_audio_r1.train.experience import Experience

MEASURED = "measured"

def write(path: Path, experiences: Sequence[Experience], measured: Mapping[str, float]) -> None:
    """Every array under "prompt sample name", and what was measured of the batch. Raises DiskError."""
    arrays = {f"{e.rollout.prompt} {e.rollout.sample} {name}": mx.array(values.astype(np.float32))
              for e in experiences for name, values in e.tokens.items()}  # fmt: skip
    write_arrays(path, arrays or {"": mx.zeros(1)}, {MEASURED: json.dumps(measured)})


def read(path: Path, experiences: Sequence[Experience]) -> tuple[list[Experience], dict[str, float]]:
    """Those of the experiences that were written, with their arrays; and what was measured. Raises
    TrainingError."""
    try:
        arrays, told = mx.load(str(path), return_metadata=True)
        measured = json.loads(told[MEASURED])
    except (RuntimeError, KeyError, ValueError) as error:
        raise TrainingError(f"{path}: the first update of its batch left it, and it cannot be read ({error}); "
                            "go back to an earlier checkpoint, or begin anew with --overwrite") from None
    known: dict[tuple[str, int], dict[str, np.ndarray]] = {}
    for label, array in arrays.items():
        if label:
            prompt, sample, name = label.rsplit(" ", 2)
            known.setdefault((prompt, int(sample)), {})[name] = np.array(array)
    kept = [e for e in experiences if e.rollout.key in known]
    return [Experience(e.prompt, e.rollout, known[e.rollout.key]) for e in kept], measured
