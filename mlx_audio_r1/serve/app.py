"""The endpoints, on Starlette.

    POST /v1/chat/completions     also /chat/completions
    POST /v1/audio/transcriptions
    GET  /v1/models  /v1/models/{id}  /health  /metrics

Everything but /health asks for the key when there is one. A request that a web page sends is refused
unless its origin is allowed: a page anywhere could otherwise put this machine to work.
"""

from __future__ import annotations

import asyncio
import hmac
import logging
import secrets
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AsyncExitStack, aclosing
from typing import Any

from starlette.applications import Starlette
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mlx_audio_r1.errors import AudioR1Error
from mlx_audio_r1.serve.chat_request import ChatRequest, parse_chat, parse_json
from mlx_audio_r1.serve.http import (
    ClientGone,
    EventStream,
    Incoming,
    JSONReply,
    check_declared_length,
    limited,
    problem_reply,
    read_body,
    while_connected,
)
from mlx_audio_r1.serve.media import Sound, too_large
from mlx_audio_r1.serve.problems import Problem
from mlx_audio_r1.serve.replies import Completion
from mlx_audio_r1.serve.rows import Done
from mlx_audio_r1.serve.service import Service
from mlx_audio_r1.serve.transcription import WRITERS, missing_file, parse_transcription

TEXT_BYTES = 4_000_000  # of a request beside its sound
FORM_BYTES = 100_000
MAX_FORM_FIELDS = 40
_log = logging.getLogger(__name__)
Handler = Callable[[Service, Request], Awaitable[Response]]


def explain(error: Exception) -> Problem:
    """What a client is told. Our own errors are for people; anything else is logged under an id."""
    if isinstance(error, Problem):
        return error
    if isinstance(error, AudioR1Error):
        return Problem(str(error), code="invalid_request")
    name = secrets.token_hex(4)
    _log.error("error %s", name, exc_info=error)
    return Problem(f"something went wrong here; the server's log knows it as {name}",
                   status=500, code="internal_error")


class Endpoint:
    """A handler with its place in the queue, its errors as JSON and its count in the metrics."""

    def __init__(self, service: Service, handle: Handler, *, queued: bool = True):
        self._service, self._handle, self._queued = service, handle, queued

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        sent, incoming = _Sent(send), Incoming(scope, receive)
        try:
            if self._queued:
                with self._service.admitted():
                    await self._answer(scope, incoming, sent)
            else:
                await self._answer(scope, incoming, sent)
        except ClientGone:
            self._service.metrics.count("cancelled_total")
        except asyncio.CancelledError:  # the server stops and has waited long enough
            if sent.status is None:
                stopping = Problem("the server is stopping", status=503, code="unavailable")
                await problem_reply(stopping)(scope, receive, sent)
        except Exception as error:  # the last line of defence: nobody gets a traceback
            if sent.status is None:
                await incoming.refuse(explain(error), scope, sent)
            else:
                explain(error)
        finally:
            labels = {"path": _label(scope["path"]), "status": str(sent.status or 499)}
            self._service.metrics.count("requests_total", **labels)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        response = await self._handle(self._service, Request(scope, receive))
        await response(scope, receive, send)


class _Sent:
    """`send` that remembers the status."""

    def __init__(self, send: Send):
        self._send = send
        self.status: int | None = None

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
        await self._send(message)


async def chat(service: Service, request: Request) -> Response:
    """/v1/chat/completions"""
    _check_content_type(request, "application/json")
    limits = service.options.media
    most = limits.upload_bytes * 4 // 3 + TEXT_BYTES
    asked = await asyncio.to_thread(
        _read_chat, await read_body(request, most, lambda: too_large(limits)), service
    )
    completion = Completion(service.name, asked.n, service.style(asked), asked.include_usage)
    if asked.stream:
        return EventStream(_chunks(service, asked, completion), service.options.keep_alive, explain)
    return await while_connected(request.receive, _whole(service, asked, completion))


def _read_chat(body: bytes, service: Service) -> ChatRequest:
    return parse_chat(parse_json(body), service.options.media, service.thinking_default)


async def _whole(service: Service, asked: ChatRequest, completion: Completion) -> Response:
    async with aclosing(service.chat(asked)) as events:
        async for index, event in events:
            if isinstance(event, Done):
                completion.choices[index].done = event
            else:
                completion.choices[index].push(event)
    return JSONReply(completion.whole())


async def _chunks(
    service: Service, asked: ChatRequest, completion: Completion
) -> AsyncGenerator[dict[str, Any], None]:
    opening: list[dict[str, Any]] = completion.opening()
    async with aclosing(service.chat(asked)) as events:
        async for index, event in events:
            for chunk in opening:
                yield chunk
            opening = []
            done = isinstance(event, Done)
            following = completion.closing(index, event) if done else completion.chunk(index, event)
            if following is not None:
                yield following
    for chunk in completion.usage_chunk():
        yield chunk


