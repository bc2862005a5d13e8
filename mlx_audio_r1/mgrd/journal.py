"""state.json: which phases a run has, how far each is, and how long it took; kept up to date while it runs.

A phase that is done is never done again; one that was killed runs again and finds its own files. The file
is written at most once a second, aside and renamed, so that `status` can read it at any moment.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mlx_audio_r1.errors import AudioR1Error
from mlx_audio_r1.files import write_file
from mlx_audio_r1.mgrd.run_files import STATE, read_object

EVERY = 1.0  # s between two writings


class Stopped(Exception):
    """Somebody asked the run to stop; everything is on the disk."""


class Journal:
    """The phases of one run, in their order."""

    def __init__(self, folder: Path, names: Sequence[str]):
        self._path = folder / STATE
        before = {row.get("name"): dict(row) for row in read_object(self._path).get("phases", [])}
        fresh = {"state": "waiting", "done": 0, "total": 0, "seconds": 0.0, "note": ""}
        self._phases = {name: {"name": name, **fresh, **before.get(name, {})} for name in names}
        for phase in self._phases.values():
            if phase["state"] != "done":
                phase["state"] = "waiting"
        self._written = 0.0
        self._write()

    def is_done(self, name: str) -> bool:
        return bool(self._phases[name]["state"] == "done")

    def told(self, name: str, done: int, total: int, note: str = "") -> None:
        """How far a running phase is."""
        phase = self._phases[name]
        phase.update(done=done, total=total, note=note, seconds=self._before + time.monotonic() - self._began)
        if time.monotonic() - self._written > EVERY:
            self._write()

    @contextmanager
    def running(self, name: str) -> Iterator[None]:
        """The phase runs inside the block; done when it ends well, failed with one line when it does not."""
        phase = self._phases[name]
        self._before, self._began = float(phase["seconds"]), time.monotonic()
        phase.update(state="running", note="")
        self._write()
        try:
            yield
        except (Stopped, KeyboardInterrupt):
            self._ended(phase, "waiting", "stopped")
            raise
        except (AudioR1Error, RuntimeError, OSError) as error:  # any other is a bug, and looks like a kill
            self._ended(phase, "failed", (str(error).splitlines() or [type(error).__name__])[0])
            raise
        phase["done"] = phase["total"]
        self._ended(phase, "done", "")

    def _ended(self, phase: dict[str, Any], state: str, note: str) -> None:
        phase.update(state=state, note=note, seconds=self._before + time.monotonic() - self._began)
        self._write()

    def _write(self) -> None:
        self._written = time.monotonic()
        write_file(self._path, json.dumps({"phases": list(self._phases.values())}, indent=1) + "\n")
