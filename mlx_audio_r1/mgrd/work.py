"""What every phase of a run has at hand: its folder, the model of the moment, sampling, training, telling.

The model that samples in round t is the one that round t - 1 left: base and adapter, loaded anew for each
phase and let go behind it, so that a phase needs no more memory than it would alone.
"""

from __future__ import annotations

import gc
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import mlx.core as mx

from mlx_audio_r1.errors import DataError
from mlx_audio_r1.mgrd.config import OWN_KEYS, MGRDConfig
from mlx_audio_r1.mgrd.journal import Journal, Stopped
from mlx_audio_r1.session import AudioR1, load
from mlx_audio_r1.train.examples import Example
from mlx_audio_r1.train.prompt_sets import PromptSets, gather_prompts
from mlx_audio_r1.train.ranks import Ranks
from mlx_audio_r1.train.recipes import RECIPES
from mlx_audio_r1.train.rl_config import RLConfig
from mlx_audio_r1.train.rollouts import Rollout, RolloutConfig, RolloutFile, sample_rollouts
from mlx_audio_r1.train.rows import find_splits, read_rows
from mlx_audio_r1.train.run import fine_tune
from mlx_audio_r1.train.watch import Silent, Watcher

WEIGHTS, FEATURES = "adapters.safetensors", "features"


class Work:
    """One run at work on one phase."""

    def __init__(
        self, config: MGRDConfig, folder: Path, journal: Journal, watch: Watcher, api_key: str | None = None
    ):
        self.config, self.folder, self.watch, self.api_key = config, folder, watch, api_key
        self._journal = journal
        self.phase = ""

    def round(self, number: int) -> Path:
        """The folder of a round; 0 is the cold start."""
        return self.folder / "rounds" / str(number)

    @property
    def data(self) -> Path:
        """The questions."""
        return Path(self.config.data)

    def policy(self, number: int) -> Path | None:
        """The adapter that a round left behind; None where it is the base itself."""
        for t in range(number, -1, -1):
            for name in ("rl", "sft"):
                if (self.round(t) / name / WEIGHTS).is_file():
                    return self.round(t) / name
        return None

    # ---- telling

    def tell(self, done: int, total: int, note: str = "") -> None:
        """How far the phase is. Raises Stopped where somebody asked for it."""
        self._journal.told(self.phase, done, total, note)
        self.watch.counting(f"{self.phase}: {note}" if note else self.phase, done, total)
        if self.watch.stop():
            raise Stopped

    # ---- the model

    @contextmanager
    def model(self, adapter: Path | None) -> Iterator[AudioR1]:
        """The base with an adapter, let go behind the block."""
        yield load(self.config.model, adapter_path=adapter)
        gc.collect()
        mx.clear_cache()

    def questions(self, r1: AudioR1, data: Path, where: Path, verified: bool = True) -> PromptSets:
        """The questions of a folder, ready to be sampled from; without `verified` they need no solution."""
        return gather_prompts(r1, self.sampling(data, where), Ranks(),
                              lambda what, done, total: self.tell(0, 0, what), verified)  # fmt: skip

    def sampling(self, data: Path, where: Path) -> RLConfig:
        """How the questions of a folder are asked."""
        return self.config.sampling(str(data), str(where), feature_cache=str(self.folder / FEATURES))

    def sample(
        self, r1: AudioR1, sets: PromptSets, prompts: Sequence[Example], path: Path, config: RolloutConfig,
        step: int = 0,
    ) -> list[Rollout]:  # fmt: skip
        """Judged replies to prompts of `sets`, from the file where they are there. step: part of the seed."""
        file = RolloutFile(path, config, step)
        sampling = sample_rollouts(r1.model, r1.tokenizer, prompts, sets.features, config, file, sets.judge,
                                   thinking=sets.judge.thinking)  # fmt: skip
        for _ in sampling:
            self.tell(len(file.found), len(prompts) * config.samples)
        return file.of(prompts, config.samples)

    def rollouts(self, **more: Any) -> RolloutConfig:
        """How the run samples; more: what is different here."""
        return replace(self.config.sampling("", str(self.folder)).rollouts, **more)

    # ---- training

    def train_epochs(
        self, mode: str, data: Path, folder: Path, start: Path | None, keys: Mapping[str, Any]
    ) -> None:
        """Train for `epochs` of the data (1), or for `iters` steps where the keys say so."""
        own = {key: value for key, value in keys.items() if key not in OWN_KEYS}
        if "iters" not in own:
            batch = self.config.training(mode, own).batch_size
            examples = sum(1 for _ in read_rows(train_file(data)))
            own["iters"] = max(1, math.ceil(examples * float(keys.get("epochs", 1)) / batch))
        self.train(mode, train_file(data), folder, start, own)

    def train(
        self, mode: str, data: Path, folder: Path, start: Path | None, keys: Mapping[str, Any]
    ) -> None:
        """Train from an adapter to another one, or go on doing so. Raises Stopped."""
        run = {"data": str(data), "adapter_path": str(folder), "feature_cache": str(self.folder / FEATURES),
               "model": self.config.model,
               "resume_adapter_file": str(start / WEIGHTS) if start else None}  # fmt: skip
        given = {key: value for key, value in run.items() if value is not None}
        config = self.config.training(mode, keys, **given)
        outcome = fine_tune(config, RECIPES[mode], _OfPhase(self, config.iters))
        mx.clear_cache()
        if not outcome.finished:
            raise Stopped


class _OfPhase(Silent):
    """What a training run tells is how far the phase is."""

    def __init__(self, work: Work, steps: int):
        self._work, self._steps = work, steps
        self._asked = False

    def step(self, step: int) -> None:
        self._told(step, self._steps)

    def warn(self, text: str) -> None:
        self._work.watch.warn(text)

    def row(self, row: Mapping[str, Any]) -> None:
        self._work.watch.row(row)

    def stop(self) -> bool:
        return self._asked or self._work.watch.stop()

    def _told(self, done: int, total: int) -> None:
        try:
            self._work.tell(done, total)
        except Stopped:  # the trainer saves first
            self._asked = True


def train_file(data: str | Path) -> Path:
    """A file by itself, or the train.jsonl of a folder. Raises DataError."""
    found = find_splits(data)
    if Path(data).is_file():
        return next(iter(found.values()))
    if "train" not in found:
        raise DataError(f"{data}: no train.jsonl in it")
    return found["train"]
