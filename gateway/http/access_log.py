"""Access log: one line for each request and each WebSocket."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gateway.http.headers import request_id_of
from gateway.http.refusals import Refusals, endpoint_of
from protos.stt.v1.errors import header_safe
from protos.stt.v1.spans import Attribute, Span, SpanSink
from protos.stt.v1.trace_context import current_trace

logger = logging.getLogger("gateway.access")

CLIENT_CLOSED_REQUEST = 499
"""Status that is logged, never sent: the caller closed the connection before the response."""


def set_error(scope: Scope, type_: str, message: str) -> None:
    """Have the line of a WebSocket or of an event stream say why it failed. Other responses say so by their headers."""
    scope["state"]["error"] = {"error_type": type_, "error_message": message}


def set_logged_by_service(scope: Scope, logged: bool = True) -> None:
    """State whether the service has a log line of its own for a WebSocket or an event stream."""
    scope["state"]["logged_by_service"] = logged


def set_called(scope: Scope, called: bool = True) -> None:
    """State whether the service has been called for a request, and so counts it in its metrics."""
    scope["state"]["called"] = called


class AccessLog:
    """Middleware that logs method, path, status, seconds and bytes. It logs no keys, queries or transcripts.

    `bytes` is the size of the request body as far as it was read, `bytes_sent` that of the response. Successful GET
    requests (probes, scrapes) are logged at level DEBUG. Errors of requests that never reached the service are counted.
    """

    def __init__(
        self, app: ASGIApp, refusals: Refusals, *, service_logs_here: bool = False, spans: SpanSink | None = None
    ) -> None:
        """
        Args:
            service_logs_here: the service writes to the same log; requests that it logs are logged here at DEBUG.
            spans: receives a span for each request that is not routine; None: traces are not exported.
        """
        self._spans = spans
        self._app = app
        self._refusals = refusals
        self._service_logs_here = service_logs_here

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        started = time.monotonic()
        exchange = _Exchange(receive, send) if scope["type"] == "http" else _Socket(receive, send)
        try:
            await self._app(scope, exchange.receive, exchange.send)
        finally:
            fields = {"method": scope.get("method", "GET"), **exchange.fields(scope)}
            logged_elsewhere = self._service_logs_here and exchange.logged_by_service(scope)
            level = logging.DEBUG if logged_elsewhere or exchange.is_routine(scope) else logging.INFO
            ended = time.monotonic()
            self._log(level, scope, ended - started, fields)
            if self._spans is not None and not exchange.is_routine(scope):
                _add_span(self._spans, scope, started, ended, fields)
            if "error_type" in fields and not scope["state"].get("called", False):
                self._refusals.add(endpoint_of(scope["path"]), str(fields["error_type"]))

    def _log(self, level: int, scope: Scope, seconds: float, fields: Mapping[str, object]) -> None:
        where = {"request_id": request_id_of(scope), "path": header_safe(scope["path"])}
        logger.log(level, "request", extra={**where, "seconds": round(seconds, 4), **fields})


class _Exchange:
    """An HTTP request and its response."""

    def __init__(self, receive: Receive, send: Send) -> None:
        self._receive, self._send = receive, send
        self._status = CLIENT_CLOSED_REQUEST
        self._received = self._sent = 0
        self._headers = Headers()

    async def receive(self) -> Message:
        message = await self._receive()
        self._received += _payload_bytes(message)
        return message

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._headers = Headers(raw=message["headers"])
            self._status = message["status"]
        self._sent += _payload_bytes(message)
        await self._send(message)

    def fields(self, scope: Scope) -> dict[str, object]:
        counts = {"status": self._status, "bytes": self._received, "bytes_sent": self._sent}
        names = ("error-type", "error-message", "fallback-error")
        errors = {name.replace("-", "_"): self._headers[f"x-{name}"] for name in names if f"x-{name}" in self._headers}
        return {**counts, **errors, **scope["state"].get("error", {})}

    def logged_by_service(self, scope: Scope) -> bool:
        return "x-total-ms" in self._headers or bool(scope["state"].get("logged_by_service", False))

    def is_routine(self, scope: Scope) -> bool:
        return scope["method"] == "GET" and self._status < 400


class _Socket:
    """A WebSocket: status 101 and the close code, or the status with which the handshake was rejected."""

    def __init__(self, receive: Receive, send: Send) -> None:
        self._receive, self._send = receive, send
        self._status = CLIENT_CLOSED_REQUEST
        self._code: int | None = None
        self._received = self._sent = 0

    async def receive(self) -> Message:
        message = await self._receive()
        self._received += _payload_bytes(message)
        if message["type"] == "websocket.disconnect" and self._code is None:
            self._code = message.get("code")
        return message

    async def send(self, message: Message) -> None:
        await self._send(message)
        self._sent += _payload_bytes(message)
        if message["type"] == "websocket.accept":
            self._status = 101
        elif message["type"] == "websocket.http.response.start":
            self._status = message["status"]
        elif message["type"] == "websocket.close":
            # A close before the accept rejects the handshake.
            self._status, self._code = (101, message.get("code", 1000)) if self._status == 101 else (403, None)

    def fields(self, scope: Scope) -> dict[str, object]:
        counts = {"status": self._status, "bytes": self._received, "bytes_sent": self._sent}
        closed = {"close_code": self._code} if self._status == 101 else {}
        return {**counts, **closed, **scope["state"].get("error", {})}

    def logged_by_service(self, scope: Scope) -> bool:
        return bool(scope["state"].get("logged_by_service", False))

    def is_routine(self, scope: Scope) -> bool:
        return False


def _payload_bytes(message: Message) -> int:
    text: str = message.get("text") or ""
    return len(message.get("bytes") or message.get("body") or b"") + len(text.encode())


def _add_span(spans: SpanSink, scope: Scope, started: float, ended: float, fields: Mapping[str, object]) -> None:
    """Export a request as a span, by OpenTelemetry's names for HTTP servers."""
    trace = current_trace.get()
    if trace is None:
        return
    method, status = str(fields["method"]), int(str(fields["status"]))
    route = str(getattr(scope.get("route"), "path", ""))
    attributes: dict[str, Attribute] = {
        "http.request.method": method,
        "http.response.status_code": status,
        "url.path": header_safe(scope["path"]),
        "url.scheme": scope["scheme"],
        "stt.request_id": request_id_of(scope),
        **({"http.route": route} if route else {}),
    }
    error = str(fields.get("error_type", status)) if status >= 500 else ""
    spans.add(Span(f"{method} {route}".rstrip(), "server", trace, started, ended, attributes, error))
