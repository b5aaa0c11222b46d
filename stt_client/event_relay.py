"""Relays the events of a transcription that may begin again on another service."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import replace

from stt_client.results import Progress, SettledSegments, TranscribeEvent


class EventRelay:
    """Passes events from a task to a generator, so that progress never falls and no segment is repeated."""

    def __init__(self) -> None:
        # Events are few and small: a slow reader needs no back-pressure.
        self._queue: asyncio.Queue[TranscribeEvent | None] = asyncio.Queue()
        self._settled = 0.0
        self._last = (-1.0, 0)

    def put(self, event: TranscribeEvent) -> None:
        """Pass on an event, unless an earlier attempt has passed on as much."""
        if isinstance(event, Progress):
            self._settled = max(self._settled, event.audio_settled)
            event = replace(event, audio_settled=self._settled)
        elif isinstance(event, SettledSegments):
            new = tuple(segment for segment in event.segments if (segment.start, segment.channel) > self._last)
            if not new:
                return
            self._last = max((segment.start, segment.channel) for segment in new)
            event = SettledSegments(new)
        self._queue.put_nowait(event)

    async def events(self, task: asyncio.Task[None]) -> AsyncGenerator[TranscribeEvent, None]:
        """Yield the events that `task` puts here, until it ends. Closing the generator cancels it.

        Raises:
            Exception: whatever the task raised.
        """
        task.add_done_callback(lambda _: self._queue.put_nowait(None))
        try:
            while (event := await self._queue.get()) is not None:
                yield event
            await task
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
