"""The format reward, after section 6.1 of the paper: with it the reasoning stays; does it without?

    python benchmarks/mgrd/format_reward.py [--work FOLDER] [--seeds 0 1]

The cold start mixes reasoned replies with direct ones, as the paper's does with its audio rows. Its reasoning
does harm, as the paper says of audio models before it: 45 % of the reasoned replies it imitates conclude
wrongly, the direct ones are right. One arm is paid 0.8 for being right and 0.2 for reasoning (equation
7), the other for being right alone. The same again with a small cost of length in both, 0.15 for 64 tokens.
About 8 minutes of one core.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
from common import (
    COLD,
    HELD_OUT,
    TRAIN,
    Questions,
    arguments,
    cold_start,
    curve,
    direct,
    measure,
    reasoned,
    reinforce,
    spread,
    tell,
    write_questions,
    write_results,
    wrong_answer,
)

from mlx_audio_r1.tasks.item import Item

TASKS = ("register", "source", "loudness")
DIRECT, WRONG, COLD_STEPS, STEPS, RATE = 0.45, 0.45, 45, 12, 2e-3
PAID = {"eq. 7": {"correct": 0.8, "reasoning": 0.2}, "right alone": {"correct": 1.0, "reasoning": 0.0}}
LENGTH = {"length": "linear", "length_weight": 0.15, "length_limit": 64, "length_free": 0}  # 0.08 for a note
ARMS: dict[str, dict[str, Any]] = {
    **PAID, **{f"{name}, length costs": {**weights, **LENGTH} for name, weights in PAID.items()},
}  # fmt: skip
SHOWN = ("reward", "accuracy", "reasoning", "thinking_length", "length", "entropy")
MEASURED = ("reasoning", "thinking_length", "accuracy")


def now_and_then_direct(item: Item, rng: np.random.Generator) -> str:
    if rng.random() < DIRECT:
        return direct(item)
    return reasoned(item, wrong_answer(item, rng) if rng.random() < WRONG else None)


def prepared(work: Path, seed: int) -> tuple[Path, Path]:
    """The folder of a seed's questions, and its cold start."""
    apart = seed * 10_000
    cold = write_questions(work / f"cold-{seed}", Questions(TASKS, 210, COLD + apart), now_and_then_direct)
    train = write_questions(work / f"train-{seed}", Questions(TASKS, 8 * STEPS, TRAIN + apart))
    return train, cold_start(work, cold, f"start-{seed}", seed, COLD_STEPS, learning_rate=3e-3)


def run(work: Path, seed: int) -> list[dict[str, Any]]:
    """All arms of a seed, from one cold start; measured by the same reward, equation 7."""
    held_out = write_questions(work / "held-out", Questions(TASKS, 64, HELD_OUT))
    train, start = prepared(work, seed)
    before = measure(work, start, held_out, seed)
    tell("seed", seed, "before", before)
    found = []
    for number, (arm, weights) in enumerate(ARMS.items()):
        adapter = reinforce(work, train, start, f"arm-{number}-{seed}", seed, STEPS, reward=weights,
                            learning_rate=RATE)  # fmt: skip
        after = measure(work, adapter, held_out, seed)
        tell("seed", seed, arm, after)
        found.append({"arm": arm, "seed": seed, "before": before, "after": after,
                      "curve": curve(adapter, *SHOWN)})  # fmt: skip
    return found


def summary(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Of each arm: reasoning, its tokens and accuracy over the seeds."""
    return {arm: {f"{name}_{when}": spread([r[when][name] for r in runs if r["arm"] == arm])
                  for name in MEASURED for when in ("before", "after")} for arm in ARMS}  # fmt: skip


def main() -> None:
    given, began = arguments(__doc__ or "", "mgrd-format"), time.monotonic()
    seeds = given.seeds or [0, 1]
    runs = [found for seed in seeds for found in run(given.work, seed)]
    table = summary(runs)
    write_results("format_reward", {
        "seeds": seeds,
        "settings": {
            "tasks": TASKS, "direct_replies": DIRECT, "wrong_conclusions": WRONG, "steps": STEPS, "algo": "ppo",
            "cold_start_steps": COLD_STEPS, "learning_rate": RATE, "prompts": 8, "samples": 8,
            "held_out": 64, "measured_replies": 2, "cost_of_length": LENGTH,
        },
        "summary": table, "runs": runs,
    }, began)  # fmt: skip
    print("| paid | reasoning, before | after | its tokens, before | after | accuracy before | after |")
    print("|---|---|---|---|---|---|---|")
    for arm, row in table.items():
        cells = [f"{v['mean']:.2f} ({v['low']:.2f}-{v['high']:.2f})" for v in row.values()]
        print("|", " | ".join([arm, *cells]), "|")


if __name__ == "__main__":
    main()
