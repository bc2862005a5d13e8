"""`train rl`: sample from the policy, judge, credit, learn; again.

A batch of rollouts is drawn when its first step begins, from the policy as it is then, into
rollouts/0000012.jsonl (of the thirteenth batch). What the steps of a batch share and cannot be computed
again, because the policy moves between them, lies beside it. The surprise: this is a course of batches like
any other; the loop, checkpoints and resuming are those of SFT.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import mlx.core as mx
import numpy as np

from mlx_audio_r1.adapters import adapter_arrays
from mlx_audio_r1.errors import TrainingError
from mlx_audio_r1.models.step_audio_r1 import Model
from mlx_audio_r1.session import AudioR1
from mlx_audio_r1.train import kept_arrays
from mlx_audio_r1.train.advantages import informative
from mlx_audio_r1.train.batch import Batch
from mlx_audio_r1.train.course import Counted
from mlx_audio_r1.train.critic_state import CriticState
from mlx_audio_r1.train.examples import Example
from mlx_audio_r1.train.experience import Experience, as_experiences, credited
from mlx_audio_r1.train.forward import ForwardOptions
from mlx_audio_r1.train.policy_losses import policy_loss
from mlx_audio_r1.train.prompt_order import batch_of, more_for
from mlx_audio_r1.train.prompt_sets import gather_prompts
from mlx_audio_r1.train.ranks import Ranks
from mlx_audio_r1.train.rl_config import RLConfig
from mlx_audio_r1.train.rl_samples import write_samples
from mlx_audio_r1.train.rollout_batch import micro_batches, rollout_batch, with_logprobs
from mlx_audio_r1.train.rollouts import Rollout, RolloutConfig, RolloutFile, read_rollouts, sample_rollouts
from mlx_audio_r1.train.state import Checkpoints
from mlx_audio_r1.train.tallies import means, tally
from mlx_audio_r1.train.watch import Watcher
from mlx_audio_r1.train.wearing import wearing

FOLDER = "rollouts"


class RLCourse:
    """A `course.Course`. Raises TrainingError for what several ranks cannot do."""

    may_be_empty = True  # every group may agree, or every reply be cut off

    def __init__(self, r1: AudioR1, config: RLConfig, ranks: Ranks, watch: Watcher):
        if ranks.size > 1 and config.critic:
            raise TrainingError(f"value {config.value} learns on one process: take value group with mlx.launch")
        self._r1, self._config, self._ranks, self._watch = r1, config, ranks, watch
        self._sets = gather_prompts(r1, config, ranks, watch.counting)
        self.digests, self.said = self._sets.digests, self._sets.said
        drawn = min(config.batch_size, len(self._sets.splits["train"]))
        if drawn < ranks.size:
            raise TrainingError(f"{drawn} prompts a step for {ranks.size} processes: raise --batch-size")
        self._algorithm = config.algorithm
        self._options = ForwardOptions(config.grad_checkpoint, config.attention)  # type: ignore[arg-type]
        self._start: Mapping[str, mx.array] = {}
        self._batch = -1  # the batch of rollouts that `_experiences` are of
        self._experiences: list[Experience] = []
        self._measured: Mapping[str, float] = {}
        self._tokens = 0  # sampled by this process
        self.beside: CriticState | None = None

    # ---- what a run asks for

    def begin(self) -> None:
        """The reference is the policy as it is now; the critic begins as it, and learns from old rollouts."""
        if self._algorithm.loss.kl:
            self._start = adapter_arrays(self._r1.model)
        if self._config.critic:
            self.beside = CriticState(self._r1.model, self._config, self._options)
            if not Checkpoints(self._config.folder).all():
                self._warm_up(self.beside)

    def batches(self, step: int) -> Sequence[Batch]:
        """The micro-batches of a step; a rank that has nothing to learn gets one without weight."""
        number, update = divmod(step, self._config.updates)
        if number != self._batch or update == 0:
            self._open(number, first=update == 0)
        found = self._experiences
        parts = micro_batches([len(e) for e in found], self._config.micro_tokens)
        return [rollout_batch([found[i] for i in part], self._sets.features) for part in parts]

    def loss(self, model: Model, batch: Batch) -> Counted:
        total, count, sums = policy_loss(model, batch, self._algorithm.loss, self._options)
        tokens = (batch.samples >= 0).sum() * (count > 0)  # none of what is without weight
        return total, count, {**sums, "tokens": tokens.astype(mx.float32)}

    def measured(self) -> Mapping[str, float]:
        return self._measured

    def evaluate(self, step: int) -> Mapping[str, float]:
        """valid.jsonl answered greedily: accuracy and reward, and replies for the report."""
        config = self._config
        prompts = self._sets.splits.get("valid", [])
        if config.val_batches >= 0:
            prompts = prompts[: config.val_batches * config.batch_size]
        if not prompts:
            return {}
        measuring = replace(config.rollouts, samples=1, temperature=0.0)
        share = list(prompts[self._ranks.rank :: self._ranks.size])
        file = self._file(f"valid-{step:07d}", step, measuring)
        rollouts = self._sampled(share, file, measuring, "validation")
        if self._ranks.first:
            write_samples(config.folder, step, share, rollouts, self._sets.judge, config.samples)
        return means(self._total(tally(rollouts)), "val_")

    # ---- a batch of rollouts

    def _open(self, number: int, first: bool) -> None:
        """Rollouts and what they teach. first: the policy is still the one that samples them."""
        began, before = time.monotonic(), self._tokens
        prompts, rollouts = self._drawn(number)
        seconds = time.monotonic() - began
        path = self._path(number).with_suffix(".safetensors")
        if first:
            experiences, learnt = self._credited(prompts, rollouts)
            measured = means(self._total(tally(rollouts, self._tokens - before, seconds))) | learnt
            if self._config.updates > 1:
                kept_arrays.write(path, experiences, measured)
        else:
            experiences, measured = kept_arrays.read(path, as_experiences(prompts, rollouts))
        self._batch, self._experiences = number, experiences or self._weightless(prompts, rollouts)
        self._measured = measured

    def _drawn(self, number: int) -> tuple[list[Example], list[Rollout]]:
        """The prompts of a batch and the replies to them; with dynamic sampling, until enough disagree."""
        config, train = self._config, self._sets.splits["train"]
        file = self._file(f"{number:07d}", number, config.rollouts)
        size, rank, world = config.batch_size, self._ranks.rank, self._ranks.size
        new = batch_of(train, config.seed, number, size)[rank::world]
        wanted, tried = len(new), list(new)
        rollouts = self._sampled(new, file, config.rollouts, "rollouts")
        for _ in range(config.resample if self._algorithm.drop_agreeing else 0):
            if len(_varied(rollouts)) >= wanted:
                break
            new = more_for(train[rank::world], config.seed, number, tried, wanted)
            tried += new
            rollouts += self._sampled(new, file, config.rollouts, "more rollouts")
        return tried, rollouts

    def _sampled(
        self, prompts: Sequence[Example], file: RolloutFile, config: RolloutConfig, what: str
    ) -> list[Rollout]:
        total, done = len(prompts) * config.samples, 0
        r1, sets = self._r1, self._sets
        sampling = sample_rollouts(r1.model, r1.tokenizer, prompts, sets.features, config, file, sets.judge)
        for done, rollout in enumerate(sampling, start=1):
            self._tokens += len(rollout)
            self._watch.counting(what, done, total)
        return file.of(prompts, config.samples)

    def _credited(
        self, prompts: Sequence[Example], rollouts: Sequence[Rollout]
    ) -> tuple[list[Experience], dict[str, float]]:
        """Experiences with all that the loss wants to know, and how the critic's learning went."""
        found = self._with_values(prompts, rollouts)
        learnt = self._teach_critic(found)
        model, features, tokens = self._r1.model, self._sets.features, self._config.micro_tokens
        if found and self._config.updates > 1:
            found = with_logprobs(model, found, features, tokens, "logp_old", self._options)
        if found and self._algorithm.loss.kl:
            with wearing(model, self._start, "the adapter the run began with"):
                found = with_logprobs(model, found, features, tokens, "logp_reference", self._options)
        return found, learnt

    def _with_values(self, prompts: Sequence[Example], rollouts: Sequence[Rollout]) -> list[Experience]:
        config, values = self._config, None
        if self.beside:
            values = self.beside.values(as_experiences(prompts, rollouts), self._sets.features)
        return credited(prompts, rollouts, self._algorithm, values, gamma=config.gamma, lam=config.lam,
                        per_prompt=config.train_samples, add=self._added)  # fmt: skip

    def _teach_critic(self, experiences: Sequence[Experience]) -> dict[str, float]:
        """How good the values were that the advantages were made of; then the critic learns."""
        learnt: dict[str, float] = {}
        for _ in range(self._config.critic_updates if self.beside and experiences else 0):
            now = self.beside.learn(experiences, self._sets.features) if self.beside else {}
            learnt = learnt or now
        return learnt

    def _weightless(self, prompts: Sequence[Example], rollouts: Sequence[Rollout]) -> list[Experience]:
        """What a rank with nothing to learn takes, so that all ranks add up the same sums; alone, nothing."""
        if self._ranks.size == 1:
            return []
        one = as_experiences(prompts, rollouts)[:1]
        return [e.with_tokens(weights=np.zeros(len(e.rollout)), **_nothing(e)) for e in one]

    # ---- small things

    def _warm_up(self, critic: CriticState) -> None:
        """Values learnt from judged rollouts of the same prompts, whose returns are known. An update takes as
        many as a step has, more where one time around them needs more."""
        config = self._config
        if not config.critic_rollouts or not config.critic_warmup:
            return
        prompts = [prompt for split in self._sets.splits.values() for prompt in split]
        lengths = {prompt.name: len(prompt) for prompt in prompts}
        known = [r for r in read_rollouts(Path(config.critic_rollouts))
                 if lengths.get(r.prompt) == r.prompt_tokens and r.reward is not None]  # fmt: skip
        if not known:
            raise TrainingError(f"{config.critic_rollouts}: no judged rollout of a prompt of this data")
        experiences = as_experiences(prompts, known)
        size = max(-(-len(known) // config.critic_warmup), config.batch_size * config.group_size)
        for number in range(config.critic_warmup):
            critic.learn(batch_of(experiences, config.seed, number, min(size, len(known))), self._sets.features)
            self._watch.counting("value function", number + 1, config.critic_warmup)

    def _file(self, name: str, step: int, config: RolloutConfig) -> RolloutFile:
        return RolloutFile(self._path(name), config, step)

    def _path(self, name: str | int) -> Path:
        name = f"{name:07d}" if isinstance(name, int) else name
        own = f".rank{self._ranks.rank}" if self._ranks.rank else ""
        return self._config.folder / FOLDER / f"{name}{own}.jsonl"

    def _total(self, sums: dict[str, float]) -> Mapping[str, float]:
        """Over the ranks; they sample side by side, so the longest time is all of it."""
        seconds = self._ranks.most(sums.pop("seconds"))
        return {name: float(value) for name, value in {**self._ranks.add(sums), "seconds": seconds}.items()}

    def _added(self, sums: np.ndarray) -> np.ndarray:
        return sums if self._ranks.size == 1 else np.array(self._ranks.add(mx.array(sums)), np.float64)


def _varied(rollouts: Sequence[Rollout]) -> set[str]:
    """Prompts whose replies have different rewards."""
    kept = informative([r.reward or 0.0 for r in rollouts], [r.prompt for r in rollouts])
    return {rollouts[i].prompt for i in kept}


def _nothing(experience: Experience) -> dict[str, np.ndarray]:
    zeros = np.zeros(len(experience.rollout))
    return {name: zeros for name in ("advantages", "logp_old", "logp_reference")}

