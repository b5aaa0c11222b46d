"""uvicorn's HTTP/1.1, with what it lacks: limits on connections and on how long headers may take, and our shape for
what isn't HTTP."""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import Collection
from typing import Any

import h11
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

HEADERS_TIMEOUT_S = 15.0
"""Seconds from the opening of a connection, or from a request's first byte, to the end of its headers."""

MAX_CONNECTIONS = 500
"""One more, and the connection that has waited longest for a request to come makes room; where none waits, the new one
is for health and metrics alone. The usual limit on open files is 1024, and gRPC needs some too."""

SPARE_CONNECTIONS = 64
"""Over `MAX_CONNECTIONS`, for those. One more is closed as it opens."""

LAST_REQUESTS_S = 0.5
"""Seconds for which a connection without a request stays open while the gateway stops: one that is on its way would be
cut off, and is answered instead."""


class GatewayProtocol(H11Protocol):
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.access_log = False  # `access_log.AccessLog` writes the line
        self._headers_due: asyncio.TimerHandle | None = None
        self._waiting_since = 0.0
        self._crowded = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._waiting_since = self.loop.time()
        self._watch_headers()
        self._take_room()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._watch_headers()

    def connection_lost(self, exc: Exception | None) -> None:
        self._forget_headers()
        super().connection_lost(exc)

    def shutdown(self) -> None:
        if self.cycle is None or self.cycle.response_complete:
            self.loop.call_later(LAST_REQUESTS_S, self._shut_down_now)
        else:
            super().shutdown()

    def _shut_down_now(self) -> None:
        if not self.transport.is_closing():
            super().shutdown()

    def _take_room(self) -> None:
        if len(self.connections) <= MAX_CONNECTIONS:
            return
        others = [it for it in self.connections if it is not self and not it.transport.is_closing()]
        if len(others) < MAX_CONNECTIONS:
            return
        waiting = [it for it in others if isinstance(it, GatewayProtocol) and it.conn.their_state is h11.IDLE]
        if waiting:
            min(waiting, key=lambda it: it._waiting_since).transport.close()
        elif len(others) < MAX_CONNECTIONS + SPARE_CONNECTIONS:
            self._crowded = True
            self.app = _told_crowded(self.app, self.connections)
        else:
            self.transport.abort()

    def _should_upgrade(self) -> bool:
        return not self._crowded and super()._should_upgrade()

    def _watch_headers(self) -> None:
        if self.conn.their_state is not h11.IDLE:
            self._forget_headers()
        elif self._headers_due is None:
            self._waiting_since = self.loop.time()
            self._headers_due = self.loop.call_later(HEADERS_TIMEOUT_S, self._headers_late)

    def _forget_headers(self) -> None:
        if self._headers_due is not None:
            self._headers_due.cancel()
            self._headers_due = None

    def _headers_late(self) -> None:
        self._headers_due = None
        if self.conn.their_state is h11.IDLE and not self.transport.is_closing():
            self.transport.close()

    def send_400_response(self, msg: str) -> None:
        """Answers bytes that are no HTTP request, in the shape of all other errors."""
        if self.conn.our_state not in (h11.IDLE, h11.SEND_RESPONSE):
            self.transport.close()  # in the middle of another answer
            return
        request_id = secrets.token_hex(16)
        error = {"type": "invalid_argument", "message": msg, "request_id": request_id}
        body = json.dumps({"error": error}).encode()
        headers = {
            "content-type": "application/json",
            "content-length": str(len(body)),
            "connection": "close",
            "x-req-id": request_id,
            "x-error-type": "invalid_argument",
            "x-error-message": msg,
        }
        for event in (
            h11.Response(status_code=400, headers=list(headers.items()), reason=b"Bad Request"),
            h11.Data(data=body),
            h11.EndOfMessage(),
        ):
            self.transport.write(self.conn.send(event) or b"")
        self.transport.close()


def _told_crowded(app: ASGIApp, connections: Collection[object]) -> ASGIApp:
    """`app` for a connection that is one too many; told so, for as long as it is, as `door.Door` wants to know."""

    async def told(scope: Scope, receive: Receive, send: Send) -> None:
        scope["state"]["crowded"] = len(connections) > MAX_CONNECTIONS
        await app(scope, receive, send)

    return told
