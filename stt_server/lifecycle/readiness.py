"""Starting, ready, stopping; and how many calls are being answered."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

State = Literal["starting", "ready", "stopping", "stopped"]

TELLING_S = 0.5
"""Longest wait until those who are cut off have been told."""


class Readiness:
    """What a service is up to."""

    def __init__(self) -> None:
        self.state: State = "starting"
        self.in_flight = 0
        """Calls of SpeechToText that have been let in and are not answered yet."""
        self._tasks: set[asyncio.Task[Any]] = set()
        self._hurried = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()

    @property
    def ready(self) -> bool:
        return self.state == "ready"

    @contextmanager
    def answering(self) -> Iterator[None]:
        """Counts a call for as long as the context lasts. The task that it is answered in is the call's own."""
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - calls are answered in tasks
        self.in_flight += 1
        self._tasks.add(task)
        self._idle.clear()
        try:
            yield
        finally:
            self._tasks.discard(task)
            self.in_flight -= 1
            if self.in_flight == 0:
                self._idle.set()

    def hurry(self) -> None:
        """Ends a drain: those whose answers aren't there are told so at once."""
        self._hurried.set()

    async def drain(self, until: float) -> int:
        """Waits until no call is in flight; at `until` (monotonic seconds), or when hurried, the rest is cut off.

        Returns:
            How many were cut off.
        """
        ends = [asyncio.ensure_future(self._idle.wait()), asyncio.ensure_future(self._hurried.wait())]
        left = max(0.0, until - time.monotonic())
        await asyncio.wait(ends, timeout=left, return_when=asyncio.FIRST_COMPLETED)
        if cut_off := self._cut_off():
            await asyncio.wait(ends[:1], timeout=TELLING_S)
        for end in ends:
            end.cancel()
        return cut_off

    def _cut_off(self) -> int:
        """Ends the calls that are still being answered: they are cancelled while the state is `stopped`. How many."""
        self.state = "stopped"
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        return len(tasks)
