"""Training clips on disk: log-mel as float16 and the truth as JSON, in shards made side by side.

A shard that exists is not made again, so an interrupted build goes on where it stopped.
"""

from __future__ import annotations

import json
import multiprocessing
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np

from mlx_audio_r1.mel import log_mel
from mlx_audio_r1.tasks.acoustic.world import Event, Truth, make_clip

SHARD = 250  # clips
TRAIN_SEEDS, TEST_SEEDS = 1_000_000, 900_000_000  # where each set's clip seeds begin


class Clips:
    """Log-mels and truths in memory, grouped by length."""

    def __init__(self, mels: list[np.ndarray], truths: list[Truth]):
        self.mels, self.truths = mels, truths
        self.by_frames: dict[int, np.ndarray] = {}
        lengths = np.array([len(m) for m in mels])
        for frames in np.unique(lengths):
            self.by_frames[int(frames)] = np.flatnonzero(lengths == frames)

    def __len__(self) -> int:
        return len(self.truths)

    def chosen(self, indices: Sequence[int]) -> Clips:
        """Only these clips."""
        return Clips([self.mels[i] for i in indices], [self.truths[i] for i in indices])

    def stack(self, indices: np.ndarray) -> mx.array:
        """Clips of one length -> (B, T, n_mels) float32."""
        return mx.array(np.stack([self.mels[i] for i in indices]).astype(np.float32))

    def groups(self, size: int) -> Iterator[np.ndarray]:
        """Every clip once, in batches of at most `size` clips of one length."""
        for indices in self.by_frames.values():
            for start in range(0, len(indices), size):
                yield indices[start : start + size]


def load_clips(folder: Path, count: int, held_out: bool = False, workers: int = 2) -> Clips:
    """The first `count` clips of the training or the held-out set, made where they are missing."""
    name = "test" if held_out else "train"
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{name}-{i:04d}.npz" for i in range(-(-count // SHARD))]
    missing = [(i, p) for i, p in enumerate(paths) if not p.exists()]
    if missing:
        with multiprocessing.get_context("spawn").Pool(workers) as pool:
            pool.map(partial(_make_shard, held_out=held_out), missing, chunksize=1)
    mels, truths = [], []
    for path in paths:
        more_mels, more_truths = _read_shard(path)
        mels += more_mels
        truths += more_truths
    return Clips(mels[:count], truths[:count])


def truth_from_json(data: dict[str, Any]) -> Truth:
    return Truth(**{**data, "events": tuple(Event(**e) for e in data["events"])})


def _make_shard(job: tuple[int, Path], held_out: bool) -> None:
    number, path = job
    first = (TEST_SEEDS if held_out else TRAIN_SEEDS) + number * SHARD
    clips = [make_clip(first + i, held_out=held_out) for i in range(SHARD)]
    mels = [np.array(log_mel(c.waveform)).astype(np.float16) for c in clips]
    truths = json.dumps([asdict(c.truth) for c in clips])
    aside = path.with_suffix(".partial.npz")
    np.savez(aside, mel=np.concatenate(mels), frames=[len(m) for m in mels], truths=truths)
    aside.replace(path)


def _read_shard(path: Path) -> tuple[list[np.ndarray], list[Truth]]:
    with np.load(path) as data:
        mels = np.split(data["mel"], np.cumsum(data["frames"])[:-1])
        truths = [truth_from_json(t) for t in json.loads(str(data["truths"]))]
    return mels, truths
