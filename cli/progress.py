"""How far a long job is: one line that is kept up to date on a terminal, else a line now and then."""

from __future__ import annotations

import shutil
import sys
import time

import click

SECONDS_BETWEEN_LINES = 60.0  # where stderr is no terminal
SECONDS_BETWEEN_DRAWINGS = 0.1


class Progress:
    """Counts what is done; everything goes to stderr."""

    def __init__(self, total: int, *, shown: bool = True):
        self.done = self.failed = 0
        self.sound = 0.0  # seconds heard
        self._parts: dict[str, float] = {}  # id -> share that is done, of what is being worked on
        self._total = total
        self._shown = shown
        self._live = shown and sys.stderr.isatty()
        self._started = time.monotonic()
        self._drawn = self._started - SECONDS_BETWEEN_DRAWINGS if self._live else self._started
        self._draw()

    def part(self, id_: str, seconds: float, share: float) -> None:
        """A share of a recording of so many seconds is done."""
        self._parts[id_] = self._parts.get(id_, 0.0) + share
        self.sound += seconds * share
        self._draw()

    def finished(self, id_: str, seconds: float) -> None:
        """All of a recording is done."""
        self.done += 1
        self.sound += seconds * (1 - self._parts.pop(id_, 0.0))
        self._draw()

    def broken(self, id_: str, message: str) -> None:
        """A recording has failed; said at once."""
        self.failed += 1
        self._parts.pop(id_, None)
        self.say(message, "red")
        self._draw()

    def say(self, message: str, colour: str | None = None) -> None:
        """A line above the progress."""
        self.clear()
        click.secho(message, err=True, fg=colour, dim=colour is None)

    def clear(self) -> None:
        """Take the line away."""
        if self._live:
            click.echo("\r\x1b[K", err=True, nl=False)
            self._drawn = 0.0  # the next one is drawn at once

    def _draw(self) -> None:
        now = time.monotonic()
        pause = SECONDS_BETWEEN_DRAWINGS if self._live else SECONDS_BETWEEN_LINES
        if not self._shown or now - self._drawn < pause:
            return
        self._drawn = now
        line = self.line()
        if self._live:
            width = shutil.get_terminal_size().columns - 1
            click.echo(f"\r\x1b[K{line[:width]}", err=True, nl=False)
        else:
            click.echo(line, err=True)

    def line(self) -> str:
        """12/500 files, 3 failed; 1.2 h of sound, 14.3 hours an hour; 0:12:30 left."""
        elapsed = time.monotonic() - self._started
        ready = self.done + self.failed
        parts = [f"{ready}/{self._total} files" + (f", {self.failed} failed" if self.failed else "")]
        if self.sound:
            speed = self.sound / max(elapsed, 1e-9)
            parts.append(f"{in_words(self.sound)} of sound, {speed:.1f} hours an hour")
        worked = ready + sum(self._parts.values())
        if 0 < worked < self._total:
            parts.append(f"{clock(elapsed / worked * (self._total - worked))} left")
        return "; ".join(parts)

    def took(self) -> str:
        """The time since the start."""
        return clock(time.monotonic() - self._started)


def clock(seconds: float) -> str:
    """h:mm:ss."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}"


def in_words(seconds: float) -> str:
    """Seconds, minutes or hours, whichever is read most easily."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7_200 else f"{seconds / 3600:.1f} h"
