"""Notices an inference that never ends, as a hanging GPU has them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

TICKS = 10
"""A limit is counted in so many parts. A process that was stopped for long, or a machine that slept, then finds one
part gone and not all of them, and goes on."""


class Watchdog:
    """The limit of one inference. Made in the event loop when it begins."""

    def __init__(self, seconds: float, overdue: Callable[[], None]) -> None:
        """
        Args:
            seconds: that the inference may take.
            overdue: called once it has taken longer.
        """
        self._tick_s = seconds / TICKS
        self._overdue = overdue
        self._left = TICKS
        self._timer = self._start()

    def _start(self) -> asyncio.TimerHandle:
        return asyncio.get_running_loop().call_later(self._tick_s, self._tick)

    def _tick(self) -> None:
        self._left -= 1
        if self._left:
            self._timer = self._start()
        else:
            self._overdue()

    def ended(self) -> None:
        """The inference has ended."""
        self._timer.cancel()
