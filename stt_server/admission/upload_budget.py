"""What the messages of unary calls may hold together, from when they are read until they are answered."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from stt_server.errors import Overloaded
from stt_server.rpc.messages import Parse, parsed_message, raw_message

READ_AT_A_TIME = 16
"""Messages that are read side by side; the others of a rush wait unread, where they hold next to nothing."""

LEFT_ALONE_S = 0.2
"""A message that takes longer has a slow sender, or none. It is read beside the others and keeps none waiting."""

SLOW_AT_A_TIME = 128
"""Of slow senders, the one who has been at it for the longest is cut off for one more."""

FULL_SIZE_MESSAGES = 32
"""What messages hold from when they are read until they are answered: so many of the largest."""


class Room:
    """For one thread (the event loop's)."""

    def __init__(self, largest_bytes: int) -> None:
        """
        Args:
            largest_bytes: the largest message that is taken.
        """
        self._limit = largest_bytes * FULL_SIZE_MESSAGES
        self._held = 0
        self._turns = asyncio.Semaphore(READ_AT_A_TIME)
        self._slow: dict[_Reader, None] = {}
        """Who has been at it for the longest comes first."""

    @asynccontextmanager
    async def message(self, requests: AsyncIterator[bytes], parse: Parse) -> AsyncIterator[Any]:
        """A call's one message, parsed; it counts for as long as the context lasts.

        Raises:
            Overloaded: messages hold all that they may, or this one came in slowly while many others did.
            InvalidArgument, DeadlineExceeded: as `raw_message`.
        """
        raw = await self._read(requests)
        size = len(raw)
        if self._held + size > self._limit:
            raise Overloaded("larger uploads are being worked on than fit into memory; try again", "uploads")
        request = parsed_message(raw, parse)
        self._held += size
        try:
            del raw  # it may be long until the answer, and many who wait for one
            yield request
        finally:
            self._held -= size

    async def _read(self, requests: AsyncIterator[bytes]) -> bytes:
        await self._turns.acquire()
        reader = _Reader(self._turns, self._slow)
        reading = asyncio.ensure_future(raw_message(requests))
        try:
            await asyncio.wait((reading, reader.cut), return_when=asyncio.FIRST_COMPLETED)
            if not reading.done():
                raise Overloaded("the upload came in slowly, and others needed its room; try again", "uploads")
            return reading.result()
        finally:
            reading.cancel()
            reader.close()


class _Reader:
    """Has its turn until it is closed, or turns out to be slow."""

    def __init__(self, turns: asyncio.Semaphore, slow: dict[_Reader, None]) -> None:
        loop = asyncio.get_running_loop()
        self.cut: asyncio.Future[None] = loop.create_future()
        """Done once others need the room."""
        self._turns = turns
        self._slow = slow
        self._alarm = loop.call_later(LEFT_ALONE_S, self._late)

    def _late(self) -> None:
        self._turns.release()
        self._slow[self] = None
        if len(self._slow) > SLOW_AT_A_TIME:
            next(iter(self._slow)).cut_off()

    def cut_off(self) -> None:
        del self._slow[self]
        self.cut.set_result(None)

    def close(self) -> None:
        if self in self._slow:
            del self._slow[self]
        elif not self.cut.done():
            self._alarm.cancel()
            self._turns.release()
