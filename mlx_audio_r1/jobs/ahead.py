"""Run an iterator in a thread of its own, a bounded way ahead of whoever takes its values.

Made for decoding sound files while the model works. The thread must never touch MLX: a thread that
evaluated anything there has to clean up before it ends.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from threading import Condition, Thread
from typing import Generic, TypeVar

T = TypeVar("T")
GOODBYE_SECONDS = 1.0  # how long the end waits for the thread; it may be inside a decoder


class Ahead(Generic[T]):
    """The values of `work` in order, computed in a thread. Together those that wait cost at most
    `budget`, or are one. An exception of `work` is raised in its place. Close it when done."""

    def __init__(self, work: Iterable[T], cost: Callable[[T], float], budget: float):
        self._cost, self._budget = cost, budget
        self._waiting: deque[T] = deque()
        self._held = 0.0
        self._ended = self._stopped = False
        self._error: BaseException | None = None
        self._changed = Condition()
        self._thread = Thread(target=self._fill, args=(work,), daemon=True, name="decode-ahead")
        self._thread.start()

    def __iter__(self) -> Iterator[T]:
        return self

    def __next__(self) -> T:
        with self._changed:
            self._changed.wait_for(self.is_ready)
            if self._waiting:
                value = self._waiting.popleft()
                self._held -= self._cost(value)
                self._changed.notify_all()
                return value
        if self._error is not None:
            raise self._error
        raise StopIteration

    def is_ready(self) -> bool:
        """Would the next value, or the end, come at once?"""
        return bool(self._waiting) or self._ended

    def close(self) -> None:
        """Nobody takes values any more; the thread ends after the one it is at."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()
        self._thread.join(GOODBYE_SECONDS)

    def _fill(self, work: Iterable[T]) -> None:
        """What the thread does."""
        error: BaseException | None = None
        try:
            for value in work:
                if not self._put(value):
                    break
        except BaseException as raised:  # handed over: it belongs to whoever takes the values
            error = raised
        with self._changed:
            self._ended, self._error = True, error
            self._changed.notify_all()

    def _put(self, value: T) -> bool:
        cost = self._cost(value)
        with self._changed:
            self._changed.wait_for(
                lambda: self._stopped or not self._waiting or self._held + cost <= self._budget
            )
            self._waiting.append(value)
            self._held += cost
            self._changed.notify_all()
            return not self._stopped
