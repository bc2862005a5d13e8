"""What a launch found, and what it counted."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from shutil import which
from typing import Any, NamedTuple

# Legal, but rarely meant; recorded and not raised.
WARNINGS = frozenset({"partial_simd", "divergent_simd", "float_cast", "int_overflow"})

HEADER_LINE = 100_001  # lines from here on are the header's
_SITE = 1 << 31
_OUR_FILES = re.compile(r"(msl|types|math|simd|atomic|matrix|entry|abi)\.h|\?\?")


@dataclass(frozen=True)
class Finding:
    kind: str       # race, missing_fence, out_of_bounds, uninitialised_output, ...
    message: str
    where: str = ""
    other: str = ""  # the access it conflicts with
    lane: int = -1
    threadgroup: int = 0

    def __str__(self) -> str:
        other = f" (the other: {self.other})" if self.other else ""
        return f"{self.kind} at {self.where or 'the end'}: {self.message}{other}"


class SimulationError(RuntimeError):
    """A launch with findings. `outputs` holds what it computed nevertheless, by buffer index."""

    def __init__(self, kernel: str, findings: Sequence[Finding]) -> None:
        self.findings = list(findings)
        self.outputs: dict[int, Any] = {}
        super().__init__(f"{kernel}:\n  " + "\n  ".join(map(str, findings)))

    @property
    def kinds(self) -> set[str]:
        return {f.kind for f in self.findings}


class Traffic(NamedTuple):
    """Bytes of a buffer, and those that loads and stores asked for, before any cache."""

    size: int
    read: int
    written: int


@dataclass
class LaunchReport:
    kernel: str
    findings: list[Finding] = field(default_factory=list)
    seconds: float = 0.0
    compile_seconds: float = 0.0  # almost nothing when the kernel was in the cache
    steps: int = 0
    accesses: int = 0
    threadgroup_bytes: int = 0
    repeated_writes: int = 0  # unordered writes of one value: harmless
    traffic: dict[str, Traffic] = field(default_factory=dict)  # by the buffer's name


def parse(report: str, library: str) -> list[Finding]:
    """The runtime's lines: kind, where, other, lane, threadgroup, message."""
    rows = [line.split("\t", 5) for line in report.splitlines()]
    wheres = {int(row[i]) for row in rows for i in (1, 2)}
    names = _code_names(library, tuple(sorted(w for w in wheres if 0 < w < _SITE)))
    return [
        Finding(kind, message, _name(int(where), names), _name(int(other), names), int(lane), int(group))
        for kind, where, other, lane, group, message in rows
    ]


def _name(where: int, names: dict[int, str]) -> str:
    if where < _SITE:
        return names.get(where, "")
    line = (where - _SITE) // 512
    return f"header line {line - HEADER_LINE + 1}" if line >= HEADER_LINE else f"line {line}"


@cache
def _code_names(library: str, offsets: tuple[int, ...]) -> dict[int, str]:
    """file:line of offsets in a library, the innermost of the kernel's own; needs binutils' addr2line."""
    if not offsets or not which("addr2line"):
        return {}
    command = ["addr2line", "-i", "-a", "-e", library, *map(hex, offsets)]
    out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    frames: dict[int, list[str]] = {}
    for line in out.splitlines():
        if line.startswith("0x"):
            frames[int(line, 16)] = own = []
        elif m := re.match(r"(?:.*/)?([^/]+):(\d+)", line):
            own += [] if _OUR_FILES.fullmatch(m[1]) else [f"{m[1]}:{m[2]}"]
    return {offset: " < ".join(own[:3]) for offset, own in frames.items()}
