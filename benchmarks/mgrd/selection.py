"""Which questions to learn from, after section 6.2 of the paper: moderate ones, failed ones, or any.

    python benchmarks/mgrd/selection.py [--work FOLDER] [--seeds 0 1 2]

One cold start answers one pool of questions eight times each. `curate` keeps those it gets right 3 to 6 times
(moderate), never (failed), or all; from each an equal number, drawn by the seed, is learnt from for as many
steps. The pool has tasks whose conclusions the cold start learnt wrongly, one that nano masters, and two that
are often beyond it. About 8 minutes of one core.
"""

from __future__ import annotations

import json
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
    measure,
    reasoned,
    reinforce,
    rl_config,
    spread,
    tell,
    write_questions,
    write_results,
    wrong_answer,
)

from mlx_audio_r1 import load
from mlx_audio_r1.tasks.item import Item
from mlx_audio_r1.train.curate import ROLLOUTS as REPLIES
from mlx_audio_r1.train.curate import Curation, curate

MUDDLED, EASY, HARD = ("register", "loudness", "noisy"), ("source", "main"), ("compare", "longer", "contour")
POOL_TASKS = (*MUDDLED, "source", "order", "count")
WRONG, COLD_STEPS, POOL, STEPS, RATE = 0.6, 50, 264, 10, 2e-3
STRATEGIES = ("moderate", "failed", "all")
SHOWN = ("reward", "accuracy", "norm", "entropy")


def muddled(item: Item, rng: np.random.Generator) -> str:
    """Wrong conclusions, in some tasks alone."""
    wrong = item.groups["task"] in MUDDLED and rng.random() < WRONG
    return reasoned(item, wrong_answer(item, rng) if wrong else None)


def prepared(work: Path) -> tuple[Path, Path]:
    """The folder of the pool, and the cold start."""
    cold = write_questions(work / "cold-0", Questions((*MUDDLED, *EASY, *HARD), 240, COLD), muddled)
    pool = write_questions(work / "pool", Questions(POOL_TASKS, POOL, TRAIN, "hard"))
    return pool, cold_start(work, cold, "start-0", 0, COLD_STEPS, learning_rate=3e-3)


def curated(work: Path, pool: Path, start: Path, seed: int) -> tuple[dict[str, Path], dict[str, Any]]:
    """A folder of equally many questions for each strategy; sampled once."""
    r1 = load("nano", adapter_path=start)
    config = rl_config(work, pool, "curation", 0)
    folders = {strategy: work / f"{strategy}-{seed}" for strategy in STRATEGIES}
    known = work / "all-0" / REPLIES
    found = {s: curate(r1, config, folders[s], Curation(s), known if known.exists() else None)
             for s in ("all", "moderate", "failed")}  # fmt: skip
    least = min(c.kept for c in found.values())
    number = max(least // 4 * 4, min(least, 4))  # whole batches
    for folder in folders.values():
        _thin_out(folder / "train.jsonl", number, seed)
    return folders, {"questions": number, "right_of_8": found["all"].counts,
                     "kept": {s: c.kept for s, c in found.items()}}  # fmt: skip


def _thin_out(file: Path, number: int, seed: int) -> None:
    """Leave `number` rows, drawn by lot; sounds are named from here on by their whole path."""
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    chosen = np.random.default_rng(seed).permutation(len(rows))[:number]
    file.write_text("".join(json.dumps(rows[i]) + "\n" for i in sorted(chosen)))


def run(work: Path, seed: int) -> list[dict[str, Any]]:
    """The three strategies of a seed, from one cold start."""
    held_out = write_questions(work / "held-out", Questions(POOL_TASKS, 72, HELD_OUT, "hard"))
    pool, start = prepared(work)
    folders, told = curated(work, pool, start, seed)
    before = measure(work, start, held_out, 0)
    tell("seed", seed, "before", before, told)
    found = []
    for strategy, data in folders.items():
        adapter = reinforce(work, data, start, f"run-{strategy}-{seed}", seed, STEPS, batch_size=4,
                            learning_rate=RATE)  # fmt: skip
        after = measure(work, adapter, held_out, seed)
        tell("seed", seed, strategy, after)
        found.append({"strategy": strategy, "seed": seed, **told, "before": before, "after": after,
                      "curve": curve(adapter, *SHOWN)})  # fmt: skip
    return found


def summary(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Of each strategy: rewards and accuracies over the seeds."""
    found: dict[str, Any] = {}
    for strategy in STRATEGIES:
        of_strategy = [r for r in runs if r["strategy"] == strategy]
        found[strategy] = {
            f"{name}_{when}": spread([r[when][name] for r in of_strategy])
            for name in ("reward", "accuracy", "greedy_accuracy") for when in ("before", "after")
        }  # fmt: skip
    return found


def tell_results(seeds: list[int], runs: list[dict[str, Any]], began: float) -> None:
    """The file and the table of the seeds so far."""
    table = summary(runs)
    write_results("selection", {
        "seeds": seeds,
        "settings": {"muddled": MUDDLED, "cold_start_tasks": (*MUDDLED, *EASY, *HARD), "pool_tasks": POOL_TASKS,
                     "wrong_conclusions": WRONG, "cold_start_steps": COLD_STEPS, "pool": POOL, "steps": STEPS,
                     "algo": "ppo", "learning_rate": RATE, "prompts": 4, "samples": 8, "held_out": 72,
                     "difficulty": "hard", "measured_replies": 2},
        "summary": table, "runs": runs,
    }, began)  # fmt: skip
    print("| learnt from | reward before | after | accuracy before | after | greedy before | after |")
    print("|---|---|---|---|---|---|---|")
    for strategy, row in table.items():
        cells = [f"{v['mean']:.2f} ({v['low']:.2f}-{v['high']:.2f})" for v in row.values()]
        print("|", " | ".join([strategy, *cells]), "|", flush=True)


def main() -> None:
    given, began = arguments(__doc__ or "", "mgrd-selection"), time.monotonic()
    runs: list[dict[str, Any]] = []
    for seed in given.seeds or [0, 1, 2]:
        runs += run(given.work, seed)
        tell_results(sorted({r["seed"] for r in runs}), runs, began)


if __name__ == "__main__":
    main()
