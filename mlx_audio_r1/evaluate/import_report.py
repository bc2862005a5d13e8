"""What an import found, beside what the benchmark should have, and whether numbers from it can be compared.

`import_report.json` in the folder of an import. The surprise: an import that is not comparable is still an
import; the reasons go with it to wherever its numbers are shown.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from mlx_audio_r1.errors import EvaluationError
from mlx_audio_r1.evaluate.bench import Bench

REPORT = "import_report.json"
Counts = Mapping[str, Mapping[str, int]]  # group -> value -> items; "" -> "" -> all


@dataclass(frozen=True)
class ImportReport:
    """counts and expected: group -> value -> items, all of them under "". left_out: (uid, why) of items whose
    sound is missing or unreadable; damaged: of items whose sound decodes in part. long: sounds of more than one
    chunk. reasons: why numbers from these items cannot stand beside published ones; () where they can."""

    bench: str
    title: str
    source: str
    items: int
    version: str
    sha256: str
    counts: Counts
    expected: Counts
    left_out: tuple[tuple[str, str], ...]
    damaged: tuple[tuple[str, str], ...]
    seconds: float
    long: int
    decoded: bool  # was every sound decoded whole, or only opened?
    license: str
    reasons: tuple[str, ...]

    @property
    def comparable(self) -> bool:
        return not self.reasons

    def as_dict(self) -> dict[str, Any]:
        return {**asdict(self), "comparable": self.comparable}


def read_report(folder: Path) -> ImportReport | None:
    """The report of an import, None where the folder has none. Raises EvaluationError where it is broken."""
    path = folder / REPORT
    if not path.exists():
        return None
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        values = {field.name: found[field.name] for field in fields(ImportReport)}
        for name in ("left_out", "damaged"):
            values[name] = tuple((str(uid), str(why)) for uid, why in values[name])
        return ImportReport(**{**values, "reasons": tuple(values["reasons"])})
    except (OSError, ValueError, KeyError, TypeError):
        raise EvaluationError(f"{path}: cannot be read; import the benchmark again") from None


def reasons_against(bench: Bench, name: str, counts: Counts, left_out: int) -> tuple[str, ...]:
    """Why numbers cannot be compared with published ones. name: of the version, "" where it is not known."""
    found = [against_version(bench, name), f"{left_out} items without sound" if left_out else ""]
    return tuple(reason for reason in (*found, *_of_counts(bench, counts)) if reason)


def against_version(bench: Bench, name: str) -> str:
    """What is to be said against a version, "" where nothing is."""
    if not bench.versions or name in (bench.comparable or bench.versions.values()):
        return ""
    wanted = f", published numbers are of {' or '.join(bench.comparable)}" if bench.comparable else ""
    return f"version {name}{wanted}" if name else f"an unknown version{wanted}"


def _of_counts(bench: Bench, counts: Counts) -> list[str]:
    return [
        f"{counts.get(group, {}).get(value, 0)} of {wanted} {value or 'items'}"
        for group, values in bench.expected.items()
        for value, wanted in values.items()
        if counts.get(group, {}).get(value, 0) != wanted
    ]
