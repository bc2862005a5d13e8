"""`audio-r1 eval run`: items -> rows of results, each row at once, so that a killed run goes on.

    folder = run_items(r1, sources, Path("out"), Running(samples=1, budgets=(0, 64), controls=("silence",)))

Replies first, then answers under budgets, controls, and how grounded the reasoning is. Every row has a seed of
its own, of the run's seed, the item and the sample, so rows do not depend on what was there before. The
surprise: budgets, controls and samples may be added later to the same folder, because a row that is there is
never made again; another model, adapter, setting or choice of items is refused.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from mlx_audio_r1 import __version__, adapter_files
from mlx_audio_r1.errors import EvaluationError
from mlx_audio_r1.evaluate import budgets as shorter
from mlx_audio_r1.evaluate.arrange import profile_of
from mlx_audio_r1.evaluate.asking import Wanted, ask, seed_for, shared_prompts
from mlx_audio_r1.evaluate.choosing import Source, check_out, check_unique
from mlx_audio_r1.evaluate.controls import SHUFFLE, Sounding, check_controls
from mlx_audio_r1.evaluate.grounding import LEVELS, GroundingFile, measure_replies, to_measure
from mlx_audio_r1.evaluate.option_measures import (
    MARGIN,
    ORDER,
    measure_margins,
    of_options,
    take_orders,
    wanted_orders,
)
from mlx_audio_r1.evaluate.results import FULL, ITEMS, REAL, RESULTS, RUN, Result, ResultFile
from mlx_audio_r1.files import disk_errors, locked, write_file
from mlx_audio_r1.generate import Settings
from mlx_audio_r1.prompt import AudioPart
from mlx_audio_r1.prompt_cache import fingerprint
from mlx_audio_r1.record_file import line_of
from mlx_audio_r1.session import AudioR1
from mlx_audio_r1.tasks.item import Item, Turn
from mlx_audio_r1.tasks.item_files import item_to_json

BUDGETS = "budgets"  # a phase
LOCK = ".lock"
Telling = Callable[[str, int, int], None]  # what is being done, rows there are, rows wanted


@dataclass(frozen=True)
class Running:
    """How a run asks. settings: fields of `Settings` that replace those of each benchmark's profile. budgets:
    tokens of reasoning. answer_tokens: most of an answer behind a cut reasoning. control_budget: of reasoning
    under controls, None: as long as it wants. room: tokens of prompt and reply that memory has place for."""

    samples: int = 1
    seed: int = 0
    settings: Mapping[str, Any] = field(default_factory=dict)
    budgets: tuple[int, ...] = ()
    answer_tokens: int = 64
    controls: tuple[str, ...] = ()
    control_budget: int | None = None
    grounding: str = "fast"
    max_rows: int = 8
    retry_failed: bool = False
    room: int | None = None

    def __post_init__(self) -> None:
        check_controls(self.controls)
        if self.samples < 1 or self.answer_tokens < 1:
            raise EvaluationError("n and answer-tokens: give 1 or more")
        if self.grounding not in LEVELS:
            raise EvaluationError(f"no grounding {self.grounding!r}; there are {', '.join(LEVELS)}")
        Settings(**self.settings)  # raises PromptError for a value that is impossible

    @property
    def lengths(self) -> list[int]:
        """All budgets: controls that think less are compared with the true sound under the same one."""
        extra = [self.control_budget] if self.control_budget is not None and self.controls else []
        return sorted({*self.budgets, *extra})


def run_items(
    r1: AudioR1, sources: Sequence[Source], out: Path, running: Running, tell: Telling = lambda *_: None
) -> Path:
    """Make every row that is not there yet; gives `out`.

    Raises EvaluationError where the folder is of another run, DiskError where it cannot be written.
    """
    items = [item for source in sources for item in source.items]
    check_unique(items)
    check_out(out)
    sounding = Sounding(items, r1.chunk_seconds, running.seed)
    if SHUFFLE in running.controls:
        sounding.others.check()
    with _alone(out):
        run = _Run(r1, items, sounding, running, _file(r1, sources, out, running))
        for name, wanted in run.phases():
            run.do(name, wanted, tell)
        if running.grounding != "off":
            with shared_prompts(r1):
                run.ground(out, tell)
    return out


@dataclass(frozen=True, eq=False)
class _Run:
    r1: AudioR1
    items: Sequence[Item]
    sounding: Sounding
    running: Running
    file: ResultFile

    def phases(self) -> Iterator[tuple[str, list[Wanted]]]:
        """What is to be done, each phase known when those before it are over."""
        yield "replies", list(self._plain())
        if self.running.lengths:
            yield BUDGETS, list(self._shorter())
        for control in self.running.controls:
            yield control, list(self._controlled(control))

    def do(self, name: str, wanted: Sequence[Wanted], tell: Telling) -> None:
        left = sum(len(one.samples) for one in wanted)
        tell(name, 0, left)
        with shared_prompts(self.r1) if name == BUDGETS else nullcontext():
            for number, result in enumerate(self._asked(wanted), start=1):
                self.file.append(result)
                tell(name, number, left)

    def _asked(self, wanted: Sequence[Wanted]) -> Iterator[Result]:
        return ask(self.r1, wanted, self.sounding, max_rows=self.running.max_rows, room=self.running.room)

    def ground(self, out: Path, tell: Telling) -> None:
        """Measure the replies, into grounding.jsonl."""
        level, seed = self.running.grounding, self.running.seed
        file = GroundingFile(out, digest_of(self.items))
        asked = to_measure(self.items, self.file.found.values(), level, file)
        _through("grounding", measure_replies(self.r1, asked, self.sounding, level, file), len(asked), tell)
        if level != "full":
            return
        items = of_options(self.items, MARGIN, file)
        _through("margins", measure_margins(self.r1, items, self.sounding, file), len(items), tell)
        items = of_options(self.items, ORDER, file)
        wanted = [w for item in items for w in wanted_orders([item], self._options_short(item), seed)]
        _through("orders", take_orders(items, self._asked(wanted), seed, file), len(items), tell)

    def _options_short(self, item: Item) -> dict[str, Any]:
        return {**self._options(item), "max_tokens": self.running.answer_tokens}

    def _plain(self) -> Iterator[Wanted]:
        for item in self.items:
            yield from self._samples(Wanted(item, self._options(item)))

    def _controlled(self, control: str) -> Iterator[Wanted]:
        budget = self.running.control_budget
        for item in self.items:
            if item.sounds:
                options = self._options(item)
                if budget == 0:
                    options["thinking"] = False
                elif budget is not None:
                    options["thinking_budget"] = budget
                at = FULL if budget is None else budget
                yield from self._samples(Wanted(item, options, budget=at, control=control))

    def _samples(self, one: Wanted) -> Iterator[Wanted]:
        """With the samples that are not there yet."""
        samples = tuple(i for i in range(self.running.samples)
                        if (one.item.uid, i, one.budget, one.control) not in self.file.found)  # fmt: skip
        if samples:
            yield replace(one, samples=samples)

    def _shorter(self) -> Iterator[Wanted]:
        """Replies whose reasoning is longer than a budget; those that ended before keep their row at once."""
        by_uid, found = {item.uid: item for item in self.items}, self.file.found
        keys = [(uid, sample, FULL, REAL) for uid in by_uid for sample in range(self.running.samples)]
        for full, budget in list(shorter.missing(found, [found[key] for key in keys], self.running.lengths)):
            if shorter.ended_before(full, budget):
                self.file.append(shorter.kept(full, budget))
            else:
                item = by_uid[full.uid]
                yield shorter.cut(full, item, self._options_short(item), budget, self.r1.tokenizer)

    def _options(self, item: Item) -> dict[str, Any]:
        """Fields of `Settings`. Controls draw from the same stream as the true sound, so that less of what
        changes is chance."""
        return {**settings_of(item, self.running), "seed": seed_for(self.running.seed, item.uid)}


def _through(name: str, steps: Iterator[None], total: int, tell: Telling) -> None:
    tell(name, 0, total)
    for number, _ in enumerate(steps, start=1):
        tell(name, number, total)


def settings_of(item: Item, running: Running) -> dict[str, Any]:
    """What the item's profile says about generation, and what the run says above it."""
    thinking = {"thinking": bool(item.extra.get("thinking", True))}
    return {**item.extra.get("settings", {}), **thinking, **running.settings}


