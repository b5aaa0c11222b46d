"""Errors as a caller sees them: one JSON shape, and the headers of the contract."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import HTTPConnection, Request
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gateway.http.headers import mirrored, request_id_in
from protos.stt.v1.errors import ERRORS, header_safe
from protos.stt.v1.wire import X_ERROR_TYPE
from stt_client.errors import SttError

logger = logging.getLogger("gateway")

_NO_HEADERS: Mapping[str, str] = MappingProxyType({})

_OWN_WORDS = {
    "unauthenticated": "A valid key is needed: Authorization: Bearer KEY.",
    "payload_too_large": "The request is larger than the service takes.",
    "invalid_argument": "The service could not read the request.",
    "deadline_exceeded": "The time allowed passed before there was an answer.",
    "not_ready": "The service ended the call; try again.",
    "upstream_unavailable": "The gateway can't reach its service.",
}
"""Messages for errors whose text came from a library: such a text may name sockets, addresses or code."""


class Refusal(Exception):
    """A request that the gateway itself turns down.

    Args:
        type_: a row of `protos.stt.v1.errors.ERRORS`.
        message: for the caller; may quote what the caller sent.
    """

    def __init__(self, type_: str, message: str) -> None:
        super().__init__(message)
        self.type = type_
        self.message = message


def error_response(
    request: HTTPConnection,
    type_: str,
    message: str,
    *,
    status: int | None = None,
    retry_after_s: float | None = None,
    headers: Mapping[str, str] = _NO_HEADERS,
) -> JSONResponse:
    """The answer to a request that failed.

    Args:
        type_: a row of the error table, which gives the HTTP code unless `status` does.
        retry_after_s: seconds, instead of the table's.
        headers: more headers, already safe.
    """
    kind = ERRORS[type_]
    code = status or kind.http
    body = error_json(type_, message, request_id_in(request.scope))
    all_headers = {**headers, "X-Error-Type": type_, "X-Error-Message": body["error"]["message"]}
    if kind.sends_retry_after:
        all_headers["Retry-After"] = str(retry_after(type_, retry_after_s))
    if code == 401:
        all_headers["WWW-Authenticate"] = "Bearer"
    return JSONResponse(body, code, all_headers)


def error_json(type_: str, message: str, request_id: str) -> dict[str, dict[str, Any]]:
    """What every error looks like, on REST and on a stream."""
    return {"error": {"type": type_, "message": header_safe(message), "request_id": request_id}}


def retry_after(type_: str, seconds: float | None) -> int:
    """Whole seconds to wait before trying again: those given, else the table's."""
    return max(1, math.ceil(seconds or ERRORS[type_].retry_after_s or 1))


async def on_refusal(request: Request, error: Refusal) -> Response:
    return error_response(request, error.type, error.message)


async def on_stt_error(request: Request, error: SttError) -> Response:
    """What the service, or the way to it, answered."""
    type_, message = in_our_words(error)
    return error_response(request, type_, message, retry_after_s=error.retry_after_s, headers=mirrored(error.metadata))


def in_our_words(error: SttError) -> tuple[str, str]:
    """Type and message for the caller of a call to the service that failed. Logs what the message hides."""
    # The caller is still here, so it was the service that let go: a restart, to the caller.
    type_ = "not_ready" if error.type == "cancelled" else error.type
    if X_ERROR_TYPE in error.metadata and type_ == error.type:
        return type_, error.message
    logger.warning("call failed", extra={"error_type": type_, "detail": error.message})
    return type_, _OWN_WORDS.get(type_, "Internal error.")


async def on_http_exception(request: Request, error: HTTPException) -> Response:
    """Unknown paths and methods."""
    message = {
        404: "There is nothing at this path; GET /docs lists what there is.",
        405: "This path does not take this method; GET /docs lists what it takes.",
    }.get(error.status_code, error.detail)
    return error_response(
        request, "invalid_argument", message, status=error.status_code, headers=error.headers or _NO_HEADERS
    )


class CatchAll:
    """Turns an exception that nobody mapped into a 500 that says nothing of the inside; logs the rest."""

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
            # Only the server cancels a request's task, when it stops and the time for that is up.
            if started:
                raise
            response = error_response(Request(scope), "not_ready", "The gateway is stopping; try another.")
            await response(scope, receive, send)
        except Exception:
            logger.exception("unexpected error", extra={"request_id": request_id_in(scope)})
            if started:
                raise
            response = error_response(Request(scope), "internal", "Internal error.")
            await response(scope, receive, send)
