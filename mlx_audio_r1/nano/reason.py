"""Stage B: adaptor and decoder learn to answer, on the cached outputs of the frozen encoder.

Several questions stand behind one clip. The decoder reads the shared beginning of the prompt once; its
keys and values are then repeated for every question, each of which sees the clip and itself only, at the
positions it would have alone. So the packed loss is the loss of the prompts one by one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np

from mlx_audio_r1.config import ModelConfig
from mlx_audio_r1.models.step_audio_r1 import Model
from mlx_audio_r1.nano.clips import Clips
from mlx_audio_r1.nano.drills import make_comparison, make_conclusion, make_drill
from mlx_audio_r1.nano.phrasing import vary
from mlx_audio_r1.nano.vocabulary import SYSTEM_PROMPTS, Prompts
from mlx_audio_r1.tasks.acoustic import questions as q
from mlx_audio_r1.train.loop import train
from mlx_audio_r1.train.losses import IGNORE, supervised_tokens, token_cross_entropy
from mlx_audio_r1.train.optim import OptimConfig, muon_and_adamw
from mlx_audio_r1.train.trainer import LoopConfig

BATCH_TOKENS = 4_000  # a step, the audio patches included
PER_CLIP = 2  # questions behind one clip; only the first of them is asked for the note, which is the same
GROUPS = 2  # clips are drawn that many times over and sorted by length, so that little is padding
ROUND_TO = 8  # lengths are padded to a multiple, so that few shapes exist
DIRECT_SHARE, CHOICE_SHARE = 0.15, 0.5  # of the batches: no thinking, options
DRILLS_FIRST, DRILLS_LATER, DRILLS_FADE = 0.5, 0.3, 400  # share of the batches without sound, fading, steps
DRILLS, DRILL_SHARES = 40, (0.2, 0.3, 0.5)  # prompts a batch; shares of words, comparisons, conclusions
ALONE_SHARE, SYSTEM_SHARE = 0.08, 0.04  # one question a prompt (text first, text only); a system prompt
TEXT_ONLY_SHARE = 0.12  # of the prompts that stand alone
CAPTION_SHARE, OFF_TOPIC_SHARE = 0.04, 0.02  # of the questions


Row = tuple[list[int], list[int]]  # prompt, completion


@dataclass(frozen=True)
class Batch:
    """Arrays of a step. (B, E, width) encoder outputs; the rest are ids, -1 where nothing is asked."""

    features: mx.array
    prefix: mx.array  # (B, P) shared beginning of the prompts, P = 0 where they stand alone
    patches: mx.array  # (B, P or L) which row of the features a patch takes, -1 elsewhere
    ids: mx.array  # (B * K, L)
    targets: mx.array  # (B * K, L)

    def arrays(self) -> tuple[mx.array, ...]:
        return self.features, self.prefix, self.patches, self.ids, self.targets


class SharedPrefix:
    """A cache for mlx-lm's attention: keeps the prefix, then lets K continuations of each row see it."""

    def __init__(self, copies: int):
        self.copies, self.offset = copies, 0
        self.keys: mx.array | None = None
        self.values: mx.array | None = None

    def update_and_fetch(self, keys: mx.array, values: mx.array) -> tuple[mx.array, mx.array]:
        if self.keys is None or self.values is None:
            self.keys, self.values = keys, values
            return keys, values
        past = (mx.repeat(x, self.copies, axis=0) for x in (self.keys, self.values))
        return tuple(mx.concatenate([a, b], axis=2) for a, b in zip(past, (keys, values), strict=False))  # type: ignore


