"""Small data sets for tests: tones as files, rows as lines, examples of chosen lengths."""

from __future__ import annotations

import json
import wave
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from mlx_audio_r1.prompt import AudioPart
from mlx_audio_r1.train.examples import Example
from mlx_audio_r1.train.sounds import SoundChunk


def tone(seconds: float, hz: float = 440.0) -> np.ndarray:
    """A sine at half of full scale, 16 kHz."""
    return 0.5 * np.sin(2 * np.pi * hz * np.arange(round(seconds * 16_000)) / 16_000)


def write_wav(path: Path, samples: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, 16_000, 0, "NONE", ""))
        file.writeframes((samples * 32_767).astype("<i2").tobytes())
    return path


def write_rows(path: Path, rows: Iterable[Any]) -> Path:
    """One line a row; text is written as it is."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    path.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
    return path


def asked(question: str, reply: str, *audios: str, **more: Any) -> dict[str, Any]:
    """A row of one question about sounds and its reply."""
    messages = [{"role": "user", "content": "<audio>" * len(audios) + question},
                {"role": "assistant", "content": reply}]
    return {"messages": messages, "audios": list(audios), **more}


def example(rng: np.random.Generator, name: str, length: int, patches: Iterable[int] = ()) -> Example:
    """Random ids: chunks of sound at the start, then text of which the last half is learnt."""
    ids = rng.integers(1, 100, length).astype(np.int32)
    patches = [int(n) for n in patches]
    weights = np.zeros(length, np.float32)
    weights[sum(patches) + (length - sum(patches)) // 2 or 1 :] = rng.choice([0.5, 1.0, 2.0])
    sounds = tuple(SoundChunk(AudioPart(b""), 0, n * 1280, n, f"{name}-{i}-{n}") for i, n in enumerate(patches))
    return Example(ids, weights, name, sounds, np.arange(sum(patches), dtype=np.int32))
