"""The loopback hub, and a process that converts on request."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from tests.convert.loopback_hub import LoopbackHub

DRIVER = Path(__file__).parent / "driver.py"


class Driver:
    """Runs conversions outside of this process; see driver.py."""

    def __init__(self, environment: dict[str, str]):
        self.process = subprocess.Popen(
            [sys.executable, str(DRIVER)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, **environment},
            start_new_session=True,
        )

    def run(self, hf_path: object, mlx_path: object, **request: Any) -> dict[str, Any]:
        """The answer: ok or error, said, changes; empty when the conversion was killed."""
        self._send(hf_path, mlx_path, request)
        return self._answer()

    def run_and_kill(
        self, hf_path: object, mlx_path: object, wait: Callable[[], object], **request: Any
    ) -> dict[str, Any]:
        """SIGKILL the conversion once it has its first tensor and `wait` has returned."""
        self._send(hf_path, mlx_path, request)
        assert self._line() == {"begun": True}
        wait()
        for child in self._children():
            with suppress(ProcessLookupError):  # it has ended meanwhile
                os.kill(child, signal.SIGKILL)
        return self._answer()

    def _send(self, hf_path: object, mlx_path: object, request: dict[str, Any]) -> None:
        line = json.dumps({"hf_path": str(hf_path), "mlx_path": str(mlx_path), **request})
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()

    def _line(self) -> dict[str, Any]:
        line = self.process.stdout.readline()
        assert line, "the driver died"
        return json.loads(line)

    def _answer(self) -> dict[str, Any]:
        answer: dict[str, Any] = {}
        while "ended" not in (line := self._line()):
            answer = line if "begun" not in line else answer
        killed = line["ended"] in (signal.SIGKILL, -signal.SIGKILL)
        assert answer or killed, "the conversion ended with a traceback"
        return answer

    def _children(self) -> list[int]:
        found = subprocess.run(
            ["pgrep", "-P", str(self.process.pid)], capture_output=True, text=True, check=False
        )
        return [int(pid) for pid in found.stdout.split()]

    def close(self) -> None:
        self.process.stdin.close()
        self.process.wait(timeout=240)
        self.process.stdout.close()


@pytest.fixture(scope="session")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Driver]:
    """Conversions of folders."""
    driver = Driver({"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path_factory.mktemp("home"))})
    yield driver
    driver.close()


@pytest.fixture(scope="session")
def _running_hub() -> Iterator[LoopbackHub]:
    with LoopbackHub() as hub:
        yield hub


@pytest.fixture(scope="session")
def _hub_driver(_running_hub: LoopbackHub, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Driver]:
    driver = Driver(_running_hub.environment(tmp_path_factory.mktemp("home")))
    yield driver
    driver.close()


@pytest.fixture
def hub(_running_hub: LoopbackHub) -> Iterator[LoopbackHub]:
    """The hub without faults, repositories or memories of other tests."""
    fresh = LoopbackHub()
    for name in ("folders", "faults", "bytes_per_second", "requests", "uploads", "blobs", "stalled"):
        setattr(_running_hub, name, getattr(fresh, name))
    yield _running_hub


@pytest.fixture
def hub_driver(hub: LoopbackHub, _hub_driver: Driver) -> Driver:
    """Conversions from the hub."""
    return _hub_driver
