"""The data of a run, ready for the loop: examples, features, batches, and what the validation has.

Everything is a function of the files and the configuration, so a resumed run gathers the same again;
sounds are decoded and encoded once and found on disk the next time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import mlx.core as mx

from mlx_audio_r1.errors import DataError
from mlx_audio_r1.session import AudioR1
from mlx_audio_r1.train.batch import Batch
from mlx_audio_r1.train.batch_plan import BatchConfig
from mlx_audio_r1.train.batches import Batches
from mlx_audio_r1.train.config import TrainConfig
from mlx_audio_r1.train.examples import Example, ExampleMaker, ExampleOptions, Pair
from mlx_audio_r1.train.features import Features, FeatureStore, LogMels
from mlx_audio_r1.train.folder import digest_of
from mlx_audio_r1.train.ranks import Ranks
from mlx_audio_r1.train.rows import Row, find_splits, read_rows
from mlx_audio_r1.train.sounds import SoundChunk, Sounds

CACHE, INDEX = "features", "sounds.jsonl"
Make = Callable[[ExampleMaker, Row], Example | Pair]
Counting = Callable[[str, int, int], None]  # what, done, total


@dataclass
class Lessons:
    """train, valid, test as batches; `reference` is what a recipe knows of examples by name."""

    splits: dict[str, Batches]
    rows: dict[str, list[Row]]
    digests: dict[str, str]  # of the files, for resuming
    said: list[str] = field(default_factory=list)
    reference: Mapping[str, tuple[float, ...]] = field(default_factory=dict)

    def batches(self, step: int) -> list[Batch]:
        """This rank's micro-batches of a step."""
        return [self.complete(batch) for batch in self.splits["train"](step)]

    def in_order(self, split: str, limit: int | None = None) -> Iterator[Batch]:
        """The batches of a split in a fixed order, of this rank."""
        for batch in self.splits[split].in_order(limit):
            yield self.complete(batch)

    def complete(self, batch: Batch) -> Batch:
        """The batch with what the recipe knows of its examples."""
        if not self.reference:
            return batch
        known = [self.reference[name][i % 2] for i, name in enumerate(batch.names)]
        return replace(batch, extra={**batch.extra, "reference": mx.array(known)})


def gather(r1: AudioR1, config: TrainConfig, make: Make, ranks: Ranks, counting: Counting) -> Lessons:
    """Read, tokenise, decode and encode what a run needs. Raises DataError and DiskError."""
    if not config.data:
        raise DataError("no data: give --data, a folder with train.jsonl")
    paths = splits_of(config)
    maker, features = open_sounds(r1, config)
    lessons = Lessons({}, {}, {f"{path.name}": digest_of(path) for path in paths.values()})
    for split, path in paths.items():
        lessons.rows[split] = rows = list(read_rows(path))
        examples = list(_examples(maker, make, rows, counting, f"reading {path.name}"))
        batches = Batches(examples, features, _batch_config(config, split), ranks.rank, ranks.size)
        lessons.splits[split] = batches
        lessons.said += _notes(path.name, batches)
        encode(features, batches.chunks(), ranks, counting)
    ranks.add(mx.array(0.0))  # go on together
    return lessons


def splits_of(config: TrainConfig) -> dict[str, Path]:
    """The files of a run by split. Raises DataError."""
    found = find_splits(config.data)
    if Path(config.data).is_file():
        found = {"train": Path(config.data)}
    if "train" not in found:
        has = ", ".join(path.name for path in found.values())
        raise DataError(f"{config.data}: no train.jsonl in it; it has {has}")
    unused = () if config.test else ("test",)
    return {split: path for split, path in found.items() if split not in unused}


def open_sounds(r1: AudioR1, config: TrainConfig) -> tuple[ExampleMaker, Features]:
    """What makes examples of rows, and where their sounds come from."""
    cache = _cache_folder(config)
    sounds = Sounds(r1.chunk_seconds, r1.config.length_convention, cache / INDEX)
    maker = ExampleMaker(r1.tokenizer, r1.config, sounds, ExampleOptions(config.mask_prompt))
    return maker, _features(r1, config, cache, sounds)


def encode(features: Features, chunks: Iterable[SoundChunk], ranks: Ranks, counting: Counting) -> None:
    """Compute this rank's share of what is not on disk yet."""
    if isinstance(features, FeatureStore):
        share = [*chunks][ranks.rank :: ranks.size]
        features.prepare(share, lambda done, total: counting("encoding sounds", done, total))


def _cache_folder(config: TrainConfig) -> Path:
    return Path(config.feature_cache) if config.feature_cache else config.folder / CACHE


def _features(r1: AudioR1, config: TrainConfig, cache: Path, sounds: Sounds) -> Features:
    if config.train_encoder:
        return LogMels(sounds, r1.config.audio.n_mels)
    return FeatureStore(r1.model, cache, sounds, int(config.feature_cache_gb * 1e9))


def _examples(
    maker: ExampleMaker, make: Make, rows: Sequence[Row], counting: Counting, what: str
) -> Iterator[Example | Pair]:
    for number, row in enumerate(rows, start=1):
        yield make(maker, row)
        counting(what, number, len(rows))


def _batch_config(config: TrainConfig, split: str) -> BatchConfig:
    return BatchConfig(
        max_seq_length=config.max_seq_length,
        batch_size=config.batch_size,
        max_tokens_per_batch=config.max_tokens_per_batch,
        grad_accumulation_steps=config.grad_accumulation_steps,
        pack=config.pack and split == "train",
        over_long=config.over_long,
        seed=config.seed,
    )


def _notes(name: str, batches: Batches) -> list[str]:
    examples = batches.examples
    notes = [f"{name}: {len(examples):,} examples, {sum(map(len, examples)):,} tokens, "
             f"{sum(e.learnt for e in examples):,} of them learnt, {batches.padding():.0%} padding"]
    if batches.dropped:
        shown = ", ".join(batches.dropped[:5])
        notes.append(f"{name}: {len(batches.dropped)} rows left out as too long: {shown}")
    return notes
