"""How a launch is simulated. `options(order="reverse")` holds for the launches of its block."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, Literal

ORDERS = ("forward", "reverse", "random")


@dataclass(frozen=True)
class Options:
    check: bool = True                  # False: only run, several times as fast
    lint: bool = False                  # also what Apple's compiler would refuse
    order: Literal["forward", "reverse", "random"] = "forward"  # of lanes, simdgroups and threadgroups
    seed: int = 0                       # of the random order and of fast_ulps
    allow: frozenset[str] = frozenset()  # kinds of findings that are recorded, not raised
    fast_ulps: int = 0                  # error of fast:: functions, in multiples of their usual bound
    contract: Literal["off", "fast"] = "off"  # a * b + c in one rounding
    flush_denormals: bool = True
    misalign: int = 0                   # elements by which inputs are moved off a page's start
    metal: tuple[int, int] = (3, 1)     # the language version that lint assumes
    threadgroup_bytes: int = 32768
    max_threads: int = 1024
    max_steps: int = 1 << 34            # lane switches
    max_seconds: int = 120              # of processor time
    edits: Mapping[str, str] = field(default_factory=dict)  # a kernel's source or header -> what runs instead


_stack = [Options()]


def current() -> Options:
    return _stack[-1]


@contextmanager
def options(**changes: Any) -> Iterator[Options]:
    """The current options with these changes, until the block ends."""
    _stack.append(replace(_stack[-1], **changes))
    try:
        yield _stack[-1]
    finally:
        _stack.pop()
