"""PPO, GRPO and RLOO raise the reward on clips never trained on; PPO with shuffled rewards does not.

    python benchmarks/mgrd/rewards.py [--work FOLDER] [--seeds 0 1 2]

The cold start is bad on purpose: nano imitates notes that are true and conclusions of which 60 % are not.
What it hears is in the note, so the rewards alone can tell it how to conclude. Held out: other clips, half
of them asked in words that no training question has. About 16 minutes of one core.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from common import (
    COLD,
    HELD_OUT,
    TRAIN,
    Questions,
    RLCourse,
    ShuffledRewards,
    arguments,
    cold_start,
    curve,
    measure,
    noisy,
    reinforce,
    spread,
    tell,
    write_questions,
    write_results,
)

TASKS = ("register", "source", "loudness")
WRONG, COLD_STEPS, STEPS, RATE = 0.6, 45, 12, 2e-3
ARMS: dict[str, tuple[str, type[RLCourse]]] = {
    "ppo": ("ppo", RLCourse), "grpo": ("grpo", RLCourse), "rloo": ("rloo", RLCourse),
    "ppo, shuffled": ("ppo", ShuffledRewards),
}  # fmt: skip
SHOWN = ("reward", "accuracy", "reasoning", "entropy", "thinking_length", "update_kl", "norm")


def prepared(work: Path, seed: int) -> tuple[Path, Path]:
    """The folder of a seed's questions, and its cold start."""
    apart = seed * 10_000
    cold = write_questions(work / f"cold-{seed}", Questions(TASKS, 210, COLD + apart), noisy(WRONG))
    train = write_questions(work / f"train-{seed}", Questions(TASKS, 8 * STEPS, TRAIN + apart))
    return train, cold_start(work, cold, f"start-{seed}", seed, COLD_STEPS, learning_rate=3e-3)


def run(work: Path, seed: int) -> list[dict[str, Any]]:
    """The four arms of a seed, from one cold start."""
    held_out = write_questions(work / "held-out", Questions(TASKS, 72, HELD_OUT, held_out=0.5))
    train, start = prepared(work, seed)
    before = measure(work, start, held_out, seed)
    tell("seed", seed, "before", before)
    found = []
    for arm, (algo, course) in ARMS.items():
        adapter = reinforce(work, train, start, f"{arm.replace(', ', '-')}-{seed}", seed, STEPS, course,
                            algo=algo, learning_rate=RATE)  # fmt: skip
        after = measure(work, adapter, held_out, seed)
        tell("seed", seed, arm, after)
        found.append({"arm": arm, "seed": seed, "before": before, "after": after,
                      "curve": curve(adapter, *SHOWN)})  # fmt: skip
    return found


def summary(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Of each arm: rewards and accuracies over the seeds."""
    found: dict[str, Any] = {}
    for arm in ARMS:
        of_arm = [r for r in runs if r["arm"] == arm]
        found[arm] = {
            f"{name}_{when}": spread([r[when][name] for r in of_arm])
            for name in ("reward", "accuracy", "greedy_accuracy") for when in ("before", "after")
        }  # fmt: skip
    return found


def main() -> None:
    given, began = arguments(__doc__ or "", "mgrd-rewards"), time.monotonic()
    seeds = given.seeds or [0, 1, 2]
    runs = [found for seed in seeds for found in run(given.work, seed)]
    table = summary(runs)
    write_results("rewards", {
        "seeds": seeds,
        "settings": {"tasks": TASKS, "wrong_conclusions": WRONG, "cold_start_steps": COLD_STEPS, "steps": STEPS,
                     "learning_rate": RATE, "prompts": 8, "samples": 8, "held_out": 72, "measured_replies": 2},
        "summary": table, "runs": runs,
    }, began)  # fmt: skip
    print("| arm | reward before | after | accuracy before | after | greedy before | after |")
    print("|---|---|---|---|---|---|---|")
    for arm, row in table.items():
        cells = [f"{v['mean']:.2f} ({v['low']:.2f}-{v['high']:.2f})" for v in row.values()]
        print("|", " | ".join([arm, *cells]), "|")


if __name__ == "__main__":
    main()
