"""Proofs 2 and 5: a model that reasons from text surrogates becomes grounded through rounds of MGRD.

    python benchmarks/mgrd/grounding.py

The cold start is made badly on purpose: of its replies to clips two thirds speak of a text that is not there
("The caption says falling.") and are right less than half the time, one third listens. From there
  mgrd        samples, filters, fine-tunes, curates, reinforces; twice
  filtered    the same without reinforcement learning
  unfiltered  fine-tunes on as many samples as `filtered` kept, drawn by lot from all of them; twice
Measured on clips and half of the time in words that no training question has: accuracy with thinking, without,
with silence in the place of the sound; grounding by words; the gain of the sound in nats a token; and, for
proof 5, accuracy when the reasoning is cut short after so many tokens.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from common import (
    COLD,
    HELD_OUT,
    TRAIN,
    Questions,
    arguments,
    reasoned,
    spread,
    tell,
    write_questions,
    write_results,
    wrong_answer,
)

from mlx_audio_r1.mgrd.config import MGRDConfig
from mlx_audio_r1.mgrd.run import run
from mlx_audio_r1.tasks.item import Item

TASKS = ("contour", "register", "louder", "source", "loudness", "first", "last")
SURROGATE, RIGHT = 2 / 3, 0.45  # share of the cold start's replies; how often they are right
WAYS = (
    "The caption says {}. So the answer is {}.",
    "According to the description it is {}.",
    "The transcript mentions {}, so it is {}.",
    "The text says {}.",
)
BUDGETS = "0,8,16,24,32,48,64"
NO_FILTER = {name: False for name in ("verdict", "lexicon", "coherence", "evidence")}
ARMS: Mapping[str, Mapping[str, Any]] = {
    "mgrd": {}, "filtered": {"rl": None}, "unfiltered": {"rl": None, "filter": NO_FILTER},
}  # fmt: skip


def surrogate(item: Item, rng: np.random.Generator) -> str:
    """A reply that speaks of a text, or one that listens."""
    if rng.random() >= SURROGATE:
        return reasoned(item)
    answer = str(item.ref["answer"]) if rng.random() < RIGHT else wrong_answer(item, rng)
    way = WAYS[int(rng.integers(len(WAYS)))]
    return f"<think>\n{way.format(*[answer] * way.count('{}'))}\n</think>\n{answer}"


def write_data(work: Path, seed: int) -> tuple[Path, Path]:
    """(questions with train.jsonl and valid.jsonl, replies of the cold start)."""
    cold = write_questions(work / "cold", Questions(TASKS, 420, COLD + 10_000 * seed), surrogate)
    data = write_questions(work / "questions", Questions(TASKS, 126, TRAIN + 10_000 * seed))
    held_out = write_questions(work / "held-out", Questions(TASKS, 98, HELD_OUT + 10_000 * seed, held_out=0.5))
    if not (data / "valid.jsonl").exists():
        rows = [json.loads(line) for line in (held_out / "train.jsonl").read_text().splitlines()]
        moved = [{**row, "audios": [str((held_out / n).resolve()) for n in row["audios"]]} for row in rows]
        (data / "valid.jsonl").write_text("".join(json.dumps(row) + "\n" for row in moved))
    return data, cold


def config(data: Path, cold: Path, seed: int, arm: str) -> MGRDConfig:
    told: dict[str, Any] = {
        "name": f"{arm}, seed {seed}", "model": "nano", "data": str(data.resolve()), "rounds": 2, "samples": 8,
        "seed": seed, "max_seq_length": 256, "max_rows": 64,
        "train": {"grad_checkpoint": False, "samples": 0, "learning_rate": 1e-3, "steps_per_eval": 10**6,
                  "keep_checkpoints": 1},
        "cold_start": {"data": str(cold.resolve()), "iters": 60, "batch_size": 16},
        "sft": {"epochs": 2, "batch_size": 16, "learning_rate": 5e-4},
        "rl": {"iters": 10, "batch_size": 8, "group_size": 8, "max_tokens_per_batch": 4096, "save_every": 5},
        "measure": {"questions": 98, "budgets": BUDGETS, "showcase": 7},
    }  # fmt: skip
    return replace(MGRDConfig(**told), **ARMS[arm])


def one_seed(work: Path, seed: int) -> dict[str, list[dict[str, Any]]]:
    """Arm -> what was measured after each round."""
    data, cold = write_data(work, seed)
    run(config(data, cold, seed, "mgrd"), work / "mgrd", until="0/measure")
    found = {}
    for arm in ARMS:
        told = config(data, cold, seed, arm)
        if arm == "unfiltered":
            told = replace(told, sft={**told.sft, "examples": kept_of(found["filtered"])})
        begin_as(work / "mgrd", work / arm)
        tell(f"seed {seed}: {arm}")
        run(told, work / arm)
        found[arm] = measures(work / arm)
    return found


def begin_as(first: Path, folder: Path) -> None:
    """The same cold start, without training it again."""
    if not (folder / "rounds").exists():
        shutil.copytree(first / "rounds" / "0", folder / "rounds" / "0")
        phases = json.loads((first / "state.json").read_text())["phases"]
        done = [phase for phase in phases if phase["name"].startswith("0/")]
        (folder / "state.json").write_text(json.dumps({"phases": done}))


def measures(folder: Path, rounds: int = 2) -> list[dict[str, Any]]:
    """By round; kept: samples that were learnt."""
    found = []
    for t in range(rounds + 1):
        where = folder / "rounds" / str(t)
        rows = where / "sft_data" / "train.jsonl"
        learnt = len(rows.read_text().splitlines()) if rows.exists() else 0
        found.append({**json.loads((where / "measures.json").read_text()), "learnt": learnt})
    return found


def kept_of(rounds: list[dict[str, Any]]) -> int:
    """Samples a round that an arm learnt."""
    return round(float(np.mean([found["learnt"] for found in rounds[1:]])))


COLUMNS = {  # of the table -> where in a measure
    "thinking": ("accuracy", "thinking"), "direct": ("accuracy", "direct"), "silence": ("accuracy", "silence"),
    "grounding": ("grounding", "ratio"), "gain": ("gain", "thinking"), "heard": ("gain", "grounded"),
}  # fmt: skip


def table(found: Mapping[int, Mapping[str, list[dict[str, Any]]]]) -> dict[str, Any]:
    """Arm -> round -> column -> mean and range over the seeds."""
    seeds = list(found.values())
    made: dict[str, Any] = {}
    for arm in ARMS:
        rounds = range(len(seeds[0][arm]))
        made[arm] = [_means([seed[arm][t] for seed in seeds]) for t in rounds]
    return made


def _means(measured: list[dict[str, Any]]) -> dict[str, Any]:
    """Of one arm and round, over the seeds."""
    columns = {name: spread([m[a].get(b, 0.0) for m in measured]) for name, (a, b) in COLUMNS.items()}
    budgets = {n: round(float(np.mean([m["budgets"][n] for m in measured])), 3) for n in measured[0]["budgets"]}
    return {**columns, "budgets": budgets}


def show(made: Mapping[str, Any]) -> None:
    print(f"{'arm':<11} round " + " ".join(f"{name:>9}" for name in COLUMNS) + "   by budget of thinking")
    for arm, rounds in made.items():
        for t, row in enumerate(rounds):
            cells = " ".join(f"{row[name]['mean']:>9.3f}" for name in COLUMNS)
            curve = " ".join(f"{n}:{value:.2f}" for n, value in row["budgets"].items())
            print(f"{arm:<11} {t:>5} {cells}   {curve}")


def main() -> None:
    told, began = arguments(__doc__ or "", "mgrd-grounding"), time.monotonic()
    seeds = told.seeds or [0, 1]
    found = {seed: one_seed(told.work / f"seed-{seed}", seed) for seed in seeds}
    made = table(found)
    show(made)
    write_results("grounding", {"seeds": seeds, "tasks": TASKS, "surrogate": SURROGATE, "right": RIGHT,
                                "means": made, "by_seed": found}, began)  # fmt: skip


if __name__ == "__main__":
    main()
