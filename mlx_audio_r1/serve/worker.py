"""The one thread that owns the model.

Jobs go in through a queue, events come out on the asyncio queue of the request they belong to. The
model is loaded on this thread too. The surprise: MLX keeps streams for every thread that used it, and
a thread that ends without `mx.clear_streams()` aborts the process at exit.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import queue
import threading
from collections.abc import Callable
from dataclasses import dataclass

import mlx.core as mx

from mlx_audio_r1.serve.problems import Problem
from mlx_audio_r1.serve.rows import Done, Event, Happened, Job, Rows

_log = logging.getLogger(__name__)
Command = Callable[[Rows], None]


Inbox = asyncio.Queue[tuple[int, Event]]


@dataclass
class Ticket:
    """A job under way. Its events go to `inbox`, each with `tag` plus the number of its reply."""

    key: str
    tag: int
    left: int  # replies still to end
    inbox: Inbox
    loop: asyncio.AbstractEventLoop


class Worker:
    """Runs `Rows` on a thread of its own from `start` to `stop`."""

    def __init__(self, make_rows: Callable[[], Rows]):
        self._make_rows = make_rows
        self._commands: queue.SimpleQueue[Command | None] = queue.SimpleQueue()
        self._tickets: dict[str, Ticket] = {}
        self._keys = (f"job{n}" for n in itertools.count())
        self._ready = threading.Event()
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="mlx-worker", daemon=True)
        self.rows = 0  # jobs running and waiting, as last seen

    @property
    def alive(self) -> bool:
        """Whether jobs are still taken."""
        return self._thread.is_alive() and self._failure is None

    def start(self) -> None:
        """Load the model; raises what loading raises."""
        self._thread.start()
        self._ready.wait()
        if self._failure is not None:
            raise self._failure

    def stop(self) -> None:
        """End the thread; jobs under way are dropped."""
        self._commands.put(None)
        self._thread.join()

    def submit(self, job: Job, inbox: Inbox, tag: int = 0) -> Ticket:
        """Begin a job. Called on the event loop."""
        if not self.alive:
            raise Problem("the model has stopped; start the server again", status=503, code="unavailable")
        ticket = Ticket(next(self._keys), tag, job.n, inbox, asyncio.get_running_loop())
        self._tickets[ticket.key] = ticket
        self._commands.put(lambda rows: rows.add(ticket.key, job))
        return ticket

    def cancel(self, ticket: Ticket) -> None:
        """Free what a job holds; harmless when it is over. Called on the event loop."""
        if self._tickets.pop(ticket.key, None) is not None:
            self._commands.put(lambda rows: rows.cancel(ticket.key))

    # ---- on the thread

    def _run(self) -> None:
        rows: Rows | None = None
        try:
            rows = self._make_rows()
            self._ready.set()
            while self._take_commands(rows):
                happened = rows.step()
                self.rows = len(rows)  # before its client hears of an end: whoever asks then is not told of it
                self._deliver(happened)
        except BaseException as error:
            self._failure = error
            if self._ready.is_set():
                _log.exception("the model's thread has died")
            self._fail_all(error)
        finally:
            if rows is not None:
                rows.close()
            rows = None
            mx.clear_streams()
            self._ready.set()

    def _take_commands(self, rows: Rows) -> bool:
        """Carry out what was asked; wait when there is nothing to advance. False: the end."""
        while True:
            self.rows = len(rows)
            try:
                command = self._commands.get(block=not len(rows))
            except queue.Empty:
                return True
            if command is None:
                return False
            command(rows)

    def _deliver(self, happened: list[Happened]) -> None:
        for key, sample, event in happened:
            ticket = self._tickets.get(key)
            if ticket is None:
                continue
            ticket.left -= isinstance(event, Done)
            if isinstance(event, Exception) or not ticket.left:
                self._tickets.pop(key, None)
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
                ticket.loop.call_soon_threadsafe(ticket.inbox.put_nowait, (ticket.tag + sample, event))

    def _fail_all(self, error: BaseException) -> None:
        gone = Problem("the model has stopped; start the server again", status=503, code="unavailable")
        self._deliver([(key, 0, gone) for key in list(self._tickets)])
