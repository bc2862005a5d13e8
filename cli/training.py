"""How a training run shows on a terminal: a line that is kept up to date, a row now and then, Ctrl-C."""

from __future__ import annotations

import json
import signal
import sys
import time
from collections.abc import Mapping
from types import FrameType
from typing import Any

import click

from mlx_audio_r1.cli.progress import clock

ROW = (  # of metrics.jsonl: key, words
    ("reward", "reward {:.3f}"),
    ("val_reward", "validation reward {:.3f}"),
    ("val_accuracy", "validation accuracy {:.2f}"),
    ("reasoning", "reasoning {:.2f}"),
    ("length", "{:,.0f} tokens a reply"),
    ("entropy", "entropy {:.3f}"),
    ("loss", "loss {:.4f}"),
    ("val_loss", "validation loss {:.4f}"),
    ("test_loss", "test loss {:.4f}"),
    ("accuracy", "accuracy {:.2f}"),
    ("margin", "margin {:.3f}"),
    ("learning_rate", "rate {:.2e}"),
    ("tokens_per_second", "{:,.0f} tokens/s"),
    ("peak_memory_gb", "{:.2f} GB"),
)


class Watch:
    """What a run tells, on stderr; Ctrl-C asks it to save and leave, a second one ends it at once."""

    def __init__(self, steps: int, shown: bool = True):
        self._steps, self._shown = steps, shown
        self._live = shown and sys.stderr.isatty()
        self._began: tuple[int, float] | None = None
        self._asked = False

    def __enter__(self) -> Watch:
        self._before = signal.signal(signal.SIGINT, self._interrupt)
        return self

    def __exit__(self, *_: object) -> None:
        signal.signal(signal.SIGINT, self._before)
        self._clear()

    def _interrupt(self, _: int, __: FrameType | None) -> None:
        if self._asked:
            raise KeyboardInterrupt
        self._asked = True
        self.say("Saving after this step; Ctrl-C again leaves at once.")

    def stop(self) -> bool:
        """Was Ctrl-C pressed?"""
        return self._asked

    def say(self, text: str) -> None:
        """Something worth a line."""
        self._clear()
        if self._shown:
            click.secho(text, dim=True, err=True)

    def warn(self, text: str) -> None:
        """Something that should be seen even without progress."""
        self._clear()
        click.secho(text, fg="yellow", err=True)

    def counting(self, what: str, done: int, total: int | None = None) -> None:
        """How far a preparation is."""
        self._draw(f"{what} {done:,}" + (f"/{total:,}" if total is not None else ""))

    def counted(self) -> None:
        """Nothing is being counted any more."""
        self._clear()

    def row(self, row: Mapping[str, Any]) -> None:
        """A row of metrics.jsonl."""
        if self._shown:
            self._clear()
            click.echo(f"step {row['step']:>{len(str(self._steps))}}  {row_in_words(row)}", err=True)

    def step(self, step: int) -> None:
        """A step is done."""
        first, since = self._began or (step, time.monotonic())
        self._began = (first, since)
        left = (time.monotonic() - since) / max(step - first, 1) * (self._steps - step)
        self._draw(f"step {step:,}/{self._steps:,}" + (f", {clock(left)} left" if step > first else ""))

    def _draw(self, line: str) -> None:
        if self._live:
            click.echo(f"\r\x1b[K{line}", err=True, nl=False)

    def _clear(self) -> None:
        if self._live:
            click.echo("\r\x1b[K", err=True, nl=False)


def row_in_words(row: Mapping[str, Any]) -> str:
    """loss 1.2345, rate 1.00e-04, 512 tokens/s, 1.20 GB"""
    return ", ".join(words.format(row[key]) for key, words in ROW if key in row)


def say_outcome(outcome: Any, as_json: bool) -> None:
    """The adapter's folder on stdout, or all that is known of the run as JSON."""
    if as_json:
        click.echo(json.dumps(outcome.as_dict()))
        return
    if not outcome.finished:
        click.secho(f"Stopped after {outcome.steps:,} steps; the same command goes on.", err=True, fg="yellow")
    click.echo(outcome.adapter)
    if outcome.report:
        click.secho(f"Report: {outcome.report}", dim=True, err=True)
