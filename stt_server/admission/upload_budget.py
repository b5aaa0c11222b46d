"""Limits the memory of the messages of unary calls, from their arrival until the calls are answered."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TypeVar

from stt_server.errors import Overloaded

MAX_READERS = 16
"""Messages read concurrently. The others stay unread, where they take hardly any memory."""

SLOW_AFTER_S = 0.2
"""A message that takes longer to arrive no longer counts against `MAX_READERS`: its sender is slow or stalled."""

MAX_SLOW_READERS = 128
"""Slow senders read concurrently; one more cuts off the one that has been sending longest."""

FULL_SIZE_MESSAGES = 32
"""Memory limit of all messages held, in messages of the largest size."""

T = TypeVar("T")


class UploadBudget:
    """Caps the bytes held by unary calls in progress. Event loop only."""

    def __init__(self, max_message_bytes: int) -> None:
        """
        Args:
            max_message_bytes: largest message that is accepted.
        """
        self._limit = max_message_bytes * FULL_SIZE_MESSAGES
        self._held = 0
        self._readers = asyncio.Semaphore(MAX_READERS)
        self._slow: dict[_Reader, None] = {}
        """Slow readers, the longest-running first."""

    @asynccontextmanager
    async def hold(self, read: Callable[[], Awaitable[bytes]], parse: Callable[[bytes], T]) -> AsyncIterator[T]:
        """Read a message, parse it, and count its bytes until the context exits.

        Args:
            read: reads the message; called once fewer than `MAX_READERS` are being read.

        Raises:
            Overloaded: the limit is reached, or the message arrived slowly while many others did.
            Exception: what `read` and `parse` raise.
        """
        raw = await self._read(read)
        size = len(raw)
        if self._held + size > self._limit:
            raise Overloaded("memory limit for uploads in progress reached; retry later", "uploads")
        request = parse(raw)
        self._held += size
        try:
            del raw  # else each waiting call would hold its message twice
            yield request
        finally:
            self._held -= size

    async def _read(self, read: Callable[[], Awaitable[bytes]]) -> bytes:
        await self._readers.acquire()
        reader = _Reader(self._readers, self._slow)
        task = asyncio.ensure_future(read())
        try:
            await asyncio.wait((task, reader.cut), return_when=asyncio.FIRST_COMPLETED)
            if not task.done():
                raise Overloaded("the upload arrived too slowly while the server was busy; retry later", "uploads")
            return task.result()
        finally:
            task.cancel()
            reader.close()


class _Reader:
    """Holds one of `MAX_READERS` until it is closed or turns slow."""

    def __init__(self, readers: asyncio.Semaphore, slow: dict[_Reader, None]) -> None:
        loop = asyncio.get_running_loop()
        self.cut: asyncio.Future[None] = loop.create_future()
        """Done once the reader is cut off in favour of others."""
        self._readers = readers
        self._slow = slow
        self._timer = loop.call_later(SLOW_AFTER_S, self._turn_slow)

    def _turn_slow(self) -> None:
        self._readers.release()
        self._slow[self] = None
        if len(self._slow) > MAX_SLOW_READERS:
            next(iter(self._slow)).cut_off()

    def cut_off(self) -> None:
        del self._slow[self]
        self.cut.set_result(None)

    def close(self) -> None:
        if self in self._slow:
            del self._slow[self]
        elif not self.cut.done():
            self._timer.cancel()
            self._readers.release()
