"""`audio-r1 eval run`: items -> rows of results, each row at once, so that a killed run goes on.

    folder = run_items(r1, sources, Path("out"), Running(samples=1, budgets=(0, 64), controls=("silence",)))

Replies first, then answers under budgets, controls, and how grounded the reasoning is. Every row has a seed of
its own, of the run's seed, the item and the sample, so rows do not depend on what was there before. The
surprise: budgets, controls and samples may be added later to the same folder, because a row that is there is
never made again; another model, adapter, setting or choice of items is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mlx_audio_r1.evaluate import budgets as shorter
from mlx_audio_r1.evaluate.asking import Wanted, ask, seed_for, shared_prompts
from mlx_audio_r1.evaluate.choosing import Source, check_out, check_unique
from mlx_audio_r1.evaluate.controls import SHUFFLE, Sounding
from mlx_audio_r1.evaluate.grounding import GroundingFile, measure_replies, to_measure
from mlx_audio_r1.evaluate.option_measures import (
    MARGIN,
    ORDER,
    measure_margins,
    of_options,
    take_orders,
    wanted_orders,
)
from mlx_audio_r1.evaluate.results import FULL, REAL, Result, ResultFile
from mlx_audio_r1.evaluate.run_folder import alone_in, digest_of, run_file
from mlx_audio_r1.evaluate.running import Running, settings_of
from mlx_audio_r1.session import AudioR1
from mlx_audio_r1.tasks.item import Item

BUDGETS = "budgets"  # a phase
Telling = Callable[[str, int, int], None]  # what is being done, rows there are, rows wanted


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
    with alone_in(out):
        run = _Run(r1, items, sounding, running, run_file(r1, sources, out, running))
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
