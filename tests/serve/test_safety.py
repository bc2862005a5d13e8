"""What the server does not do, and what it survives."""

import asyncio
import base64
import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from http.client import HTTPConnection
from pathlib import Path

import httpx
import pytest

from mlx_audio_r1.prompt import Message
from mlx_audio_r1.serve import http as serve_http
from mlx_audio_r1.serve.app import FORM_BYTES, TEXT_BYTES, explain, make_app
from mlx_audio_r1.serve.media import MediaLimits
from mlx_audio_r1.serve.rows import Batch, Done, Job
from mlx_audio_r1.serve.run import running_service
from mlx_audio_r1.serve.service import ServeOptions
from mlx_audio_r1.serve.stops import StopWatch
from tests.serve.conftest import (
    ENDLESS,
    GREEDY,
    PATIENCE,
    TINY,
    USER,
    gauge,
    idle,
    input_audio,
    load_endless,
    load_tiny,
    serving,
    wait_until,
    wav,
)

CHAT, FORM = "/v1/chat/completions", "/v1/audio/transcriptions"
CLIP = wav(0.05)


def connect(server) -> socket.socket:
    return socket.create_connection(("127.0.0.1", server.port), timeout=PATIENCE)


def request_bytes(body: dict, path=CHAT, **headers) -> bytes:
    data = json.dumps(body).encode()
    lines = [
        f"POST {path} HTTP/1.1",
        "Host: x",
        "Content-Type: application/json",
        f"Content-Length: {len(data)}",
        *(f"{name.replace('_', '-')}: {value}" for name, value in headers.items()),
    ]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + data


# Limits


LITTLE = MediaLimits(upload_bytes=100_000, seconds=2.0)


def test_too_much_sound_is_refused(monkeypatch):
    monkeypatch.setattr(serve_http, "DRAIN_SECONDS", PATIENCE)
    with serving(media=LITTLE) as server:
        big = {"messages": [{"role": "user", "content": [input_audio(wav(4.0))]}]}
        response = server.http.post(CHAT, json=big)
        assert response.status_code == 413 and "--max-audio-upload-mb" in response.json()["error"]["message"]
        assert server.http.post(FORM, files={"file": ("a.wav", wav(8.0))}).status_code == 413
        assert (
            server.http.post(FORM, files={"file": ("a.wav", wav(3.15))}).status_code == 413
        )  # within the form
        long = {
            "messages": [{"role": "user", "content": [input_audio(wav(1.5)), input_audio(wav(1.5))]}],
            **GREEDY,
        }
        error = server.http.post(CHAT, json=long).json()["error"]
        assert error["code"] == "audio_too_long" and error["param"] == "messages[0].content[1].input_audio.data"


def post_without_end(app, path: str, content_type: str, beginning: bytes, piece: int) -> tuple[int, list]:
    """Bytes the application takes of a body that never ends, and what it answers."""
    taken, sent = 0, []

    async def receive():
        nonlocal taken
        body = bytes(piece) if taken else beginning
        taken += len(body)
        return {"type": "http.request", "body": body, "more_body": True}

    async def send(message):
        sent.append(message)

    headers = [(b"content-type", content_type.encode())]
    scope = {"type": "http", "method": "POST", "path": path, "headers": headers, "query_string": b""}
    asyncio.run(app(scope, receive, send))
    return taken, sent


FILE_BEGINS = b'--b\r\nContent-Disposition: form-data; name="file"; filename="a.wav"\r\n\r\n'


