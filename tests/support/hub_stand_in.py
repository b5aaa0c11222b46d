"""Stand-in for the Hugging Face hub: an HTTP server with the addresses that a download uses."""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote


@dataclass
class HubState:
    """Content and behaviour of the stand-in, and the requests it received."""

    repo: str
    revision: str
    files: dict[str, bytes]
    announced_sha256: dict[str, str] = field(default_factory=dict)
    """Hash to announce instead of a file's own."""
    break_after: dict[str, int] = field(default_factory=dict)
    """Cut the next GET of a file after this many bytes, once."""
    refuse_after_break: bool = False
    """After a cut, answer 503 to every GET."""
    gets: list[tuple[str, str]] = field(default_factory=list)
    """Files requested by GET, with the Range header of each request."""
    broken: bool = False

    def sha256(self, name: str) -> str:
        return self.announced_sha256.get(name, hashlib.sha256(self.files[name]).hexdigest())


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    state: HubState

    def log_message(self, format: str, *args: object) -> None:
        """Suppress the log of requests."""

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        if self.path != f"/api/models/{self.state.repo}/paths-info/{self.state.revision}":
            self._not_found()
            return
        infos = [self._info(name) for name in parse_qs(body)["paths"] if name in self.state.files]
        self._answer(200, json.dumps(infos).encode(), {"Content-Type": "application/json"})

    def _info(self, name: str) -> dict[str, object]:
        size = len(self.state.files[name])
        info: dict[str, object] = {"type": "file", "path": name, "size": size, "oid": "0" * 40}
        if name.endswith(".bin"):
            info["lfs"] = {"oid": self.state.sha256(name), "size": size, "pointerSize": 134}
        return info

    def do_HEAD(self) -> None:
        name = self._resolved()
        if name is None:
            self._not_found()
            return
        headers = {"X-Repo-Commit": self.state.revision, "ETag": f'"{self.state.sha256(name)}"'}
        if name.endswith(".bin"):  # the hub redirects downloads of large files to another host
            headers |= {"X-Linked-Etag": f'"{self.state.sha256(name)}"', "Location": self._cdn(name)}
            headers |= {"X-Linked-Size": str(len(self.state.files[name]))}
            self._answer(302, b"", headers)
            return
        self._answer(200, self.state.files[name], headers, body=False)

    def _cdn(self, name: str) -> str:
        # Another host name than the endpoint's: the client itself follows redirects within the hub's own host.
        return f"http://localhost:{self.connection.getsockname()[1]}/cdn/{name}"

    def do_GET(self) -> None:
        name = self._resolved()
        if name is None:
            self._not_found()
            return
        asked = self.headers.get("Range", "")
        self.state.gets.append((name, asked))
        if self.state.broken and self.state.refuse_after_break:
            self._answer(503, b"", {})
            return
        start = int(asked.removeprefix("bytes=").rstrip("-")) if asked else 0
        content = self.state.files[name]
        headers = {"Content-Range": f"bytes {start}-{len(content) - 1}/{len(content)}"} if asked else {}
        self._answer(206 if asked else 200, content[start:], headers, cut=self.state.break_after.pop(name, None))

    def _resolved(self) -> str | None:
        path = unquote(self.path)
        pattern = rf"/(?:{re.escape(self.state.repo)}/resolve/{self.state.revision}|cdn)/(.+)"
        match = re.fullmatch(pattern, path)
        return match[1] if match and match[1] in self.state.files else None

    def _not_found(self) -> None:
        self._answer(404, b"", {"X-Error-Code": "RevisionNotFound"})

    def _answer(
        self,
        status: int,
        content: bytes,
        headers: dict[str, str],
        *,
        body: bool = True,
        cut: int | None = None,
    ) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(content)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if body:
            self.wfile.write(content[:cut])
        if cut is not None:
            self.state.broken = True
            self.close_connection = True


@contextmanager
def hub_stand_in(state: HubState) -> Iterator[str]:
    """Serve `state` on a free port of 127.0.0.1; yield the endpoint's URL."""
    handler = type("Handler", (_Handler,), {"state": state})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()
