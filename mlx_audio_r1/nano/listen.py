"""Stage A: the encoder and the adaptor learn to hear, patch by patch.

Every audio patch of a sound is asked for the whole record of that sound: what it is, which in order,
from when to when, how high, how loud, whose voice. One linear layer reads all of it and is thrown away
afterwards. The surprise: a patch in the middle of a sound must know when the sound began and will end,
so that the decoder later has to look at one place only.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np

from mlx_audio_r1.config import AudioConfig, patch_count
from mlx_audio_r1.models.audio_adaptor import AudioAdaptor
from mlx_audio_r1.models.audio_encoder import AudioEncoder
from mlx_audio_r1.nano.clips import Clips
from mlx_audio_r1.tasks.acoustic import sounds
from mlx_audio_r1.tasks.acoustic import world as w
from mlx_audio_r1.train.loop import train
from mlx_audio_r1.train.losses import IGNORE, supervised_tokens, token_cross_entropy
from mlx_audio_r1.train.optim import OptimConfig, muon_and_adamw
from mlx_audio_r1.train.trainer import LoopConfig

PATCH_SECONDS = 0.08
SHORTEST = 0.12  # s, shorter sounds are labelled as this long
MOST_EVENTS, MOST_SECONDS = 6, 10
LONGEST = 60  # tenths of a second, longer sounds count as this long
BATCH_FRAMES = 12_000  # mel frames a step
LOWEST_LEVEL, LEVEL_STEP = -60.0, 4.0  # dB of the summed mel power
LEVEL_NOISE, FRAME_NOISE = 0.06, 0.015  # log-mel units, added while training

Label = Callable[[w.Event], int]


def _index(values: tuple, value: Any) -> int:
    return IGNORE if value is None else values.index(value)


def _pitch(hz: float | None) -> int:
    return IGNORE if hz is None else w.PITCHES.index(w.nearest_pitch(hz))


def _end(event: w.Event, digit: Callable[[int], int]) -> int:
    """A digit of the end, where the end can be heard."""
    return digit(_tenths(event.end)) if event.source in w.SUSTAINED else IGNORE


def _tenths(seconds: float) -> int:
    return round(w.tenth(seconds) * 10)


EVENT_HEADS: dict[str, tuple[int, Label]] = {  # what a patch of a sound is asked: classes, label
    "pitch": (len(w.PITCHES), lambda e: _pitch(e.hz)),
    "end_pitch": (len(w.PITCHES), lambda e: _pitch(e.end_hz)),
    "contour": (len(w.CONTOURS), lambda e: _index(w.CONTOURS, e.contour)),
    "ramp": (len(w.RAMPS), lambda e: _index(w.RAMPS, e.ramp_db)),
    "level": (len(w.LEVELS), lambda e: _index(w.LEVELS, e.level_db)),
    "voice": (2, lambda e: _index(("male", "female"), e.voice)),
    "start_second": (MOST_SECONDS + 1, lambda e: _tenths(e.start) // 10),
    "start_tenth": (10, lambda e: _tenths(e.start) % 10),
    "end_second": (MOST_SECONDS + 1, lambda e: _end(e, lambda t: t // 10)),
    "end_tenth": (10, lambda e: _end(e, lambda t: t % 10)),
    "length": (LONGEST + 1, lambda e: _end(e, lambda t: min(t - _tenths(e.start), LONGEST))),
}
PATCH_HEADS = {  # what every patch is asked
    "source": len(w.SOURCES) + 1,  # 0: nothing
    "onset": 2,
    "order": MOST_EVENTS + 1,  # 0: nothing
    "last": 3,  # 0: nothing, 1: a sound with others after it, 2: the last
    "floor": len(w.FLOORS),
    "second": MOST_SECONDS + 1,
    "tenth": 10,
    "level_now": 20,  # steps of LEVEL_STEP
    "pitch_now": len(w.PITCHES),
}
WEIGHTS = {  # of the heads' losses; all others 0.5. What a sound is must not drown among its times.
    "source": 6.0,
    "pitch_now": 2.0,
    "level_now": 2.0,
    "floor": 1.5,
    "contour": 3.0,
    "ramp": 3.0,
    "level": 4.0,
    "pitch": 1.5,
    "end_pitch": 1.5,
    "start_tenth": 1.5,
    "length": 4.0,
    "order": 1.0,
    "last": 1.0,
    "onset": 1.0,
}
HEADS = PATCH_HEADS | {name: classes for name, (classes, _) in EVENT_HEADS.items()}


def labels(truth: w.Truth, log_mel: np.ndarray) -> np.ndarray:
    """(N, len(HEADS)) int8 labels of a clip's patches, IGNORE where a question has no answer."""
    count = patch_count(sounds.samples(truth.seconds))
    table = {name: np.full(count, IGNORE, np.int8) for name in HEADS}
    time = np.arange(count) * PATCH_SECONDS
    for name in ("source", "onset", "order", "last"):
        table[name][:] = 0
    table["floor"][:] = _index(w.FLOORS, truth.floor_db)
    tenths = np.round(time * 10).astype(int)
    table["second"][:], table["tenth"][:] = tenths // 10, tenths % 10
    table["level_now"][:] = _levels(log_mel, count)
    for number, event in enumerate(truth.events, start=1):
        _label_event(table, time, number, event, is_last=number == len(truth.events))
    if truth.kind != "pair":
        table["level"][:] = IGNORE  # nothing to compare with, and the loss would be all zeros' own
    return np.stack(list(table.values()), axis=1)


