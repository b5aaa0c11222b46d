"""One line a request."""

from __future__ import annotations

import logging
import time

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gateway.headers import request_id_in
from protos.stt.v1.errors import header_safe

logger = logging.getLogger("gateway.access")

CLIENT_GONE = 499
"""Logged, never sent: the caller closed the connection before the answer."""


class AccessLog:
    """Logs method, path, status, seconds and bytes; never a key, a query or a word of a recording.

    `bytes` counts the request's body as far as it was read, `bytes_sent` the response's.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.monotonic()
        status, received, sent = CLIENT_GONE, 0, 0
        told: dict[str, str] = {}

        async def counted_receive() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            return message

        async def counted_send(message: Message) -> None:
            nonlocal status, sent
            if message["type"] == "http.response.start":
                status = message["status"]
                told.update(_about_error(Headers(raw=message["headers"])))
            sent += len(message.get("body", b""))
            await send(message)

        try:
            await self._app(scope, counted_receive, counted_send)
        finally:
            logger.info(
                "request",
                extra={
                    "request_id": request_id_in(scope),
                    "method": scope["method"],
                    "path": header_safe(scope["path"]),
                    "status": status,
                    "seconds": round(time.monotonic() - started, 4),
                    "bytes": received,
                    "bytes_sent": sent,
                    **told,
                },
            )


def _about_error(headers: Headers) -> dict[str, str]:
    names = ("error-type", "error-message", "fallback-error")
    return {name.replace("-", "_"): headers[f"x-{name}"] for name in names if f"x-{name}" in headers}
