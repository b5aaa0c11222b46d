"""TCP relay that simulates network faults between two processes."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Literal

from stt_server.testing.processes import HOST

NetworkState = Literal["normal", "slow", "silent", "refused", "nonsense"]
"""`slow`: data is delayed by `DELAY_S`. `silent`: no data passes and nothing is closed, as on a cut cable.
`refused`: connections are reset, old and new. `nonsense`: another server answers.
"""

DELAY_S = 0.1
_NONSENSE = b"HTTP/1.1 400 Bad Request\r\nContent-Length: 8\r\n\r\nnonsense"


class Relay:
    """Relays connections to `target` while its context lasts.

    Args:
        target: `host:port`.
        port: to listen on.
    """

    def __init__(self, target: str, port: int) -> None:
        self._host, _, self._port = target.rpartition(":")
        self.address = f"{HOST}:{port}"
        self._state: NetworkState = "normal"
        self._passing = asyncio.Event()
        self._passing.set()
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

    async def set_state(self, state: NetworkState) -> None:
        """Change the state of the network. Data held back while `silent` is passed on afterwards."""
        self._state = state
        if state == "silent":
            self._passing.clear()
        else:
            self._passing.set()
        if state in ("refused", "nonsense"):
            await self.reset()

    async def reset(self) -> None:
        """Close all connections."""
        for connection in self._connections:
            connection.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101
        self._connections.add(task)
        try:
            # Both ends notice by themselves that the connection is cut.
            with contextlib.suppress(OSError, asyncio.CancelledError):
                await self._serve(reader, writer)
        finally:
            writer.transport.abort()
            self._connections.discard(task)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._state == "refused":
            return
        if self._state == "nonsense":
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
            await self._passing.wait()
            if self._state == "slow":
                await asyncio.sleep(DELAY_S)
            writer.write(data)
            await writer.drain()
