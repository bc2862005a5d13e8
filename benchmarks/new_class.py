"""Does LoRA teach nano a sound that it does not know, and does it keep what it knew?

    python benchmarks/new_class.py [--work FOLDER] [--iters N] [--seed S]

The new sound is a siren: a tone that jumps between two pitches several times a second. The training data
are clips of it and, as replay, clips of the acoustic world with nano's own questions. Before and after:
sirens and other sounds of fresh seeds asked what they are, and the table of the old tasks. Everything
goes through the program: `audio-r1 train sft`.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from mlx_audio_r1 import load
from mlx_audio_r1.config import SAMPLE_RATE
from mlx_audio_r1.nano import table
from mlx_audio_r1.nano.vocabulary import Prompts
from mlx_audio_r1.tasks.acoustic import questions as q
from mlx_audio_r1.tasks.acoustic.world import make_clip

NEW, KINDS = "siren", ("single", "pair", "repeat", "sequence", "speech", "noise", "music")
WAYS = ("What kind of sound is it?", "What sound do you hear?", "What type of sound is this?",
        "Name the sound.", "Which sound is played?", "What makes this sound?")  # fmt: skip
TRAIN_SEED, TEST_SEED = 40_000_000, 50_000_000  # apart from those of nano's training and table
NEW_CLIPS, REPLAY_CLIPS, REPLAY_QUESTIONS, TEST_CLIPS = 240, 480, 3, 40


def siren(seed: int) -> tuple[np.ndarray, float]:
    """(samples,) at 16 kHz, 1.5 to 4 s, and the second at which it begins."""
    rng = np.random.default_rng(seed)
    start = round(float(rng.uniform(0.1, 0.6)), 1)
    sound = np.arange(int(rng.uniform(1.2, 3.0) * SAMPLE_RATE)) / SAMPLE_RATE
    low = rng.uniform(350, 800)
    high = low * rng.uniform(1.25, 1.7)
    hz = np.where((sound * rng.uniform(2.5, 5)).astype(int) % 2, high, low)
    phase = 2 * np.pi * np.cumsum(hz) / SAMPLE_RATE
    tone = np.sin(phase) + rng.uniform(0.1, 0.4) * np.sin(3 * phase)
    x = np.zeros(int((start + 0.4) * SAMPLE_RATE) + len(tone))
    x[int(start * SAMPLE_RATE) :][: len(tone)] = tone
    level, floor = (10 ** (rng.uniform(*decibels) / 20) for decibels in ((-32, -12), (-80, -60)))
    return (x * level + rng.standard_normal(len(x)) * floor).astype(np.float32), start


def new_rows(folder: Path, first: int, count: int) -> Iterator[dict[str, Any]]:
    for seed in range(first, first + count):
        x, start = siren(seed)
        path = folder / f"siren-{seed}.wav"
        soundfile.write(path, x, SAMPLE_RATE)
        article = f"It sounds like a {NEW}."
        yield row(path, WAYS[seed % len(WAYS)], f"1 {NEW} at {start:.1f} s. {article}", NEW)


def replay_rows(folder: Path, first: int, count: int) -> Iterator[dict[str, Any]]:
    for seed in range(first, first + count):
        clip = make_clip(seed, KINDS[seed % len(KINDS)])
        path = folder / f"world-{seed}.wav"
        soundfile.write(path, clip.waveform, SAMPLE_RATE)
        for k in range(REPLAY_QUESTIONS):
            question = q.make_question(clip.truth, seed * 10 + k)
            yield row(path, question.text, question.reasoning, question.answer)


def row(path: Path, text: str, reasoning: str, answer: str) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": f"<audio>{text}"},
                         {"role": "assistant", "content": f"<think>\n{reasoning}\n</think>\n{answer}"}],
            "audios": [str(path.resolve())]}  # fmt: skip


def write_data(folder: Path) -> None:
    (folder / "clips").mkdir(parents=True, exist_ok=True)
    for name, seed, new, old in (("train", TRAIN_SEED, NEW_CLIPS, REPLAY_CLIPS), ("valid", TEST_SEED, 12, 12)):
        rows = [*new_rows(folder / "clips", seed, new), *replay_rows(folder / "clips", seed, old)]
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))


def measured(adapter: Path | None, per_task: int) -> dict[str, float]:
    """Shares of right answers: sirens called so, other sounds not called so, the table's mean."""
    r1 = load(adapter_path=adapter)
    sirens = [said(r1, siren(TEST_SEED + 1_000 + i)[0], i) == NEW for i in range(TEST_CLIPS)]
    others = [make_clip(TEST_SEED + 2_000 + i, KINDS[i % 3]) for i in range(TEST_CLIPS)]
    kept = [said(r1, clip.waveform, i) != NEW for i, clip in enumerate(others)]
    rows = table.measure(r1.model, Prompts(r1.tokenizer), table.draw_items(per_task), columns=("thinking",))
    return {"sirens": float(np.mean(sirens)), "others not called siren": float(np.mean(kept)),
            "old tasks": table.mean_row(rows).thinking}  # fmt: skip


def said(r1: Any, waveform: np.ndarray, number: int) -> str:
    reply = r1.ask((waveform, SAMPLE_RATE), WAYS[number % len(WAYS)], temperature=0.0, max_tokens=80)
    return reply.answer.strip().rstrip(".").lower()


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--work", type=Path, default=Path("scratch/new-class"))
    parser.add_argument("--iters", type=int, default=240)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--per-task", type=int, default=16)
    parser.add_argument("--learning-rate", default="1e-3")
    given = parser.parse_args()
    data, adapter = given.work / "data", given.work / f"adapter-{given.seed}"
    write_data(data)
    before = measured(None, given.per_task)
    started = time.monotonic()
    subprocess.run(
        [sys.executable, "-c", "from mlx_audio_r1.cli.main import main; main()", "train", "sft",
         "--model", "nano", "--data", str(data), "--adapter-path", str(adapter), "--iters", str(given.iters),
         "--batch-size", "16", "--learning-rate", given.learning_rate, "--train-adaptor", "--seed",
         str(given.seed), "--no-grad-checkpoint", "--feature-cache", str(given.work / "features"),
         "--overwrite"],
        check=True)  # fmt: skip
    seconds = time.monotonic() - started
    after = measured(adapter, given.per_task)
    print(f"trained in {seconds:.0f} s")
    print("| share | before | after |\n|---|---|---|")
    for name in before:
        print(f"| {name} | {100 * before[name]:.0f} % | {100 * after[name]:.0f} % |")


if __name__ == "__main__":
    main()