@pytest.mark.parametrize(
    ("path", "content_type", "beginning", "most"),
    [
        (CHAT, "application/json", b"{", LITTLE.upload_bytes * 4 // 3 + TEXT_BYTES),
        (FORM, "multipart/form-data; boundary=b", FILE_BEGINS, LITTLE.upload_bytes + FORM_BYTES),
    ],
)
def test_a_body_without_end_is_read_so_far_and_no_further(monkeypatch, path, content_type, beginning, most):
    drained, piece = 3_000_000, 65_536
    monkeypatch.setattr(serve_http, "DRAIN_BYTES", drained)
    with running_service(load_tiny, ServeOptions(media=LITTLE)) as service:
        taken, sent = post_without_end(make_app(service), path, content_type, beginning, piece)
    assert most + drained < taken <= most + drained + 2 * piece
    assert sent[0]["status"] == 413 and (b"connection", b"close") in sent[0]["headers"]


def test_a_client_that_sends_without_end_is_cut_off(monkeypatch):
    """Whether it still reads the answer is up to its kernel: closing on unread bytes resets the connection."""
    monkeypatch.setattr(serve_http, "DRAIN_BYTES", 3_000_000)
    sent = 0

    def body():
        nonlocal sent
        while sent < 200_000_000:
            sent += 65_536
            yield b" " * 65_536

    with serving(media=LITTLE) as server:
        with suppress(httpx.ReadError, httpx.WriteError, httpx.RemoteProtocolError):
            response = server.http.post(CHAT, content=body(), headers={"content-type": "application/json"})
            assert response.status_code == 413
        assert sent < 100_000_000  # 7 MB were read; the rest is what buffers between the two hold
        wait_until(lambda: idle(server))
        assert server.http.get("/health").status_code == 200


def test_a_full_server_says_when_to_come_back():
    with serving(load_endless, queue_limit=1) as server, connect(server) as busy:
        busy.sendall(request_bytes(ENDLESS))
        wait_until(lambda: gauge(server, "rows") == 1)
        response = server.http.post(CHAT, json={"messages": [USER]})
        assert response.status_code == 429 and int(response.headers["retry-after"]) >= 1
        assert response.json()["error"]["type"] == "rate_limit_error"
        busy.close()
        wait_until(lambda: idle(server))
        assert server.http.post(CHAT, json={"messages": [USER], **GREEDY}).status_code == 200


def test_the_key_is_asked_for_everywhere_but_on_health():
    with serving(api_key="s3cret") as server:
        for headers in (
            {},
            {"authorization": "Bearer wrong"},
            {"authorization": "s3cret"},
        ):
            for path in ("/v1/models", "/metrics"):
                response = server.http.get(path, headers=headers)
                assert response.status_code == 401 and response.json()["error"]["code"] == "invalid_api_key"
            assert server.http.post(CHAT, json={"messages": [USER]}, headers=headers).status_code == 401
        assert server.http.get("/health").status_code == 200
        assert server.http.get("/v1/models", headers={"authorization": "bearer s3cret"}).status_code == 200


def test_web_pages_are_refused_unless_their_origin_is_allowed(served):
    evil = {"origin": "https://evil.example"}
    assert served.http.post(CHAT, json={"messages": [USER]}, headers=evil).status_code == 403
    assert "access-control-allow-origin" not in served.http.get("/health").headers
    with serving(allowed_origins=("https://app.example",)) as server:
        good = {"origin": "https://app.example"}
        asked = server.http.options(
            CHAT,
            headers={
                **good,
                "access-control-request-method": "POST",
                "access-control-request-headers": "content-type",
            },
        )
        assert asked.status_code == 200 and asked.headers["access-control-allow-origin"] == good["origin"]
        reply = server.http.post(CHAT, json={"messages": [USER], **GREEDY}, headers=good)
        assert reply.status_code == 200 and reply.headers["access-control-allow-origin"] == good["origin"]
        assert server.http.post(CHAT, json={"messages": [USER]}, headers=evil).status_code == 403


@pytest.fixture(scope="module")
def with_folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("media")
    folder = root / "open"
    (folder / "deep").mkdir(parents=True)
    (folder / "a.wav").write_bytes(wav(1.0))
    (folder / "deep" / "b c.wav").write_bytes(wav(2.0))
    (root / "secret.wav").write_bytes(wav(1.0))
    (folder / "link.wav").symlink_to(root / "secret.wav")
    (folder / "out").symlink_to(root)
    os.mkfifo(folder / "pipe.wav")
    with serving(media=MediaLimits(folder=folder)) as server:
        server.folder = folder
        yield server


@pytest.mark.parametrize(
    ("path", "tokens"),
    [
        ("a.wav", 13),
        ("deep/b c.wav", 25),
        ("{}/a.wav", 13),
        ("file://{}/deep/b%20c.wav", 25),
        ("./a.wav", 13),
    ],
)
def test_files_below_the_allowed_folder_are_read(with_folder, path, tokens):
    part = {"type": "audio", "audio": path.format(with_folder.folder)}
    reply = with_folder.http.post(
        CHAT, json={"messages": [{"role": "user", "content": [part]}], **GREEDY}
    ).json()
    assert reply["usage"]["prompt_tokens_details"]["audio_tokens"] == tokens


@pytest.mark.parametrize(
    "path",
    [
        "../secret.wav",
        "{}/../secret.wav",
        "deep/../../secret.wav",
        "link.wav",
        "out/secret.wav",
        "/etc/passwd",
        "file:///etc/passwd",
        "file://{}/%2e%2e/secret.wav",
        "file://{}/..%2fsecret.wav",
        "deep",
        "",
        ".",
        "no.wav",
        "pipe.wav",
        "a.wav\0",
        "~/a.wav",
        "{}/out/secret.wav",
        "http://127.0.0.1:9/a.wav",
        "ftp://127.0.0.1/a.wav",
        "//127.0.0.1/a.wav",
        "/dev/zero",
        "x" * 5000,
    ],
)
def test_nothing_outside_it_is(with_folder, path):
    part = {"type": "audio_url", "audio_url": {"url": path.format(with_folder.folder)}}
    response = with_folder.http.post(CHAT, json={"messages": [{"role": "user", "content": [part]}]})
    error = response.json()["error"]
    assert response.status_code == 400 and error["code"] in ("local_media_not_allowed", "url_not_allowed")
    assert str(with_folder.folder) not in error["message"]


# Clients that misbehave


@pytest.mark.parametrize(
    "body",
    [
        ENDLESS,
        {**ENDLESS, "stream": True},
        {**ENDLESS, "n": 3},
    ],
)
def test_a_client_that_goes_away_frees_its_rows(endless, body):
    before = gauge(endless, "cancelled_total")
    with connect(endless) as gone:
        gone.sendall(request_bytes(body))
        wait_until(lambda: gauge(endless, "rows") == 1)
        if body.get("stream"):
            gone.recv(500)
    wait_until(lambda: gauge(endless, "cancelled_total") == before + 1 and idle(endless))


def test_a_constrained_reply_nobody_waits_for_is_dropped(served):
    schema = {"type": "array", "items": {"type": "boolean"}, "minItems": 3000}
    format = {"type": "json_schema", "json_schema": {"schema": schema}}
    before = gauge(served, "cancelled_total")
    with connect(served) as gone:
        gone.sendall(request_bytes({**ENDLESS, "response_format": format, "enable_thinking": False}))
        wait_until(lambda: gauge(served, "rows") == 1)
    wait_until(lambda: gauge(served, "cancelled_total") == before + 1 and idle(served))


def test_a_transcription_nobody_waits_for_is_dropped(endless):
    hot = b'\r\n--b\r\nContent-Disposition: form-data; name="temperature"\r\n\r\n10\r\n--b--\r\n'
    data = FILE_BEGINS + wav(1.0) + hot
    head = (
        f"POST {FORM} HTTP/1.1\r\nHost: x\r\nContent-Type: multipart/form-data; boundary=b\r\n"
        f"Content-Length: {len(data)}\r\n\r\n"
    )
    before = gauge(endless, "cancelled_total")
    with connect(endless) as gone:
        gone.sendall(head.encode() + data)
        wait_until(lambda: gauge(endless, "rows") == 1)
    wait_until(lambda: gauge(endless, "cancelled_total") == before + 1 and idle(endless))


HALF = request_bytes({"messages": [USER], **GREEDY})[:-20]


def test_half_a_body_holds_nobody_up(monkeypatch, served):
    monkeypatch.setattr(serve_http, "BODY_STALL_SECONDS", 600)
    with connect(served) as stalled, connect(served) as cut:
        stalled.sendall(HALF)
        cut.sendall(HALF)
        wait_until(lambda: gauge(served, "requests_inside") == 2)
        cut.close()
        wait_until(lambda: gauge(served, "requests_inside") == 1)
        assert served.http.post(CHAT, json={"messages": [USER], **GREEDY}).status_code == 200
        assert gauge(served, "requests_inside") == 1  # the other half is still waited for
    wait_until(lambda: idle(served))


def test_a_body_that_stops_coming_is_not_waited_for(monkeypatch, served):
    monkeypatch.setattr(serve_http, "BODY_STALL_SECONDS", 0.2)
    with connect(served) as stalled:
        stalled.sendall(HALF)
        assert b"408" in stalled.recv(1000).split(b"\r\n")[0]
    wait_until(lambda: idle(served))


def test_a_slow_reader_gets_everything_and_delays_nobody(endless):
    with connect(endless) as slow:
        slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        slow.sendall(request_bytes({**ENDLESS, "max_tokens": 120, "stream": True}, connection="close"))
        assert endless.http.post(CHAT, json={"messages": [USER], **GREEDY}).status_code == 200
        received = b""
        while piece := slow.recv(700):
            received += piece
            time.sleep(0.001)
    assert received.count(b"data: ") > 30 and b"data: [DONE]" in received


def test_a_reader_that_takes_nothing_is_dropped(monkeypatch):
    monkeypatch.setattr(serve_http, "SEND_STALL_SECONDS", 0.2)
    closed = []

    async def events():
        try:
            while True:
                yield {"a": 1}
        finally:
            closed.append(True)

    async def main():
        never = asyncio.Event()
        stream = serve_http.EventStream(events(), 1.0, explain)
        with pytest.raises(serve_http.ClientGone):
            await stream({}, lambda: never.wait(), lambda message: never.wait())

    asyncio.run(main())
    assert closed == [True]


@pytest.mark.parametrize("later", range(12))
def test_a_reader_that_leaves_while_something_is_sent_is_noticed(later):
    """`later`: turns of the event loop from its leaving until the sending ends, around the cancellation."""
    made = []

    async def events():
        for number in range(1_000):
            made.append(number)
            yield {"a": number}

    async def main():
        left = asyncio.Event()

        async def receive():
            await left.wait()
            return {"type": "http.disconnect"}

        async def send(message):
            if not left.is_set() and message.get("body", b"").endswith(b"20}\n\n"):
                left.set()
                for _ in range(later):
                    await asyncio.sleep(0)

        with pytest.raises(serve_http.ClientGone):
            await serve_http.EventStream(events(), 1.0, explain)({}, receive, send)

    asyncio.run(main())
    assert 20 <= made[-1] < 40


def test_a_stream_is_kept_alive_while_it_waits():
    with serving(load_endless, keep_alive=0.05, decode_concurrency=1) as server, connect(server) as busy:
        busy.sendall(request_bytes(ENDLESS))
        wait_until(lambda: gauge(server, "rows") == 1)
        with server.http.stream("POST", CHAT, json={"messages": [USER], "stream": True}) as response:
            lines = response.iter_lines()
            assert [next(lines) for _ in range(3)] == [": keep-alive", "", ": keep-alive"]


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/9.9\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"POST " + b"x" * 70_000,
        b"GET /health HTTP/1.1\r\nHost: x\r\nContent-Length: -5\r\n\r\n",
        b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        b"Content-Length: 99999999999999999999\r\n\r\n{}",
        b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    ],
)
def test_what_is_no_request_at_all(served, data):
    answer = b""
    with connect(served) as odd:
        try:
            odd.sendall(data)
            odd.shutdown(socket.SHUT_WR)
            answer = odd.recv(2000)
        except OSError as error:  # the server may close before it has read all of it
            assert not isinstance(error, TimeoutError)
    assert answer == b"" or answer.startswith(b"HTTP/1.1 4")
    wait_until(lambda: idle(served))
    assert served.http.get("/health").status_code == 200


