"""A download of a benchmark -> a folder of items that `eval run` can ask.

    report = import_bench(bench("mmau"), Path("MMAU"), Path("mmau"))

    DIR/items.jsonl          `audio-r1.task/1`; appears last, whole or not at all
    DIR/audio/               sounds that lay inside another file
    DIR/import_report.json   counts, version, what was left out

Sounds that are files stay where they are, and items say where, counted from DIR. The surprise: a sound is
opened here, not only looked for: names end in .wav over MP3 bytes, and a download is often half there.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from mlx_audio_r1.config import CHUNK_SECONDS
from mlx_audio_r1.errors import EvaluationError
from mlx_audio_r1.evaluate.arrange import arranged, with_sounds
from mlx_audio_r1.evaluate.bench import Bench, Question
from mlx_audio_r1.evaluate.import_report import (
    REPORT,
    ImportReport,
    against_version,
    read_report,
    reasons_against,
)
from mlx_audio_r1.evaluate.pinning import file_sha256, fingerprint, question_key, version_name, version_tag
from mlx_audio_r1.evaluate.results import ITEMS
from mlx_audio_r1.evaluate.sound_store import NoSound, SoundStore
from mlx_audio_r1.files import disk_errors, write_file
from mlx_audio_r1.tasks.item import Item
from mlx_audio_r1.tasks.item_files import item_to_json

Telling = Callable[[int], None]  # questions read


@dataclass(frozen=True, kw_only=True)
class ImportOptions:
    """allow_missing: leave items out whose sound is missing or unreadable. check_audio: decode every sound
    whole. per_task and seed: of a benchmark that is made on the spot."""

    allow_missing: bool = False
    check_audio: bool = False
    per_task: int = 16
    seed: int = 0


def import_bench(
    bench: Bench,
    path: Path | None,
    out: Path,
    options: ImportOptions = ImportOptions(),
    tell: Telling | None = None,
) -> ImportReport:
    """Write the folder. path: of the download; None for a benchmark that is made on the spot.

    Raises EvaluationError where the layout is another one, an id comes twice, or a sound is missing and may
    not be; DiskError where nothing can be written.
    """
    pinned = bench.pinned(path) if path else None
    sha256 = file_sha256(pinned) if pinned else ""
    _check_out(bench, pinned, out)
    taken = _Taking(bench, SoundStore(out, options.check_audio), options.allow_missing)
    with _told_of_version(bench, sha256):
        for number, question in enumerate(_questions(bench, path, options), start=1):
            taken.take(question)
            if tell:
                tell(number)
        taken.check(path)
    name = version_name(bench, sha256, print_ := fingerprint(taken.keys))
    version = version_tag(bench, name, sha256 or print_)
    report = ImportReport(
        bench=bench.name, title=bench.title, source=str(path or "built in"), items=len(taken.items),
        version=version, sha256=sha256 or print_, counts=taken.counts(), expected=bench.expected,
        left_out=tuple(taken.left_out), damaged=tuple(taken.damaged), seconds=round(taken.seconds, 1),
        long=taken.long, decoded=options.check_audio, license=bench.license,
        reasons=reasons_against(bench, name, taken.counts(), len(taken.left_out)),
    )  # fmt: skip
    _write(out, [replace(item, version=version) for item in taken.items], report)
    return report


@contextmanager
def _told_of_version(bench: Bench, sha256: str) -> Iterator[None]:
    """What is wrong with an old file is often that it is old."""
    try:
        yield
    except EvaluationError as error:
        if not (old := against_version(bench, version_name(bench, sha256))) or sha256 not in bench.versions:
            raise
        raise EvaluationError(f"{error} (the file is {old})") from None


def _questions(bench: Bench, path: Path | None, options: ImportOptions) -> Iterator[Question]:
    if bench.make and path is None:
        return bench.make(options.per_task, options.seed)
    if path is None:
        raise EvaluationError(f"{bench.name}: give the path of your download; {bench.source}")
    return bench.read(path)


def _check_out(bench: Bench, pinned: Path | None, out: Path) -> None:
    """Nothing that is not ours may be written over."""
    there, report = out / ITEMS, read_report(out) if out.is_dir() else None
    if out.exists() and not out.is_dir():
        raise EvaluationError(f"{out}: is a file; give -o a folder")
    if report and report.bench != bench.name:
        raise EvaluationError(f"{out}: holds an import of {report.bench}; give -o another folder")
    if there.exists() and not report:
        raise EvaluationError(f"{there}: is there already and of no import; give -o another folder")
    if pinned and there.exists() and there.samefile(pinned):
        raise EvaluationError(f"{there}: is what would be read; give -o another folder")


def _write(out: Path, items: list[Item], report: ImportReport) -> None:
    lines = [json.dumps(item_to_json(item), ensure_ascii=False) + "\n" for item in items]
    with disk_errors(out):
        out.mkdir(parents=True, exist_ok=True)
    write_file(out / REPORT, json.dumps(report.as_dict(), ensure_ascii=False, indent=2) + "\n")
    write_file(out / ITEMS, "".join(lines))


@dataclass(eq=False)
class _Taking:
    """Items as they come, and what there is to say about them."""

    bench: Bench
    sounds: SoundStore
    allow_missing: bool
    items: list[Item] = field(default_factory=list)
    left_out: list[tuple[str, str]] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)
    damaged: list[tuple[str, str]] = field(default_factory=list)
    seconds: float = 0.0
    long: int = 0
    _places: dict[str, int] = field(default_factory=dict)  # uid -> its number

    def take(self, question: Question) -> None:
        """An item of the question, or its place among those left out."""
        uid = ":".join(part for part in (self.bench.name, question.split, question.id) if part)
        number = len(self._places) + 1
        if uid in self._places:
            raise EvaluationError(
                f"{self.bench.name}: questions {self._places[uid]} and {number} have the same id "
                f"{question.id!r}; is the download there twice?"
            )
        self._places[uid] = number
        self.keys.append(question_key(question))
        item = arranged(question, self.bench.profile(), uid)
        try:
            stored = [self.sounds.store(part.source, uid, k) for k, part in enumerate(item.sounds)]
        except NoSound as missing:
            self.left_out.append((uid, str(missing)))
            return
        extra = {**item.extra, "seconds": round(sum(sound.seconds for sound in stored), 3)}
        item = with_sounds(item, [sound.place for sound in stored])
        self.items.append(replace(item, bench=self.bench.name, license=self.bench.license, extra=extra))
        self.damaged += [(uid, sound.note) for sound in stored if sound.note]
        self.seconds += extra["seconds"]
        self.long += sum(sound.seconds > CHUNK_SECONDS for sound in stored)

    def check(self, path: Path | None) -> None:
        """Raises EvaluationError where there is nothing to ask, or a sound is missing and may not be."""
        if not self._places:
            raise EvaluationError(f"{path}: no questions in it; download it again")
        if self.left_out and (not self.allow_missing or not self.items):
            uid, why = self.left_out[0]
            more = f"{len(self.left_out)} of {len(self._places)} sounds cannot be used, the first of {uid}"
            step = "; download them, or leave them out with --allow-missing" if self.items else ""
            raise EvaluationError(f"{path}: {more}: {why}{step}")

    def counts(self) -> dict[str, dict[str, int]]:
        """group -> value -> items."""
        found: dict[str, Counter[str]] = defaultdict(Counter)
        found[""][""] = len(self.items)
        for item in self.items:
            for group, value in item.groups.items():
                found[group][str(value)] += 1
        return {group: dict(sorted(values.items())) for group, values in found.items()}
