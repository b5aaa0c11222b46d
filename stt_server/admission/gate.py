"""The door: how many requests may be inside, which of them can be answered in time, and where the time of each went."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

from stt_server.admission.service_time import Load, Pace
from stt_server.errors import Overloaded

SAFETY = 1.25
"""A request is let in if so many times what it is expected to take is left to it: a late answer has cost as much as one
in time, and is worth nothing."""

SOONEST_RETRY_S = 0.1


class Ticket:
    """One admitted request, told by the batcher how its chunks move.

    A recording of many chunks asks for several slots; its times are those of the request as a whole, so
    `queue_wait` counts only while none of its chunks runs, and `busy` while at least one does. Seconds.
    """

    def __init__(self, clock: Callable[[], float], load: Load, deadline: float | None = None) -> None:
        self.deadline = deadline
        self.load = load
        """All that the model has to hear of it, as far as is known."""
        self._clock = clock
        self._waiting = 0
        self._running = 0
        self._done = 0
        self._since = clock()
        self._waited = 0.0
        self._busy = 0.0
        self._asked = False

    @property
    def running(self) -> bool:
        return self._running > 0

    @property
    def asked(self) -> bool:
        """Whether it has asked for a slot."""
        return self._asked

    @property
    def left(self) -> Load:
        """What is not recognized yet."""
        return self.load.first(self.load.chunks - self._done)

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

    def adjust(self, *, waiting: int = 0, running: int = 0) -> None:
        """So many more chunks wait, so many more run; fewer, if negative. What runs no more is done, unless it waits
        again."""
        self._asked = True
        self._account()
        self._waiting += waiting
        self._running += running
        self._done -= min(0, running + max(0, waiting))

    def _account(self) -> None:
        now = self._clock()
        if self._running:
            self._busy += now - self._since
        elif self._waiting:
            self._waited += now - self._since
        self._since = now


class Gate:
    """Admits a request while fewer than `max_queue` wait, if it is expected to be answered before its deadline.

    The deadline is looked at twice: at the door, with a guess at how much there is to recognize, so that nothing is
    decoded in vain, and once it is decoded. What is refused is told when to come back, by the same estimate: the time
    of all chunks that are recognized before its own, spread over the slots, and then of its own inference. Of others'
    long recordings only so many chunks count as it has itself, since all take turns.

    The estimate must keep nobody out by being wrong: while nothing was measured lately, or nothing else is inside, a
    request is let in, and measured. Who has no deadline is refused only by number.
    """

    def __init__(
        self, slots: int, max_queue: int, pace: Pace | None = None, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """
        Args:
            slots: inferences at a time, at least 1.
            max_queue: requests that may wait for one, at least 0.
            pace: what inferences take; whoever measures them tells it. None: nothing is ever known.
            clock: monotonic seconds.
        """
        self._slots = slots
        self._capacity = slots + max_queue
        self._pace = pace or Pace(clock)
        self._clock = clock
        self._admitted: dict[Ticket, None] = {}
        """In their order. Metrics are read in another thread: copied before it is looked through."""

    def allow(self, max_queue: int) -> None:
        """From now on so many requests may wait for a slot; those that are inside stay."""
        self._capacity = self._slots + max_queue

    @property
    def depth(self) -> int:
        """Requests admitted and waiting for a slot, those whose audio is being decoded included."""
        return sum(not ticket.running for ticket in list(self._admitted))

    @property
    def expected_wait(self) -> float:
        """Seconds until a request that came now would have a slot; 0 where nothing waits, or nothing is known."""
        return self._wait(list(self._admitted), 1.0)

    def check_door(self) -> None:
        """Whether anybody is let in at all: what is refused now need not even be received.

        Raises:
            Overloaded: as many are waiting as may.
        """
        if len(self._admitted) >= self._capacity:
            wait = self.expected_wait
            retry_after_s = max(SOONEST_RETRY_S, wait) if wait else None
            raise Overloaded("the queue is full; try again in a moment", "queue_full", retry_after_s=retry_after_s)

    @contextmanager
    def admit(self, guess: Load, deadline: float | None = None) -> Iterator[Ticket]:
        """Lets a request in, for as long as the context lasts.

        Args:
            guess: what the model may have to hear of it.
            deadline: on this gate's clock, in seconds; None: there is none.

        Raises:
            Overloaded: as many are waiting as may, or it is not expected to be answered in time.
        """
        self.check_door()
        ticket = Ticket(self._clock, guess, deadline)
        self._check(ticket, list(self._admitted))
        with self.counting(ticket):
            yield ticket

    def weigh(self, ticket: Ticket, load: Load) -> None:
        """Says what there really is to recognize of a request that was let in.

        Raises:
            Overloaded: it is not expected to be answered in time after all.
        """
        ticket.load = load
        self._check(ticket, list(self._before(ticket)))

    def ticket(self, load: Load) -> Ticket:
        """For work that nobody waits for as yet: it counts nowhere."""
        return Ticket(self._clock, load)

    @contextmanager
    def counting(self, ticket: Ticket) -> Iterator[None]:
        """Counts a ticket, even over the limit, for as long as the context lasts: for the utterances of live streams,
        which were let in long ago."""
        self._admitted[ticket] = None
        try:
            yield
        finally:
            self._admitted.pop(ticket, None)

    def _before(self, ticket: Ticket) -> Iterator[Ticket]:
        """Those that came earlier, and those that were decoded sooner."""
        earlier = True
        for other in self._admitted:
            if other is ticket:
                earlier = False
            elif earlier or other.asked:
                yield other

    def _check(self, ticket: Ticket, before: list[Ticket]) -> None:
        if ticket.deadline is None or not before or not self._pace.known or not ticket.load.chunks:
            return
        left = ticket.deadline - self._clock()
        chunks = ticket.load.chunks
        wait = self._wait(before, chunks)
        own = max(self._pace.seconds(ticket.load) / min(self._slots, chunks), self._batch([*before, ticket]))
        too_long = SAFETY * (wait + own) - left
        if too_long > 0:
            said = f"an answer would take about {wait + own:.1f} s, and {max(0.0, left):.1f} s are left of the deadline"
            raise Overloaded(said, "deadline", retry_after_s=max(SOONEST_RETRY_S, min(too_long, SAFETY * wait)))

    def _batch(self, tickets: Iterable[Ticket]) -> float:
        """Seconds of an inference that holds one chunk of each, or as many as inferences do of late."""
        return min(self._pace.inference, sum(self._pace.seconds(ticket.left.first(1)) for ticket in tickets))

    def _wait(self, before: Iterable[Ticket], chunks: float) -> float:
        """Seconds until a recording of so many chunks has had its turn after others."""
        left = [other.left for other in before]
        if sum(load.chunks for load in left) < self._slots:
            return 0.0
        return sum(self._pace.seconds(load.first(chunks)) for load in left) / self._slots
