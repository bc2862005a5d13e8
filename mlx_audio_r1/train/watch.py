"""Who is told how a run goes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol


class Watcher(Protocol):
    """`stop` asks the run to save and leave."""

    def say(self, text: str) -> None: ...
    def warn(self, text: str) -> None: ...
    def counting(self, what: str, done: int, total: int) -> None: ...
    def row(self, row: Mapping[str, Any]) -> None: ...
    def step(self, step: int) -> None: ...
    def stop(self) -> bool: ...


class Silent:
    """A Watcher that says nothing."""

    def say(self, text: str) -> None: ...
    def warn(self, text: str) -> None: ...
    def counting(self, what: str, done: int, total: int) -> None: ...
    def row(self, row: Mapping[str, Any]) -> None: ...
    def step(self, step: int) -> None: ...

    def stop(self) -> bool:
        return False


class Follower(Silent):
    """What another rank than the first tells: nothing, but it stops when it is asked to."""

    def __init__(self, watch: Watcher):
        self.stop = watch.stop  # type: ignore[method-assign]
