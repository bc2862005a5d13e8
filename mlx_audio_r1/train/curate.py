"""Questions of the right difficulty: sample a few replies to each, keep those that are right now and then.

The paper (section 4.3) keeps questions of which the model gets 3 to 6 of 8 right: of the others nothing is
learnt, or nothing is there to be learnt. What was sampled for distillation by the same model counts, so a
question is sampled only where no rollouts of it exist. The surprise: replies are counted, not rewards.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mlx_audio_r1.adapter_config import WEIGHTS_FILE
from mlx_audio_r1.errors import DataError, TrainingError
from mlx_audio_r1.session import AudioR1
from mlx_audio_r1.train.examples import Example
from mlx_audio_r1.train.folder import digest_of
from mlx_audio_r1.train.lessons import splits_of
from mlx_audio_r1.train.prompt_sets import PromptSets, gather_prompts
from mlx_audio_r1.train.ranks import Ranks
from mlx_audio_r1.train.rl_config import RLConfig
from mlx_audio_r1.train.rollouts import Rollout, RolloutFile, read_rollouts, sample_rollouts
from mlx_audio_r1.train.row_writer import row_as_json, write_rows
from mlx_audio_r1.train.watch import Silent, Watcher

TRAIN, COUNTS, ROLLOUTS = "train.jsonl", "pass_counts.jsonl", "rollouts.jsonl"
STRATEGIES = ("moderate", "failed", "all")  # section 6.2 of the paper compares them
OF = 8  # samples that `low` and `high` are meant for; with another number they are shares


@dataclass(frozen=True)
class Curation:
    """Which questions are kept. low, high: right replies of 8, both kept; used by `moderate`."""

    strategy: str = "moderate"
    low: int = 3
    high: int = 6

    def __post_init__(self) -> None:
        if self.strategy not in STRATEGIES:
            raise TrainingError(f"strategy is {self.strategy!r}; choose from {', '.join(STRATEGIES)}")
        if not 0 <= self.low <= self.high <= OF:
            raise TrainingError(f"keep is {self.low} to {self.high}; give two numbers from 0 to {OF}")

    def keeps(self, passed: int, samples: int) -> bool:
        """Is a question of which `passed` of `samples` replies were right worth learning from?"""
        if self.strategy == "moderate":
            return self.low * samples <= passed * OF <= self.high * samples
        return self.strategy == "all" or passed == 0


@dataclass(frozen=True)
class Curated:
    """What came of it. counts: questions by right replies, 0 to samples."""

    folder: str
    questions: int
    kept: int
    sampled: int  # questions that had no rollouts yet
    counts: Mapping[int, int]


def curate(
    r1: AudioR1,
    config: RLConfig,
    out: Path,
    curation: Curation | None = None,
    known: Path | None = None,
    watch: Watcher | None = None,
) -> Curated:
    """Write `out`/train.jsonl with the questions that are kept, and pass_counts.jsonl with all.

    config: data, group_size (samples a question), lengths, seed, rewards. known: rollouts of the same
    questions by the same model. Killed, it goes on with what was sampled. Raises DataError, TrainingError.
    """
    watch, curation = watch or Silent(), curation or Curation()
    if (out / TRAIN).resolve() == splits_of(config)["train"].resolve():
        raise DataError(f"{out}: holds the questions themselves: give another folder")
    sets = gather_prompts(r1, config, Ranks(), watch.counting)
    prompts = sets.splits["train"]
    groups = _known(known, prompts) if known else {}
    new = [prompt for prompt in prompts if prompt.name not in groups]
    for rollout in _sampled(r1, config, sets, new, out / ROLLOUTS, watch):
        groups.setdefault(rollout.prompt, []).append(rollout)
    counts = {prompt.name: _passed(groups[prompt.name]) for prompt in prompts}
    kept = [prompt for prompt in prompts if curation.keeps(*counts[prompt.name])]
    if not kept:
        raise DataError(f"{config.data}: of {len(prompts)} questions none is kept by {curation.strategy} "
                        f"({_listed(counts)}): widen --keep, or take other data")
    _write(out, sets, kept, counts)
    return Curated(str(out), len(prompts), len(kept), len(new), _histogram(counts))


def _sampled(
    r1: AudioR1, config: RLConfig, sets: PromptSets, prompts: Sequence[Example], path: Path, watch: Watcher
) -> list[Rollout]:
    if not prompts:
        return []
    file = RolloutFile(path, config.rollouts, policy=_asked_of(r1, sets))
    total = len(prompts) * config.group_size
    sampling = sample_rollouts(r1.model, r1.tokenizer, prompts, sets.features, config.rollouts, file,
                               sets.judge)  # fmt: skip
    for _ in sampling:
        watch.counting("replies", len(file.found), total)
    return file.of(prompts, config.group_size)


def _asked_of(r1: AudioR1, sets: PromptSets) -> str:
    """Which questions are asked of which model: replies of others are never counted."""
    adapter = digest_of(Path(r1.adapter_path) / WEIGHTS_FILE)[:16] if r1.adapter_path else "no adapter"
    return f"{r1.name}, {adapter}, questions {next(iter(sets.digests.values()))[:16]}"


def _known(path: Path, prompts: Sequence[Example]) -> dict[str, list[Rollout]]:
    """Rollouts by prompt, of the prompts that are the same ones still."""
    lengths = {prompt.name: len(prompt) for prompt in prompts}
    groups: dict[str, list[Rollout]] = {}
    for rollout in read_rollouts(path):
        if lengths.get(rollout.prompt) == rollout.prompt_tokens and "correct" in rollout.scores:
            groups.setdefault(rollout.prompt, []).append(rollout)
    return groups


def _passed(group: Sequence[Rollout]) -> tuple[int, int]:
    """(right replies, replies)."""
    return sum(r.scores.get("correct", 0.0) == 1.0 for r in group), len(group)


def _write(
    out: Path, sets: PromptSets, kept: Sequence[Example], counts: Mapping[str, tuple[int, int]]
) -> None:
    names = {prompt.name for prompt in kept}
    lines = [{"prompt": name, "passed": passed, "samples": samples, "kept": name in names}
             for name, (passed, samples) in counts.items()]  # fmt: skip
    write_rows(out / COUNTS, lines)
    rows = [sets.judge.rows[prompt.name] for prompt in kept]
    write_rows(out / TRAIN, [row_as_json(row, passed=counts[row.name][0]) for row in rows])
    valid = [sets.judge.rows[prompt.name] for prompt in sets.splits.get("valid", [])]
    if valid:
        write_rows(out / "valid.jsonl", [row_as_json(row) for row in valid])


def _histogram(counts: Mapping[str, tuple[int, int]]) -> dict[int, int]:
    found: dict[int, int] = {}
    for passed, _ in counts.values():
        found[passed] = found.get(passed, 0) + 1
    return dict(sorted(found.items()))


def _listed(counts: Mapping[str, tuple[int, int]]) -> str:
    return ", ".join(f"{n} with {passed} right" for passed, n in _histogram(counts).items())


def read_counts(path: Path) -> list[dict[str, object]]:
    """The lines of pass_counts.jsonl."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
