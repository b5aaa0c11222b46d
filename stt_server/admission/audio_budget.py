"""Limits the memory of decoded recordings, from their decoding until their requests are answered."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

LONGEST_RECORDINGS = 2
"""Limit of all recordings held, in recordings of the longest length."""

SMALL_SHARE, SMALL_RECORDINGS = 1 / 6, 1
"""Recordings of at most this share of the longest length may take so many more: a command needn't wait for hours."""

_UNITS = 1_000_000
"""Microseconds in a second."""


class AudioBudget:
    """Counts the seconds of decoded audio that are held, all channels together. Event loop only.

    A second of one channel takes 64 kB. What is longer than expected once it is decoded counts as it is: the limit may
    be exceeded then, and the next recording waits.
    """

    def __init__(self, max_seconds: float) -> None:
        """
        Args:
            max_seconds: longest recording that is accepted.
        """
        self._max_seconds = max_seconds
        self._waiting: list[tuple[float, asyncio.Future[None]]] = []
        """Seconds that requests wait for, in the order of their arrival."""
        self._held = 0

    @property
    def held(self) -> float:
        """Seconds."""
        return self._held / _UNITS

    @contextmanager
    def holding(self) -> Iterator[Holding]:
        """A request's share, empty at first and given back at the end."""
        share = Holding(self)
        try:
            yield share
        finally:
            self.change(share, 0.0)

    async def take(self, share: Holding, seconds: float) -> None:
        """Wait until there is room for so many seconds, and add them to a share. A share that is alone always fits."""
        if not self._fits(seconds):
            room: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            entry = (seconds, room)
            self._waiting.append(entry)
            try:
                await room
            except asyncio.CancelledError:
                if entry in self._waiting:
                    self._waiting.remove(entry)
                elif not room.cancelled():
                    self._give(-_units(seconds))
                raise
        else:
            self._held += _units(seconds)
        share.seconds += seconds

    def change(self, share: Holding, seconds: float) -> None:
        """Set a share, to what it really is or to nothing."""
        difference, share.seconds = _units(seconds) - _units(share.seconds), seconds
        self._give(difference)

    def _give(self, difference: int) -> None:
        self._held += difference
        for entry in list(self._waiting):
            seconds, room = entry
            if self._fits(seconds):
                self._waiting.remove(entry)
                if not room.done():
                    self._held += _units(seconds)
                    room.set_result(None)

    def _fits(self, seconds: float) -> bool:
        recordings = LONGEST_RECORDINGS + (SMALL_RECORDINGS if seconds <= SMALL_SHARE * self._max_seconds else 0)
        return not self._held or self.held + seconds <= recordings * self._max_seconds


def _units(seconds: float) -> int:
    """Whole microseconds, whose sums are exact."""
    return round(seconds * _UNITS)


class Holding:
    """The decoded audio of one request."""

    def __init__(self, budget: AudioBudget) -> None:
        self._budget = budget
        self.seconds = 0.0

    async def expect(self, seconds: float) -> None:
        """Wait until there is room for this much, before it is decoded."""
        self._budget.change(self, 0.0)
        await self._budget.take(self, seconds)

    def settle(self, seconds: float) -> None:
        """State how much it really is."""
        self._budget.change(self, seconds)
