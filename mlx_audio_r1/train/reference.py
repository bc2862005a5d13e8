"""DPO's reference: log-probabilities of both replies under the model as it starts, computed once.

No second model is loaded: a fresh adapter changes nothing, so at the start the model is its own base; one
that begins with --resume-adapter-file is held against that. The numbers lie in reference.safetensors beside
the run, so that a resumed run trains against the very same ones.
"""

from __future__ import annotations

import hashlib
import json
from contextlib import suppress
from pathlib import Path

import mlx.core as mx

from mlx_audio_r1.files import write_arrays
from mlx_audio_r1.models.step_audio_r1 import Model
from mlx_audio_r1.train.config import TrainConfig
from mlx_audio_r1.train.forward import ForwardOptions
from mlx_audio_r1.train.lessons import Counting, Lessons
from mlx_audio_r1.train.logprobs import sequence_logprobs, token_logprobs

FILE = "reference.safetensors"
Known = dict[str, tuple[float, float]]  # train.jsonl:12 -> log-probabilities of chosen and rejected


def know_reference(
    model: Model, lessons: Lessons, config: TrainConfig, counting: Counting, first: bool
) -> None:
    """Give `lessons` the reference of every pair, from the file where it is there.

    model: as it is before the first step. first: does this rank write the file? Raises DiskError.
    """
    path = config.folder / FILE
    known = _read(path, _key(lessons))
    if known is None:
        known = _compute(model, lessons, config, counting)
        if first:
            _write(path, known, _key(lessons))
    lessons.reference = known


def _compute(model: Model, lessons: Lessons, config: TrainConfig, counting: Counting) -> Known:
    """Every rank computes all of it: it is needed everywhere, and once."""
    options = ForwardOptions(attention=config.attention)  # type: ignore[arg-type]
    total = sum(len(batches.examples) // 2 for batches in lessons.splits.values())
    known: Known = {}
    model.eval()
    for batches in lessons.splits.values():
        for batch in batches.in_order(every_rank=True):
            logp, _ = token_logprobs(model, batch, options, entropy=False)
            sums = sequence_logprobs(logp, batch).tolist()
            known |= {batch.names[i]: (sums[i], sums[i + 1]) for i in range(0, len(sums), 2)}
            counting("reference", len(known), total)
    return known


def _key(lessons: Lessons) -> str:
    return hashlib.sha256(json.dumps(sorted(lessons.digests.items())).encode()).hexdigest()


def _read(path: Path, key: str) -> Known | None:
    with suppress(RuntimeError, ValueError, KeyError, OSError):
        arrays, metadata = mx.load(str(path), return_metadata=True)
        names = json.loads(metadata["names"])
        if metadata["key"] == key and arrays["logp"].shape == (len(names), 2):
            return {name: (a, b) for name, (a, b) in zip(names, arrays["logp"].tolist(), strict=True)}
    return None


def _write(path: Path, known: Known, key: str) -> None:
    logp = mx.array(list(known.values())).reshape(-1, 2)
    write_arrays(path, {"logp": logp}, {"key": key, "names": json.dumps(list(known))})
