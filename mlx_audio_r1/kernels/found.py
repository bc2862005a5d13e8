"""What was found out about kernels on a device, kept in a file: winners of measurements, ops that were proven.

    {"winners": {"<place> <op> <arguments>": {"kernel": true, "ratio": 1.3}},
     "verified": {"<place>": {"<op>": true}}}

A place is device, MLX and package, each with its version: with another of them all is found out anew.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import mlx.core as mx

from mlx_audio_r1 import __version__
from mlx_audio_r1.errors import DiskError
from mlx_audio_r1.files import write_file


@dataclass
class Found:
    winners: dict[str, dict[str, Any]] = field(default_factory=dict)  # by key: kernel, ratio
    verified: dict[str, dict[str, bool]] = field(default_factory=dict)  # by place, op: whether all held


@cache
def device() -> str:
    """What the GPU calls itself, or the CPU where there is none."""
    asked = mx.gpu if mx.is_available(mx.gpu) else mx.cpu
    return str(mx.device_info(asked).get("device_name", "unknown"))


@cache
def place() -> str:
    return f"{device().replace(' ', '-')} mlx-{mx.__version__} audio-r1-{__version__}"


def read(file: Path | None) -> Found:
    """A damaged file is as none: it is all found out again."""
    if file is None:
        return Found()
    with suppress(OSError, ValueError):
        kept = json.loads(file.read_text(encoding="utf-8"))
        if isinstance(kept, dict):
            return Found(_rows(kept.get("winners"), _is_winner), _rows(kept.get("verified"), _is_verdicts))
    return Found()


def keep(file: Path | None, found: Found) -> None:
    """Another process may have written since: what it found stays. No room to write costs only the memory."""
    if file is None:
        return
    with suppress(DiskError, OSError):
        file.parent.mkdir(parents=True, exist_ok=True)
        before = read(file)
        here = {**before.verified.get(place(), {}), **found.verified.get(place(), {})}
        verified = {**before.verified, place(): here} if here else before.verified
        kept = {"winners": {**before.winners, **found.winners}, "verified": verified}
        write_file(file, json.dumps(kept, indent=1, sort_keys=True) + "\n")


def _rows(given: Any, fits: Any) -> dict[str, Any]:
    return {key: row for key, row in given.items() if fits(row)} if isinstance(given, dict) else {}


def _is_winner(row: Any) -> bool:
    return isinstance(row, dict) and isinstance(row.get("kernel"), bool) and isinstance(row.get("ratio"), float)


def _is_verdicts(row: Mapping[str, Any]) -> bool:
    return isinstance(row, dict) and all(isinstance(passed, bool) for passed in row.values())