def _label_event(
    table: dict[str, np.ndarray], time: np.ndarray, number: int, event: w.Event, is_last: bool
) -> None:
    end = max(event.end, event.start + SHORTEST)
    inside = (time >= event.start - PATCH_SECONDS / 2) & (time <= end)
    table["source"][inside] = 1 + w.SOURCES.index(event.source)
    table["order"][inside] = number
    table["last"][inside] = 2 if is_last else 1
    table["onset"][np.abs(time - event.start) <= PATCH_SECONDS / 2] = 1
    for name, (_, label) in EVENT_HEADS.items():
        table[name][inside] = label(event)
    if event.hz and event.end_hz and event.source != "speech":
        table["pitch_now"][inside] = _pitch_at(event, time[inside])


def _pitch_at(event: w.Event, time: np.ndarray) -> np.ndarray:
    """The pitch label at moments of a glide or a steady sound."""
    start, end = math.log(event.hz or 1.0), math.log(event.end_hz or 1.0)
    done = np.clip((time - event.start) / (event.end - event.start), 0.0, 1.0)
    height = start + (end - start) * done
    return np.abs(height[:, None] - np.log(w.PITCHES)).argmin(axis=1)


def _levels(log_mel: np.ndarray, count: int) -> np.ndarray:
    """(T, n_mels) -> (count,) level of every patch in steps of LEVEL_STEP above LOWEST_LEVEL."""
    power = 10.0 ** (4.0 * log_mel.astype(np.float32) - 4.0)
    frames = 10 * np.log10(power.sum(axis=1) + 1e-12)
    smooth = np.convolve(np.pad(frames, 3, mode="edge"), np.full(7, 1 / 7), mode="valid")
    centres = np.minimum(np.arange(count) * 8 + 1, len(frames) - 1)
    step = (smooth[centres] - LOWEST_LEVEL) / LEVEL_STEP
    return np.clip(step, 0, PATCH_HEADS["level_now"] - 1).astype(np.int8)


class Listener(nn.Module):
    """Encoder, adaptor and the layer that is thrown away."""

    def __init__(self, config: AudioConfig):
        super().__init__()
        self.audio_encoder = AudioEncoder(config)
        self.audio_adaptor = AudioAdaptor(config)
        self.heads = nn.Linear(config.llm_dim, sum(HEADS.values()))
        table = sinusoids(config.n_audio_ctx, config.n_audio_state)
        self.audio_encoder.positional_embedding.weight = table

    def __call__(self, log_mel: mx.array) -> mx.array:
        """(B, T, n_mels) -> (B, N, sum of the classes)."""
        return self.heads(self.audio_adaptor(self.audio_encoder(log_mel)))


