"""The state of a service, and the calls that it is answering."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

State = Literal["starting", "ready", "stopping", "stopped"]
"""`stopped`: calls in progress are being cut off."""

CUT_OFF_S = 0.5
"""Longest wait until calls that were cut off have sent their errors. Seconds."""


class Readiness:
    """Gates and counts calls of SpeechToText. Event loop only."""

    def __init__(self) -> None:
        self.state: State = "starting"
        self.in_flight = 0
        """Calls that arrived and are not answered yet."""
        self._tasks: set[asyncio.Task[Any]] = set()
        self._drain_ended = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()

    @property
    def ready(self) -> bool:
        return self.state == "ready"

    @contextmanager
    def answering(self) -> Iterator[None]:
        """Count a call until the context exits. A drain that times out cancels the current task.

        Raises:
            RuntimeError: not called from a task.
        """
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("answering() needs a task to cancel")
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

    def end_drain(self) -> None:
        """Make `drain` cut off at once what is in flight, now or when it begins."""
        self._drain_ended.set()

    async def drain(self, deadline: float) -> int:
        """Wait until no call is in flight; at the deadline, or on `end_drain`, cut the others off.

        Args:
            deadline: monotonic seconds.

        Returns:
            Number of calls that were cut off.
        """
        ends = [asyncio.ensure_future(self._idle.wait()), asyncio.ensure_future(self._drain_ended.wait())]
        left = max(0.0, deadline - time.monotonic())
        await asyncio.wait(ends, timeout=left, return_when=asyncio.FIRST_COMPLETED)
        if cut_off := self._cut_off():
            await asyncio.wait(ends[:1], timeout=CUT_OFF_S)
        for end in ends:
            end.cancel()
        return cut_off

    def _cut_off(self) -> int:
        """Cancel all calls. They are answered with `not_ready`, because the state is `stopped`."""
        self.state = "stopped"
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        return len(tasks)
