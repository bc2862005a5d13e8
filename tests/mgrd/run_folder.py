"""A run of MGRD as its runner leaves it on disk, small and with numbers of our choosing."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import soundfile

REJECTED = ("verdict", "format", "lexicon", "coherence", "evidence", "judge", "surplus")
WHY = {"verdict": "answered B, expected C", "lexicon": "acoustic terms 1, textual 4: 'the transcript says'",
       "evidence": "gain 0.01 nats a token, the least is 0.05", "kept": ""}
PHASES = [
    {"name": "0/sft", "state": "done", "done": 100, "total": 100, "seconds": 600, "note": ""},
    {"name": "1/sample", "state": "done", "done": 40, "total": 40, "seconds": 7_200, "note": ""},
    {"name": "1/filter", "state": "done", "done": 40, "total": 40, "seconds": 1_800, "note": ""},
    {"name": "1/rl", "state": "done", "done": 30, "total": 30, "seconds": 36_000, "note": "2 retries"},
    {"name": "2/sample", "state": "running", "done": 30, "total": 40, "seconds": 5_400, "note": ""},
    {"name": "2/filter", "state": "waiting", "done": 0, "total": 80, "seconds": 0, "note": ""},
    {"name": "2/rl", "state": "waiting", "done": 0, "total": 30, "seconds": 0, "note": ""},
]


def write_lines(path: Path, rows: list[dict]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def write_object(path: Path, value: dict) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value), encoding="utf-8")


def rollout(prompt: str, sample: int, thinking: str) -> dict:
    return {"step": 0, "prompt": prompt, "sample": sample, "prompt_tokens": 9, "ids": [1, 2],
            "logprobs": [-1.0, -2.0], "finish_reason": "stop", "thinking": thinking,
            "answer": f"answer of {prompt} {sample}", "thinking_tokens": 1, "reward": 1.0,
            "scores": {"correct": 1.0}}


def decision(prompt: str, sample: int, reason: str) -> dict:
    return {"prompt": prompt, "sample": sample, "kept": reason == "kept", "reason": reason,
            "why": WHY.get(reason, f"why it is {reason}"),
            "scores": {"correct": float(reason != "verdict"), "grounding": 0.9 if reason == "kept" else 0.5,
                       "gain": 0.125 if reason == "kept" else 0.02}}


def measures(number: int) -> dict:
    accuracy = {"thinking": 0.5 + 0.1 * number, "direct": 0.55 + 0.03 * number, "silence": 0.3}
    return {"n": 200, "accuracy": accuracy,
            "grounding": {"ratio": 0.4 + 0.2 * number, "density": 20.0 + 30 * number, "breadth": 0.2 * number},
            "gain": {"thinking": 0.01 + 0.05 * number, "answer": 0.2 + 0.2 * number},
            "length": 180.0 + 60 * number, "reasoning": 0.9 + 0.04 * number,
            "budgets": {"0": 0.3, "256": 0.5 + 0.1 * number, "64": 0.4 + 0.05 * number}}


def sampled(round_folder: Path, counts: dict[str, int]) -> None:
    """Samples and decisions: so many of each reason."""
    reasons = [reason for reason, count in counts.items() for _ in range(count)]
    names = [(f"train.jsonl:{at // 8 + 1}", at % 8) for at in range(len(reasons))]
    thoughts = [f"Thought of {reason} {at}. I listen: the pitch rises.\nThen it fades, a bright timbre. " * 4
                for at, reason in enumerate(reasons)]
    write_lines(round_folder / "rollouts.jsonl", [
        {"rollouts": 1, "step": 0}, *(rollout(*key, said) for key, said in zip(names, thoughts, strict=True))])
    write_lines(round_folder / "decisions.jsonl", [
        {"decisions": 1}, *(decision(*key, reason) for key, reason in zip(names, reasons, strict=True))])


def rl_rows(number: int, steps: int = 60) -> list[dict]:
    noise = np.random.default_rng(number).normal(size=steps + 1)
    fixed = {"reasoning": 1.0, "truncated": 0.05, "clipped": 0.0, "rollout_diff": 0.01, "rollout_kl": 1e-4}
    return [{"step": s, "loss": 0.01 * noise[s], "length": 200 + s + 9 * noise[s], "entropy": 0.8 - 0.005 * s,
             "reward": 0.3 + 0.1 * number + 0.3 * (1 - math.exp(-s / 20)) + 0.03 * noise[s],
             "accuracy": min(1.0, 0.2 + 0.1 * number + 0.005 * s), **fixed} for s in range(1, steps + 1)]


def pass_counts(counts: list[int]) -> list[dict]:
    """counts[n]: questions of which n samples were right."""
    return [{"prompt": f"train.jsonl:{n}-{i}", "passed": n, "samples": 8, "kept": 3 <= n <= 6}
            for n, count in enumerate(counts) for i in range(count)]


def a_run(folder: Path, rounds: int = 2) -> Path:
    """A run whose round `rounds` is over, of which the phases say something else."""
    folder.mkdir(parents=True, exist_ok=True)
    write_object(folder / "mgrd.json", {
        "name": "first", "model": "<nano>", "data": "sounds/", "rounds": 3, "samples": 8,
        "filter": {"gain": 0.05, "judge": None}, "mix": [{"file": "text.jsonl", "weight": 0.5}]})
    write_object(folder / "state.json", {"phases": PHASES})
    soundfile.write(folder / "clip.wav", np.sin(np.arange(16_000) * 0.1), 16_000)
    for number in range(rounds + 1):
        here = folder / "rounds" / str(number)
        write_object(here / "measures.json", measures(number))
        write_lines(here / "showcase.jsonl", [
            {"where": "valid.jsonl:1", "audio": ["clip.wav"], "prompt": "What moves?", "expected": "pitch",
             "think": f"Round {number} thought. " + "I hear how the tone glides up. " * 8 * (number + 1),
             "answer": "pitch" if number else "the text says nothing", "correct": float(number > 0)}])
        if number:
            rejected = {reason: 3 + at - number for at, reason in enumerate(REJECTED)}
            sampled(here, {"kept": 4 * number + 5, **rejected})
            write_lines(here / "curated" / "pass_counts.jsonl", pass_counts([9, 5, 4, 6, 7, 8, 5, 4, 12]))
            write_lines(here / "rl" / "metrics.jsonl", rl_rows(number))
    write_object(folder / "self_cognition" / "measures.json", {"stages": [
        {"name": "base", "errors": 67, "n": 1000, "rate": 0.067, "low": 0.053, "high": 0.084},
        {"name": "distilled", "errors": 26, "n": 1000, "rate": 0.026, "low": 0.018, "high": 0.038},
        {"name": "DPO", "errors": 0, "n": 1000, "rate": 0.0, "low": 0.0, "high": 0.004}]})
    return folder
