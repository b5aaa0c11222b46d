"""Detects an inference that never ends, such as one on a hung GPU."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

TICKS = 10
"""Timer ticks in one limit. After a suspended process or machine resumes, a single tick is overdue and not the whole
limit, so that the inference gets the rest of its time."""


class Watchdog:
    """The time limit of one inference. Create it in the event loop when the inference starts."""

    def __init__(self, seconds: float, overdue: Callable[[], None]) -> None:
        """
        Args:
            seconds: time limit.
            overdue: called once the limit has passed.
        """
        self._tick_s = seconds / TICKS
        self._overdue = overdue
        self._ticks_left = TICKS
        self._timer = self._start_tick()

    def _start_tick(self) -> asyncio.TimerHandle:
        return asyncio.get_running_loop().call_later(self._tick_s, self._tick)

    def _tick(self) -> None:
        self._ticks_left -= 1
        if self._ticks_left:
            self._timer = self._start_tick()
        else:
            self._overdue()

    def cancel(self) -> None:
        """Stop the timer: the inference has ended."""
        self._timer.cancel()