def test_a_fault_of_ours_is_an_id_for_the_client_and_a_traceback_for_the_log(served, monkeypatch, caplog):
    def fail(*_):
        raise ZeroDivisionError("secret detail")

    monkeypatch.setattr(type(served.service), "_check_length", fail)
    whole = served.http.post(CHAT, json={"messages": [USER]})
    stream = served.http.post(CHAT, json={"messages": [USER], "stream": True})
    for response in (whole, stream):
        error = response.json()["error"]
        assert (
            response.status_code == 500 and "secret" not in response.text and "Traceback" not in response.text
        )
        assert error["message"].split()[-1] in caplog.text and error["type"] == "server_error"
    assert "ZeroDivisionError" in caplog.text


def test_a_fault_in_the_middle_of_a_stream_is_an_event(endless, monkeypatch, caplog):
    step, calls = Batch._advance, iter(range(1000))
    monkeypatch.setattr(Batch, "_advance", lambda rows: step(rows) if next(calls) < 50 else 1 / 0)
    monkeypatch.setattr(Batch, "step", lambda rows: [*rows._admit(), *_advance_or_fail(rows)])
    with endless.http.stream("POST", CHAT, json={**ENDLESS, "stream": True}) as response:
        lines = list(response.iter_lines())
    assert response.status_code == 200 and '"error"' in lines[-4] and lines[-2] == "data: [DONE]"
    monkeypatch.undo()
    assert endless.http.post(CHAT, json={"messages": [USER], **GREEDY}).status_code == 200


