"""A TCP relay between two processes: the network, which can be slow, silent, cut, or lead to the wrong place."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Literal

from stt_server.testing.processes import HOST

Weather = Literal["fine", "slow", "silent", "refused", "nonsense"]
"""`slow`: each piece of data comes `DELAY_S` late. `silent`: nothing passes, nothing is closed, as on a cut cable.
`refused`: what was open is reset, and so is whatever connects. `nonsense`: somebody else answers."""

DELAY_S = 0.1
_NONSENSE = b"HTTP/1.1 400 Bad Request\r\nContent-Length: 8\r\n\r\nnonsense"


class Relay:
    """Relays connections to `target`, for as long as its context lasts.

    Args:
        target: `host:port`.
        port: to listen on.
    """

    def __init__(self, target: str, port: int) -> None:
        self._host, _, self._port = target.rpartition(":")
        self.address = f"{HOST}:{port}"
        self._weather: Weather = "fine"
        self._fine = asyncio.Event()
        self._fine.set()
        self._connections: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    async def __aenter__(self) -> Relay:
        self._server = await asyncio.start_server(self._accept, HOST, int(self.address.rpartition(":")[2]))
        return self

    async def __aexit__(self, *error: object) -> None:
        assert self._server is not None  # noqa: S101
        self._server.close()
        await self.reset()
        await self._server.wait_closed()

    async def become(self, weather: Weather) -> None:
        """From now on it is like this; what was silent goes on where it stood."""
        self._weather = weather
        if weather == "silent":
            self._fine.clear()
        else:
            self._fine.set()
        if weather in ("refused", "nonsense"):
            await self.reset()

    async def reset(self) -> None:
        """Cuts every connection."""
        for connection in self._connections:
            connection.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101
        self._connections.add(task)
        try:
            # A connection that is cut has nobody to tell: both ends see it.
            with contextlib.suppress(OSError, asyncio.CancelledError):
                await self._serve(reader, writer)
        finally:
            writer.transport.abort()
            self._connections.discard(task)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._weather == "refused":
            return
        if self._weather == "nonsense":
            writer.write(_NONSENSE)
            await writer.drain()
            return
        there_reader, there_writer = await asyncio.open_connection(self._host, self._port)
        ways = [
            asyncio.create_task(self._pass_on(reader, there_writer)),
            asyncio.create_task(self._pass_on(there_reader, writer)),
        ]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)
            there_writer.transport.abort()

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(1 << 16):
            await self._fine.wait()
            if self._weather == "slow":
                await asyncio.sleep(DELAY_S)
            writer.write(data)
            await writer.drain()
