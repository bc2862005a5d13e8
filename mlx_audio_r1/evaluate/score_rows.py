"""scores.jsonl: what every scorer made of every row of a run. Derived, so it is written whole, aside first.

    {"uid": "mmau:0a1b", "bench": "mmau", "sample": 0, "budget": -1, "control": "real",
     "scores": {"mmau.official": {"value": 1.0, "parsed": "Harp", "how": "...", "counts": {}}}}
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from mlx_audio_r1.errors import EvaluationError
from mlx_audio_r1.evaluate.results import FULL, REAL, SCORES, Key, Result
from mlx_audio_r1.evaluate.scoring import Score
from mlx_audio_r1.files import write_file


@dataclass(frozen=True)
class ScoreRow:
    """The scores of one row, by scorer; the bench's primary scorer is the first."""

    uid: str
    bench: str
    sample: int
    budget: int
    control: str
    scores: Mapping[str, Score]

    @property
    def key(self) -> Key:
        return self.uid, self.sample, self.budget, self.control

    @property
    def plain(self) -> bool:
        """Of the true sound, with all the thinking the model wanted?"""
        return self.budget == FULL and self.control == REAL


def score_row(result: Result, scores: Mapping[str, Score]) -> ScoreRow:
    return ScoreRow(result.uid, result.bench, result.sample, result.budget, result.control, scores)


def write_scores(folder: Path, rows: Iterable[ScoreRow]) -> None:
    """Raises DiskError."""
    write_file(folder / SCORES, "".join(json.dumps(asdict(row), ensure_ascii=False) + "\n" for row in rows))


def read_scores(folder: Path) -> list[ScoreRow]:
    """Raises EvaluationError where there are none."""
    path = folder / SCORES
    try:
        return [_read(json.loads(line)) for line in path.read_text(encoding="utf-8").splitlines()]
    except OSError as error:
        raise EvaluationError(f"{path}: {error.strerror}; run audio-r1 eval score {folder} first") from None
    except (ValueError, KeyError, TypeError) as error:
        raise EvaluationError(f"{path}: no scores ({error}); run audio-r1 eval score {folder} again") from None


def _read(values: Mapping[str, object]) -> ScoreRow:
    scores = {name: Score(**found) for name, found in values["scores"].items()}  # type: ignore[attr-defined]
    return ScoreRow(**{**values, "scores": scores})  # type: ignore[arg-type]