def _advance_or_fail(rows):
    try:
        return rows._advance()
    except ZeroDivisionError as error:
        return rows._start_over(error)


# Wrong requests by the thousand


def malformed(rng: random.Random) -> tuple[str, bytes, str]:
    """A request that cannot be right: (path, body, content type)."""
    good = {
        "messages": [{"role": "user", "content": [{"type": "text", "text": "x"}, input_audio(CLIP)]}],
        "max_tokens": 1,
        "temperature": 0,
    }
    kind = rng.randrange(8)
    if kind == 0:  # cut anywhere but at its end
        whole = json.dumps(good).encode()
        return CHAT, whole[: rng.randrange(len(whole))], "application/json"
    if kind == 1:
        return CHAT, rng.randbytes(rng.randrange(300)), "application/json"
    if kind == 2:
        name = rng.choice(["foo", "Messages", "logprobs", "tools", "\u0000", "a" * 500, "\ud800", "functions"])
        good[name] = rng.choice([odd for odd in ODD[3:] if odd != []])
        return CHAT, json.dumps(good).encode(), "application/json"
    if kind == 3:
        where = rng.choice(
            [
                good,
                good["messages"][0],
                good["messages"][0]["content"][1],
                good["messages"][0]["content"][1]["input_audio"],
                good["messages"][0]["content"][0],
            ]
        )
        key = rng.choice(list(where))
        where[key] = rng.choice([odd for odd in ODD if not right(key, odd)])
        return CHAT, json.dumps(good).encode(), "application/json"
    if kind == 4:
        return (
            CHAT,
            rng.choice(
                [
                    b"[" * 100_000,
                    b'{"a":' * 50_000,
                    b"1" * 10_000,
                    b"NaN",
                    b'{"messages": NaN}',
                    b'{"n": 1e999}',
                    b"\xff\xfe",
                    b"null",
                    b"[]",
                    b'"x"',
                    b"",
                ]
            ),
            "application/json",
        )
    if kind == 5:
        sound = bytearray(CLIP)
        for _ in range(rng.randrange(1, 9)):
            sound[rng.randrange(12)] = rng.randrange(256)
        sound[0] ^= 0x80  # no container known here
        good["messages"][0]["content"][1] = input_audio(bytes(sound))
        return CHAT, json.dumps(good).encode(), "application/json"
    if kind == 6:
        return CHAT, json.dumps(good).encode(), rng.choice(["text/plain", "", "multipart/form-data", "x" * 200])
    body = b"--b\r\n" + rng.randbytes(rng.randrange(200)) + rng.choice([b"", b"\r\n--b--\r\n"])
    return FORM, body, "multipart/form-data; boundary=" + rng.choice(["b", "c", "", "b" * 200, '"'])


