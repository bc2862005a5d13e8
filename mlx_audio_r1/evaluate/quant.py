"""What a quantisation costs: the same items through several checkpoints, against the first of them.

    table = quant([Checkpoint("bf16", "r1-bf16"), Checkpoint("4bit", "r1-4bit")], work, Path("out"))

Each checkpoint has a run of its own below the folder, that a kill does not lose; the reference also leaves its
next-token distributions along its reasoning, and the others are held against those. The surprise: accuracy over
a few hundred items cannot tell 4 bits from 8, the divergence can, because every token counts.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import mlx.core as mx
from mlx.utils import tree_flatten

from mlx_audio_r1.errors import EvaluationError
from mlx_audio_r1.evaluate.choosing import Choosing, Source, open_sources
from mlx_audio_r1.evaluate.compare import compare
from mlx_audio_r1.evaluate.controls import Sounding
from mlx_audio_r1.evaluate.divergence import Divergence, Reference, case_of, divergence, reference_of
from mlx_audio_r1.evaluate.importing import ImportOptions
from mlx_audio_r1.evaluate.quant_table import markdown
from mlx_audio_r1.evaluate.results import FULL, REAL, SUMMARY, Result, read_results
from mlx_audio_r1.evaluate.run import Running, Telling, digest_of, run_items
from mlx_audio_r1.evaluate.scores import score_run
from mlx_audio_r1.evaluate.summary import finite
from mlx_audio_r1.files import disk_errors, write_file
from mlx_audio_r1.record_file import RecordFile
from mlx_audio_r1.session import AudioR1
from mlx_audio_r1.tasks.statistics import bootstrap_mean

DISTRIBUTIONS, DIVERGENCES = "distributions", "divergence.jsonl"
TABLE, MARKDOWN = "quant.json", "quant.md"


@dataclass(frozen=True)
class Checkpoint:
    """name: of its row and its folder. model: as `load` takes it."""

    name: str
    model: str


@dataclass(frozen=True)
class Work:
    """What is asked of every checkpoint. names: folders of imports, or benchmarks that are built in."""

    names: Sequence[str]
    running: Running
    choosing: Choosing = field(default_factory=Choosing)
    options: ImportOptions = field(default_factory=ImportOptions)


@dataclass(frozen=True)
class Measured:
    """A line of divergence.jsonl."""

    uid: str
    kl: float
    agreement: float
    tokens: int

    @property
    def key(self) -> tuple[str, int]:
        return self.uid, 0

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def quant(
    checkpoints: Sequence[Checkpoint], work: Work, out: Path, load: Callable[[str], AudioR1],
    tell: Callable[[str], Telling] = lambda name: lambda *_: None,
) -> dict[str, Any]:  # fmt: skip
    """Run, measure and compare; the table is also in `out`/quant.json.

    tell: the name of a checkpoint -> what is told of its steps. Raises EvaluationError for names that are not
    different, checkpoints of another vocabulary, or a folder of other runs.
    """
    names = [one.name for one in checkpoints]
    if len(set(names)) < len(names) or len(names) < 2:
        raise EvaluationError("checkpoints: give two or more, each with a name of its own (name=model)")
    sources = open_sources(work.names, out, work.choosing, work.options)
    rows = [_measured(one, names[0], work.running, sources, out, load, tell(one.name)) for one in checkpoints]
    table = {"reference": names[0], "rows": [_compared(row, out, names[0]) for row in rows]}
    write_file(out / TABLE, json.dumps(finite(table), indent=1, ensure_ascii=False) + "\n")
    write_file(out / MARKDOWN, markdown(table))
    return table


def _measured(
    one: Checkpoint, reference: str, running: Running, sources: Sequence[Source], out: Path,
    load: Callable[[str], AudioR1], tell: Telling,
) -> dict[str, Any]:  # fmt: skip
    """The run of a checkpoint and its divergence from the reference; one model in memory at a time."""
    r1, folder, started = load(one.model), out / one.name, time.monotonic()
    run_items(r1, sources, folder, running, tell)
    score_run(folder)
    replies = _reasoned(read_results(out / reference))
    along = _Along(r1, sources, running.seed, out / reference / DISTRIBUTIONS)
    row: dict[str, Any] = {"name": one.name, "model": one.model, "bytes": _bytes(r1)}
    if one.name == reference:
        _through("distributions", along.keep(replies), len(replies), tell)
    else:
        file = RecordFile(folder / DIVERGENCES, {"divergence": 1, "items": digest_of(along.items)},
                          lambda values: Measured(**values), _another, EvaluationError)  # fmt: skip
        _through("divergence", along.compare(replies, file), len(replies), tell)
        row |= _divergence(list(file.found.values()))
    del r1, along
    mx.clear_cache()
    return {**row, "wall_seconds": round(time.monotonic() - started, 2)}


class _Along:
    """A checkpoint along the reference's reasoning."""

    def __init__(self, r1: AudioR1, sources: Sequence[Source], seed: int, folder: Path):
        self.items = [item for source in sources for item in source.items]
        self._r1, self._folder = r1, folder
        self._by_uid = {item.uid: item for item in self.items}
        self._sounding = Sounding(self.items, r1.chunk_seconds, seed)

    def keep(self, replies: Sequence[Result]) -> Iterator[None]:
        """Write the distributions that are not there yet."""
        with disk_errors(self._folder):
            self._folder.mkdir(parents=True, exist_ok=True)
        for number, reply in enumerate(replies):
            path = self._path(number)
            if not path.exists():
                reference_of(self._r1, self._case(reply)).save(path)
            yield

    def compare(self, replies: Sequence[Result], file: RecordFile[Measured]) -> Iterator[None]:
        """A line for each reply that has none."""
        for number, reply in enumerate(replies):
            if (reply.uid, 0) not in file.found:
                found = self._from(Reference.load(self._path(number)), reply)
                file.append(Measured(reply.uid, found.kl, found.agreement, found.tokens))
            yield

    def _from(self, reference: Reference, reply: Result) -> Divergence:
        if int(reference.ids.max()) >= self._r1.config.text.vocab_size:
            raise EvaluationError(f"{self._r1.name}: has another vocabulary than the reference; compare "
                                  "checkpoints of one model")  # fmt: skip
        return divergence(self._r1, self._case(reply), reference)

    def _case(self, reply: Result) -> Any:
        messages = self._sounding.hear(self._by_uid[reply.uid], REAL).messages
        return case_of(messages, reply.ids, reply.thinking_tokens)

    def _path(self, number: int) -> Path:
        return self._folder / f"{number:06d}.safetensors"