class Reasoner(nn.Module):
    """The parts of the model that stage B trains."""

    def __init__(self, model: Model):
        super().__init__()
        self.audio_adaptor = model.audio_adaptor
        self.language_model = model.language_model

    def __call__(self, features: mx.array, prefix: mx.array, patches: mx.array, ids: mx.array) -> mx.array:
        """-> (B * K, L, hidden_size) hidden states of the questions."""
        decoder, rows = self.language_model.model, self.audio_adaptor(features)
        if not prefix.shape[1]:
            return decoder(ids, input_embeddings=self._embed(ids, patches, rows))
        caches = [SharedPrefix(ids.shape[0] // prefix.shape[0]) for _ in decoder.layers]
        decoder(prefix, cache=caches, input_embeddings=self._embed(prefix, patches, rows))
        for cache in caches:
            cache.offset = prefix.shape[1]
        return decoder(ids, cache=caches)

    def _embed(self, ids: mx.array, patches: mx.array, rows: mx.array) -> mx.array:
        x = self.language_model.model.embed_tokens(ids)
        taken = mx.take_along_axis(rows, mx.maximum(patches, 0)[..., None], axis=1)
        return mx.where((patches >= 0)[..., None], taken, x)


def reasoning_loss(model: Reasoner, batch: tuple[mx.array, ...]) -> tuple[mx.array, dict[str, mx.array]]:
    """Cross-entropy in nats a supervised token. `batch` is `Batch.arrays()` and the (M,) positions of
    the supervised tokens among B * K * L, so that only those get logits."""
    features, prefix, patches, ids, targets, where = batch
    hidden = model(features, prefix, patches, ids)
    hidden = hidden.reshape(-1, hidden.shape[-1])[where]
    logits = model.language_model.model.embed_tokens.as_linear(hidden)
    chosen = mx.where(mx.arange(where.size) < supervised_tokens(targets), targets.reshape(-1)[where], IGNORE)
    return token_cross_entropy(logits, chosen) / supervised_tokens(targets), {}


def encode_clips(model: Model, clips: Clips, path: Path) -> list[np.ndarray]:
    """Encoder outputs of every clip, (E, width) float16, kept in `path`."""
    if not path.exists():
        outputs: list[Any] = [None] * len(clips)
        for group in clips.groups(64):
            encoded = np.array(model.audio_encoder(clips.stack(group)).astype(mx.float16))
            for i, rows in zip(group, encoded, strict=False):
                outputs[i] = rows
        path.parent.mkdir(parents=True, exist_ok=True)
        np.savez(path, rows=np.concatenate(outputs), lengths=[len(o) for o in outputs])
    with np.load(path) as data:
        return np.split(data["rows"], np.cumsum(data["lengths"])[:-1])


def drill_share(step: int) -> float:
    """Many drills at first, when there is nothing yet to answer with."""
    return DRILLS_LATER + (DRILLS_FIRST - DRILLS_LATER) * max(0.0, 1 - step / DRILLS_FADE)


class Lessons:
    """Step -> batch: clips of one length, fresh questions, the same for the same seed and step."""

    def __init__(self, clips: Clips, outputs: Sequence[np.ndarray], prompts: Prompts, seed: int):
        self.clips, self.outputs, self.prompts, self.seed = clips, outputs, prompts, seed
        self.lengths = list(clips.by_frames)
        share = np.array([len(v) for v in clips.by_frames.values()], float)
        self.share = share / share.sum()

    def __call__(self, step: int) -> tuple[mx.array, ...]:
        rng = np.random.default_rng([self.seed, step])
        batch = self._drills(rng) if rng.random() < drill_share(step) else self._questions(rng)
        where = np.flatnonzero(np.array(batch.targets) != IGNORE)
        room = np.zeros(_round_up(len(where), 256), np.int32)
        room[: len(where)] = where
        return (*batch.arrays(), mx.array(room))

    def _questions(self, rng: np.random.Generator) -> Batch:
        pool = self.clips.by_frames[int(rng.choice(self.lengths, p=self.share))]
        return self._alone(rng, pool) if rng.random() < ALONE_SHARE else self._shared(rng, pool)

    def _drills(self, rng: np.random.Generator) -> Batch:
        """Exercises without a sound."""
        sorts = (self._words, self._comparisons, self._conclusions)
        rows = sorts[int(rng.choice(len(sorts), p=DRILL_SHARES))](rng)
        rows.sort(key=lambda row: len(row[0]) + len(row[1]))
        at = int(rng.integers(GROUPS)) * len(rows) // GROUPS
        rows = rows[at : at + len(rows) // GROUPS]
        ids, targets = _pad(rows)
        nothing = mx.zeros((len(rows), 2, self.outputs[0].shape[1]))
        prefix = mx.zeros((len(rows), 0), mx.int32)
        return Batch(nothing, prefix, self._patches(ids), mx.array(ids), mx.array(targets))

    def _words(self, rng: np.random.Generator) -> list[Row]:
        thinking = bool(rng.random() >= DIRECT_SHARE)
        return [self._row(rng, make_drill(rng), [], thinking) for _ in range(GROUPS * DRILLS)]

    def _comparisons(self, rng: np.random.Generator) -> list[Row]:
        return [self._row(rng, make_comparison(rng), [], True) for _ in range(GROUPS * DRILLS)]

    def _conclusions(self, rng: np.random.Generator) -> list[Row]:
        choice = bool(rng.random() < CHOICE_SHARE)
        truths = [self.clips.truths[i] for i in rng.integers(0, len(self.clips), GROUPS * DRILLS)]
        asked = [make_conclusion(truth, rng, choice) for truth in truths]
        return [self._with_note(question, self._row(rng, question, [], True)) for question in asked]

    def _with_note(self, question: q.Question, row: Row) -> Row:
        """The note goes over into the prompt: what follows from it is left to say."""
        prompt, completion = row
        note = self.prompts.encode(question.note)
        pairs = zip(note, completion, strict=False)
        told = next((n for n, (one, other) in enumerate(pairs) if one != other), len(note))
        return [*prompt, *completion[:told]], completion[told:]

    def _question(self, rng: np.random.Generator, clip: int, choice: bool) -> q.Question:
        draw = rng.random()
        if draw < CAPTION_SHARE and not choice:
            return q.make_caption(self.clips.truths[clip])
        if draw < CAPTION_SHARE + OFF_TOPIC_SHARE and not choice:
            return q.make_off_topic(rng)
        return q.make_question(self.clips.truths[clip], rng, choice=choice)

    def _shared(self, rng: np.random.Generator, pool: np.ndarray) -> Batch:
        """PER_CLIP questions behind each clip, all with options or all without."""
        choice, thinking = bool(rng.random() < CHOICE_SHARE), bool(rng.random() >= DIRECT_SHARE)
        system = str(rng.choice(SYSTEM_PROMPTS)) if rng.random() < SYSTEM_SHARE else None
        patches = (len(self.outputs[pool[0]]) + 1) // 2
        each = patches + PER_CLIP * (18 + 42 * choice + 42 * thinking)
        count = max(1, min(len(pool) // GROUPS, BATCH_TOKENS // each))
        groups = []
        for clip in rng.choice(pool, GROUPS * count, replace=len(pool) < GROUPS):
            asked = [self._question(rng, clip, choice) for _ in range(PER_CLIP)]
            rows = [self._row(rng, question, [patches], thinking, system=system) for question in asked]
            if thinking:
                rows[1:] = [self._with_note(*pair) for pair in zip(asked[1:], rows[1:], strict=False)]
            groups.append((int(clip), rows))
        groups.sort(key=lambda g: max(len(p) + len(c) for p, c in g[1]))
        at = int(rng.integers(GROUPS)) * count
        return self._stack(groups[at : at + count])

    def _row(self, rng: np.random.Generator, question: q.Question, patches: list[int], thinking: bool,
             **rendering: Any) -> Row:  # fmt: skip
        prompt = self.prompts.prompt(vary(rng, question.text), patches, thinking, **rendering)
        return prompt, self.prompts.completion(question, thinking)

    def _stack(self, groups: Sequence[tuple[int, list[Row]]]) -> Batch:
        """Clips and their questions; what all prompts begin with is kept once a clip."""
        first = groups[0][1][0][0]
        length = first.index(self.prompts.audio_end) + 1
        prefix = np.array([first[:length]] * len(groups))
        ids, targets = _pad([(p[length:], c) for _, rows in groups for p, c in rows])
        features = self._features([clip for clip, _ in groups])
        return Batch(features, mx.array(prefix), self._patches(prefix), mx.array(ids), mx.array(targets))

    def _alone(self, rng: np.random.Generator, pool: np.ndarray) -> Batch:
        """One question a prompt, the text before the sound or without one."""
        thinking = bool(rng.random() >= DIRECT_SHARE)
        count = (len(self.outputs[pool[0]]) + 1) // 2
        chosen = rng.choice(pool, max(4, min(len(pool), BATCH_TOKENS // (count + 100))), replace=len(pool) < 4)
        rows = []
        for clip in chosen:
            mute = rng.random() < TEXT_ONLY_SHARE
            choice = bool(rng.random() < CHOICE_SHARE)
            question = q.make_off_topic(rng) if mute else self._question(rng, clip, choice)
            rows.append(self._row(rng, question, [] if mute else [count], thinking, text_first=True))
        ids, targets = _pad(rows)
        prefix = mx.zeros((len(chosen), 0), mx.int32)
        return Batch(self._features(chosen), prefix, self._patches(ids), mx.array(ids), mx.array(targets))

    def _features(self, chosen: Sequence[int]) -> mx.array:
        return mx.array(np.stack([self.outputs[i] for i in chosen]).astype(np.float32))

    def _patches(self, ids: np.ndarray) -> mx.array:
        """For every id its number among the row's patches, -1 where it is none."""
        is_patch = ids == self.prompts.tokenizer.audio_patch_id
        return mx.array(np.where(is_patch, np.cumsum(is_patch, axis=1) - 1, -1).astype(np.int32))


def _pad(rows: Sequence[Row]) -> tuple[np.ndarray, np.ndarray]:
    """(prompt, completion) pairs -> (rows, L) ids and next-token targets, IGNORE on the prompts."""
    length = _round_up(max(len(p) + len(c) for p, c in rows) - 1, ROUND_TO)
    ids = np.zeros((len(rows), length), np.int32)
    targets = np.full((len(rows), length), IGNORE, np.int32)
    for i, (prompt, completion) in enumerate(rows):
        whole = [*prompt, *completion]
        ids[i, : len(whole) - 1] = whole[:-1]
        targets[i, len(prompt) - 1 : len(whole) - 1] = completion
    return ids, targets


def _round_up(n: int, multiple: int) -> int:
    return -(-n // multiple) * multiple


def learn_to_reason(
    model: Model,
    clips: Clips,
    prompts: Prompts,
    folder: Path,
    optim: OptimConfig,
    seed: int = 0,
    on_save: Callable[[int], dict[str, Any]] | None = None,
) -> None:
    """Train adaptor and decoder of `model` in place."""
    lessons = Lessons(clips, encode_clips(model, clips, folder / "encoded.npz"), prompts, seed)
    loop = LoopConfig(optim.steps, folder, report_every=20, save_every=110, eval_every=110)
    train(Reasoner(model), muon_and_adamw(optim), reasoning_loss, lessons, loop, on_save)


def new_model(config: ModelConfig, seed: int = 0) -> Model:
    """A model with fresh weights, embeddings small as in Qwen2."""
    mx.random.seed(seed)
    model = Model(config)
    embedding = model.language_model.model.embed_tokens
    embedding.weight = 0.05 * mx.random.normal(embedding.weight.shape)
    return model