ODD = [
    None,
    True,
    0,
    -1,
    1.5,
    "",
    "x",
    "\ud800",
    [],
    [[]],
    [None],
    {},
    {"a": 1},
    {"type": "text"},
    10**30,
    1e300,
    "http://127.0.0.1:9/",
    "/etc/passwd",
    "data:,x",
    "data:audio/wav;base64,",
    {"$ref": "#"},
    ["x"] * 5000,
]


def right(key: str, value: object) -> bool:
    """Whether such a value is fine for this field of the good request."""
    if key in ("max_tokens", "temperature", "format"):
        return value is None or (key == "temperature" and value in (0, 1.5) and value is not False)
    if key == "content":  # texts are fine; so are no parts at all
        return (isinstance(value, str) and value != "\ud800") or value == []
    return key == "text" and isinstance(value, str) and value != "\ud800"


def bombard(server, count: int, seed: int) -> None:
    rng, connection = random.Random(seed), HTTPConnection("127.0.0.1", server.port, timeout=PATIENCE)
    with closing(connection):
        for i in range(count):
            path, body, content_type = malformed(rng)
            connection.request("POST", path, body, {"content-type": content_type})
            response = connection.getresponse()
            answer = json.loads(response.read())
            assert 400 <= response.status < 500, (seed, i, response.status, body[:300], answer)
            message = answer["error"]["message"]
            assert message and "Traceback" not in message, (seed, i)
    assert server.http.post(CHAT, json={"messages": [USER], **GREEDY}).status_code == 200
    assert idle(server)


