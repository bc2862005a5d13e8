"""What a model can do after a round, on questions that no round trains on: the points of the report's curves.

Everything is the likeliest reply (temperature 0): with thinking, without, with silence in the place of the
sound; and of the reasoning how grounded it is, by words and by evidence. With `budgets` the reasoning is cut
after so many tokens and closed, and the answer given then: accuracy against thinking, for one run's price.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from mlx_audio_r1.errors import DataError, TrainingError
from mlx_audio_r1.files import write_file
from mlx_audio_r1.mgrd.budgets import cut_short
from mlx_audio_r1.mgrd.candidate import Candidate
from mlx_audio_r1.mgrd.evidence import Silence, evidence_of
from mlx_audio_r1.session import AudioR1
from mlx_audio_r1.tasks.lexicon import grounding
from mlx_audio_r1.train.examples import Example
from mlx_audio_r1.train.prompt_sets import PromptSets
from mlx_audio_r1.train.rollouts import Rollout
from mlx_audio_r1.train.row_writer import write_rows
from mlx_audio_r1.train.samples import spread, text_of

if TYPE_CHECKING:
    from mlx_audio_r1.mgrd.work import Work

FILE, SHOWCASE, FOLDER = "measures.json", "showcase.jsonl", "measure"


@dataclass(frozen=True)
class Measuring:
    """questions: of valid.jsonl, spread over it. showcase: replies that the report shows side by side.
    budgets: tokens of reasoning, with commas: "0,8,16,32"."""

    questions: int = 64
    showcase: int = 6
    direct: bool = True
    silence: bool = True
    gain: bool = True
    budgets: str = ""

    def __post_init__(self) -> None:
        if self.questions < 1 or self.showcase < 0:
            raise TrainingError("measure: questions from 1 up, showcase from 0 up")
        self.lengths  # noqa: B018  (raises)

    @property
    def lengths(self) -> list[int]:
        """The budgets as numbers."""
        try:
            found = sorted({int(part) for part in self.budgets.split(",") if part.strip()})
        except ValueError:
            found = [-1]
        if any(budget < 0 for budget in found):
            raise TrainingError(f"measure: budgets is {self.budgets!r}; give numbers with commas: 0,16,64")
        return found


def measure(work: Work, number: int) -> dict[str, Any]:
    """Measure the model of a round, into measures.json and showcase.jsonl. Raises DataError."""
    folder, settings = work.round(number), work.config.measuring
    with work.model(work.policy(number)) as r1:
        sets = work.questions(r1, work.data, folder / FOLDER)
        prompts = spread([p for p in sets.splits.get("valid", []) if p.sounds], settings.questions)
        if not prompts:
            raise DataError(f"{work.data}: no question with a sound in valid.jsonl to measure on")
        found = _Measures(work, number, r1, sets, prompts).all()
    write_file(folder / FILE, json.dumps(found, indent=1) + "\n")
    return found


class _Measures:
    """One model, measured."""

    def __init__(self, work: Work, number: int, r1: AudioR1, sets: PromptSets, prompts: Sequence[Example]):
        self.work, self.folder, self.r1, self.sets = work, work.round(number), r1, sets
        self.prompts, self.settings = prompts, work.config.measuring
        self.greedy = work.rollouts(samples=1, temperature=0.0)

    def all(self) -> dict[str, Any]:
        replies = self._replies("thinking", self.prompts)
        write_rows(self.folder / SHOWCASE, self._shown(replies))
        accuracy = {"thinking": _correct(replies)}
        if self.settings.direct:
            accuracy["direct"] = _correct(self._direct())
        if self.settings.silence:
            accuracy["silence"] = _correct(self._silent())
        found = {"n": len(replies), "accuracy": accuracy, "grounding": grounded(replies),
                 "length": float(np.mean([r.thinking_tokens for r in replies])),
                 "reasoning": float(np.mean([r.scores["reasoning"] for r in replies]))}  # fmt: skip
        if self.settings.gain:
            found["gain"] = self._gain(replies)
        if self.settings.lengths:
            found["budgets"] = {str(n): self._at(n, replies) for n in self.settings.lengths}
        return found

    def _replies(self, name: str, prompts: Sequence[Example], **sets: Any) -> list[Rollout]:
        """sets: what of the questions is another one here, features or judge."""
        path = self.folder / FOLDER / f"{name}.jsonl"
        return self.work.sample(self.r1, replace(self.sets, **sets), prompts, path, self.greedy)

    def _direct(self) -> list[Rollout]:
        rows = [self.sets.judge.rows[prompt.name] for prompt in self.prompts]
        prompts = [self.sets.maker.prompt(row, thinking=False) for row in rows]
        return self._replies("direct", prompts, judge=self.sets.judge.direct())

    def _silent(self) -> list[Rollout]:
        silent = Silence(self.r1.model, self.sets.features)
        return self._replies("silence", self.prompts, features=silent)

    def _gain(self, replies: Sequence[Rollout]) -> dict[str, float]:
        """Mean over the replies that have a reasoning, of nats a token that the sound is worth."""
        by_name = {prompt.name: prompt for prompt in self.prompts}
        candidates = [Candidate(self.sets.judge.items[r.prompt], by_name[r.prompt], r)
                      for r in replies if r.scores["reasoning"]]  # fmt: skip
        found = [e for e in evidence_of(self.r1, candidates, self.sets.features) if e]
        kinds = {kind: [getattr(e, kind) for e in found] for kind in ("thinking", "answer", "grounded")}
        means = {kind: [value for value in values if value is not None] for kind, values in kinds.items()}
        return {kind: float(np.mean(values)) for kind, values in means.items() if values}

    def _at(self, budget: int, replies: Sequence[Rollout]) -> float:
        """Accuracy when the reasoning is closed after `budget` tokens."""
        by_name = {prompt.name: prompt for prompt in self.prompts}
        whole = [r for r in replies if r.thinking_tokens <= budget]
        cut = [cut_short(by_name[r.prompt], r, budget, self.r1.tokenizer) for r in replies if r not in whole]
        direct = self.sets.judge.direct()
        answers = self._replies(f"budget-{budget}", cut, judge=direct) if cut else []
        return _correct([*whole, *answers])

    def _shown(self, replies: Sequence[Rollout]) -> list[Mapping[str, Any]]:
        """The same questions every round, drawn once."""
        drawn = np.random.default_rng(0).permutation(len(replies))[: self.settings.showcase]
        return [self._line(replies[i]) for i in sorted(drawn.tolist())]

    def _line(self, reply: Rollout) -> Mapping[str, Any]:
        row = self.sets.judge.rows[reply.prompt]
        sounds = [str(part.source) for part in row.sounds if not isinstance(part.source, bytes)]
        expected = str(row.columns.get("solution", row.columns.get("answer", "")))
        asked = {"where": reply.prompt, "audio": sounds, "prompt": text_of(row), "expected": expected}
        return {**asked, "think": reply.thinking, "answer": reply.answer, "correct": reply.scores["correct"]}


def grounded(replies: Sequence[Rollout]) -> dict[str, float]:
    """Means of the lexicon's scores. ratio: over the replies in which either kind of words is."""
    found = [grounding(r.thinking) for r in replies]
    ratios = [g.ratio for g in found if g.ratio is not None]
    return {"ratio": float(np.mean(ratios)) if ratios else 0.0,
            "density": float(np.mean([g.density for g in found])),
            "breadth": float(np.mean([g.breadth for g in found]))}  # fmt: skip


def _correct(replies: Sequence[Rollout]) -> float:
    return float(np.mean([r.scores["correct"] for r in replies]))
