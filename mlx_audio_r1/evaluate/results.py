"""The rows of a run: one for each sample of each item, under each budget and control. Appended, never changed.

    DIR/run.json          what was run; another model or other settings do not go on in the same folder
    DIR/items.jsonl       the items asked, `audio-r1.task/1`
    DIR/results.jsonl     these rows (`audio-r1.result/1`)
    DIR/scores.jsonl      what scorers made of them; written anew by every `eval score`
    DIR/summary.json, report.html, report.md, predictions/

The surprise: an error is a row too, and scores 0; nothing leaves the denominator but what an official script
itself leaves out.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from mlx_audio_r1.errors import EvaluationError
from mlx_audio_r1.record_file import RecordFile
from mlx_audio_r1.tasks.reply import Reply

RUN, ITEMS, RESULTS = "run.json", "items.jsonl", "results.jsonl"
SCORES, SUMMARY = "scores.jsonl", "summary.json"
REAL = "real"  # the control that is none
FULL = -1  # the budget that is none
Key = tuple[str, int, int, str]


@dataclass(frozen=True)
class Result:
    """One reply, or why there is none.

    budget: tokens of reasoning after which it was closed, FULL: none. control: what was heard in the place of
    the sound. ids: as sampled, the stop token too; behind a reasoning that was cut those of the answer, none
    where a reply ended within its budget. finish: stop, budget, loop, length or error. thinking_tokens: without
    the closing tag, which is counted with the answer.
    """

    uid: str
    bench: str
    sample: int = 0
    budget: int = FULL
    control: str = REAL
    thinking: str = field(default="", repr=False)
    answer: str = ""
    closed: bool = True  # is there an answer: did the reasoning end?
    finish: str = "stop"
    ids: tuple[int, ...] = field(default=(), repr=False)
    prompt_tokens: int = 0
    audio_tokens: int = 0
    audio_seconds: float = 0.0
    thinking_tokens: int = 0
    answer_tokens: int = 0
    prompt_sha256: str = ""
    audio_sha256: str = ""
    seed: int | None = None
    seconds: float = 0.0  # since the row before it: their sum is what the run took
    error: str = ""
    extra: Mapping[str, Any] = field(default_factory=dict)

    @property
    def key(self) -> Key:
        return self.uid, self.sample, self.budget, self.control

    @property
    def reply(self) -> Reply:
        """As scorers read it."""
        return Reply(self.thinking, self.answer, self.closed and not self.error)

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Result:
        """Raises TypeError, KeyError or ValueError for what `as_dict` never gave."""
        known = {f.name: values[f.name] for f in fields(cls)}
        return cls(**{**known, "ids": tuple(map(int, known["ids"]))})


class ResultFile(RecordFile[Result]):
    """results.jsonl of a folder. Raises EvaluationError where it is of another run."""

    def __init__(self, folder: Path, head: Mapping[str, Any]):
        super().__init__(folder / RESULTS, {"results": 1, **head}, Result.from_dict, _another, EvaluationError)


def read_results(folder: Path) -> list[Result]:
    """The whole rows of a run, which may be going on. Raises EvaluationError where there are none."""
    path = folder / RESULTS
    try:
        lines = path.read_bytes().splitlines(keepends=True)
        if "results" not in json.loads(lines[0]):
            raise ValueError
        return [Result.from_dict(json.loads(line)) for line in lines[1:] if line.endswith(b"\n")]
    except OSError as error:
        raise EvaluationError(f"{path}: {error.strerror}; run audio-r1 eval run first") from None
    except (ValueError, KeyError, TypeError, IndexError):
        raise EvaluationError(f"{path}: is of no run; run audio-r1 eval run first") from None


def _another(found: Mapping[str, Any], head: Mapping[str, Any]) -> str:
    name = next((key for key, value in head.items() if found.get(key) != value), None)
    return f"of a run with another {name} ({found.get(name)!r}, now {head[name]!r})" if name else ""
