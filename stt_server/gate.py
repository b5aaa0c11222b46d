"""The door: how many requests may be inside, and where the time of each went."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from stt_server.errors import Overloaded


class Ticket:
    """One admitted request, told by the batcher how its chunks move.

    A recording of many chunks asks for several slots; its times are those of the request as a whole, so
    `queue_wait` counts only while none of its chunks runs, and `busy` while at least one does. Seconds.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._waiting = 0
        self._running = 0
        self._since = clock()
        self._waited = 0.0
        self._busy = 0.0
        self._asked = False

    @property
    def running(self) -> bool:
        return self._running > 0

    @property
    def queue_wait(self) -> float | None:
        """None if no slot was ever asked for."""
        self._account()
        return self._waited if self._asked else None

    @property
    def busy(self) -> float | None:
        """None if nothing was ever run."""
        self._account()
        return self._busy if self._running or self._busy else None

    def moved(self, *, waiting: int = 0, running: int = 0) -> None:
        """So many more chunks wait, so many more run; fewer, if negative."""
        self._asked = True
        self._account()
        self._waiting += waiting
        self._running += running

    def _account(self) -> None:
        now = self._clock()
        if self._running:
            self._busy += now - self._since
        elif self._waiting:
            self._waited += now - self._since
        self._since = now


class Gate:
    """Admits requests while fewer than `max_queue` wait."""

    def __init__(self, slots: int, max_queue: int, *, clock: Callable[[], float] = time.monotonic) -> None:
        """
        Args:
            slots: inferences at a time, at least 1.
            max_queue: requests that may wait for one, at least 0.
            clock: monotonic seconds.
        """
        self._capacity = slots + max_queue
        self._clock = clock
        self._admitted: set[Ticket] = set()

    @property
    def depth(self) -> int:
        """Requests admitted and waiting for a slot, those whose audio is being decoded included."""
        return sum(not ticket.running for ticket in self._admitted)

    @contextmanager
    def admit(self) -> Iterator[Ticket]:
        """Lets a request in, for as long as the context lasts.

        Raises:
            Overloaded: as many are waiting as may.
        """
        if len(self._admitted) >= self._capacity:
            raise Overloaded("the queue is full; try again in a moment")
        ticket = self.ticket()
        with self.counting(ticket):
            yield ticket

    def ticket(self) -> Ticket:
        """For work that nobody waits for as yet: it counts nowhere."""
        return Ticket(self._clock)

    @contextmanager
    def counting(self, ticket: Ticket) -> Iterator[None]:
        """Counts a ticket, even over the limit, for as long as the context lasts: for the utterances of live streams,
        which were let in long ago."""
        self._admitted.add(ticket)
        try:
            yield
        finally:
            self._admitted.discard(ticket)
