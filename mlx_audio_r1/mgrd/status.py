"""How far a run of MGRD is: phases, counts, and when it may be done.

The rate of the running phase tells when that one ends. A waiting phase is thought to take as long as the
same phase took last; where none has been done yet, nobody knows, and the estimate says "at least".
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from mlx_audio_r1.mgrd.run_files import REASONS, STATE, Row, RunFiles, read_object

STATES = ("done", "running", "waiting", "failed")


@dataclass(frozen=True)
class Phase:
    """One phase; seconds: what it took so far. left: seconds it may still take, None where nobody knows."""

    name: str
    state: str
    done: int = 0
    total: int = 0
    seconds: float = 0.0
    note: str = ""
    left: float | None = None

    @property
    def kind(self) -> str:
        """1/sample -> sample. Other phases than those of a round are of no kind but their own."""
        number, _, kind = self.name.partition("/")
        return kind if number.isdigit() and kind else self.name

    @property
    def count(self) -> str:
        """12 of 40; nothing where it is not counted."""
        return f"{self.done:,} of {self.total:,}" if self.total else ""


@dataclass(frozen=True)
class Filtered:
    """What the filters made of a round's samples."""

    round: int
    candidates: int
    kept: int
    reasons: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Status:
    """A run at one moment. age: seconds since it last wrote how far it is."""

    name: str
    folder: str
    phases: tuple[Phase, ...]
    filtered: tuple[Filtered, ...]
    age: float | None = None

    @property
    def running(self) -> Phase | None:
        return next((phase for phase in self.phases if phase.state == "running"), None)

    @property
    def seconds(self) -> float:
        """Spent so far."""
        return sum(phase.seconds for phase in self.phases)

    @property
    def left(self) -> float:
        """Seconds that all phases may still take, as far as that is known."""
        return sum(phase.left or 0.0 for phase in self.phases)

    @property
    def all_known(self) -> bool:
        """Is `left` of every phase, and not "at least"?"""
        return all(phase.left is not None for phase in self.phases)

    def as_dict(self) -> dict[str, Any]:
        """For --json: fields, and what follows from them."""
        counts = {state: sum(phase.state == state for phase in self.phases) for state in STATES}
        return {**asdict(self), "counts": counts, "running": self.running and self.running.name,
                "seconds": self.seconds, "left": self.left, "left_is_known": self.all_known}  # fmt: skip

    def lines(self) -> list[str]:
        """For a terminal."""
        names = max((len(phase.name) for phase in self.phases), default=0)
        return [
            f"{self.name}, {self.folder}",
            *(_phase_line(phase, names) for phase in self.phases),
            *map(_filtered_line, self.filtered),
            _summary(self),
        ]


def status(folder: Path | str) -> Status:
    """Read how far the run in `folder` is. Raises TrainingError where there is no run."""
    files = RunFiles(folder)
    path = files.folder / STATE
    rows = read_object(path).get("phases", [])
    phases = [_phase(row) for row in rows if isinstance(row, dict) and row.get("name")]
    known = tuple(Phase(**{**asdict(phase), "left": _left(phase, phases)}) for phase in phases)
    filtered = (filtered_of(number, files.decisions(number)) for number in files.rounds)
    age = max(0.0, time.time() - path.stat().st_mtime) if path.is_file() else None
    return Status(files.name, str(files.folder), known, tuple(f for f in filtered if f.candidates), age)


def filtered_of(number: int, decisions: Sequence[Row]) -> Filtered:
    """Counts by reason, in the order of the filters; reasons that are not ours come last."""
    counts = Counter(str(row["reason"]) for row in decisions)
    order = [*REASONS, *sorted(counts.keys() - set(REASONS))]
    kept = sum(bool(row.get("kept")) for row in decisions)
    return Filtered(number, len(decisions), kept, {name: counts[name] for name in order if counts[name]})


def _phase(row: Row) -> Phase:
    def number(name: str) -> float:
        value = row.get(name)
        return value if isinstance(value, int | float) else 0

    return Phase(str(row["name"]), str(row.get("state", "waiting")), int(number("done")), int(number("total")),
                 float(number("seconds")), str(row.get("note") or ""))  # fmt: skip


def _left(phase: Phase, phases: Sequence[Phase]) -> float | None:
    """Seconds by its own rate, else by that of the last phase of its kind that is done."""
    if phase.state == "done":
        return 0.0
    if 0 < phase.done <= phase.total and phase.seconds > 0:
        return phase.seconds / phase.done * (phase.total - phase.done)
    before = [p for p in phases if p.kind == phase.kind and p.state == "done" and p.seconds > 0]
    if not before:
        return None
    last = before[-1]
    return last.seconds * (phase.total / last.total if phase.total and last.total else 1.0)


# ---- in words


def duration(seconds: float) -> str:
    """93784 -> 1 day 2 h; 3725 -> 1 h 2 min; 61 -> 1 min 1 s; 4.2 -> 4 s."""
    whole = round(seconds)
    units = (("day", 86_400), ("h", 3_600), ("min", 60), ("s", 1))
    at = next((i for i, (_, size) in enumerate(units) if whole >= size), 3)
    parts = [f"{whole // units[at][1]} {units[at][0]}"]
    if at < 3 and (rest := whole % units[at][1] // units[at + 1][1]):
        parts.append(f"{rest} {units[at + 1][0]}")
    return " ".join(parts).replace(" day", " days" if whole >= 2 * 86_400 else " day")


def _phase_line(phase: Phase, width: int) -> str:
    told = [duration(phase.seconds) if phase.seconds else "", phase.note]
    if phase.state != "done" and phase.left is not None:
        told.insert(1, f"about {duration(phase.left)}" + (" left" if phase.seconds else ""))
    words = ", ".join(filter(None, told))
    return f"  {phase.state:<8} {phase.name:<{width}}  {phase.count:>16}  {words}".rstrip()


def _filtered_line(found: Filtered) -> str:
    share = 100 * found.kept / found.candidates
    reasons = ", ".join(f"{name} {n:,}" for name, n in found.reasons.items() if name != "kept")
    kept = f"{found.kept:,} of {found.candidates:,} samples kept ({share:.0f} %)"
    return f"  round {found.round}: " + "; ".join(filter(None, (kept, reasons)))


def _summary(now: Status) -> str:
    """The last line: how much is done, what is left, and whether the run still writes."""
    if not now.phases:
        return "no phase has begun"
    done = sum(phase.state == "done" for phase in now.phases)
    told = [f"{done} of {len(now.phases)} phases done in {duration(now.seconds)}"]
    failed = [phase.name for phase in now.phases if phase.state == "failed"]
    if failed:
        told.append(f"failed: {', '.join(failed)}")
    if done < len(now.phases):
        told.append(f"{'about' if now.all_known else 'at least'} {duration(now.left)} left" if now.left
                    else "what is left is not known yet")  # fmt: skip
        if now.age is not None:
            told.append(f"last written {duration(now.age)} ago")
    return "; ".join(told)
