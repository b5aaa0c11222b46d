"""The way to whichever fallback is configured now."""

from __future__ import annotations

import asyncio
from typing import Protocol

from stt_server.request import Answer, Fallback, FallbackError, Job

LATE_S = 600.0
"""Requests that were let in while there was a fallback may ask for it so many seconds after there is none."""


class ClosableFallback(Fallback, Protocol):
    """A fallback that holds connections."""

    async def close(self) -> None: ...


class _Line:
    """One fallback, and how many wait for its answer."""

    def __init__(self, fallback: ClosableFallback) -> None:
        self.fallback = fallback
        self.calls = 0
        self.retired = False


class Switch:
    """A `Fallback` that can be another one from one call to the next: one that is replaced is closed once its calls
    are done, and none of them fails. Use it in one event loop."""

    def __init__(self) -> None:
        self._line: _Line | None = None
        self._closing: set[asyncio.Task[None]] = set()

    def turn(self, to: ClosableFallback | None) -> None:
        """From now on `to` is asked; None: nobody, once the last requests that may still ask have."""
        before = self._line
        if to is not None:
            self._line = _Line(to)
        if before is not None and to is not None:
            self._retire(before)
        elif before is not None:
            asyncio.get_running_loop().call_later(LATE_S, self._retire, before)

    async def transcribe(self, job: Job, timeout_s: float) -> Answer:
        """Raises: FallbackError."""
        line = self._line
        if line is None:
            raise FallbackError("unavailable")
        line.calls += 1
        try:
            return await line.fallback.transcribe(job, timeout_s)
        finally:
            line.calls -= 1
            self._close_if_done(line)

    async def close(self) -> None:
        """Lets go of every fallback, whatever is under way."""
        if self._line is not None:
            await self._line.fallback.close()
        await asyncio.gather(*self._closing)

    def _retire(self, line: _Line) -> None:
        line.retired = True
        if self._line is line:
            self._line = None
        self._close_if_done(line)

    def _close_if_done(self, line: _Line) -> None:
        if line.retired and not line.calls:
            task = asyncio.ensure_future(line.fallback.close())
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)
