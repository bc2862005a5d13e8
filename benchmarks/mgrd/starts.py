"""The small cold starts that tests/train/test_rl_proofs.py begins with; made again where nano is.

    python benchmarks/mgrd/starts.py [--work FOLDER]

LoRA of rank 4 on the rows of rewards.py, seed 0; and on rows of which half are direct, all of them right.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import rewards
from common import COLD, Questions, arguments, cold_start, direct, noisy, reasoned, write_questions

from mlx_audio_r1.tasks.item import Item

TO = Path(__file__).parents[2] / "tests" / "data"


def half_direct(item: Item, rng: np.random.Generator) -> str:
    return direct(item) if rng.random() < 0.5 else reasoned(item)


STARTS = {"muddled": noisy(rewards.WRONG), "half-direct": half_direct}


def main() -> None:
    given = arguments(__doc__ or "", "mgrd-starts")
    for name, reply in STARTS.items():
        rows = write_questions(given.work / f"cold-{name}", Questions(rewards.TASKS, 210, COLD), reply)
        start = cold_start(given.work, rows, name, 0, rewards.COLD_STEPS, learning_rate=3e-3,
                           lora_parameters={"rank": 4})  # fmt: skip
        (TO / f"start-{name}").mkdir(parents=True, exist_ok=True)
        for file in ("adapters.safetensors", "adapter_config.json"):
            shutil.copyfile(start / file, TO / f"start-{name}" / file)


if __name__ == "__main__":
    main()