def sinusoids(length: int, width: int) -> mx.array:
    """(length, width) Whisper's sines and cosines: where the position table starts."""
    step = math.log(10_000) / (width // 2 - 1)
    angle = mx.arange(length)[:, None] * mx.exp(-step * mx.arange(width // 2))[None]
    return mx.concatenate([mx.sin(angle), mx.cos(angle)], axis=1)


def split_heads(logits: mx.array) -> dict[str, mx.array]:
    """(..., sum of the classes) -> one array a head."""
    ends = np.cumsum(list(HEADS.values()))[:-1].tolist()
    return dict(zip(HEADS, mx.split(logits, ends, axis=-1), strict=False))


def listening_loss(model: Listener, batch: tuple[mx.array, mx.array]) -> tuple[mx.array, dict[str, mx.array]]:
    """Weighted mean over the heads of the mean cross-entropy over their labelled patches."""
    log_mel, targets = batch
    losses = {}
    for i, (name, logits) in enumerate(split_heads(model(log_mel)).items()):
        target = targets[..., i]
        losses[name] = token_cross_entropy(logits, target) / supervised_tokens(target)
    weights = {name: WEIGHTS.get(name, 0.5) for name in losses}
    total = sum(weights[name] * loss for name, loss in losses.items())
    return total / sum(weights.values()), {"source_loss": losses["source"]}


def batches(clips: Clips, seed: int) -> Callable[[int], tuple[mx.array, mx.array]]:
    """Step -> (log-mels of one length with a little noise, labels)."""
    truth = lru_cache(maxsize=None)(lambda i: labels(clips.truths[i], clips.mels[i]))
    lengths = list(clips.by_frames)
    share = np.array([len(clips.by_frames[n]) * n for n in lengths], float)

    def batch(step: int) -> tuple[mx.array, mx.array]:
        rng = np.random.default_rng([seed, step])
        frames = int(rng.choice(lengths, p=share / share.sum()))
        pool = clips.by_frames[frames]
        chosen = rng.choice(pool, min(len(pool), BATCH_FRAMES // frames), replace=False)
        mel = clips.stack(chosen)
        shift, hiss = mx.random.split(mx.random.key(seed * 1_000_003 + step))
        mel = mel + LEVEL_NOISE * mx.random.normal((len(chosen), 1, 1), key=shift)
        mel = mel + FRAME_NOISE * mx.random.normal(mel.shape, key=hiss)
        return mel, mx.array(np.stack([truth(int(i)) for i in chosen]).astype(np.int32))

    return batch


def accuracy(model: Listener, clips: Clips) -> dict[str, float]:
    """Share of the labelled patches each head answers right."""
    right, asked = np.zeros(len(HEADS)), np.zeros(len(HEADS))
    for group in clips.groups(64):
        target = np.stack([labels(clips.truths[i], clips.mels[i]) for i in group])
        logits = split_heads(model(clips.stack(group)))
        guess = np.stack([np.array(x.argmax(-1)) for x in logits.values()], axis=-1)
        right += ((guess == target) & (target != IGNORE)).sum((0, 1))
        asked += (target != IGNORE).sum((0, 1))
    return {name: round(float(r / max(a, 1)), 3) for name, r, a in zip(HEADS, right, asked, strict=False)}


def learn_to_listen(
    config: AudioConfig,
    clips: Clips,
    test: Clips,
    folder: Path,
    optim: OptimConfig,
    start: Listener | None = None,
    seed: int = 0,
) -> Listener:
    """Train encoder and adaptor, from those of `start` where it is given; log and state are in `folder`."""
    mx.random.seed(seed)
    model = Listener(config)
    if start is not None:
        model.audio_encoder.update(start.audio_encoder.parameters())
        model.audio_adaptor.update(start.audio_adaptor.parameters())
        model.heads.update(start.heads.parameters())
    loop = LoopConfig(optim.steps, folder, report_every=20, save_every=50, eval_every=50, compiled=True)
    optimizer = muon_and_adamw(optim)
    train(model, optimizer, listening_loss, batches(clips, seed), loop, lambda _: accuracy(model, test))
    return model
