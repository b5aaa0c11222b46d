"""Requests that are turned away at the door: what proxies may read differently, and what there is no room for."""

from __future__ import annotations

from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from gateway.http.errors import error_response
from gateway.http.uploads import Uploads

MAX_HEAD_BYTES = 16 * 1024
"""Of a request's target and headers. h11 has the same limit, but only for those that come in pieces."""

ALWAYS_ANSWERED = frozenset(("/v1/health", "/v1/metrics", "/metrics"))
"""However many are waiting: a service that is busy must not look like one that is dead."""

_CLOSING = {"Connection": "close"}


class Door:
    """Looks at a request's head before anything else does.

    Whether a connection is one too many is said by its protocol, as `scope["state"]["crowded"]`.
    """

    def __init__(self, app: ASGIApp, uploads: Uploads) -> None:
        self._app = app
        self._uploads = uploads

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request = Request(scope)
        if objection := _objection(request):
            status, message = objection
            response = error_response(request, "invalid_argument", message, status=status, headers=_CLOSING)
            await response(scope, receive, send)
        elif self._too_many(scope):
            message = "More connections are open than the gateway takes; try again."
            await error_response(request, "overloaded", message, headers=_CLOSING)(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    def _too_many(self, scope: Scope) -> bool:
        if not scope["state"].get("crowded") or scope["path"] in ALWAYS_ANSWERED:
            return False
        return not self._uploads.cut_slowest()


def _objection(request: Request) -> tuple[int, str] | None:
    """HTTP code and message for a head that is not taken."""
    if request.scope["http_version"] not in ("1.0", "1.1"):
        return 505, "The gateway speaks HTTP/1.1."
    headers = request.headers
    if "content-length" in headers and "transfer-encoding" in headers:
        # Whoever stands in front may go by the other one, and then takes the rest of this body for a request.
        return 400, "Send Content-Length or Transfer-Encoding, not both."
    size = sum(len(name) + len(value) for name, value in headers.raw)
    size += len(request.scope["raw_path"]) + len(request.scope["query_string"])
    if size > MAX_HEAD_BYTES:
        return 431, f"The request's target and headers are over {MAX_HEAD_BYTES} bytes."
    return None
