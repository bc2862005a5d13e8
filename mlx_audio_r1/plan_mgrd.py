"""How long does a round of MGRD take, does it fit, and what makes it practical?

The phases are in plan_mgrd_phases.py. Every number is an estimate: nobody has run this on Apple hardware.
The surprise: what takes longest is neither sampling nor distillation but the update of reinforcement
learning, so learning from the top layers, and from 4 of 16 samples, does more than any faster decoding.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from mlx_audio_r1 import rates
from mlx_audio_r1.config import ModelConfig
from mlx_audio_r1.footprint import Sizes, published, sizes_from_shapes
from mlx_audio_r1.plan import Machine, fewer_bits
from mlx_audio_r1.plan_mgrd_phases import SMALL, MgrdJob, On, Phase, phases_of
from mlx_audio_r1.plan_training import FEW_LAYERS
from mlx_audio_r1.rates import Chip

ESTIMATE = "Every number is an estimate: nothing of this was measured on Apple hardware."
DAY = 24.0  # hours: a round that takes longer gets advice

Change = Mapping[str, Any]  # fields of a job -> values


@dataclass(frozen=True)
class Choice:
    """Settings to take instead, and what a round takes then."""

    words: str
    hours: float
    bytes: int
    fits: bool


@dataclass(frozen=True)
class MgrdPlan:
    """A round, phase by phase."""

    title: str
    phases: tuple[Phase, ...]
    machine: Machine
    chip: Chip
    rounds: int
    choices: tuple[Choice, ...] = ()

    @property
    def hours(self) -> float:
        """Of one round."""
        return sum(phase.hours for phase in self.phases)

    @property
    def needed(self) -> int:
        return max(phase.bytes for phase in self.phases)

    @property
    def fits(self) -> bool:
        return self.needed <= self.machine.usable


def plan_mgrd(config: ModelConfig, sizes: Sizes, machine: Machine, chip: Chip, job: MgrdJob) -> MgrdPlan:
    """Plan a run. Never raises: ask `fits` and `hours`; `choices` is empty where a round takes up to a day."""
    on = On(config, sizes, machine, chip)
    plan = MgrdPlan(_title(job), phases_of(on, job), machine, chip, job.rounds)
    if plan.fits and plan.hours <= DAY:
        return plan
    return replace(plan, choices=tuple(_choices(on, job, plan)))


def _title(job: MgrdJob) -> str:
    rounds = "one round" if job.rounds == 1 else f"{job.rounds} rounds"
    return (f"{rounds} of MGRD: {job.prompts:,} x {job.samples} samples of {job.tokens:,} tokens to distil, "
            f"{job.rl_prompts:,} x {job.rl_samples} of {job.rl_tokens:,} to learn from")  # fmt: skip


# ---- what makes it practical


def _choices(on: On, job: MgrdJob, plan: MgrdPlan) -> Iterable[Choice]:
    """Each setting alone, then all together, then a smaller backbone. What makes nothing better is left out."""
    changes = _changes(on, job)
    tried = [(words, on, change) for words, change in changes.items()]
    if len(changes) > 1:
        words, change = _together(changes)
        tried.append((words, on, change))
    for words, other, change in [*tried, *_smaller(on, job)]:
        changed = replace(plan, phases=phases_of(other, replace(job, **change)))
        if changed.hours < plan.hours or changed.needed < plan.needed:
            yield Choice(words, changed.hours, changed.needed, changed.fits)


def _changes(on: On, job: MgrdJob) -> dict[str, Change]:
    """Options of the command -> fields of the job, the gentlest first."""
    layers = on.config.text.num_hidden_layers
    few = min(FEW_LAYERS, layers // 2)
    possible: tuple[tuple[bool, str, Change], ...] = (
        (not job.reuse, "--reuse", {"reuse": True}),
        (job.value == "lora", "--value group", {"value": "group"}),
        (job.judge == "self", "--judge 7b", {"judge": "7b"}),
        (job.learnt > _few(job), f"--train-samples {_few(job)}", {"train_samples": _few(job)}),
        ((job.num_layers or layers) > few > 0, f"--num-layers {few}", {"num_layers": few}),
        (bool(fewer_bits(on.config, on.sizes, job)), "--q-bits 4", {"bits": 4}),
    )
    return {words: change for applies, words, change in possible if applies}


def _smaller(on: On, job: MgrdJob) -> Iterable[tuple[str, On, Change]]:
    """The 8B backbone: as the job is, and with all that makes it quicker."""
    small = published(SMALL)
    if small is None or rates.token_values(small) >= rates.token_values(on.config):
        return
    below = replace(on, config=small, sizes=sizes_from_shapes(small))
    name, four = f"{SMALL} --q-bits 4", {"bits": 4}
    yield name, below, four
    words, change = _together(_changes(below, replace(job, bits=4)))
    yield f"{name} {words}", below, {**four, **change}


def _together(changes: Mapping[str, Change]) -> tuple[str, Change]:
    return " ".join(changes), {name: value for change in changes.values() for name, value in change.items()}


def _few(job: MgrdJob) -> int:
    """A quarter of a group's samples, two at least."""
    return min(job.rl_samples, max(2, job.rl_samples // 4))
