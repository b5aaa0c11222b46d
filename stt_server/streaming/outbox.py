"""Events on their way to the caller."""

from __future__ import annotations

import asyncio
from collections import deque

from stt_server.streaming.events import Event, Interim

_ROOM = 16
"""Events that may wait for a caller who reads slowly; then nothing more is heard."""


class Outbox:
    def __init__(self) -> None:
        self._events: deque[Event] = deque()
        self._changed = asyncio.Event()
        self._closed = False
        self._error: BaseException | None = None

    def put(self, event: Event) -> bool:
        """Whether the event takes no other's place: an interim that was not read yet makes way for the next one."""
        last = self._events[-1] if self._events else None
        replaces = isinstance(event, Interim) and isinstance(last, Interim) and last.utterance == event.utterance
        if replaces:
            self._events.pop()
        self._events.append(event)
        self._changed.set()
        return not replaces

    def close(self, error: BaseException | None = None) -> None:
        """Nothing more comes; `take` raises the error behind the last event. The first call stands."""
        if not self._closed:
            self._closed, self._error = True, error
            self._changed.set()

    async def take(self) -> Event | None:
        """The next event; None behind the last one. Raises what the outbox was closed with."""
        while not self._events:
            if self._error is not None:
                raise self._error
            if self._closed:
                return None
            await self._wait()
        self._changed.set()
        return self._events.popleft()

    async def room(self) -> None:
        """Returns once the caller keeps up."""
        while len(self._events) > _ROOM and not self._closed:
            await self._wait()

    async def _wait(self) -> None:
        self._changed.clear()
        await self._changed.wait()
