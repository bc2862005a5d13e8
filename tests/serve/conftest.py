"""A real uvicorn on a loopback port, with the tiny checkpoint behind it."""

from __future__ import annotations

import asyncio
import base64
import io
import threading
import time
import wave
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import numpy as np
import pytest

from mlx_audio_r1.serve.run import listen, make_server, running_service
from mlx_audio_r1.serve.service import ServeOptions
from mlx_audio_r1.session import AudioR1, load

TINY = Path(__file__).parent.parent / "golden" / "tiny-fp32"
PATIENCE = 240.0  # seconds for what is bound to happen, on a machine however busy


def load_tiny() -> AudioR1:
    return load(TINY)


def load_endless() -> AudioR1:
    """The tiny model with an end of turn that its vocabulary does not hold; ask it with ENDLESS."""
    r1 = load_tiny()
    r1.tokenizer.stop_ids = frozenset({10_000})
    return r1


@contextmanager
def serving(make=load_tiny, **options: Any) -> Iterator[SimpleNamespace]:
    """A server in a thread, until the block ends: its url, its service, an HTTP client."""
    with listen("127.0.0.1", 0) as bound, running_service(make, ServeOptions(**options)) as service:
        server = make_server(service)
        loop = asyncio.new_event_loop()
        thread = threading.Thread(target=lambda: loop.run_until_complete(server.serve(sockets=[bound])))
        thread.start()
        url = f"http://127.0.0.1:{bound.getsockname()[1]}"
        try:
            with httpx.Client(base_url=url, timeout=PATIENCE, trust_env=False) as http:
                yield SimpleNamespace(
                    url=url, service=service, http=http, server=server, loop=loop, port=bound.getsockname()[1]
                )
        finally:
            server.should_exit = True
            thread.join()
            loop.run_until_complete(loop.shutdown_asyncgens())
            loop.run_until_complete(loop.shutdown_default_executor())
            loop.close()


@pytest.fixture(scope="session")
def _endless() -> Iterator[SimpleNamespace]:
    with serving(load_endless, keep_alive=0.5) as server:
        yield server


@pytest.fixture
def endless(_endless: SimpleNamespace) -> Iterator[SimpleNamespace]:
    """A server whose model never ends a reply to ENDLESS by itself. No test leaves it work to do."""
    yield _endless
    wait_until(lambda: idle(_endless))


@pytest.fixture(scope="session")
def served() -> Iterator[SimpleNamespace]:
    """A server that many tests share."""
    with serving(keep_alive=0.5) as server:
        yield server


def wav(seconds: float, rate: int = 16_000, hertz: float = 440.0) -> bytes:
    """A tone as a WAV file."""
    t = np.arange(int(seconds * rate)) / rate
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setparams((1, 2, rate, 0, "NONE", ""))
        file.writeframes((0.3 * np.sin(2 * np.pi * hertz * t) * 32767).astype("<i2").tobytes())
    return buffer.getvalue()


def input_audio(data: bytes, format: str = "wav") -> dict[str, Any]:
    return {"type": "input_audio", "input_audio": {"data": base64.b64encode(data).decode(), "format": format}}


def wait_until(true: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE
    while not true():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.02)


def gauge(server: SimpleNamespace, name: str) -> float:
    """A series of /metrics that has no labels."""
    page = server.http.get("/metrics").text
    return float(next(line.split()[-1] for line in page.splitlines() if line.startswith(f"audio_r1_{name} ")))


def idle(server: SimpleNamespace) -> bool:
    return gauge(server, "requests_inside") == 0 and gauge(server, "rows") == 0


USER = {"role": "user", "content": "hi"}
GREEDY = {"temperature": 0, "max_tokens": 24, "thinking_budget": 6}
# So hot that nothing repeats: a reply that went round in circles would be ended.
ENDLESS = {"messages": [USER], "max_tokens": 60_000, "temperature": 10, "seed": 1}
