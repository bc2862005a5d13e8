"""What is heard in the place of the true sound: silence of its length, or another clip of the pool.

A control is a `Features`: asked for a chunk, it gives features of as many rows that belong to another sound,
so every batch is laid out as with the true one. The surprise: silence of one length is encoded once, but it
is not cut from a longer one, because the encoder hears where a sound ends.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import mlx.core as mx
import numpy as np

from mlx_audio_r1.errors import TrainingError
from mlx_audio_r1.mel import log_mel
from mlx_audio_r1.models.step_audio_r1 import Model
from mlx_audio_r1.train.features import Features
from mlx_audio_r1.train.sounds import SoundChunk, source_key

CONTROLS = ("silence", "other")


class Silence:
    """Features of zeros, as many samples as the chunk has."""

    def __init__(self, model: Model, features: Features):
        self._model, self._features = model, features
        self.log_mels = features.log_mels
        self._known: dict[int, mx.array] = {}  # by samples

    def __call__(self, chunk: SoundChunk) -> mx.array:
        if chunk.samples not in self._known:
            mel = log_mel(np.zeros(chunk.samples, np.float32), self._model.config.audio.n_mels)
            made = mel if self.log_mels else self._model.audio_features(mel)
            mx.eval(made)
            self._known[chunk.samples] = made
        return self._known[chunk.samples]

    def rows(self, length: int) -> int:
        return self._features.rows(length)


class OtherSound:
    """Features of another clip of the pool, cut or repeated to the rows of the chunk.

    Which one depends on the seed and the chunk alone. Raises TrainingError where the pool has no other clip.
    """

    def __init__(self, features: Features, pool: Iterable[SoundChunk], seed: int = 0):
        self._features, self._seed = features, seed
        self.log_mels = features.log_mels
        self._pool = sorted({chunk.digest: chunk for chunk in pool}.values(), key=lambda chunk: chunk.digest)

    def __call__(self, chunk: SoundChunk) -> mx.array:
        length = self._features(chunk).shape[0]
        other = self._features(self.of(chunk))
        repeats = -(-length // other.shape[0])
        return mx.tile(other, (repeats, 1))[:length]

    def rows(self, length: int) -> int:
        return self._features.rows(length)

    def of(self, chunk: SoundChunk) -> SoundChunk:
        """The chunk that is heard in its place: of another source, with another content."""
        own = source_key(chunk.source)
        others = [c for c in self._pool if c.digest != chunk.digest and source_key(c.source) != own]
        if not others:
            raise TrainingError("evidence against another clip needs a second clip among the questions: add "
                                "one, or set control: silence")  # fmt: skip
        drawn = hashlib.sha256(f"{self._seed}/{chunk.digest}".encode()).digest()
        return others[int.from_bytes(drawn[:8], "little") % len(others)]


def control_features(
    name: str, model: Model, features: Features, pool: Iterable[SoundChunk], seed: int = 0
) -> Features:
    """The control of a name of CONTROLS. Raises TrainingError for another."""
    if name not in CONTROLS:
        raise TrainingError(f"control {name!r}: one of {', '.join(CONTROLS)}")
    return Silence(model, features) if name == "silence" else OtherSound(features, pool, seed)
