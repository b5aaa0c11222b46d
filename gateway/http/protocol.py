"""uvicorn's HTTP/1.1 protocol with limits on connections and on the time to send headers.

It builds on undocumented parts of uvicorn (`conn`, `cycle`, `connections`, `headers`, `_should_upgrade`,
`handle_websocket_upgrade`, `send_400_response`), so setup.cfg pins uvicorn's minor version;
tests/gateway/test_uvicorn_internals.py checks that they are there.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Collection
from typing import Any

import h11
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol
from websockets.http11 import MAX_LINE_LENGTH, MAX_NUM_HEADERS

from gateway.http.head_check import MAX_HEAD_BYTES
from protos.stt.v1.wire import new_request_id

HEADERS_TIMEOUT_S = 15.0
"""Seconds from the start of a connection, or from a request's first byte, to the end of its headers."""

MAX_CONNECTIONS = 500
"""Over this limit, the connection that has been without a request for longest is closed. If all have one, the new
connection gets `overloaded` except for health and metrics. The usual limit on open files is 1024, and gRPC needs some.
"""

SPARE_CONNECTIONS = 64
"""Connections over `MAX_CONNECTIONS` that may ask for health and metrics. Further ones are closed at once."""

LAST_REQUESTS_S = 0.5
"""Seconds that a connection without a request stays open while the gateway stops, to answer a request in transit."""


class GatewayProtocol(H11Protocol):
    """One HTTP/1.1 connection."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.access_log = False  # written by `access_log.AccessLog`
        self._headers_due: asyncio.TimerHandle | None = None
        self.waiting_since = 0.0
        """Time of the event loop since which the connection has had no request, in seconds."""
        self._over_limit = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.waiting_since = self.loop.time()
        self._time_headers()
        self._apply_connection_limit()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._time_headers()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_timing_headers()
        super().connection_lost(exc)

    def shutdown(self) -> None:
        if self.cycle is None or self.cycle.response_complete:
            self.loop.call_later(LAST_REQUESTS_S, self._shut_down_now)
        else:
            super().shutdown()

    def _shut_down_now(self) -> None:
        if not self.transport.is_closing():
            super().shutdown()

    def _apply_connection_limit(self) -> None:
        if len(self.connections) <= MAX_CONNECTIONS:
            return
        others = [it for it in self.connections if it is not self and not it.transport.is_closing()]
        if len(others) < MAX_CONNECTIONS:
            return
        waiting = [it for it in others if isinstance(it, GatewayProtocol) and it.conn.their_state is h11.IDLE]
        if waiting:
            min(waiting, key=lambda it: it.waiting_since).transport.close()
        elif len(others) < MAX_CONNECTIONS + SPARE_CONNECTIONS:
            self._over_limit = True
            self.app = _mark_over_limit(self.app, self.connections)
        else:
            self.transport.abort()

    def _should_upgrade(self) -> bool:
        return not self._over_limit and super()._should_upgrade()

    def _time_headers(self) -> None:
        if self.conn.their_state is not h11.IDLE:
            self._stop_timing_headers()
        elif self._headers_due is None:
            self.waiting_since = self.loop.time()
            self._headers_due = self.loop.call_later(HEADERS_TIMEOUT_S, self._headers_timed_out)

    def _stop_timing_headers(self) -> None:
        if self._headers_due is not None:
            self._headers_due.cancel()
            self._headers_due = None

    def _headers_timed_out(self) -> None:
        self._headers_due = None
        if self.conn.their_state is h11.IDLE and not self.transport.is_closing():
            self.transport.close()

    def handle_websocket_upgrade(self, event: h11.Request) -> None:
        """Refuse heads beyond the limits of `websockets`, which leaves them without an answer, and of this gateway."""
        lines = [len(event.method) + len(event.target) + len(" HTTP/1.1 ")]
        lines += [len(name) + len(value) + len(": ") for name, value in self.headers]
        if len(lines) > MAX_NUM_HEADERS or max(lines) > MAX_LINE_LENGTH - len("\r\n") or sum(lines) > MAX_HEAD_BYTES:
            self._send_error(431, b"Request Header Fields Too Large", "The request's target and headers are too large.")
        else:
            super().handle_websocket_upgrade(event)

    def send_400_response(self, msg: str) -> None:
        """Respond to bytes that are not HTTP."""
        self._send_error(400, b"Bad Request", msg)

    def _send_error(self, status: int, reason: bytes, message: str) -> None:
        """Respond before there is a request for the app, in the shape of all other errors, and close."""
        if self.conn.our_state not in (h11.IDLE, h11.SEND_RESPONSE):
            self.transport.close()  # a response is already being sent
            return
        request_id = new_request_id()
        error = {"type": "invalid_argument", "message": message, "request_id": request_id}
        body = json.dumps({"error": error}).encode()
        headers = {
            "content-type": "application/json",
            "content-length": str(len(body)),
            "connection": "close",
            "x-req-id": request_id,
            "x-error-type": "invalid_argument",
            "x-error-message": message,
        }
        for event in (
            h11.Response(status_code=status, headers=list(headers.items()), reason=reason),
            h11.Data(data=body),
            h11.EndOfMessage(),
        ):
            self.transport.write(self.conn.send(event) or b"")
        self.transport.close()


def _mark_over_limit(app: ASGIApp, connections: Collection[object]) -> ASGIApp:
    """`app` for a connection over the limit: sets the state that `head_check.HeadCheck` reads, while that lasts."""

    async def marked(scope: Scope, receive: Receive, send: Send) -> None:
        scope["state"]["over_connection_limit"] = len(connections) > MAX_CONNECTIONS
        await app(scope, receive, send)

    return marked
