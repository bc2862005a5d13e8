"""The last phases of a run (the paper's section 6.3): a model that says it cannot hear unlearns it.

    self/sample    K replies to questions such as "Can you hear this?"
    self/sft       learn those that hear (self-distillation)
    self/dpo       one of them against a denial
    self/measure   the rate of denials before, after the one, after the other, in words nobody trained on
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mlx_audio_r1.errors import DataError, TrainingError
from mlx_audio_r1.files import write_file
from mlx_audio_r1.mgrd.self_cognition import JudgedReply, distilled, judged_reply, preferred
from mlx_audio_r1.tasks.self_cognition import HELD_OUT, PERCEPTION_QUESTIONS, judge_denial
from mlx_audio_r1.tasks.statistics import wilson
from mlx_audio_r1.train.examples import Example
from mlx_audio_r1.train.judging import Judging
from mlx_audio_r1.train.rollouts import Rollout, read_rollouts
from mlx_audio_r1.train.row_forms import MARK, Row
from mlx_audio_r1.train.row_writer import row_as_json, write_rows
from mlx_audio_r1.train.rows import find_splits, read_rows

if TYPE_CHECKING:
    from mlx_audio_r1.mgrd.work import Work

FOLDER, MEASURES = "self_cognition", "measures.json"
STAGES = (("base", None), ("after distillation", "sft"), ("after DPO", "dpo"))


@dataclass(frozen=True)
class SelfCognition:
    """questions: asked to learn from, each about another clip; samples: replies to each. measured: questions
    of the rate. sft, dpo: keys of the two trainings."""

    questions: int = 256
    samples: int = 8
    measured: int = 256
    sft: dict[str, Any] = field(default_factory=dict)
    dpo: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if min(self.questions, self.samples, self.measured) < 1:
            raise TrainingError("self_cognition: questions, samples and measured from 1 up")


def sample_replies(work: Work) -> None:
    """Ask the model of the last round whether and what it hears."""
    settings, folder = work.config.self_knowledge, work.folder / FOLDER
    _ask(work, folder / "asked", settings.questions, "train", held_out=False)
    _sampled(work, folder / "asked", work.policy(work.config.rounds), settings.samples)


def distil_hearing(work: Work) -> None:
    """SFT on the replies that hear."""
    folder = work.folder / FOLDER
    rows = distilled(_judged(folder / "asked"))
    if not rows:
        raise DataError(f"{folder}: every sampled reply denies hearing, so none can be learnt; use templates")
    write_rows(folder / "sft_data" / "train.jsonl", rows)
    start, keys = work.policy(work.config.rounds), work.config.self_knowledge.sft
    work.train_epochs("sft", folder / "sft_data", folder / "sft", start, keys)


def prefer_hearing(work: Work) -> None:
    """DPO: a reply that hears against one that denies it."""
    folder = work.folder / FOLDER
    rows = preferred(_judged(folder / "asked"), seed=work.config.seed)
    write_rows(folder / "dpo_data" / "train.jsonl", rows)
    keys = work.config.self_knowledge.dpo
    work.train_epochs("dpo", folder / "dpo_data", folder / "dpo", folder / "sft", keys)


def measure_hearing(work: Work) -> None:
    """The rate of denials at each stage, with Wilson's 95 % interval: a sample a question at temperature 1."""
    settings, folder = work.config.self_knowledge, work.folder / FOLDER
    stages = []
    for name, adapter in STAGES:
        where = folder / "measured" / (adapter or "base")
        _ask(work, where, settings.measured, "valid", held_out=True)
        found = _sampled(work, where, folder / adapter if adapter else work.policy(work.config.rounds), 1)
        wrong = sum(judge_denial(r.thinking, r.answer).wrong for r in found)
        rate, low, high = wilson(wrong, len(found))
        stages.append({"name": name, "errors": wrong, "n": len(found), "rate": rate, "low": low, "high": high})
    write_file(folder / MEASURES, json.dumps({"stages": stages}, indent=1) + "\n")


def _ask(work: Work, folder: Path, count: int, split: str, held_out: bool) -> None:
    """folder/train.jsonl: questions in both languages in turn, each about a clip of the split drawn by lot."""
    found = find_splits(work.config.data)
    clips = [row for row in read_rows(found.get(split, found["train"])) if row.sounds]
    ways = [way for pair in zip(*(_ways(lang, held_out) for lang in PERCEPTION_QUESTIONS), strict=False)
            for way in pair]  # fmt: skip
    rng = np.random.default_rng([abs(work.config.seed), int(held_out)])
    lines = [_line(clips[int(rng.integers(len(clips)))], ways[i % len(ways)]) for i in range(count)]
    write_rows(folder / "train.jsonl", lines)


def _ways(lang: str, held_out: bool) -> Sequence[str]:
    ways = PERCEPTION_QUESTIONS[lang]
    return ways[-HELD_OUT:] if held_out else ways[:-HELD_OUT]


def _line(clip: Row, question: str) -> dict[str, Any]:
    sound = row_as_json(clip)["audios"][0]
    return {"messages": [{"role": "user", "content": f"{MARK}{question}"}], "audios": [sound]}


def _sampled(work: Work, folder: Path, adapter: Path | None, samples: int) -> list[Rollout]:
    with work.model(adapter) as r1:
        sets = work.questions(r1, folder, folder, verified=False)
        config = work.rollouts(samples=samples)
        heard = replace(sets, judge=_Hearing(r1.tokenizer, {}, {}))
        return work.sample(r1, heard, sets.splits["train"], folder / "rollouts.jsonl", config)


class _Hearing(Judging):
    """Rewards a reply for not denying."""

    def __call__(self, prompt: Example, rollout: Rollout) -> Rollout:
        wrong = judge_denial(rollout.thinking, rollout.answer).wrong
        return replace(rollout, reward=float(not wrong), scores={"denies": float(wrong)})


def _judged(folder: Path) -> list[JudgedReply]:
    rows = {row.name: row for row in read_rows(folder / "train.jsonl")}
    rollouts = sorted(read_rollouts(folder / "rollouts.jsonl"), key=lambda r: (r.prompt, r.sample))
    return [judged_reply(rows[r.prompt], r.sample, r.thinking, r.answer, not r.truncated) for r in rollouts]
