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
            logger.log(
                logging.DEBUG if told_by_service or routine else logging.INFO,
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
