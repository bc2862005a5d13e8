"""The prompts of a run of reinforcement learning, ready to be sampled from, and who judges the replies."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import mlx.core as mx

from mlx_audio_r1.errors import DataError
from mlx_audio_r1.session import AudioR1
from mlx_audio_r1.tasks.reward_functions import RewardFunction, load_reward_functions
from mlx_audio_r1.train.examples import Example, ExampleMaker
from mlx_audio_r1.train.features import Features
from mlx_audio_r1.train.folder import digest_of
from mlx_audio_r1.train.judging import Judging, items_of
from mlx_audio_r1.train.lessons import Counting, encode, open_sounds, splits_of
from mlx_audio_r1.train.ranks import Ranks
from mlx_audio_r1.train.rl_config import RLConfig
from mlx_audio_r1.train.row_forms import Row
from mlx_audio_r1.train.rows import read_rows


@dataclass(frozen=True)
class PromptSets:
    """Prompts by split, in the order of their files. digests: of the files, and of the reward functions.
    maker: made them, and makes others of the same rows."""

    splits: Mapping[str, Sequence[Example]]
    features: Features
    judge: Judging
    digests: Mapping[str, str]
    maker: ExampleMaker

    @property
    def said(self) -> list[str]:
        """A line for each split."""
        return [f"{split}.jsonl: {len(prompts):,} prompts, {sum(map(len, prompts)):,} tokens"
                for split, prompts in self.splits.items()]  # fmt: skip


def gather_prompts(
    r1: AudioR1, config: RLConfig, ranks: Ranks, counting: Counting, verified: bool = True
) -> PromptSets:
    """Read, tokenise, decode and encode what a run asks; without `verified` rows need no solution.

    Raises DataError, DiskError, TrainingError.
    """
    if not config.data:
        raise DataError("no data: give --data, a folder with train.jsonl")
    paths = splits_of(config)
    functions = _functions(config)
    rows = {split: list(read_rows(path)) for split, path in paths.items()}
    every = [row for of_split in rows.values() for row in of_split]
    items = items_of(every, unverified=bool(functions) or not verified)
    maker, features = open_sounds(r1, config)
    splits = {split: _prompts(maker.prompt, of_split, config, counting) for split, of_split in rows.items()}
    chunks = [chunk for prompts in splits.values() for prompt in prompts for chunk in prompt.sounds]
    encode(features, chunks, ranks, counting)
    ranks.add(mx.array(0.0))  # go on together
    judge = Judging(r1.tokenizer, {row.name: row for row in every}, items, config.rewards, functions)
    digests = {path.name: digest_of(path) for path in paths.values()}
    return PromptSets(splits, features, judge, digests | _digest_of_functions(config), maker)


def _functions(config: RLConfig) -> list[RewardFunction]:
    if not config.reward_functions_file:
        return []
    names = [name.strip() for name in (config.reward_functions or "").split(",") if name.strip()]
    return load_reward_functions(config.reward_functions_file, names, config.weights)


def _digest_of_functions(config: RLConfig) -> dict[str, str]:
    file = config.reward_functions_file
    return {"reward functions": digest_of(Path(file))} if file else {}


def _prompts(make: object, rows: Sequence[Row], config: RLConfig, counting: Counting) -> list[Example]:
    prompts = []
    for number, row in enumerate(rows, start=1):
        prompt = make(row)  # type: ignore[operator]
        if len(prompt) >= config.max_seq_length:
            raise DataError(f"{row.where}: {len(prompt):,} tokens leave no room for a reply: raise "
                            "--max-seq-length or cut its sound")
        prompts.append(prompt)
        counting("reading prompts", number, len(rows))
    return prompts