# ---- the folder


@contextmanager
def _alone(out: Path) -> Iterator[None]:
    """Raises EvaluationError where another run is at work in the folder."""
    path = out / LOCK
    with disk_errors(path):
        out.mkdir(parents=True, exist_ok=True)
    with path.open("ab") as file:
        if not locked(file):
            raise EvaluationError(f"{out}: another run is at work in it; wait for it, or choose another -o")
        yield


def _file(r1: AudioR1, sources: Sequence[Source], out: Path, running: Running) -> ResultFile:
    """results.jsonl, with run.json and items.jsonl beside it."""
    head = _head(r1, sources, running)
    file = ResultFile(out, head)
    if running.retry_failed:
        drop_errors(out)
        file = ResultFile(out, head)
    items = [stored(item, out) for source in sources for item in source.items]
    told = _told(head, sources, running, str(r1.adapter_path or ""))
    write_file(out / ITEMS, "".join(line_of(item_to_json(item)) for item in items))
    write_file(out / RUN, json.dumps(told, indent=1, ensure_ascii=False) + "\n")
    return file


def _head(r1: AudioR1, sources: Sequence[Source], running: Running) -> dict[str, Any]:
    """Whatever rows depend on: a folder has rows of one such head."""
    head: dict[str, Any] = {
        "model": r1.name,
        "weights": fingerprint(r1.name, dated=False)[:16],
        "adapter": adapter_files.fingerprint(r1.adapter_path)[:16] if r1.adapter_path else "",
        "seed": running.seed,
        "answer_tokens": running.answer_tokens,
    }
    for source in sources:
        for name, value in effective(r1, source.items[0], running).items():
            head[f"{source.bench} {name}"] = value
    return {**head, "items": digest_of([item for source in sources for item in source.items])}


