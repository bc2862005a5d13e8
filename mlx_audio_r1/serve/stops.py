"""Stop strings, found in text that arrives in any pieces."""

from __future__ import annotations

from collections.abc import Sequence


class StopWatch:
    """Passes text on until a stop string; `hit` is then the string found.

    A little is held back whenever it could be the start of a stop string, so what comes out does not
    depend on how the text was cut. Of several strings the one that is complete first wins.
    """

    def __init__(self, stops: Sequence[str]):
        self.hit: str | None = None
        self._stops = tuple(stops)
        self._held = ""

    def push(self, piece: str) -> str:
        """The text that is certain to stand before any stop string."""
        if self.hit is not None:
            return ""
        self._held += piece
        found = [(self._held.find(stop), stop) for stop in self._stops if stop in self._held]
        if found:
            at, self.hit = min(found, key=lambda hit: (hit[0] + len(hit[1]), hit[0]))
            ready, self._held = self._held[:at], ""
            return ready
        keep = max((_overlap(self._held, stop) for stop in self._stops), default=0)
        ready = self._held[: len(self._held) - keep]
        self._held = self._held[len(ready) :]
        return ready

    def finish(self) -> str:
        """What was held back and is no stop string after all."""
        rest, self._held = self._held, ""
        return rest


def _overlap(text: str, stop: str) -> int:
    """Length of the longest end of `text` that begins `stop` but is not all of it."""
    sizes = range(min(len(text), len(stop) - 1), 0, -1)
    return next((n for n in sizes if stop.startswith(text[-n:])), 0)
