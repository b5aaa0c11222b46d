"""The HTTP side of now: requests go to the app whose connection to the service is configured now."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from stt_client import SttClient


class _Line:
    """An app, its connection to the service, and how many requests use it."""

    def __init__(self, app: ASGIApp, client: SttClient) -> None:
        self.app = app
        self.client = client
        self.requests = 0
        self.retired = False


class Front:
    """An ASGI app whose client can be another one from one request to the next. One that was replaced is closed once
    its requests, and its live streams, are done."""

    def __init__(self, make_app: Callable[[SttClient], ASGIApp], client: SttClient) -> None:
        self._make_app = make_app
        self._line = _Line(make_app(client), client)
        self._closing: set[asyncio.Task[None]] = set()
        self._leaving = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        line = self._line
        line.requests += 1
        try:
            await line.app(scope, receive, self._parting(send) if scope["type"] == "http" else send)
        finally:
            line.requests -= 1
            self._close_if_done(line)

    def take_leave(self) -> None:
        """From now on answers tell callers to come back on another connection."""
        self._leaving = True

    def _parting(self, send: Send) -> Send:
        async def parting(message: Message) -> None:
            if self._leaving and message["type"] == "http.response.start":
                MutableHeaders(scope=message)["Connection"] = "close"
            await send(message)

        return parting

    def turn(self, client: SttClient) -> None:
        """From now on requests go through `client`."""
        before, self._line = self._line, _Line(self._make_app(client), client)
        before.retired = True
        self._close_if_done(before)

    async def close(self) -> None:
        """Lets go of the service, whatever is under way."""
        await self._line.client.close()
        await asyncio.gather(*self._closing)

    def _close_if_done(self, line: _Line) -> None:
        if line.retired and not line.requests:
            task = asyncio.ensure_future(line.client.close())
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)