def effective(r1: AudioR1, item: Item, running: Running) -> dict[str, Any]:
    """The settings as they act: those of the checkpoint too, which nobody gave."""
    settings = asdict(replace(r1.defaults, **settings_of(item, running)))
    return {name: value for name, value in settings.items() if name in _ACTING}


_ACTING = ("max_tokens", "temperature", "top_p", "top_k", "min_p", "repetition_penalty", "thinking",
           "thinking_budget", "kv_bits", "kv_group_size", "quantized_kv_start")  # fmt: skip


def _told(
    head: Mapping[str, Any], sources: Sequence[Source], running: Running, adapter: str
) -> dict[str, Any]:
    """run.json: the head, and what else people want to know of it."""
    benches = {
        source.bench: {
            "items": len(source.items), "of": source.of or len(source.items), "reasons": list(source.reasons),
            "version": source.items[0].version, "profile": profile_of(source.items[0]),
            "option_style": source.items[0].option_style, "settings": dict(running.settings),
        } for source in sources
    }  # fmt: skip
    asked = {"samples": running.samples, "budgets": running.lengths, "controls": list(running.controls),
             "control_budget": running.control_budget, "grounding": running.grounding}  # fmt: skip
    return {**head, **asked, "bench": benches, "adapter_path": adapter, "audio_r1": __version__}


def digest_of(items: Iterable[Item]) -> str:
    """Hex sha256, shortened, of all that is asked and compared with; where sounds lie does not matter."""
    digest = hashlib.sha256()
    for item in items:
        line = item_to_json(_with_sources(item, lambda source: Path(source).name))
        digest.update(json.dumps(line, sort_keys=True).encode())
    return digest.hexdigest()[:16]


def stored(item: Item, out: Path) -> Item:
    """The item as items.jsonl of the run has it: places counted from there where they have a root in common."""
    here = os.path.realpath(out)

    def place(source: str) -> str:
        path = os.path.abspath(source)
        near = os.path.commonpath([path, here]) != os.path.sep if path[:1] == here[:1] else False
        return os.path.relpath(path, here) if near else path

    return _with_sources(item, place)


def _with_sources(item: Item, change: Callable[[str], str]) -> Item:
    turns = tuple(Turn(t.role, tuple(AudioPart(change(str(p.source))) if isinstance(p, AudioPart) else p
                                     for p in t.parts)) for t in item.turns)  # fmt: skip
    return replace(item, turns=turns)


def drop_errors(out: Path) -> None:
    """Rows with an error leave the file, so that they are made again. Raises DiskError."""
    path = out / RESULTS
    if not path.exists():
        return
    with disk_errors(path):
        lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    write_file(path, "".join(line for line in lines[:1] + [x for x in lines[1:] if not _is_error(x)]))


def _is_error(line: str) -> bool:
    try:
        return bool(json.loads(line).get("error"))
    except (ValueError, AttributeError):
        return False


def read_run(out: Path) -> dict[str, Any]:
    """run.json. Raises EvaluationError."""
    try:
        found = json.loads((out / RUN).read_text(encoding="utf-8"))
        return dict(found)
    except (OSError, ValueError, TypeError):
        raise EvaluationError(f"{out / RUN}: cannot be read; give a folder of audio-r1 eval run") from None
