"""Starting, ready, stopping; and how many calls are being answered."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

State = Literal["starting", "ready", "stopping"]


class Readiness:
    """What a service is up to."""

    def __init__(self) -> None:
        self.state: State = "starting"
        self.in_flight = 0
        """Calls of SpeechToText that have been let in and are not answered yet."""
        self._idle = asyncio.Event()
        self._idle.set()

    @property
    def ready(self) -> bool:
        return self.state == "ready"

    @contextmanager
    def answering(self) -> Iterator[None]:
        """Counts a call for as long as the context lasts."""
        self.in_flight += 1
        self._idle.clear()
        try:
            yield
        finally:
            self.in_flight -= 1
            if self.in_flight == 0:
                self._idle.set()

    async def idle(self) -> None:
        """Returns once no call is in flight."""
        await self._idle.wait()
