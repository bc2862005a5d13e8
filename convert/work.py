"""The folder beside the target where a conversion grows: `DIR.partial`.

    DIR.partial/state.json   whose conversion this is, and how many steps are safely on the disk
    DIR.partial/source/      shards of the hub, one or two at a time
    DIR.partial/model/       the result; renamed to DIR when it is whole, config.json written last

The state file is deleted last, so whatever moment a run is killed at, the next one knows what it finds.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mlx_audio_r1.errors import CheckpointError, DiskError
from mlx_audio_r1.files import disk_errors, write_file


class Work:
    """The unfinished conversion that will become `target`."""

    def __init__(self, target: Path):
        self.target = target.absolute()
        self.root = self.target.with_name(self.target.name + ".partial")
        self.model = self.root / "model"
        self.source = self.root / "source"
        self._replaced = self.root / "replaced"
        self._state_file = self.root / "state.json"

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the folder for one process; leave nothing behind when no work was begun."""
        with disk_errors(self.root):
            self.root.mkdir(parents=True, exist_ok=True)
            lock = open(self.root / "lock", "w")  # noqa: SIM115, closed below
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            lock.close()
            raise DiskError(f"{self.root}: another conversion into this folder is running") from None
        try:
            yield
        finally:
            if not self._state_file.exists():
                shutil.rmtree(self.root, ignore_errors=True)
            lock.close()

    def read_state(self) -> dict[str, Any]:
        """What the last run noted; empty when there was none."""
        try:
            state = json.loads(self._state_file.read_text())
            if not isinstance(state, dict) or (state and "request" not in state):
                raise ValueError
            return state
        except (FileNotFoundError, NotADirectoryError):
            return {}
        except (OSError, ValueError):
            raise CheckpointError(
                f"{self._state_file}: cannot be read; delete {self.root} and start over"
            ) from None

    def write_state(self, state: Mapping[str, Any]) -> None:
        write_file(self._state_file, json.dumps(state, indent=1))

    def begin(self, state: Mapping[str, Any]) -> None:
        """Throw away what an earlier conversion left, and note whose this is."""
        with disk_errors(self.root):
            self._state_file.unlink(missing_ok=True)
            shutil.rmtree(self.model, ignore_errors=True)
            self.model.mkdir()
        self.write_state(state)

    def is_published(self, request: Mapping[str, Any]) -> bool:
        """True when this very conversion was killed after the result was in place."""
        with contextlib.suppress(OSError):
            self.root.rmdir()  # succeeds when a run was killed before this very last step of it
        state = self.read_state()
        return bool(
            state.get("finished")
            and state.get("request") == request
            and self.target.exists()
            and not self.model.exists()
        )

    def publish(self) -> None:
        """Put the finished model in the target's place. The state must say `finished`."""
        with disk_errors(self.target):
            for path in self.model.iterdir():
                _sync(path)
            _sync(self.model)
            if self.target.is_dir() and any(self.target.iterdir()):
                shutil.rmtree(self._replaced, ignore_errors=True)
                os.rename(self.target, self._replaced)
            os.rename(self.model, self.target)
            _sync(self.target.parent)
        self.clean_up()

    def clean_up(self) -> None:
        """Remove everything but the result; the state goes last."""
        with disk_errors(self.root):
            for path in self.root.iterdir():
                if path == self._state_file:
                    continue
                if path.is_dir() and not path.is_symlink():
                    shutil.rmtree(path, ignore_errors=True)
                else:
                    path.unlink()
            self._state_file.unlink(missing_ok=True)
            self.root.rmdir()


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