async def transcriptions(service: Service, request: Request) -> Response:
    """/v1/audio/transcriptions"""
    _check_content_type(request, "multipart/form-data")
    limits = service.options.media
    most = limits.upload_bytes + FORM_BYTES
    check_declared_length(request, most, lambda: too_large(limits, "file"))
    counted = Request(request.scope, limited(request.receive, most, lambda: too_large(limits, "file")))
    async with AsyncExitStack() as stack:
        try:
            form = await stack.enter_async_context(
                counted.form(max_files=1, max_fields=MAX_FORM_FIELDS, max_part_size=FORM_BYTES)
            )
        except HTTPException as error:
            raise Problem(f"the form cannot be read ({error.detail})", code="invalid_form") from None
        upload = form.get("file")
        if not isinstance(upload, UploadFile):
            raise missing_file()
        sound = Sound(await upload.read(), "file")
        fields = {name: value for name, value in form.multi_items() if isinstance(value, str)}
    if not sound.data:
        raise Problem("file: the sound is empty", param="file", code="invalid_audio")
    if len(sound.data) > limits.upload_bytes:
        raise too_large(limits, "file")
    asked = parse_transcription(fields)
    segments = await while_connected(request.receive, service.transcribe(sound, asked))
    media_type, write = WRITERS[asked.response_format]
    return Response(write(segments, asked), media_type=media_type)


async def models(service: Service, request: Request) -> Response:
    """/v1/models"""
    return JSONReply({"object": "list", "data": [_model(service)]})


async def model(service: Service, request: Request) -> Response:
    """/v1/models/{id}"""
    if request.path_params["id"] != service.name:
        raise Problem(f"there is no such model here; {service.name} is served", status=404,
                      param="model", code="model_not_found")
    return JSONReply(_model(service))


async def health(service: Service, request: Request) -> Response:
    """/health: 200 while requests are taken."""
    fine = service.worker.alive and not service.closing
    return JSONReply({"status": "ok" if fine else "stopping", "model": service.name}, 200 if fine else 503)


async def metrics(service: Service, request: Request) -> Response:
    """/metrics"""
    return PlainTextResponse(service.metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")


def _model(service: Service) -> dict[str, Any]:
    return {"id": service.name, "object": "model", "created": service.created, "owned_by": "mlx-audio-r1"}


ROUTES: tuple[tuple[str, str, Handler, bool], ...] = (  # method, path, handler, takes a place in the queue
    ("POST", "/v1/chat/completions", chat, True),
    ("POST", "/chat/completions", chat, True),
    ("POST", "/v1/audio/transcriptions", transcriptions, True),
    ("POST", "/audio/transcriptions", transcriptions, True),
    ("GET", "/v1/models", models, False),
    ("GET", "/v1/models/{id:path}", model, False),
    ("GET", "/health", health, False),
    ("GET", "/metrics", metrics, False),
)
KNOWN_PATHS = {path for _, path, _, _ in ROUTES}


def _label(path: str) -> str:
    return path if path in KNOWN_PATHS else "/v1/models/{id}"


def _check_content_type(request: Request, wanted: str) -> None:
    given = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if given != wanted:
        raise Problem(f"content-type must be {wanted}", status=415, code="unsupported_media_type")


class Guard:
    """Asks for the key and looks at the origin before anything else is done."""

    def __init__(self, app: ASGIApp, api_key: str | None, allowed_origins: tuple[str, ...]):
        self._app, self._origins = app, allowed_origins
        self._key = None if api_key is None else api_key.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        problem = self._refusal(scope) if scope["type"] == "http" else None
        if problem is None:
            await self._app(scope, receive, send)
            return
        await Incoming(scope, receive).refuse(problem, scope, send)

    def _refusal(self, scope: Scope) -> Problem | None:
        headers = dict(scope["headers"])
        origin = headers.get(b"origin")
        if origin is not None and "*" not in self._origins and origin.decode("latin-1") not in self._origins:
            return Problem("requests from web pages are refused; start the server with --allowed-origins",
                           status=403, code="origin_not_allowed")
        if self._key is None or scope["path"] == "/health":
            return None
        scheme, _, given = headers.get(b"authorization", b"").partition(b" ")
        if scheme.lower() == b"bearer" and hmac.compare_digest(given.strip(), self._key):
            return None
        return Problem("a key is needed: Authorization: Bearer KEY", status=401, code="invalid_api_key",
                       headers={"www-authenticate": "Bearer"})


async def _http_problem(request: Request, error: Exception) -> Response:
    """Starlette's own refusals, 404 and 405, in our shape."""
    assert isinstance(error, HTTPException)
    words = {404: "there is nothing at this address", 405: "this address takes another method"}
    problem = Problem(words.get(error.status_code, error.detail), status=error.status_code,
                      headers=dict(error.headers or {}))
    return problem_reply(problem)


def make_app(service: Service) -> Starlette:
    """The ASGI application."""
    options = service.options
    cors = Middleware(
        CORSMiddleware, allow_origins=list(options.allowed_origins), allow_methods=["GET", "POST"],
        allow_headers=["*"],
    )
    guard = Middleware(Guard, api_key=options.api_key, allowed_origins=options.allowed_origins)
    return Starlette(
        routes=[
            Route(path, Endpoint(service, handle, queued=queued), methods=[method])
            for method, path, handle, queued in ROUTES
        ],
        middleware=[cors, guard] if options.allowed_origins else [guard],
        exception_handlers={HTTPException: _http_problem},
    )
