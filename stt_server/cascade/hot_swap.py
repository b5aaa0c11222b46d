"""Replace the fallback while calls are in progress."""

from __future__ import annotations

import asyncio

from stt_server.cascade.fallback import ClosableFallback, FallbackError
from stt_server.request import Answer, Request

LINGER_S = 600.0
"""Seconds that the last fallback stays open once none is configured, for requests admitted before."""


class _Connection:
    """One fallback, and the number of its calls in progress."""

    def __init__(self, fallback: ClosableFallback) -> None:
        self.fallback = fallback
        self.calls = 0
        self.retired = False


class HotSwap:
    """A `Fallback` that passes each call to the current one of several; use it in one event loop.

    A replaced fallback is closed once its calls have ended, so that none of them fails.
    """

    def __init__(self) -> None:
        self._current: _Connection | None = None
        self._closing: set[asyncio.Task[None]] = set()

    def replace(self, fallback: ClosableFallback | None) -> None:
        """Send new calls to `fallback`; with None, keep the current one for another `LINGER_S` seconds."""
        previous = self._current
        if fallback is not None:
            self._current = _Connection(fallback)
        if previous is not None and fallback is not None:
            self._retire(previous)
        elif previous is not None:
            asyncio.get_running_loop().call_later(LINGER_S, self._retire, previous)

    async def transcribe(self, request: Request, timeout_s: float) -> Answer:
        """Call the current fallback.

        Raises:
            FallbackError: the fallback's own; `unavailable` if there is none.
        """
        connection = self._current
        if connection is None:
            raise FallbackError("unavailable")
        connection.calls += 1
        try:
            return await connection.fallback.transcribe(request, timeout_s)
        finally:
            connection.calls -= 1
            self._close_if_done(connection)

    async def close(self) -> None:
        """Close every fallback, even with calls in progress."""
        if self._current is not None:
            await self._current.fallback.close()
        await asyncio.gather(*self._closing)

    def _retire(self, connection: _Connection) -> None:
        connection.retired = True
        if self._current is connection:
            self._current = None
        self._close_if_done(connection)

    def _close_if_done(self, connection: _Connection) -> None:
        if connection.retired and not connection.calls:
            task = asyncio.ensure_future(connection.fallback.close())
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)
