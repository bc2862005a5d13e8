"""What the proofs of reinforcement learning share: questions, cold starts, runs, measurements, tables.

Everything happens on the embedded nano model, whose world gives clips of known truth without end. A proof
keeps its data and runs in a work folder and goes on there after a kill; its numbers go into results/.
"""

from __future__ import annotations

import argparse
import datetime
import json
import platform
import re
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from mlx_audio_r1 import load
from mlx_audio_r1.tasks.acoustic_world import answers_of, world_item
from mlx_audio_r1.tasks.item import Item
from mlx_audio_r1.tasks.world_rows import item_row, write_wav
from mlx_audio_r1.train import metrics
from mlx_audio_r1.train.config import resolve
from mlx_audio_r1.train.prompt_sets import gather_prompts
from mlx_audio_r1.train.ranks import Ranks
from mlx_audio_r1.train.recipes import RECIPES
from mlx_audio_r1.train.rl import RLCourse
from mlx_audio_r1.train.rl_config import RLConfig
from mlx_audio_r1.train.rollouts import Rollout, RolloutFile, sample_rollouts
from mlx_audio_r1.train.run import fine_tune
from mlx_audio_r1.train.tallies import means, tally

RESULTS = Path(__file__).parent / "results"
TRAIN, COLD, HELD_OUT = 60_000_000, 70_000_000, 80_000_000  # seeds of clips: three sets that share none
Reply = Callable[[Item, np.random.Generator], str]
SHARED = {"model": "nano", "max_seq_length": 256, "grad_checkpoint": False, "samples": 0, "save_every": 5,
          "optimizer": "adamw", "steps_per_eval": 10**6, "keep_checkpoints": 1}  # fmt: skip


@dataclass(frozen=True)
class Questions:
    """count: free questions, tasks in turn, about clips of the seeds from `first` on. held_out: the share
    that is asked in words no training question has."""

    tasks: tuple[str, ...]
    count: int
    first: int
    difficulty: str | None = None
    held_out: float = 0.0

    def items(self) -> Iterator[Item]:
        usual = round(self.count * (1 - self.held_out))
        for number in range(self.count):
            yield world_item(self.first + number, self.tasks[number % len(self.tasks)], self.difficulty,
                             choice=False, held_out=number >= usual)  # fmt: skip


# ---- data


def write_questions(folder: Path, questions: Questions, reply: Reply | None = None) -> Path:
    """folder/train.jsonl and its clips, unless they are there. reply: makes rows to imitate of them."""
    if (folder / "train.jsonl").exists():
        return folder
    (folder / "clips").mkdir(parents=True, exist_ok=True)
    lines = []
    for number, item in enumerate(questions.items()):
        sound = f"clips/{number:05d}.wav"
        write_wav(folder / sound, np.asarray(item.sounds[0].source))
        row = item_row(item, "rl", sound)
        if reply:
            said = reply(item, np.random.default_rng([questions.first, number]))
            row["messages"].append({"role": "assistant", "content": said})
        lines.append(json.dumps(row) + "\n")
    (folder / "train.jsonl").write_text("".join(lines))
    return folder


def reasoned(item: Item, answer: str | None = None) -> str:
    """The reply of one who listened; with another `answer` the note stays true and the conclusion is wrong."""
    thinking, gold = str(item.ref["thinking"]), str(item.ref["answer"])
    note, dot, conclusion = thinking.partition(". ")
    if answer is not None:
        thinking, gold = note + dot + conclusion.replace(gold, answer), answer
    return f"<think>\n{thinking}\n</think>\n{gold}"


def direct(item: Item, answer: str | None = None) -> str:
    """The answer behind an empty reasoning, as the paper's cold start has it."""
    return f"<think>\n\n</think>\n{answer or item.ref['answer']}"


def wrong_answer(item: Item, rng: np.random.Generator) -> str:
    """Another answer of the same task."""
    return str(rng.choice([a for a in answers_of(item.groups["task"]) if a != item.ref["answer"]]))


def noisy(share: float) -> Reply:
    """Reasoned replies, of which a share concludes what is not true."""

    def reply(item: Item, rng: np.random.Generator) -> str:
        return reasoned(item, wrong_answer(item, rng) if rng.random() < share else None)

    return reply


# ---- runs


def cold_start(work: Path, data: Path, name: str, seed: int, iters: int, **given: Any) -> Path:
    """The adapter of a short SFT on `data`."""
    told = {**SHARED, "data": str(data), "adapter_path": str(work / name), "iters": iters, "batch_size": 16,
            "learning_rate": 1e-3, "seed": seed, "feature_cache": str(work / "features"), **given}  # fmt: skip
    return Path(fine_tune(resolve("sft", told), RECIPES["sft"]).adapter)


def reinforce(
    work: Path, data: Path, start: Path, name: str, seed: int, iters: int,
    course: Callable[..., RLCourse] = RLCourse, **given: Any,
) -> Path:  # fmt: skip
    """The adapter that reinforcement learning makes of `start`."""
    told = {"iters": iters, "resume_adapter_file": str(start / "adapters.safetensors"), **given}
    config = rl_config(work, data, name, seed, **told)
    return Path(fine_tune(config, course).adapter)


