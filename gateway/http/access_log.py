"""One line a request."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gateway.http.headers import request_id_in
from protos.stt.v1.errors import header_safe

logger = logging.getLogger("gateway.access")

CLIENT_GONE = 499
"""Logged, never sent: the caller closed the connection before the answer."""


class AccessLog:
    """Logs method, path, status, seconds and bytes; never a key, a query or a word of a recording.

    `bytes` counts the request's body as far as it was read, `bytes_sent` the response's. Probes and scrapes that went
    well are lines for debugging only.
    """

    def __init__(self, app: ASGIApp, *, service_logs_here: bool = False) -> None:
        """
        Args:
            service_logs_here: the service writes to the same log, so a request that it has told of is not told twice.
        """
        self._app = app
        self._service_logs_here = service_logs_here

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await self._socket(scope, receive, send)
            return
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.monotonic()
        status, received, sent = CLIENT_GONE, 0, 0
        told: dict[str, str] = {}
        told_by_service = False

        async def counted_receive() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            return message

        async def counted_send(message: Message) -> None:
            nonlocal status, sent, told_by_service
            if message["type"] == "http.response.start":
                headers = Headers(raw=message["headers"])
                status = message["status"]
                told.update(_about_error(headers))
                told_by_service = self._service_logs_here and "x-total-ms" in headers
            sent += len(message.get("body", b""))
            await send(message)

        try:
            await self._app(scope, counted_receive, counted_send)
        finally:
            routine = scope["method"] == "GET" and status < 400
            facts = {"method": scope["method"], "status": status, "bytes": received, "bytes_sent": sent, **told}
            self._tell(scope, started, told_by_service or routine, facts)

    async def _socket(self, scope: Scope, receive: Receive, send: Send) -> None:
        """A WebSocket, told once, at its end: status 101 and the code it was closed with, or the refusal's status."""
        started = time.monotonic()
        count = _Counted(receive, send)
        try:
            await self._app(scope, count.receive, count.send)
        finally:
            state = scope["state"]
            told_by_service = self._service_logs_here and state.get("told_by_service", False)
            facts = {"method": "GET", **count.facts(), **state.get("told", {})}
            self._tell(scope, started, told_by_service, facts)

    def _tell(self, scope: Scope, started: float, quietly: bool, facts: Mapping[str, object]) -> None:
        logger.log(
            logging.DEBUG if quietly else logging.INFO,
            "request",
            extra={
                "request_id": request_id_in(scope),
                "path": header_safe(scope["path"]),
                "seconds": round(time.monotonic() - started, 4),
                **facts,
            },
        )


class _Counted:
    """What passes through a WebSocket, counted."""

    def __init__(self, receive: Receive, send: Send) -> None:
        self._receive, self._send = receive, send
        self._status: int = CLIENT_GONE
        self._code: int | None = None
        self._received = self._sent = 0

    async def receive(self) -> Message:
        message = await self._receive()
        self._received += _payload(message)
        if message["type"] == "websocket.disconnect" and self._code is None:
            self._code = message.get("code")
        return message

    async def send(self, message: Message) -> None:
        await self._send(message)
        self._sent += _payload(message)
        if message["type"] == "websocket.accept":
            self._status = 101
        elif message["type"] == "websocket.http.response.start":
            self._status = message["status"]
        elif message["type"] == "websocket.close":
            # Before it is accepted, this is a refusal.
            self._status, self._code = (101, message.get("code", 1000)) if self._status == 101 else (403, None)

    def facts(self) -> dict[str, object]:
        closed = {"close_code": self._code} if self._status == 101 else {}
        return {"status": self._status, "bytes": self._received, "bytes_sent": self._sent, **closed}


def _payload(message: Message) -> int:
    text: str = message.get("text") or ""
    return len(message.get("bytes") or message.get("body") or b"") + len(text.encode())


def _about_error(headers: Headers) -> dict[str, str]:
    names = ("error-type", "error-message", "fallback-error")
    return {name.replace("-", "_"): headers[f"x-{name}"] for name in names if f"x-{name}" in headers}