def _reasoned(results: Sequence[Result]) -> list[Result]:
    """The first reply to each item that reasons, in the order of the items' names."""
    plain = [r for r in results if r.sample == 0 and r.budget == FULL and r.control == REAL]
    return sorted((r for r in plain if r.thinking_tokens), key=lambda r: r.uid)


def _bytes(r1: AudioR1) -> int:
    return sum(array.nbytes for _, array in tree_flatten(r1.model.parameters()))


def _divergence(found: Sequence[Measured]) -> dict[str, Any]:
    """Means over replies, each with its interval."""
    return {"kl": bootstrap_mean([one.kl for one in found]),
            "agreement": bootstrap_mean([one.agreement for one in found]),
            "places": sum(one.tokens for one in found)}  # fmt: skip


def _compared(row: Mapping[str, Any], out: Path, reference: str) -> dict[str, Any]:
    """The row with its accuracy in every bench, and what that differs from the reference's by."""
    summary = json.loads((out / str(row["name"]) / SUMMARY).read_text(encoding="utf-8"))["benches"]
    benches = {name: {**{key: found["scorers"][found["primary"]][key] for key in ("n", "value", "low", "high")},
                      "thinking_tokens": found["thinking_tokens"].get("mean"), "tokens": found["tokens"],
                      "seconds": found["seconds"]} for name, found in summary.items()}  # fmt: skip
    if row["name"] != reference:
        for pair in compare(out / reference, out / str(row["name"])).rows:
            benches[pair.bench] |= {"difference": pair.difference, "p": pair.p, "better": pair.better_b,
                                    "worse": pair.better_a}  # fmt: skip
    return {**row, "benches": benches}


def _another(found: Mapping[str, Any], head: Mapping[str, Any]) -> str:
    return "" if found == head else "of other items"


def _through(name: str, steps: Iterator[None], total: int, tell: Telling) -> None:
    tell(name, 0, total)
    for number, _ in enumerate(steps, start=1):
        tell(name, number, total)
