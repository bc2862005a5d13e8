"""A small hub on loopback that speaks what huggingface_hub's client speaks, and fails on demand.

Large files answer with a redirect to a "CDN" address and an X-Linked-ETag, as the real hub does.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

LARGE = (".safetensors", ".bin")
REPO = r"(?P<repo>[\w.-]+/[\w.-]+)"
ROUTES = [
    ("GET", rf"/api/models/{REPO}(/revision/(?P<revision>[^/]+))?$", "info"),
    ("GET", r"/api/whoami-v2$", "whoami"),
    ("(GET|HEAD)", rf"/{REPO}/resolve/(?P<revision>[^/]+)/(?P<file>.+)$", "resolve"),
    ("(GET|HEAD)", rf"/cdn/{REPO}/(?P<file>.+)$", "cdn"),
    ("POST", r"/api/repos/create$", "create"),
    ("POST", r"/api/validate-yaml$", "validate"),
    ("POST", rf"/api/models/{REPO}/preupload/(?P<revision>[^/]+)$", "preupload"),
    ("POST", rf"/{REPO}\.git/info/lfs/objects/batch$", "batch"),
    ("PUT", r"/lfs/(?P<oid>\w+)$", "put"),
    ("POST", rf"/api/models/{REPO}/commit/(?P<revision>[^/]+)$", "commit"),
]


@dataclass
class Fault:
    """What goes wrong with requests whose "METHOD path" matches; `times` of them."""

    pattern: str
    status: int = 0  # answer with this
    code: str = ""  # X-Error-Code
    cut: float = 0.0  # close the connection after this share of the body
    garble: bool = False  # flip bytes of the body
    short: bool = False  # send half of it and call that the whole
    stall: float | None = None  # after this share of a whole file's body nothing comes any more
    times: int = 10**9


@dataclass
class LoopbackHub:
    """`folders` maps a repository to the folder whose files it serves, at one commit."""

    folders: dict[str, Path] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)
    token: str = "hf_loopback"
    bytes_per_second: float = 0.0
    requests: list[str] = field(default_factory=list)
    uploads: dict[str, dict[str, bytes]] = field(default_factory=dict)
    blobs: dict[str, bytes] = field(default_factory=dict)
    stalled: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))  # one a stall

    def __enter__(self) -> LoopbackHub:
        hub = self

        class Handler(_Handler):
            pass

        Handler.hub = hub
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.endpoint = f"http://127.0.0.1:{self.server.server_port}"
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True)
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()

    def environment(self, home: Path) -> dict[str, str]:
        """What the client needs to talk to this hub and touch nothing else."""
        return {
            "HF_ENDPOINT": self.endpoint,
            "HF_HOME": str(home),
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "HF_HUB_OFFLINE": "0",
            "HF_TOKEN": self.token,
            "NO_PROXY": "127.0.0.1",
        }

    def commit_of(self, repo: str) -> str:
        return hashlib.sha1(repo.encode()).hexdigest()

    def fault_for(self, line: str) -> Fault | None:
        for fault in self.faults:
            if fault.times > 0 and re.search(fault.pattern, line):
                fault.times -= 1
                return fault
        return None


class _Handler(BaseHTTPRequestHandler):
    hub: LoopbackHub
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self._route()

    do_HEAD = do_POST = do_PUT = do_GET

    def log_message(self, *_: object) -> None:
        pass

    def _route(self) -> None:
        path = unquote(urlsplit(self.path).path)
        line = f"{self.command} {path}"
        self.hub.requests.append(f"{line} {self.headers.get('Range', '')}".strip())
        self.body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.fault = self.hub.fault_for(line)
        if self.fault and self.fault.status:
            self._json(self.fault.status, {"error": "fault"}, {"X-Error-Code": self.fault.code})
            return
        for method, pattern, name in ROUTES:
            match = re.match(pattern, path)
            if match and re.fullmatch(method, self.command):
                getattr(self, f"_{name}")(**match.groupdict())
                return
        self._json(404, {"error": "no such address"})

    def _json(self, status: int, data: Any, headers: dict[str, str] | None = None) -> None:
        body = json.dumps(data).encode()
        self.send_response(status)
        for key, value in {**(headers or {}), "Content-Type": "application/json"}.items():
            if value:
                self.send_header(key, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _found(self, repo: str, revision: str | None) -> bool:
        if repo not in self.hub.folders:
            self._json(404, {"error": "Repository not found"}, {"X-Error-Code": "RepoNotFound"})
        elif revision not in (None, "main", self.hub.commit_of(repo)):
            self._json(404, {"error": "Invalid rev id"}, {"X-Error-Code": "RevisionNotFound"})
        else:
            return True
        return False

    def _info(self, repo: str, revision: str | None = None) -> None:
        if not self._found(repo, revision):
            return
        files = [self._file_info(p) for p in sorted(self.hub.folders[repo].iterdir())]
        self._json(200, {"id": repo, "modelId": repo, "sha": self.hub.commit_of(repo), "siblings": files})

    def _file_info(self, path: Path) -> dict[str, Any]:
        data = path.read_bytes()
        info: dict[str, Any] = {"rfilename": path.name, "size": len(data), "blobId": "0" * 40}
        if path.name.endswith(LARGE):
            info["lfs"] = {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data), "pointerSize": 99}
        return info

    def _resolve(self, repo: str, revision: str, file: str) -> None:
        if not self._found(repo, revision):
            return
        path = self.hub.folders[repo] / file
        if not path.is_file():
            self._json(404, {"error": "Entry not found"}, {"X-Error-Code": "EntryNotFound"})
            return
        data = path.read_bytes()
        headers = {"X-Repo-Commit": self.hub.commit_of(repo)}
        if not file.endswith(LARGE):
            self._send_file(data, headers | {"ETag": f'"{hashlib.sha1(data).hexdigest()}"'})
            return
        self.send_response(302)
        headers |= {
            "X-Linked-ETag": f'"{hashlib.sha256(data).hexdigest()}"',
            "X-Linked-Size": str(len(data)),
            # Another host, as far as the client can tell: it follows redirects within the hub itself.
            "Location": f"http://localhost:{self.hub.server.server_port}/cdn/{repo}/{file}",
            "Content-Length": "0",
        }
        for key, value in headers.items():
            self.send_header(key, value)
        self.end_headers()

    def _cdn(self, repo: str, file: str) -> None:
        self._send_file((self.hub.folders[repo] / file).read_bytes(), {"ETag": '"cdn"'})

    def _send_file(self, data: bytes, headers: dict[str, str]) -> None:
        total, status = len(data), 200
        if wanted := re.match(r"bytes=(\d+)-(\d*)", self.headers.get("Range", "")):
            first, last = int(wanted[1]), min(int(wanted[2] or total - 1), total - 1)
            data, status = data[first : last + 1], 206
            headers["Content-Range"] = f"bytes {first}-{last}/{total}"
        if self.fault and self.fault.garble:
            data = bytes(b ^ 255 for b in data)
        if self.fault and self.fault.short:
            data = data[: len(data) // 2]
        self.send_response(status)
        for key, value in {**headers, "Content-Length": str(len(data))}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command == "HEAD":
            return
        if self.fault and self.fault.cut:
            data = data[: int(len(data) * self.fault.cut)]
            self.close_connection = True
        if self.fault and self.fault.stall is not None and status == 200:
            self._stall(data[: int(len(data) * self.fault.stall)])
            return
        self._send_slowly(data)

    def _stall(self, data: bytes) -> None:
        self._send_slowly(data)
        self.wfile.flush()
        self.hub.stalled.release()
        with suppress(OSError):
            self.rfile.read(1)  # until the client is gone: it has nothing more to say
        self.close_connection = True

    def _send_slowly(self, data: bytes) -> None:
        step = 1 << 16
        for start in range(0, len(data), step):
            try:
                self.wfile.write(data[start : start + step])
            except OSError:  # the client was killed
                self.close_connection = True
                return
            if self.hub.bytes_per_second:
                time.sleep(step / self.hub.bytes_per_second)

    def _whoami(self) -> None:
        if self.headers.get("Authorization") != f"Bearer {self.hub.token}":
            self._json(401, {"error": "Invalid username or password."})
            return
        self._json(200, {"type": "user", "name": "someone", "orgs": []})

    def _create(self) -> None:
        asked = json.loads(self.body)
        repo = f"{asked.get('organization') or 'someone'}/{asked['name']}"
        self.hub.uploads.setdefault(repo, {})
        self._json(200, {"url": f"{self.hub.endpoint}/{repo}", "name": repo})

    def _validate(self) -> None:
        self._json(200, {"errors": [], "warnings": []})

    def _preupload(self, repo: str, revision: str) -> None:
        files = [
            {
                "path": f["path"],
                "uploadMode": "lfs" if f["path"].endswith(LARGE) else "regular",
                "shouldIgnore": False,
            }
            for f in json.loads(self.body)["files"]
        ]
        self._json(200, {"files": files})

    def _batch(self, repo: str) -> None:
        objects = [
            {**o, "actions": {"upload": {"href": f"{self.hub.endpoint}/lfs/{o['oid']}"}}}
            for o in json.loads(self.body)["objects"]
        ]
        self._json(200, {"transfer": "basic", "objects": objects})

    def _put(self, oid: str) -> None:
        assert hashlib.sha256(self.body).hexdigest() == oid
        self.hub.blobs[oid] = self.body
        self._json(200, {})

    def _commit(self, repo: str, revision: str) -> None:
        for line in self.body.splitlines():
            item = json.loads(line)
            if item["key"] == "lfsFile":
                self.hub.uploads[repo][item["value"]["path"]] = self.hub.blobs[item["value"]["oid"]]
            elif item["key"] == "file":
                content = base64.b64decode(item["value"]["content"])
                self.hub.uploads[repo][item["value"]["path"]] = content
        url = f"{self.hub.endpoint}/{repo}/commit/{'1' * 40}"
        self._json(200, {"commitUrl": url, "commitOid": "1" * 40, "success": True})
