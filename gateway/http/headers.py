"""Request ids, and the response headers that repeat trailing metadata."""

from __future__ import annotations

from collections.abc import Mapping

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from protos.stt.v1.errors import header_safe
from protos.stt.v1.trace_context import TRACEPARENT, TRACESTATE, TraceContext, current_trace
from protos.stt.v1.wire import TRAILER_HEADERS, X_REQ_ID, is_request_id, new_request_id

EXPOSED_HEADERS = (
    "X-Req-Id",
    *TRAILER_HEADERS.values(),
    "X-Error-Type",
    "X-Error-Message",
    "Retry-After",
    "retry-after-ms",
    "x-request-id",
    "x-should-retry",
)
"""Response headers that pages of allowed other origins may read."""

RESPONSE_STARTS = ("http.response.start", "websocket.accept", "websocket.http.response.start")
"""ASGI messages that carry response headers."""


class RequestIds:
    """Middleware that gives each request an id, returned as `X-Req-Id`, and a trace, the caller's or a new one."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        request_id = _choose_request_id(headers)
        scope.setdefault("state", {})["request_id"] = request_id
        current_trace.set(_trace_of(headers))

        async def send_with_id(message: Message) -> None:
            if message["type"] in RESPONSE_STARTS:
                message.setdefault("headers", [])
                MutableHeaders(scope=message)["X-Req-Id"] = request_id
            await send(message)

        await self._app(scope, receive, send_with_id)


def _choose_request_id(headers: Headers) -> str:
    """The caller's `X-Req-Id` if it was sent once and is well formed, else a new id."""
    given = headers.getlist(X_REQ_ID)
    if len(given) == 1 and is_request_id(given[0]):
        return given[0]
    return new_request_id()


def _trace_of(headers: Headers) -> TraceContext:
    given = headers.getlist(TRACEPARENT)
    return TraceContext.begin(given[0] if len(given) == 1 else "", ",".join(headers.getlist(TRACESTATE)))


def request_id_of(scope: Scope) -> str:
    """The id that `RequestIds` gave to the request; empty outside of it."""
    state: dict[str, str] = scope.get("state", {})
    return state.get("request_id", "")


def trailer_headers(metadata: Mapping[str, str]) -> dict[str, str]:
    """Response headers that repeat the trailing metadata of the call behind the response."""
    return {header: header_safe(metadata[name]) for name, header in TRAILER_HEADERS.items() if name in metadata}