def test_a_thousand_malformed_requests(served):
    bombard(served, 1_000, seed=1)


@pytest.mark.long
def test_ten_thousand_malformed_requests(served):
    for seed in range(10):
        bombard(served, 1_000, seed=100 + seed)


# Memory


def soak(server, requests: int) -> list[int]:
    """Mixed requests, 8 at a time; resident bytes after every tenth of them."""
    statm = Path(f"/proc/{os.getpid()}/statm")
    clips = [input_audio(wav(0.3 + 0.1 * i, hertz=200 + 50 * i)) for i in range(6)]
    resident = []

    def some(worker: int, count: int) -> None:
        rng = random.Random(worker)
        for i in range(count):
            content = [rng.choice(clips), {"type": "text", "text": f"question {rng.randrange(9)}"}]
            body = {"messages": [{"role": "user", "content": content}], "temperature": 0, "max_tokens": 6}
            if i % 5 == 4:
                with server.http.stream(
                    "POST", CHAT, json={**body, "stream": True, "max_tokens": 50}
                ) as response:
                    next(response.iter_lines())  # and away
            else:
                assert server.http.post(CHAT, json=body).status_code == 200

    for _ in range(10):
        with ThreadPoolExecutor(8) as workers:
            list(workers.map(some, range(8), [requests // 80] * 8))
        resident.append(int(statm.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE"))
    return resident


needs_proc = pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads /proc")


@needs_proc
def test_memory_is_flat_over_a_short_soak():
    with serving(prompt_cache_bytes=1 << 20) as server:
        resident = soak(server, 80)
        assert max(resident[5:]) - resident[4] < 30e6, resident


@needs_proc
@pytest.mark.long
def test_memory_is_flat_over_two_thousand_requests():
    with serving(prompt_cache_bytes=1 << 20) as server:
        resident = soak(server, 2_000)
        assert max(resident[5:]) - resident[4] < 30e6, resident


# The program


BUSY = {**ENDLESS, "temperature": 1.0, "stream": True}  # its end of turn is there, and all but impossible


def start(*arguments, **env):
    return subprocess.Popen(
        [
            sys.executable,
            "-c",
            "from mlx_audio_r1.cli.main import main; main()",
            "serve",
            "--port",
            "0",
            "--model",
            str(TINY),
            *arguments,
        ],
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, **env},
        text=True,
    )


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_end_it_cleanly_in_the_middle_of_a_reply(number):
    with start() as process:
        address = next(line for line in process.stderr if line.startswith("serving"))
        port = int(address.split("127.0.0.1:")[1].split("/")[0])
        with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE) as busy:
            busy.sendall(request_bytes(BUSY))
            busy.recv(100)
            process.send_signal(number)
            out, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0 and out == ""
    assert "Traceback" not in err and "terminate" not in err


def test_what_cannot_be_started_is_one_line(tmp_path, monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        for arguments, words in [
            (["--port", str(taken.getsockname()[1])], "another --port"),
            (["--host", "256.1.1.1"], "another --host"),
            (["--model", "./nowhere"], "nowhere"),
            (["--allow-local-media", str(tmp_path / "no")], "no such folder"),
        ]:
            with start(*arguments) as process:
                _, err = process.communicate(timeout=PATIENCE)
            assert (
                process.returncode in (1, 2)
                and words in err.strip().splitlines()[-1]
                and "Traceback" not in err
            )


def test_without_the_extra_it_is_named(monkeypatch):
    import click.testing

    from mlx_audio_r1.cli.main import cli
    from mlx_audio_r1.serve import run

    monkeypatch.setattr(run, "find_spec", lambda name: None)
    done = click.testing.CliRunner().invoke(cli, ["serve"])
    assert done.exit_code == 1 and 'pip install "mlx-audio-r1[serve]"' in done.output


# Small parts


@pytest.mark.parametrize("stops", [("ab",), ("b", "abc"), ("aab", "ba"), ("abcd", "c"), ("\n\n",), ("é",), ()])
def test_stop_strings_do_not_depend_on_how_the_text_was_cut(stops):
    rng = random.Random(0)
    for _ in range(300):
        text = "".join(rng.choice("aabbccd\né") for _ in range(rng.randrange(14)))
        whole = StopWatch(stops)
        expected = whole.push(text) + whole.finish()
        pieces = StopWatch(stops)
        i, got = 0, ""
        while i < len(text):
            n = rng.randrange(1, 4)
            got += pieces.push(text[i : i + n])
            i += n
        got += pieces.finish()
        assert (got, pieces.hit) == (expected, whole.hit)
        ends = [text.index(stop) + len(stop) for stop in stops if stop in text]
        assert (whole.hit is not None) == bool(ends) and len(expected) == (
            min(ends) - len(whole.hit) if ends else len(text)
        )


def test_max_tokens_is_lowered_to_what_memory_holds():
    rows = Batch(load_tiny(), max_rows=2)
    rows._engine.kv_limit = 4 * 2 * 2 * 16 * 4 * 512  # layers, keys and values, heads, values, bytes, tokens
    rows.add("a", Job((Message("user", ("hi",)),), {"temperature": 0.0}))
    happened = []
    while len(rows):
        happened += rows.step()
    rows.close()
    done = happened[-1][2]
    assert isinstance(done, Done) and 0 < done.reasoning_tokens + done.answer_tokens < 512


def test_base64_as_clients_write_it(served):
    data = base64.b64encode(wav(0.1)).decode()
    for given, fine in ((data, True), (data + "\n", False), (data[:-2] + "!!", False), (data[:-1], False)):
        part = {"type": "input_audio", "input_audio": {"data": given, "format": "wav"}}
        status = served.http.post(
            CHAT, json={"messages": [{"role": "user", "content": [part]}], **GREEDY}
        ).status_code
        assert (status == 200) == fine


def test_the_tiny_checkpoint_is_what_is_served():
    assert load_tiny().config.text.vocab_size == 512
