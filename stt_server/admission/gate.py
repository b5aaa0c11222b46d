"""Admit requests up to the queue's limit, if they can be answered before their deadline, and account for their time."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

from stt_server.admission.service_time import Load, ServiceTime
from stt_server.errors import Overloaded

SAFETY = 1.25
"""A request is admitted if its deadline leaves this multiple of its forecast time: a late answer costs as much as one
in time, and is worth nothing."""

MIN_RETRY_AFTER_S = 0.1


class Ticket:
    """Accounting of one admitted request, updated by the batcher as its chunks move.

    A recording of many chunks takes several slots at once. Its times are those of the request as a whole: `queue_wait`
    counts only while none of its chunks runs, `busy` while at least one does. Both in seconds.
    """

    def __init__(self, clock: Callable[[], float], load: Load, deadline: float | None = None) -> None:
        self.deadline = deadline
        self.load = load
        """All that the model has to recognize, as far as known."""
        self._clock = clock
        self._waiting = 0
        self._running = 0
        self._done = 0
        self._since = clock()
        self._waited = 0.0
        self._busy = 0.0
        self._enqueued = False
        self.queued_at: float | None = None
        """When its first chunk was queued for a slot; None: none was. On the gate's clock."""
        self.started_at: float | None = None
        """When its first chunk started to run; None: none has."""

    @property
    def running(self) -> bool:
        return self._running > 0

    @property
    def enqueued(self) -> bool:
        """Whether any of its chunks was ever queued for a slot."""
        return self._enqueued

    @property
    def remaining(self) -> Load:
        """What is not recognized yet."""
        return self.load.first(self.load.chunks - self._done)

    @property
    def queue_wait(self) -> float | None:
        """None if never queued."""
        self._account()
        return self._waited if self._enqueued else None

    @property
    def busy(self) -> float | None:
        """None if nothing ever ran."""
        self._account()
        return self._busy if self._running or self._busy else None

    def adjust(self, *, waiting: int = 0, running: int = 0) -> None:
        """Change the numbers of waiting and running chunks.

        A chunk that stops running is done, unless it waits again.
        """
        self._enqueued = True
        self._account()
        if self.queued_at is None:
            self.queued_at = self._since
        if self.started_at is None and running > 0:
            self.started_at = self._since
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

    The deadline is checked twice: before decoding, with a forecast of the audio's length, so that nothing is decoded in
    vain, and after it. A refusal says when to retry, from the same forecast: the time of all chunks that are recognized
    before the request's own, spread over the slots, plus its own inference. Of others' long recordings only as many
    chunks count as the request has itself, since requests take turns.

    A wrong forecast must not lock anyone out: without recent measurements, or while nothing else is admitted, a request
    is admitted and measured. Requests without a deadline are refused only when the queue is full.
    """

    def __init__(
        self,
        slots: int,
        max_queue: int,
        service_time: ServiceTime | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """
        Args:
            slots: inferences at a time, at least 1.
            max_queue: requests that may wait for a slot, at least 0.
            service_time: forecast of inferences, kept up to date by the batcher; None: deadlines are not checked.
            clock: monotonic seconds.
        """
        self._slots = slots
        self._capacity = slots + max_queue
        self._service_time = service_time or ServiceTime(clock)
        self._clock = clock
        self._admitted: dict[Ticket, None] = {}
        """In order of admission. Metrics are read in another thread, so it is copied before iteration."""

    def set_max_queue(self, max_queue: int) -> None:
        """Change how many requests may wait; requests already admitted stay."""
        self._capacity = self._slots + max_queue

    @property
    def depth(self) -> int:
        """Requests admitted and waiting for a slot, including requests that are being decoded."""
        return sum(not ticket.running for ticket in list(self._admitted))

    @property
    def expected_wait(self) -> float:
        """Seconds until a request that arrived now would have a slot; 0 if nothing waits or nothing is known."""
        return self._wait(list(self._admitted), 1.0)

    def check_admission(self) -> None:
        """Check whether any request would be admitted now, so that one that won't be need not be received.

        Raises:
            Overloaded: the queue is full.
        """
        if len(self._admitted) >= self._capacity:
            wait = self.expected_wait
            retry_after_s = max(MIN_RETRY_AFTER_S, wait) if wait else None
            raise Overloaded("the queue is full; try again in a moment", "queue_full", retry_after_s=retry_after_s)

    @contextmanager
    def admit(self, load: Load, deadline: float | None = None) -> Iterator[Ticket]:
        """Admit a request for as long as the context lasts.

        Args:
            load: forecast of what the model has to recognize.
            deadline: on the gate's clock, in seconds; None: no deadline.

        Raises:
            Overloaded: the queue is full, or the request is not expected to be answered in time.
        """
        self.check_admission()
        ticket = Ticket(self._clock, load, deadline)
        self._check_deadline(ticket, list(self._admitted))
        with self.counting(ticket):
            yield ticket

    def reassess(self, ticket: Ticket, load: Load) -> None:
        """Check an admitted request's deadline again, with its actual load.

        Raises:
            Overloaded: it is not expected to be answered in time after all.
        """
        ticket.load = load
        self._check_deadline(ticket, list(self._ahead_of(ticket)))

    def ticket(self, load: Load) -> Ticket:
        """A ticket that doesn't count toward the limit: for work that no caller waits for yet."""
        return Ticket(self._clock, load)

    @contextmanager
    def counting(self, ticket: Ticket) -> Iterator[None]:
        """Count a ticket, even beyond the limit, for as long as the context lasts.

        For the utterances of live streams, which were admitted as streams.
        """
        self._admitted[ticket] = None
        try:
            yield
        finally:
            self._admitted.pop(ticket, None)

    def _ahead_of(self, ticket: Ticket) -> Iterator[Ticket]:
        """Requests admitted earlier, and later ones that were decoded sooner."""
        earlier = True
        for other in self._admitted:
            if other is ticket:
                earlier = False
            elif earlier or other.enqueued:
                yield other

    def _check_deadline(self, ticket: Ticket, ahead: list[Ticket]) -> None:
        if ticket.deadline is None or not ahead or not self._service_time.known or not ticket.load.chunks:
            return
        left = ticket.deadline - self._clock()
        chunks = ticket.load.chunks
        wait = self._wait(ahead, chunks)
        own = max(self._service_time.seconds(ticket.load) / min(self._slots, chunks), self._batch([*ahead, ticket]))
        excess = SAFETY * (wait + own) - left
        if excess > 0:
            message = (
                f"an answer would take about {wait + own:.1f} s, but the deadline is in {max(0.0, left):.1f} s; "
                "retry later or allow more time"
            )
            raise Overloaded(message, "deadline", retry_after_s=max(MIN_RETRY_AFTER_S, min(excess, SAFETY * wait)))

    def _batch(self, tickets: Iterable[Ticket]) -> float:
        """Seconds of an inference with one chunk of each ticket, or of a mean recent inference if that is less."""
        one_each = sum(self._service_time.seconds(ticket.remaining.first(1)) for ticket in tickets)
        return min(self._service_time.inference, one_each)

    def _wait(self, ahead: Iterable[Ticket], chunks: float) -> float:
        """Seconds until a recording of `chunks` chunks has had its turns behind others."""
        remaining = [other.remaining for other in ahead]
        if sum(load.chunks for load in remaining) < self._slots:
            return 0.0
        return sum(self._service_time.seconds(load.first(chunks)) for load in remaining) / self._slots
