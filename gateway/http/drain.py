"""Answering before the body is in, so that the caller still sees the answer.

Closing a socket while bytes of the peer are unread makes the kernel send a reset, and a caller that writes all
before it reads may lose the response. So the response goes out whole and at once, then what is still coming is
read and dropped, within bounds, and only then the connection is closed.
"""

from __future__ import annotations

import asyncio
import time

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

DRAIN_BYTES = 64 * 1024 * 1024
DRAIN_S = 5.0
"""Longest time for all of it, seconds."""
DRAIN_IDLE_S = 1.0
"""Longest wait for the next bytes, seconds."""


class Drain:
    """Reads what is left of a body after its response, up to `DRAIN_BYTES` and `DRAIN_S`."""

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
    def __init__(self, headers: Headers, receive: Receive, send: Send) -> None:
        self._receive, self._send = receive, send
        self._all_read = False
        # Such a caller sends nothing before it is told to, and a final answer tells it not to.
        self._holding_back = headers.get("expect", "").lower() == "100-continue"

    async def receive(self) -> Message:
        self._holding_back = False
        message = await self._receive()
        if message["type"] != "http.request" or not message.get("more_body", False):
            self._all_read = True
        return message

    async def send(self, message: Message) -> None:
        if self._all_read:
            await self._send(message)
        elif message["type"] == "http.response.start":
            MutableHeaders(scope=message)["Connection"] = "close"
            await self._send(message)
        elif message.get("more_body", False):
            await self._send(message)
        else:
            await self._send({**message, "more_body": True})
            if not self._holding_back:
                await self._drain()
            await self._send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _drain(self) -> None:
        left, until = DRAIN_BYTES, time.monotonic() + DRAIN_S
        while not self._all_read and left > 0 and (rest := until - time.monotonic()) > 0:
            try:
                message = await asyncio.wait_for(self.receive(), min(rest, DRAIN_IDLE_S))
            except asyncio.TimeoutError:
                return
            left -= len(message.get("body", b""))
