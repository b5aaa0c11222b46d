"""Replacing the connection to the service while requests are in flight."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from stt_client import SttClient


class _Backend:
    """An app with the client that it uses, and the number of requests in flight."""

    def __init__(self, app: ASGIApp, client: SttClient) -> None:
        self.app = app
        self.client = client
        self.in_flight = 0
        self.retired = False


class HotSwap:
    """ASGI app whose client can be replaced between requests.

    A replaced client is closed once its requests and live streams have ended.
    """

    def __init__(self, make_app: Callable[[SttClient], ASGIApp], client: SttClient) -> None:
        self._make_app = make_app
        self._backend = _Backend(make_app(client), client)
        self._closing: set[asyncio.Task[None]] = set()
        self._shutting_down = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with self._in_use() as backend:
            await backend.app(scope, receive, self._send_and_announce(send) if scope["type"] == "http" else send)

    @contextmanager
    def client(self) -> Iterator[SttClient]:
        """The client to use for one call. It stays open within the context."""
        with self._in_use() as backend:
            yield backend.client

    @contextmanager
    def _in_use(self) -> Iterator[_Backend]:
        backend = self._backend
        backend.in_flight += 1
        try:
            yield backend
        finally:
            backend.in_flight -= 1
            self._close_if_unused(backend)

    def announce_shutdown(self) -> None:
        """Send `Connection: close` with each response from now on."""
        self._shutting_down = True

    def _send_and_announce(self, send: Send) -> Send:
        async def send_and_announce(message: Message) -> None:
            if self._shutting_down and message["type"] == "http.response.start":
                MutableHeaders(scope=message)["Connection"] = "close"
            await send(message)

        return send_and_announce

    def swap(self, client: SttClient) -> None:
        """Use `client` for new requests."""
        replaced, self._backend = self._backend, _Backend(self._make_app(client), client)
        replaced.retired = True
        self._close_if_unused(replaced)

    async def close(self) -> None:
        """Close the current client, and wait for replaced ones that are being closed."""
        await self._backend.client.close()
        await asyncio.gather(*self._closing)

    def _close_if_unused(self, backend: _Backend) -> None:
        if backend.retired and not backend.in_flight:
            task = asyncio.ensure_future(backend.client.close())
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)
