"""Rejecting requests by their head: ambiguous framing, oversized headers, too many connections."""

from __future__ import annotations

from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from gateway.http.errors import error_response
from gateway.http.uploads import UploadBudget

MAX_HEAD_BYTES = 16 * 1024
"""Bytes of a request's target and headers. h11 applies the same limit, but only to heads that arrive in pieces."""

ALWAYS_SERVED = frozenset(("/v1/health", "/v1/metrics", "/metrics"))
"""Paths served over the connection limit too: a busy service must not look dead."""

_CLOSE = {"Connection": "close"}


class HeadCheck:
    """Middleware that rejects a request by its head, before the body is read.

    `protocol.GatewayProtocol` sets `scope["state"]["over_connection_limit"]`.
    """

    def __init__(self, app: ASGIApp, uploads: UploadBudget) -> None:
        self._app = app
        self._uploads = uploads

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request = Request(scope)
        if problem := _problem(request):
            status, message = problem
            response = error_response(request, "invalid_argument", message, status=status, headers=_CLOSE)
            await response(scope, receive, send)
        elif self._over_limit(scope):
            message = "Connection limit of the gateway reached; retry later."
            await error_response(request, "overloaded", message, headers=_CLOSE)(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    def _over_limit(self, scope: Scope) -> bool:
        if not scope["state"].get("over_connection_limit") or scope["path"] in ALWAYS_SERVED:
            return False
        return not self._uploads.cancel_slowest()


def _problem(request: Request) -> tuple[int, str] | None:
    """HTTP status and message if the head is rejected."""
    if request.scope["http_version"] not in ("1.0", "1.1"):
        return 505, "Unsupported HTTP version; use HTTP/1.1."
    headers = request.headers
    if "content-length" in headers and "transfer-encoding" in headers:
        # Request smuggling: a proxy in front may use the other header, and take the rest of the body for a request.
        return 400, "Both Content-Length and Transfer-Encoding are set; send only one."
    size = sum(len(name) + len(value) for name, value in headers.raw)
    size += len(request.scope["raw_path"]) + len(request.scope["query_string"])
    if size > MAX_HEAD_BYTES:
        return 431, f"The request's target and headers exceed {MAX_HEAD_BYTES} bytes."
    return None
