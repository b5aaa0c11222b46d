"""Responding before the request body has arrived, without losing the response.

If a socket is closed while bytes from the peer are unread, the kernel sends a reset, and a caller that writes its whole
request before reading may lose the response. So the response is sent at once, the rest of the body is read and
dropped within bounds, and then the connection is closed.
"""

from __future__ import annotations

import asyncio
import time

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

DRAIN_BYTES = 64 * 1024 * 1024
DRAIN_S = 5.0
"""Longest time to drain a body, in seconds."""
DRAIN_IDLE_S = 1.0
"""Longest wait for the next bytes, in seconds."""


class DrainBody:
    """Middleware that reads the rest of a body after its response, up to `DRAIN_BYTES` and `DRAIN_S`."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and _has_body(Headers(scope=scope)):
            exchange = _Exchange(Headers(scope=scope), receive, send)
            await self._app(scope, exchange.receive, exchange.send)
        else:
            await self._app(scope, receive, send)


def _has_body(headers: Headers) -> bool:
    return "transfer-encoding" in headers or headers.get("content-length", "0").strip("0") != ""


class _Exchange:
    """One request and its response."""

    def __init__(self, headers: Headers, receive: Receive, send: Send) -> None:
        self._receive, self._send = receive, send
        self._body_complete = False
        # A caller that expects 100 sends no body until the app asks for it, and none after a final response.
        self._awaits_continue = headers.get("expect", "").lower() == "100-continue"

    async def receive(self) -> Message:
        self._awaits_continue = False
        message = await self._receive()
        if message["type"] != "http.request" or not message.get("more_body", False):
            self._body_complete = True
        return message

    async def send(self, message: Message) -> None:
        if self._body_complete:
            await self._send(message)
        elif message["type"] == "http.response.start":
            MutableHeaders(scope=message)["Connection"] = "close"
            await self._send(message)
        elif message.get("more_body", False):
            await self._send(message)
        else:
            await self._send({**message, "more_body": True})
            if not self._awaits_continue:
                await self._drain()
            await self._send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _drain(self) -> None:
        bytes_left, end = DRAIN_BYTES, time.monotonic() + DRAIN_S
        while not self._body_complete and bytes_left > 0 and (time_left := end - time.monotonic()) > 0:
            try:
                message = await asyncio.wait_for(self.receive(), min(time_left, DRAIN_IDLE_S))
            except asyncio.TimeoutError:
                return
            bytes_left -= len(message.get("body", b""))
