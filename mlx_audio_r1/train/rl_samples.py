"""Replies to the same validation prompts over a run, for the report: the lines of samples.jsonl."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from mlx_audio_r1.files import disk_errors
from mlx_audio_r1.train.examples import Example
from mlx_audio_r1.train.judging import Judging
from mlx_audio_r1.train.rollouts import Rollout
from mlx_audio_r1.train.samples import FILE, read_samples, spread, text_of


def write_samples(
    folder: Path, step: int, prompts: Sequence[Example], rollouts: Sequence[Rollout], judge: Judging, count: int
) -> None:
    """Add the replies of `step` to up to `count` prompts, spread over all, that are not there yet."""
    path = folder / FILE
    done = {(row["step"], row["where"]) for row in read_samples(path)}
    replies = {rollout.prompt: rollout for rollout in rollouts}
    for prompt in spread(prompts, count):
        if (step, prompt.name) not in done:
            line = json.dumps(_line(step, replies[prompt.name], judge), ensure_ascii=False)
            with disk_errors(path), path.open("a", encoding="utf-8") as file:
                file.write(line + "\n")


def _line(step: int, rollout: Rollout, judge: Judging) -> dict[str, object]:
    row = judge.rows[rollout.prompt]
    sounds = [str(part.source) for part in row.sounds if not isinstance(part.source, bytes)]
    return {"step": step, "where": rollout.prompt, "audio": sounds, "prompt": text_of(row),
            "expected": str(row.columns.get("solution", row.columns.get("answer", ""))),
            "think": rollout.thinking, "answer": rollout.answer, "reward": rollout.reward}  # fmt: skip
