"""Which items a run asks: those of folders and built-in benchmarks, or a fair share of them.

    sources = open_sources(["mmau/", "acoustic-world"], out, Choosing(limit=100))

A share is drawn from every group as large as the group is, whatever the order of the file. The surprise: which
items are drawn depends on seed and uid alone, so the same share comes out of a file that was shuffled.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from mlx_audio_r1.errors import EvaluationError
from mlx_audio_r1.evaluate.arrange import rearranged
from mlx_audio_r1.evaluate.benches import BENCHES, bench
from mlx_audio_r1.evaluate.import_report import REPORT, read_report
from mlx_audio_r1.evaluate.importing import ImportOptions, Telling, import_bench
from mlx_audio_r1.evaluate.results import ITEMS, RESULTS
from mlx_audio_r1.tasks.item import Item
from mlx_audio_r1.tasks.item_files import read_items
from mlx_audio_r1.tasks.options import STYLES

AS_IT_IS = ImportOptions()
IMPORTS = "imports"  # in a run's folder: what was made on the spot
MINI, MINI_OF_MANY, MANY = 100, 200, 1_000  # items of --preset mini, of a benchmark that has MANY


@dataclass(frozen=True)
class Source:
    """The items of one benchmark. of: how many it has, where these are a share. reasons: why their numbers
    cannot stand beside published ones."""

    bench: str
    items: list[Item]
    group_by: tuple[str, ...] = ()
    reasons: tuple[str, ...] = ()
    of: int = 0


@dataclass(frozen=True)
class Choosing:
    """limit: items of each benchmark, all where None. preset: `mini`, in its place. seed: of the lot."""

    limit: int | None = None
    preset: str | None = None
    seed: int = 0
    profile: str | None = None
    option_style: str | None = None


def open_sources(
    names: Sequence[str], out: Path, choosing: Choosing, options: ImportOptions = AS_IT_IS,
    tell: Telling | None = None,
) -> list[Source]:  # fmt: skip
    """What is to be asked of each benchmark, whatever files its items lie in. tell: how many items there are so
    far of one that is made on the spot. Raises EvaluationError."""
    check_out(out)
    found: dict[str, Source] = {}
    for name in names:
        for source in open_source(name, out, options, tell):
            before = found.get(source.bench)
            found[source.bench] = _joined(before, source) if before else source
    check_unique([item for source in found.values() for item in source.items])
    return [_share(source, choosing) for source in found.values()]


def _joined(one: Source, other: Source) -> Source:
    reasons = tuple(dict.fromkeys([*one.reasons, *other.reasons]))
    return replace(one, items=[*one.items, *other.items], reasons=reasons)


def _share(source: Source, choosing: Choosing) -> Source:
    limit = mini(source.items) if choosing.preset else choosing.limit
    items = chosen(source.items, limit, choosing.seed, source.group_by)
    return replace(source, items=asked_as(items, choosing.profile, choosing.option_style), of=len(source.items))


def open_source(
    name: str, out: Path, options: ImportOptions = AS_IT_IS, tell: Telling | None = None
) -> list[Source]:
    """A folder of an import, a file of items, or a benchmark that is made on the spot, below `out`.

    A source for each benchmark in it. Raises EvaluationError, or DataError with file:line.
    """
    path = Path(name)
    if not path.exists() and name in BENCHES:
        path = _made(name, out, options, tell)
    file = path / ITEMS if path.is_dir() else path
    if not file.is_file():
        there = "no items.jsonl in it" if path.is_dir() else "no such file, folder or benchmark"
        raise EvaluationError(f"{name}: {there}; run audio-r1 eval import first (audio-r1 eval list)")
    items = list(read_items(file))
    if not items:
        raise EvaluationError(f"{file}: no items in it; import the benchmark again")
    report = read_report(file.parent)
    reasons = report.reasons if report else ("no import report",)
    by_bench: dict[str, list[Item]] = {}
    for item in items:
        by_bench.setdefault(item.bench, []).append(item)
    return [Source(own, its, bench(own).group_by if own in BENCHES else (), reasons)
            for own, its in by_bench.items()]  # fmt: skip


def _made(name: str, out: Path, options: ImportOptions, tell: Telling | None) -> Path:
    if bench(name).make is None:
        raise EvaluationError(f"{name}: comes from your download; run audio-r1 eval import {name} PATH -o DIR, "
                              "and give DIR")  # fmt: skip
    folder = out / IMPORTS / f"{name}-{options.per_task}-{options.seed}"
    if not (folder / ITEMS).is_file():
        import_bench(bench(name), None, folder, options, tell)
    return folder


def mini(items: Sequence[Item]) -> int:
    """How many of them `--preset mini` asks."""
    return MINI_OF_MANY if len(items) >= MANY else MINI


def chosen(items: Sequence[Item], limit: int | None, seed: int, order: Sequence[str] = ()) -> list[Item]:
    """`limit` items in their own order, every group with its share; all where there are no more.

    order: the groups' names, the most important first. They are laid out group within group, each by lot, and
    every (n / limit)-th is taken: a value of the first group gets its share within one item.
    """
    if limit is None or limit >= len(items):
        return list(items)
    names = [*order, *sorted({name for item in items for name in item.groups} - set(order))]
    lots = {item.uid: _lot(seed, item.uid) for item in items}
    laid = sorted(items, key=lambda i: (*(str(i.groups.get(name, "")) for name in names), lots[i.uid]))
    first = _lot(seed, "") / 2**64  # where in the first stretch; the same place in all others
    taken = {laid[int((k + first) * len(laid) / limit)].uid for k in range(limit)}
    return [item for item in items if item.uid in taken]


def _lot(seed: int, uid: str) -> int:
    return int.from_bytes(hashlib.sha256(f"{seed}/{uid}".encode()).digest()[:8], "little")


def asked_as(items: Sequence[Item], profile: str | None, style: str | None) -> list[Item]:
    """The items under another profile of their benchmark, or with options in another style.

    Raises EvaluationError for what nobody knows.
    """
    if style is not None and style not in STYLES:
        raise EvaluationError(f"option style {style!r}; known are {', '.join(STYLES)}")
    if profile is not None:
        return [_under(item, profile, style) for item in items]
    return [replace(item, option_style=style) for item in items] if style else list(items)


def _under(item: Item, profile: str, style: str | None) -> Item:
    if item.bench not in BENCHES:
        raise EvaluationError(f"{item.uid}: of no benchmark that has prompt profiles; leave the option out")
    try:
        found = bench(item.bench).profile(profile)
    except KeyError:
        known = ", ".join(p.name for p in bench(item.bench).profiles)
        raise EvaluationError(f"{item.bench}: no prompt profile {profile!r}; there are {known}") from None
    return rearranged(item, found, style)


def check_out(out: Path) -> None:
    """Raises EvaluationError where a run would write over something else."""
    if (out / REPORT).exists() or ((out / ITEMS).exists() and not (out / RESULTS).exists()):
        raise EvaluationError(f"{out}: holds an import, not a run; give -o another folder")


def check_unique(items: Sequence[Item]) -> None:
    """Raises EvaluationError where two items have one uid."""
    uid, times = Counter(item.uid for item in items).most_common(1)[0]
    if times > 1:
        raise EvaluationError(f"{uid}: comes {times} times; give every benchmark once")
