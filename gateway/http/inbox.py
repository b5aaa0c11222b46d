"""Bounded queue between a WebSocket and the call to the service behind it."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Iterable
from typing import Generic, TypeVar

T = TypeVar("T")

INBOX_BYTES = 256 * 1024
"""Bytes of audio buffered for the service: 8 s at 16 kHz. Beyond it the caller's messages are not read."""

_ITEM_OVERHEAD_BYTES = 64
"""Counted for each item besides its audio, since commands use memory too."""


class Inbox(Generic[T]):
    """Bounded queue of audio and commands. For one reader at a time."""

    def __init__(self, limit: int = INBOX_BYTES) -> None:
        """
        Args:
            limit: bytes; `put` waits while the queue holds this many or more.
        """
        self._limit = limit
        self._items: deque[T] = deque()
        self._bytes = 0
        self._ended = False
        self._changed = asyncio.Condition()

    async def put(self, item: T) -> None:
        """Append an item. Dropped once the queue has ended."""
        async with self._changed:
            await self._changed.wait_for(lambda: self._bytes < self._limit or self._ended)
            if not self._ended:
                self._items.append(item)
                self._bytes += _size(item)
                self._changed.notify_all()

    async def put_back(self, items: Iterable[T]) -> None:
        """Put items before all others, in the order given, whatever the limit."""
        async with self._changed:
            for item in reversed(list(items)):
                self._items.appendleft(item)
                self._bytes += _size(item)
            self._changed.notify_all()

    async def end(self) -> None:
        """Accept no more items; those in the queue are still delivered."""
        async with self._changed:
            self._ended = True
            self._changed.notify_all()

    async def discard(self) -> None:
        """Drop the items in the queue, and accept no more."""
        async with self._changed:
            self._items.clear()
            self._bytes = 0
            self._ended = True
            self._changed.notify_all()

    async def ready(self) -> bool:
        """Wait for an item; False: the queue has ended and is empty."""
        async with self._changed:
            await self._changed.wait_for(lambda: self._items or self._ended)
            return bool(self._items)

    async def items(self) -> AsyncIterator[T]:
        """Items in order, until the queue has ended and is empty."""
        while True:
            async with self._changed:
                await self._changed.wait_for(lambda: self._items or self._ended)
                if not self._items:
                    return
                item = self._items.popleft()
                self._bytes -= _size(item)
                self._changed.notify_all()
            yield item


def _size(item: object) -> int:
    return _ITEM_OVERHEAD_BYTES + (len(item) if isinstance(item, bytes) else 0)
