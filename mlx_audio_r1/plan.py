"""Will it fit? A plan: the parts of what is needed, what the machine offers, what would fit instead.

Plans of replies are made here, those of training in plan_training.py. Pure, no I/O: the formulas are in
footprint.py, the files and the machine in memory.py. The surprise:
advice is found by trying. Every setting that could be lowered is lowered, gentlest first, and planned
again, so what is advised does fit.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import product
from typing import Any

from mlx_audio_r1 import footprint
from mlx_audio_r1.config import ModelConfig
from mlx_audio_r1.errors import PlanError
from mlx_audio_r1.footprint import BLOCK, GB, GIB, Quantisable, Sizes, Workload

DEFAULT_CONTEXT = 16_384
MIN_LENGTH = 2_048  # a shorter context or sequence is no advice,
MIN_REPLY = 1_024  # nor one that leaves less than this for the reply
MAC_SIZES = (8, 16, 18, 24, 32, 36, 48, 64, 96, 128, 192, 256, 512)  # GiB that Macs are sold with


@dataclass(frozen=True)
class Machine:
    """What a machine offers. `raised` is the most a raised wired limit could give."""

    name: str
    memory: int
    usable: int
    raised: int
    why: str  # where `usable` comes from
    fused_attention: bool = True


@dataclass(frozen=True)
class Part:
    """One line of a plan."""

    name: str
    bytes: int
    note: str = ""
    estimate: bool = False


@dataclass(frozen=True)
class Alternative:
    """A setting that fits: the values to change, and what is needed then."""

    changes: tuple[tuple[str, Any], ...]
    needed: int


@dataclass(frozen=True)
class Reach:
    """The most tokens that fit, by setting; 0 is none."""

    caption: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, tuple[int, ...]], ...]


@dataclass(frozen=True)
class Plan:
    """What is needed, what is offered, and what would fit instead."""

    title: str
    parts: tuple[Part, ...]
    machine: Machine
    reach: Reach
    alternatives: tuple[Alternative, ...] = ()
    words: Mapping[str, str] = field(default_factory=lambda: PLAN_WORDS, repr=False, compare=False)

    @property
    def needed(self) -> int:
        return sum(part.bytes for part in self.parts)

    @property
    def fits(self) -> bool:
        return self.needed <= self.machine.usable

    @property
    def advice(self) -> list[str]:
        """One line for each thing that would make it fit, the nearest first; empty when it fits."""
        return advice_in_words(self, self.words)


# ---- machines


def mac(gib: int) -> Machine:
    """A Mac with `gib` GiB as it comes.

    macOS lets the GPU wire two thirds of the memory below 36 GiB (16 GiB give 10.67: exo#1672), three
    quarters from there on (gpustack#1375; 84 % was seen on 128 GiB: ds4#893). A rule, not a measurement.
    """
    memory = gib * GIB
    usable = memory * 2 // 3 if gib < 36 else memory * 3 // 4
    return Machine(f"a Mac with {gib} GiB", memory, usable, raised_limit(memory, usable),
                   f"{'two thirds' if gib < 36 else '75 %'} of {gib} GiB, the usual default")


def raised_limit(memory: int, usable: int) -> int:
    """What `iogpu.wired_limit_mb` may be raised to: all but 5 GiB or a twelfth, for macOS. An estimate."""
    return max(usable, memory - max(5 * GIB, memory // 12))


# ---- plans


def plan_inference(config: ModelConfig, sizes: Sizes, machine: Machine, work: Workload) -> Plan:
    """Plan replies. Never raises: ask `fits`, or hand the plan to `require_fit`."""
    replies = "one reply" if work.rows == 1 else f"{work.rows} replies"
    kv_choices = list(dict.fromkeys((None, *(kv for kv in (8, 4) if _kv_possible(config, work)), work.kv_bits)))
    counts = sorted({1, 4, 8, work.rows})

    def longest(rows: int, kv_bits: int | None) -> int:
        return largest_context(config, sizes, machine, replace(work, rows=rows, kv_bits=kv_bits))

    reach = Reach(
        "longest context",
        tuple(f"KV {kv or 8 * sizes.value_bytes} bits" for kv in kv_choices),
        tuple((f"{n:,} repl{'y' if n == 1 else 'ies'}", tuple(longest(n, kv) for kv in kv_choices))
              for n in counts),
    )
    return with_alternatives(
        Plan(f"{replies} of {work.context:,} tokens", inference_parts(config, sizes, machine, work),
             machine, reach),
        work, lambda job: inference_parts(config, sizes, machine, job),
        _inference_knobs(config, sizes, work), INFERENCE_CHANGES,
    )


def inference_parts(config: ModelConfig, sizes: Sizes, machine: Machine, work: Workload) -> tuple[Part, ...]:
    """Weights, cache and working memory of a workload."""
    width = sizes.value_bytes
    token = footprint.kv_bytes_per_token(config.text, work.kv_bits, work.kv_group_size, width)
    working = footprint.activation_bytes(config, sizes, work, machine.fused_attention)
    return (
        *weight_parts(config, sizes, work),
        Part(f"KV cache, {work.kv_bits or 8 * width} bits", footprint.kv_bytes(config.text, work, width),
             f"{token:,} bytes a token"),
        Part("working memory", working + footprint.slack_bytes(sizes),
             f"prompt of {work.prompt:,} tokens", estimate=True),
    )


def largest_context(config: ModelConfig, sizes: Sizes, machine: Machine, work: Workload) -> int:
    """The most tokens of context that fit with the rest of `work` as it is; 0 when none do."""

    def needed(length: int) -> int:
        shorter = replace(work, context=length, prompt=min(work.prompt, length))
        return total(inference_parts(config, sizes, machine, shorter))

    return longest_within(needed, machine.usable, config.context_length)


def require_fit(plan: Plan, words: Mapping[str, str] | None = None) -> None:
    """Raise PlanError, with the nearest setting that fits, unless `plan` fits.

    `words` gives the option that changes a setting, as in PLAN_WORDS, for another command than `plan`.
    """
    if plan.fits:
        return
    lines = advice_in_words(plan, words or plan.words)
    needs = f"{plan.title}: needs {gb(plan.needed)}, {plan.machine.name} offers {gb(plan.machine.usable)}"
    raise PlanError("; ".join([needs, *(f"try {line}" for line in lines[:1]), "--force goes on regardless"]))


def context_for(config: ModelConfig, asked: int | None) -> int:
    """The context to plan: what was asked, else 16,384 or all the model reads. Raises PlanError."""
    if asked is None:
        return min(DEFAULT_CONTEXT, config.context_length)
    if asked > config.context_length:
        raise PlanError(f"the model reads at most {config.context_length:,} tokens, not {asked:,}")
    return asked


# ---- what fits instead

INFERENCE_CHANGES = (  # one at a time; when none fits alone, the first two of these that do together
    (("context",), ("kv_bits",), ("prefill_step",), ("rows",), ("bits",)),
    (("rows", "context"), ("kv_bits", "context"), ("rows", "kv_bits", "context"), ("bits", "context"),
     ("kv_bits", "prefill_step"), ("rows", "bits"), ("rows", "bits", "context"),
     ("rows", "bits", "kv_bits", "context")),
)
PLAN_WORDS = {
    "context": "--context {}",
    "kv_bits": "--kv-bits {}",
    "prefill_step": "--prefill-step-size {}",
    "rows": "--batch {}",
    "bits": "--q-bits {}",
    "limit": "sudo sysctl iogpu.wired_limit_mb={}",
    "mac": "a Mac with {} GiB",
}

Knobs = Mapping[str, Sequence[Any]]  # field -> values to try, the gentlest first, each needing less


def _inference_knobs(config: ModelConfig, sizes: Sizes, work: Workload) -> Knobs:
    return {
        "context": shorter(work.context, max(MIN_LENGTH, work.prompt + MIN_REPLY)),
        "kv_bits": [b for b in (8, 4) if (work.kv_bits or 16) > b and _kv_possible(config, work)],
        "prefill_step": [n for n in (512, 128) if n < work.prefill_step],
        "rows": range(work.rows - 1, 0, -1),
        "bits": fewer_bits(config, sizes, work),
    }


def _coarse(values: Sequence[Any]) -> Sequence[Any]:
    """Of a range its least value alone: the last setting of a pair is the one that is tuned."""
    return values[-1:] if isinstance(values, range) else values


def fewer_bits(config: ModelConfig, sizes: Sizes, job: Quantisable) -> list[int]:
    return [4] if footprint.bits_per_value(config, footprint.stored_sizes(config, sizes, job)) > 5 else []


def shorter(length: int, least: int = MIN_LENGTH) -> Sequence[int]:
    return range((length - 1) // BLOCK * BLOCK, least - 1, -BLOCK)


def with_alternatives(
    plan: Plan,
    job: Any,
    parts: Callable[[Any], tuple[Part, ...]],
    knobs: Knobs,
    changes: tuple[tuple[tuple[str, ...], ...], ...],
) -> Plan:
    """The plan with what would fit instead, where it does not."""
    if plan.fits:
        return plan

    def settled(**values: Any) -> Alternative:
        return Alternative(tuple(values.items()), total(parts(replace(job, **values))))

    def found(names: tuple[str, ...]) -> Alternative | None:
        *before, last = names
        for values in product(*(_coarse(knobs[name]) for name in before)):
            first = dict(zip(before, values, strict=True))
            tried = [first | {last: value} for value in knobs[last]]
            at = bisect_left(tried, True, key=lambda v: settled(**v).needed <= plan.machine.usable)
            if at < len(tried):
                return settled(**tried[at])
        return None

    alone, together = ([a for a in map(found, sets) if a] for sets in changes)
    return replace(plan, alternatives=(*(alone or together[:2]), *_more_memory(plan.needed, plan.machine)))


def _more_memory(needed: int, machine: Machine) -> list[Alternative]:
    """Raising the limit where that is enough, and the smallest Mac on which nothing has to change."""
    found = []
    if needed <= machine.raised:
        limit = min(-(-needed // GIB) * 1024, machine.raised >> 20)  # whole GiB read better
        found.append(Alternative((("limit", limit),), needed))
    larger = [gib for gib in MAC_SIZES if gib * GIB > machine.memory and mac(gib).usable >= needed]
    return [*found, *(Alternative((("mac", gib),), needed) for gib in larger[:1])]


def advice_in_words(plan: Plan, words: Mapping[str, str]) -> list[str]:
    """The alternatives of a plan as one line each; a change without words is left out."""
    lines = []
    for alternative in plan.alternatives:
        if all(name in words for name, _ in alternative.changes):
            options = " ".join(words[name].format(value) for name, value in alternative.changes)
            lines.append(f"{options} ({gb(alternative.needed)})")
    return lines


def gb(size: float) -> str:
    """Bytes as people read them."""
    return f"{size / GB:,.2f} GB" if size >= 1e8 else f"{size / 1e6:,.2f} MB"


# ---- inside


def weight_parts(config: ModelConfig, sizes: Sizes, job: Quantisable) -> list[Part]:
    stored = footprint.stored_sizes(config, sizes, job)
    return [
        Part("decoder", stored.decoder, f"{footprint.bits_per_value(config, stored):.1f} bits a value"),
        Part("audio part", stored.audio, "never quantised"),
    ]


def _kv_possible(config: ModelConfig, work: Workload) -> bool:
    return config.text.head_dim % work.kv_group_size == 0


def total(parts: Iterable[Part]) -> int:
    return sum(part.bytes for part in parts)


def longest_within(needed: Callable[[int], int], offered: int, limit: int) -> int:
    """The largest multiple of BLOCK up to `limit` (or `limit` itself) with needed(n) <= offered."""
    lengths = [*range(BLOCK, limit, BLOCK), limit]
    fitting = bisect_right(lengths, offered, key=needed)
    return lengths[fitting - 1] if fitting else 0
