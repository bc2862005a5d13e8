"""Which filters a round has, and what they ask of a candidate."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from typing import Any

from mlx_audio_r1.errors import TrainingError
from mlx_audio_r1.judges.judge import LOCAL, JudgeConfig
from mlx_audio_r1.mgrd.coherence import CoherenceLimits
from mlx_audio_r1.mgrd.controls import CONTROLS
from mlx_audio_r1.mgrd.evidence import MAX_TOKENS
from mlx_audio_r1.mgrd.grounded import LexiconLimits

UNDECIDING = ("max_tokens_per_batch", "judge_timeout", "judge_retries")  # change no decision


@dataclass(frozen=True)
class FilterConfig:
    """Filters in order of cost: verdict, format, lexicon, coherence, evidence, judge. The paper (section 4.2)
    names what is filtered and no number; all thresholds are ours."""

    verdict: bool = True  # the answer is right
    format: bool = True  # closed, a word of reasoning, not truncated
    lexicon: bool = True
    coherence: bool = True
    evidence: bool = True
    judge: str = ""  # a URL, mlx:MODEL, file; none where it is empty
    least_correct: float = 1.0  # of the verdict; below 1 only texts measured in errors can be
    least_ratio: float = 0.7  # acoustic terms / (acoustic + textual)
    least_density: float = 0.0  # acoustic terms in 1,000 words
    least_breadth: float = 0.0  # share of the eight categories
    least_terms: int = 1  # acoustic terms
    least_words: int = 3  # of a reasoning
    most_repeated: float = 0.3  # share of its sentences, or runs of words, that repeat
    control: str = "silence"  # what evidence is measured against: silence, or other (another clip)
    least_gain: float = 0.05  # nats a token of reasoning
    least_answer_gain: float | None = None  # nats a token of the answer
    least_selectivity: float | None = None  # nats: acoustic terms beyond the other tokens of reasoning
    least_grounded: float | None = None  # share of the reasoning's tokens with a gain above 0.5 nats
    judge_model: str = ""  # what the server of the URL calls it
    judge_tokens: int = 512  # of its reply
    judge_timeout: float = 120.0  # s
    judge_retries: int = 4
    most_per_prompt: int | None = None  # kept of one question, those with the largest gain
    score_all: bool = False  # cheap scores of the rejected too
    seed: int = 0
    max_tokens_per_batch: int = MAX_TOKENS  # of evidence, padding included

    def __post_init__(self) -> None:
        """Raises TrainingError naming the value that cannot be."""
        for name, (low, high) in _RANGES.items():
            value = getattr(self, name)
            if value is not None and not low <= value <= high:
                upper = f" to {high:g}" if high < float("inf") else " up"
                raise TrainingError(f"filter: {name} is {value!r}; give a number from {low:g}{upper}")
        if self.control not in CONTROLS:
            raise TrainingError(f"filter: control {self.control!r}: one of {', '.join(CONTROLS)}")
        known = self.judge in ("", "file") or self.judge.startswith(("http://", "https://"))
        if not known and (not self.judge.startswith(LOCAL) or self.judge == LOCAL):
            raise TrainingError(f"filter: judge {self.judge!r}: give a URL, mlx:MODEL or file")
        if self.judge.startswith("http") and not self.judge_model:
            raise TrainingError("filter: judge_model is missing: say what the server calls its model")

    @property
    def lexicon_limits(self) -> LexiconLimits:
        return LexiconLimits(self.least_ratio, self.least_density, self.least_breadth, self.least_terms)

    @property
    def coherence_limits(self) -> CoherenceLimits:
        return CoherenceLimits(self.least_words, self.most_repeated)

    @property
    def evidence_limits(self) -> dict[str, float]:
        """Score -> the least that passes."""
        named = {"gain": self.least_gain, "gain_answer": self.least_answer_gain,
                 "selectivity": self.least_selectivity, "grounded": self.least_grounded}  # fmt: skip
        return {name: value for name, value in named.items() if value is not None}

    @property
    def judge_config(self) -> JudgeConfig:
        return JudgeConfig(self.judge, self.judge_model, self.judge_tokens, self.judge_timeout,
                           self.judge_retries)  # fmt: skip

    @property
    def deciding(self) -> dict[str, Any]:
        """What decisions depend on."""
        return {name: value for name, value in asdict(self).items() if name not in UNDECIDING}

    @property
    def digest(self) -> str:
        """Hex sha256 of it."""
        return hashlib.sha256(json.dumps(self.deciding, sort_keys=True).encode()).hexdigest()


_INF = float("inf")
_RANGES = {
    "least_correct": (0, 1), "least_ratio": (0, 1), "least_density": (0, 1_000), "least_breadth": (0, 1),
    "least_terms": (0, _INF), "least_words": (0, _INF), "most_repeated": (0, 1), "least_gain": (-_INF, _INF),
    "least_answer_gain": (-_INF, _INF), "least_selectivity": (-_INF, _INF), "least_grounded": (0, 1),
    "judge_tokens": (1, _INF), "judge_timeout": (0.001, _INF), "judge_retries": (0, 100),
    "most_per_prompt": (1, _INF), "max_tokens_per_batch": (1, _INF), "seed": (0, _INF),
}  # fmt: skip
