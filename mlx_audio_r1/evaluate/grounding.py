"""Does the reasoning listen? Measured on the replies of a run, without a judge.

    off     nothing
    fast    how much likelier the true sound makes the reply than silence and another sound do (G4)
    full    also: is the true sound found among others by the reply (G5), how far the right option is ahead of
            the wrong ones and what the sound adds to that (G6), does the order of options matter (G11)

Words of listening, and early answers, are summed up from the results at no cost (`grounding_summary`).
grounding.jsonl has a line for each measure of each item, at once. The surprise: what another sound gains over
silence is known as well, so every run tells whether a measure separates true sounds from wrong ones at all.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mlx_audio_r1.errors import AudioR1Error, EvaluationError
from mlx_audio_r1.evaluate.controls import SHUFFLE, Sounding
from mlx_audio_r1.evaluate.logprobs import Case, reply_logprobs
from mlx_audio_r1.evaluate.results import FULL, REAL, Result
from mlx_audio_r1.prompt import Message
from mlx_audio_r1.record_file import RecordFile
from mlx_audio_r1.session import AudioR1
from mlx_audio_r1.tasks.evidence import summed_up
from mlx_audio_r1.tasks.item import Item
from mlx_audio_r1.tasks.token_kinds import TokenKinds, token_kinds

FILE = "grounding.jsonl"
LEVELS = ("off", "fast", "full")
GAIN, RETRIEVAL = "gain", "retrieval"  # measures
SILENCE = "silence"
SOUNDS = 4  # among which a reply must find its own
MOST_TOKENS = 8_192  # of a reply that are looked at


@dataclass(frozen=True)
class Measured:
    """One measure of one reply: name -> number; what could not be measured is not there."""

    uid: str
    bench: str
    measure: str
    values: Mapping[str, float]
    sample: int = 0

    @property
    def key(self) -> tuple[str, int, str]:
        return self.uid, self.sample, self.measure

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


class GroundingFile(RecordFile[Measured]):
    """grounding.jsonl of a folder. Raises EvaluationError where it is of other replies."""

    def __init__(self, folder: Path, run: str):
        def another(found: Mapping[str, Any], head: Mapping[str, Any]) -> str:
            return "" if found == head else "of another run"

        head = {"grounding": 1, "run": run}
        super().__init__(folder / FILE, head, lambda values: Measured(**values), another, EvaluationError)


def measure_replies(
    r1: AudioR1, asked: Sequence[tuple[Item, Result]], sounding: Sounding, level: str, file: GroundingFile
) -> Iterator[None]:
    """Measure every reply that is not measured yet, one for each None given."""
    sounds = SOUNDS if level == "full" else 2
    wanted = (GAIN, RETRIEVAL) if level == "full" else (GAIN,)
    for item, result in asked:
        for found in _measures(r1, item, result, sounding, sounds):
            if found.key not in file.found and found.measure in wanted:
                file.append(found)
        yield


def to_measure(
    items: Iterable[Item], results: Iterable[Result], level: str, file: GroundingFile
) -> list[tuple[Item, Result]]:
    """Items with a sound whose first reply was written and is not measured."""
    wanted = (GAIN, RETRIEVAL) if level == "full" else (GAIN,)
    first = {r.uid: r for r in results if r.budget == FULL and r.control == REAL and not r.sample}
    pairs = [(item, first[item.uid]) for item in items if item.sounds and item.uid in first]
    return [(item, r) for item, r in pairs if r.ids and not r.error
            and any((item.uid, 0, name) not in file.found for name in wanted)]  # fmt: skip


def _measures(r1: AudioR1, item: Item, result: Result, sounding: Sounding, sounds: int) -> Iterator[Measured]:
    ids = result.ids[:MOST_TOKENS]
    try:
        logps = sound_logprobs(r1, item, ids, sounding, sounds)
    except AudioR1Error:  # the sound was there when it was asked about
        return
    gains = {name: logps[REAL] - logp for name, logp in logps.items() if name in (SILENCE, SHUFFLE)}
    yield Measured(item.uid, item.bench, GAIN, gain_values(gains, token_kinds(r1.tokenizer, ids)))
    others = [float(logp.sum()) for name, logp in logps.items() if name.startswith(SHUFFLE)]
    if others:
        yield Measured(item.uid, item.bench, RETRIEVAL, retrieval_values(float(logps[REAL].sum()), others))


def sound_logprobs(
    r1: AudioR1, item: Item, ids: Sequence[int], sounding: Sounding, sounds: int
) -> dict[str, np.ndarray]:
    """(T,) log-probabilities of a reply under the true sound, silence, and `sounds` - 1 other ones: `shuffle`,
    `shuffle 1`, ...; fewer where there are no more. Raises AudioR1Error where the true sound is gone."""
    heard: dict[str, list[Message]] = {
        REAL: sounding.hear(item).messages, SILENCE: sounding.hear(item, SILENCE).messages}  # fmt: skip
    for number in range(sounds - 1):
        try:
            other = sounding.hear(item, SHUFFLE, number=number).messages
        except AudioR1Error:  # no such item, or its sound cannot be read
            continue
        heard[f"{SHUFFLE} {number}" if number else SHUFFLE] = other
    thinking = bool(item.extra.get("thinking", True))
    found = reply_logprobs(r1, [Case(messages, ids, thinking) for messages in heard.values()])
    return dict(zip(heard, found, strict=True))


def gain_values(gains: Mapping[str, np.ndarray], kinds: TokenKinds) -> dict[str, float]:
    """What `tasks.evidence` makes of the gains over each control: `silence.thinking`, `shuffle.answer`, ..."""
    values: dict[str, float] = {}
    for control, gain in gains.items():
        found = summed_up(gain, kinds)
        known = {name: getattr(found, name) for name in KINDS}
        values |= {f"{control}.{name}": value for name, value in known.items() if value is not None}
    return values


KINDS = ("thinking", "answer", "acoustic", "other", "grounded", "selectivity")


def retrieval_values(true: float, others: Sequence[float]) -> dict[str, float]:
    """From log p(reply | sound), of the true sound and of others. rank counts from 1; ties share it. infonce:
    nats, at most log K. infonce_shuffled: the same with the first other in the place of the true one."""
    rank = 1 + sum(s > true for s in others) + sum(s == true for s in others) / 2
    return {"rank": rank, "reciprocal": 1 / rank, "hit": float(rank == 1),
            "infonce": _infonce([true, *others]), "infonce_shuffled": _infonce([*others, true])}  # fmt: skip


def _infonce(scores: Sequence[float]) -> float:
    most = max(scores)
    return scores[0] - most - math.log(sum(math.exp(s - most) for s in scores)) + math.log(len(scores))

