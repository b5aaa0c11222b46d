"""Error responses: JSON in the format of their path, with the headers of the contract."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Protocol

from starlette.exceptions import HTTPException
from starlette.requests import HTTPConnection, Request
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gateway.http.access_log import set_called
from gateway.http.headers import request_id_of, trailer_headers
from protos.stt.v1.errors import ERRORS, header_safe
from protos.stt.v1.wire import X_ERROR_TYPE
from stt_client.errors import SttError, UpstreamUnavailable

logger = logging.getLogger("gateway")

_NO_HEADERS: Mapping[str, str] = MappingProxyType({})

_PUBLIC_MESSAGES = {
    "unauthenticated": "Missing or invalid key; send Authorization: Bearer KEY.",
    "payload_too_large": "The request exceeds the service's size limit.",
    "invalid_argument": "The service could not parse the request.",
    "deadline_exceeded": "Deadline exceeded before the service answered.",
    "not_ready": "The service ended the call; retry.",
    "upstream_unavailable": "The gateway cannot reach its service.",
}
"""Messages for errors raised by a library, whose own text may reveal sockets, addresses or code."""


UNKNOWN_PATH = "Unknown path; GET /docs lists the endpoints."


class Refusal(Exception):
    """The gateway itself rejects a request.

    Args:
        type_: key of `protos.stt.v1.errors.ERRORS`.
        message: for the caller; may quote the caller's input.
        field: field of the form that is invalid; None: no single one.
    """

    def __init__(self, type_: str, message: str, *, field: str | None = None) -> None:
        super().__init__(message)
        self.type = type_
        self.message = message
        self.field = field


class ErrorFormat(Protocol):
    """JSON body, status and further headers of the error responses of a group of paths."""

    def status(self, type_: str) -> int:
        """HTTP status of an error type."""

    def body(self, type_: str, message: str, request_id: str, *, status: int, field: str | None) -> dict[str, Any]:
        """JSON body. `status` is the one that is sent, `field` the invalid field of the form, if it is known."""

    def headers(self, type_: str, retry_after_s: float) -> Mapping[str, str]:
        """Headers besides those of every error. `retry_after_s`: seconds to wait before a retry."""


class RestErrorFormat:
    """Format of all paths without another one."""

    def status(self, type_: str) -> int:
        return ERRORS[type_].http

    def body(self, type_: str, message: str, request_id: str, *, status: int, field: str | None) -> dict[str, Any]:
        return error_json(type_, message, request_id)

    def headers(self, type_: str, retry_after_s: float) -> Mapping[str, str]:
        return _NO_HEADERS


_REST = RestErrorFormat()


def set_error_format(scope: Scope, error_format: ErrorFormat) -> None:
    """Have `error_response` answer a request in this format."""
    scope["state"]["error_format"] = error_format


def error_response(
    request: HTTPConnection,
    type_: str,
    message: str,
    *,
    status: int | None = None,
    field: str | None = None,
    retry_after_s: float | None = None,
    headers: Mapping[str, str] = _NO_HEADERS,
) -> JSONResponse:
    """Response to a failed request, in the format of its path.

    Args:
        type_: key of `ERRORS`.
        status: HTTP status instead of the format's.
        field: field of the form that is invalid.
        retry_after_s: seconds instead of the table's.
        headers: further headers, already sanitised.
    """
    error_format: ErrorFormat = request.scope.get("state", {}).get("error_format", _REST)
    code = status or error_format.status(type_)
    body = error_format.body(type_, message, request_id_of(request.scope), status=code, field=field)
    wait_s = retry_after_s or ERRORS[type_].retry_after_s or 1
    all_headers = {**headers, "X-Error-Type": type_, "X-Error-Message": body["error"]["message"]}
    all_headers |= error_format.headers(type_, wait_s)
    if ERRORS[type_].sends_retry_after:
        all_headers["Retry-After"] = str(retry_after_seconds(type_, wait_s))
    if code == 401:
        all_headers["WWW-Authenticate"] = "Bearer"
    return JSONResponse(body, code, all_headers)


def error_json(type_: str, message: str, request_id: str) -> dict[str, dict[str, Any]]:
    """JSON body of an error of REST and live streams."""
    return {"error": {"type": type_, "message": header_safe(message), "request_id": request_id}}


def retry_after_seconds(type_: str, seconds: float | None) -> int:
    """Whole seconds to wait before a retry, at least 1: `seconds` if given, else those of the error table."""
    return max(1, math.ceil(seconds or ERRORS[type_].retry_after_s or 1))


async def handle_refusal(request: Request, error: Refusal) -> Response:
    """Exception handler for requests that the gateway rejects."""
    return error_response(request, error.type, error.message, field=error.field)


async def handle_stt_error(request: Request, error: SttError, *, field: str | None = None) -> Response:
    """Exception handler for failed calls to the service.

    Args:
        field: field of the form that is invalid.
    """
    type_, message = public_error(error)
    set_called(request.scope, was_received(error))
    headers = trailer_headers(error.metadata)
    wait_s = error.retry_after_s
    return error_response(request, type_, message, field=field, retry_after_s=wait_s, headers=headers)


def public_error(error: SttError) -> tuple[str, str]:
    """Type and message for the caller. Logs the original text if the message hides it."""
    # The caller is still connected, so the service cancelled the call, as it does when it restarts.
    type_ = "not_ready" if error.type == "cancelled" else error.type
    if X_ERROR_TYPE in error.metadata and type_ == error.type:
        return type_, error.message
    logger.warning("call failed", extra={"error_type": type_, "detail": error.message})
    return type_, _PUBLIC_MESSAGES.get(type_, "Internal error.")


def was_received(error: SttError) -> bool:
    """Whether the failed call has reached the service, which then counts it."""
    return error.type != UpstreamUnavailable.type


async def handle_http_exception(request: Request, error: HTTPException) -> Response:
    """Exception handler for unknown paths and methods."""
    message = {
        404: UNKNOWN_PATH,
        405: "Method not allowed; GET /docs lists the endpoints.",
    }.get(error.status_code, error.detail)
    return error_response(
        request, "invalid_argument", message, status=error.status_code, headers=error.headers or _NO_HEADERS
    )


class CatchAll:
    """Middleware that turns an unexpected exception into a 500 without details, and logs it."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = False

        async def watched_send(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            await self._app(scope, receive, watched_send)
        except asyncio.CancelledError:
            # Only the server cancels a request's task: at the end of the grace period.
            if started:
                raise
            response = error_response(Request(scope), "not_ready", "The gateway is stopping; retry on another.")
            await response(scope, receive, send)
        except Exception:
            logger.exception("unexpected error", extra={"request_id": request_id_of(scope)})
            if started:
                raise
            response = error_response(Request(scope), "internal", "Internal error.")
            await response(scope, receive, send)
