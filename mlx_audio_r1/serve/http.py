"""Bodies in and streams out, with limits: a slow, silent or vanished client never holds the server.

Written on ASGI directly where Starlette would wait without end or not notice that a client is gone. The
surprise: limits of time are `asyncio.timeout`, never `asyncio.wait_for`, which on Python 3.11 forgets a
cancellation that comes as its work ends; a stream whose client is gone would then go on to its last token.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing, suppress
from typing import Any, TypeVar

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from mlx_audio_r1.serve.problems import Problem
from mlx_audio_r1.serve.replies import to_json

BODY_STALL_SECONDS = 30.0  # without a byte of the body
SEND_STALL_SECONDS = 60.0  # without the client taking a byte
DRAIN_BYTES = 256_000_000  # of a refused body read before the connection is closed on the rest
DRAIN_SECONDS = 10.0
Result = TypeVar("Result")


class ClientGone(Exception):
    """Nobody waits for the reply any more."""


class JSONReply(Response):
    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        return to_json(content)


def problem_reply(problem: Problem) -> JSONReply:
    """A refused request."""
    return JSONReply(problem.body(), problem.status, headers=problem.headers)


class Incoming:
    """`receive` that knows whether the whole body has come."""

    def __init__(self, scope: Scope, receive: Receive):
        self._receive = receive
        self._asks_first = any(name == b"expect" for name, _ in scope["headers"])
        self._complete = False

    async def __call__(self) -> Message:
        message = await self._receive()
        self._complete = message["type"] == "http.disconnect" or not message.get("more_body", False)
        return message

    async def refuse(self, problem: Problem, scope: Scope, send: Send) -> None:
        """Send a refusal. What has not come by then is not waited for."""
        if problem.status != 408:
            await self._drain()
        if not self._complete:
            problem.headers["connection"] = "close"
        await problem_reply(problem)(scope, self, send)

    async def _drain(self) -> None:
        """Read the rest of the body and forget it. Most clients look for an answer only once they have
        sent everything, and a connection that is closed on unread bytes takes the answer with it."""
        left = 0 if self._asks_first else DRAIN_BYTES
        with suppress(TimeoutError):
            async with asyncio.timeout(DRAIN_SECONDS):
                while left > 0 and not self._complete:
                    left -= len((await self()).get("body", b""))


def limited(receive: Receive, most: int, too_large: Callable[[], Problem]) -> Receive:
    """`receive` that raises once more than `most` bytes have come, or none for too long."""
    total = 0

    async def receive_some() -> Message:
        nonlocal total
        try:
            async with asyncio.timeout(BODY_STALL_SECONDS):
                message = await receive()
        except TimeoutError:
            raise Problem("the body did not arrive in time", status=408, code="timeout") from None
        if message["type"] == "http.disconnect":
            raise ClientGone
        total += len(message.get("body", b""))
        if total > most:
            raise too_large()
        return message

    return receive_some


def check_declared_length(request: Request, most: int, too_large: Callable[[], Problem]) -> None:
    """Refuse a body by what its header says, before any of it is read."""
    declared = request.headers.get("content-length", "")
    if declared.isascii() and declared.isdigit() and (len(declared) > 15 or int(declared) > most):
        raise too_large()


async def read_body(request: Request, most: int, too_large: Callable[[], Problem]) -> bytes:
    """The whole body. Raises Problem (408, 413) or ClientGone."""
    check_declared_length(request, most, too_large)
    receive = limited(request.receive, most, too_large)
    pieces, more = [], True
    while more:
        message = await receive()
        pieces.append(message.get("body", b""))
        more = message.get("more_body", False)
    return b"".join(pieces)


async def gone(receive: Receive) -> None:
    """Returns when the client has hung up; only after the whole body was read."""
    while (await receive())["type"] != "http.disconnect":
        pass


async def while_connected(receive: Receive, work: Awaitable[Result]) -> Result:
    """The result of `work`; it is cancelled, and ClientGone raised, when the client hangs up."""
    task = asyncio.ensure_future(work)
    watch = asyncio.ensure_future(gone(receive))
    try:
        await asyncio.wait({task, watch}, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            return task.result()
        raise ClientGone
    finally:
        for pending in (task, watch):
            pending.cancel()
        await asyncio.gather(task, watch, return_exceptions=True)


class EventStream(Response):
    """Server-sent events. The status waits for the first event for a while, so that a request that
    fails at once fails with its own status; from then on silence is filled with comments."""

    def __init__(
        self,
        events: AsyncGenerator[dict[str, Any], None],
        keep_alive: float,
        explain: Callable[[Exception], Problem],
    ):
        super().__init__()
        self._events, self._keep_alive, self._explain = events, keep_alive, explain

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await while_connected(receive, self._send_all(scope, receive, send))

    async def _send_all(self, scope: Scope, receive: Receive, send: Send) -> None:
        begun = False
        try:
            async with aclosing(self._with_pauses()) as pieces:
                async for data in pieces:
                    if not begun:
                        await _within(send(self._start()))
                        begun = True
                    await _within(send({"type": "http.response.body", "body": data, "more_body": True}))
            await _within(send({"type": "http.response.body", "body": b"data: [DONE]\n\n"}))
        except ClientGone:
            raise
        except Exception as error:  # told to the client, and logged where it is not the client's own
            problem = self._explain(error)
            if not begun:
                await problem_reply(problem)(scope, receive, send)
                return
            last = _event(problem.body()) + b"data: [DONE]\n\n"
            await _within(send({"type": "http.response.body", "body": last}))

    async def _with_pauses(self) -> AsyncGenerator[bytes, None]:
        """The events, and a comment whenever there was none for a while."""
        following = asyncio.ensure_future(anext(self._events, None))
        try:
            while True:
                done, _ = await asyncio.wait({following}, timeout=self._keep_alive)
                if not done:
                    yield b": keep-alive\n\n"
                    continue
                event = following.result()
                if event is None:
                    return
                yield _event(event)
                following = asyncio.ensure_future(anext(self._events, None))
        finally:
            following.cancel()
            await asyncio.gather(following, return_exceptions=True)
            await self._events.aclose()

    @staticmethod
    def _start() -> Message:
        headers = [(b"content-type", b"text/event-stream; charset=utf-8"), (b"cache-control", b"no-cache"),
                   (b"x-accel-buffering", b"no")]
        return {"type": "http.response.start", "status": 200, "headers": headers}


def _event(data: dict[str, Any]) -> bytes:
    return b"data: " + to_json(data) + b"\n\n"


async def _within(sending: Awaitable[None]) -> None:
    try:
        async with asyncio.timeout(SEND_STALL_SECONDS):
            await sending
    except (TimeoutError, OSError):
        raise ClientGone from None
