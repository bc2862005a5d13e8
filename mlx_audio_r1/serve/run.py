"""Start the server and stop it cleanly: model, socket, uvicorn, signals."""

from __future__ import annotations

import asyncio
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import TYPE_CHECKING

from mlx_audio_r1.errors import AudioR1Error

if TYPE_CHECKING:
    import uvicorn

    from mlx_audio_r1.serve.rows import Rows
    from mlx_audio_r1.serve.service import ServeOptions, Service
    from mlx_audio_r1.session import AudioR1

NEEDED = ("starlette", "uvicorn", "python_multipart")
SIGNALS = (signal.SIGINT, signal.SIGTERM)
GOODBYE_SECONDS = 3  # replies under way may end before they are cut
KEEP_ALIVE_SECONDS = 30  # longer than clients keep an idle connection (openai 5 s): theirs ends first
BACKLOG = 256
LISTEN_AHEAD_BYTES = 512 << 20  # 85 minutes of sound, all a context holds, are 0.65 GB of the largest model


def check_installed() -> None:
    """Raises AudioR1Error naming the extra when it is not there."""
    missing = [name for name in NEEDED if find_spec(name) is None]
    if missing:
        raise AudioR1Error(f'serve needs {missing[0]}; run: pip install "mlx-audio-r1[serve]"')


def listen(host: str, port: int) -> socket.socket:
    """A socket bound to host and port (0: any free one). Raises AudioR1Error."""
    try:
        family, kind, _, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        bound = socket.socket(family, kind)
    except OSError as error:
        raise AudioR1Error(f"{host}:{port}: {error.strerror or error}; give another --host") from None
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
        bound.listen(BACKLOG)
    except OSError as error:
        bound.close()
        raise AudioR1Error(f"{host}:{port}: {error.strerror or error}; give another --port") from None
    return bound


@contextmanager
def running_service(load: Callable[[], AudioR1], options: ServeOptions) -> Iterator[Service]:
    """The model on its thread, and the service on top of it, until the block ends."""
    from mlx_audio_r1.prompt_cache import PromptCache, fingerprint
    from mlx_audio_r1.serve.rows import Batch
    from mlx_audio_r1.serve.service import Service
    from mlx_audio_r1.serve.worker import Worker

    loaded: list[AudioR1] = []

    def make_rows() -> Rows:
        r1 = load()
        r1.prompt_cache = PromptCache(
            fingerprint(r1.name, r1.adapter_path), options.prompt_cache_bytes, options.prompt_cache_folder
        )
        loaded.append(r1)
        return Batch(r1, options.decode_concurrency, options.prompt_cache_bytes >= LISTEN_AHEAD_BYTES)

    worker = Worker(make_rows)
    try:
        worker.start()
        yield Service(loaded.pop(), worker, options)
    finally:
        worker.stop()


def make_server(service: Service) -> uvicorn.Server:
    """uvicorn around the application; `serve(sockets=[...])` runs it."""
    import uvicorn

    from mlx_audio_r1.serve.app import make_app

    class Server(uvicorn.Server):
        """Says goodbye to streams before it cuts them, and keeps the signal it was stopped by to itself."""

        async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
            service.closing = True
            asyncio.get_running_loop().call_later(GOODBYE_SECONDS, service.end_all)
            await super().shutdown(sockets)

        @contextmanager
        def capture_signals(self) -> Iterator[None]:
            if threading.current_thread() is not threading.main_thread():
                yield
                return
            before = {number: signal.signal(number, self.handle_exit) for number in SIGNALS}
            try:
                yield
            finally:
                for number, handler in before.items():
                    signal.signal(number, handler)

    return Server(uvicorn.Config(
        make_app(service), lifespan="off", log_config=None, access_log=True, ws="none", server_header=False,
        timeout_graceful_shutdown=GOODBYE_SECONDS + 3, backlog=BACKLOG, h11_max_incomplete_event_size=65_536,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
    ))


def serve(
    load: Callable[[], AudioR1],
    options: ServeOptions,
    bound: socket.socket,
    announce: Callable[[str], None],
) -> None:
    """Serve until SIGINT or SIGTERM. `announce` gets the address once requests are taken."""
    host, port = bound.getsockname()[:2]
    shown = f"[{host}]" if ":" in host else host
    with bound, running_service(load, options) as service:
        server = make_server(service)
        announce(f"{service.name} at http://{shown}:{port}/v1")
        server.run(sockets=[bound])