def rl_config(work: Path, data: Path, name: str, seed: int, **given: Any) -> RLConfig:
    told = {**SHARED, "data": str(data), "adapter_path": str(work / name), "batch_size": 8, "group_size": 8,
            "max_tokens_per_batch": 4096, "learning_rate": 1e-3, "seed": seed,
            "feature_cache": str(work / "features"), "max_rows": 64, **given}  # fmt: skip
    return resolve("rl", told, kind=RLConfig)


class ShuffledRewards(RLCourse):
    """The control: every reward of a batch goes to a reply drawn by lot, so that nothing can be learnt."""

    def _drawn(self, number: int) -> tuple[list[Any], list[Rollout]]:
        prompts, rollouts = super()._drawn(number)
        lot = np.random.default_rng([self._config.seed, number]).permutation(len(rollouts))
        return prompts, [replace(r, reward=rollouts[i].reward) for r, i in zip(rollouts, lot, strict=True)]


def curve(run: Path, *names: str) -> dict[str, list[float]]:
    """What metrics.jsonl says of each step's rollouts; `names` of its columns."""
    rows = {row["step"]: row for row in metrics.read(run) if "reward" in row}
    return {"step": [int(step) for step in rows],
            **{name: [round(float(row[name]), 4) for row in rows.values()] for name in names}}  # fmt: skip


# ---- measurement


def measure(
    work: Path, adapter: Path, data: Path, seed: int, replies: int = 2, **given: Any
) -> dict[str, float]:
    """Replies at temperature 1 to the questions of `data`, and greedy ones: reward by eq. 7, accuracy."""
    r1 = load("nano", adapter_path=adapter)
    name = f"measured/{adapter.name}-{data.name}-{seed}"
    config = rl_config(work, data, name, seed, group_size=replies, **given)
    sets = gather_prompts(r1, config, Ranks(), lambda *_: None)
    prompts = sets.splits["train"]
    found: dict[str, float] = {}
    for kind, how in (("", config.rollouts), ("greedy_", replace(config.rollouts, samples=1, temperature=0.0))):
        file = RolloutFile(config.folder / f"{kind}rollouts.jsonl", how)
        for _ in sample_rollouts(r1.model, r1.tokenizer, prompts, sets.features, how, file, sets.judge):
            pass
        rollouts = file.of(prompts, how.samples)
        found |= means(tally(rollouts), kind)
        if not kind:
            found |= by_reasoning(rollouts)
    return {key: round(value, 4) for key, value in found.items()}


def by_reasoning(rollouts: Sequence[Rollout]) -> dict[str, float]:
    """Accuracy of the replies that reason and of those that do not."""
    groups = {"reasoned_accuracy": 1.0, "direct_accuracy": 0.0}
    right = {name: [r.scores["correct"] for r in rollouts if r.scores["reasoning"] == has and not r.truncated]
             for name, has in groups.items()}  # fmt: skip
    return {name: float(np.mean(values)) for name, values in right.items() if values}


# ---- results


def arguments(doc: str, work: str) -> argparse.Namespace:
    """--work and --seeds."""
    parser = argparse.ArgumentParser(description=doc.splitlines()[0])
    parser.add_argument("--work", type=Path, default=Path("scratch") / work, help="data and runs; kept")
    parser.add_argument("--seeds", type=int, nargs="+", default=None)
    return parser.parse_args()


def write_results(name: str, found: Mapping[str, Any], began: float) -> None:
    """results/<name>.json: with it, what it was run with. The minutes are of this process; what it found done
    is not in them."""
    head = {
        "command": " ".join(["python", f"benchmarks/mgrd/{name}.py", *sys.argv[1:]]),
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "minutes": round((time.monotonic() - began) / 60, 1),
        "cpu_minutes": round(time.process_time() / 60, 1),
        "versions": {"python": platform.python_version(),
                     **{p: version(p) for p in ("mlx", "mlx-lm", "numpy", "mlx-audio-r1")}},
        "machine": f"{platform.machine()}, CPU",
    }  # fmt: skip
    RESULTS.mkdir(exist_ok=True)
    text = json.dumps({**head, **found}, indent=1)
    (RESULTS / f"{name}.json").write_text(_short_lists(text) + "\n")


def _short_lists(text: str) -> str:
    """Lists of numbers on one line each."""
    return re.sub(r"\[[^\[\]{}\"]*\]", lambda m: " ".join(m.group().split()), text)


def spread(values: Sequence[float]) -> dict[str, float]:
    """Mean, and lowest and highest, of the seeds."""
    return {"mean": round(float(np.mean(values)), 4), "low": min(values), "high": max(values)}


def tell(*words: object) -> None:
    """A line of progress, at once."""
    print(time.strftime("%H:%M:%S"), *words, file=sys.stderr, flush=True)
