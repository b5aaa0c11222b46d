"""TCP proxy that cuts connections, as unreliable networks do."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager


class CutProxy:
    """Forwards to a server, and cuts each connection after a number of bytes in one direction.

    Args:
        target: `host:port` of the server.
        limits: bytes after which the first, second, ... connection is cut; later ones are not.
        upwards: count bytes to the server instead of from it.
    """

    def __init__(self, target: str, limits: Sequence[int], *, upwards: bool = True) -> None:
        self._host, _, self._port = target.rpartition(":")
        self._limits = list(limits)
        self._upwards = upwards
        self._tasks: set[asyncio.Task[None]] = set()
        self.connections = 0
        self.cuts = 0

    async def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        limit = self._limits[self.connections] if self.connections < len(self._limits) else None
        self.connections += 1
        there_reader, there_writer = await asyncio.open_connection(self._host, self._port)
        up = asyncio.create_task(self._relay(reader, there_writer, limit if self._upwards else None))
        down = asyncio.create_task(self._relay(there_reader, writer, None if self._upwards else limit))
        try:
            with contextlib.suppress(asyncio.CancelledError):  # stop() was called.
                await asyncio.wait({up, down}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for relay in (up, down):
                relay.cancel()
            await asyncio.gather(up, down, return_exceptions=True)
            for end in (writer, there_writer):
                end.transport.abort()
            self._tasks.discard(task)

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, limit: int | None) -> None:
        passed = 0
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(65536):
                if limit is not None and passed + len(data) > limit:
                    writer.write(data[: limit - passed])
                    with contextlib.suppress(ConnectionError):
                        await writer.drain()
                    self.cuts += 1
                    return
                passed += len(data)
                writer.write(data)
                await writer.drain()

    async def stop(self) -> None:
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


@asynccontextmanager
async def cutting(target: str, limits: Sequence[int], *, upwards: bool = True) -> AsyncIterator[tuple[CutProxy, str]]:
    """Run a proxy; yields it and its address."""
    proxy = CutProxy(target, limits, upwards=upwards)
    server = await asyncio.start_server(proxy.accept, "127.0.0.1", 0)
    try:
        yield proxy, f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        await proxy.stop()
        await server.wait_closed()
