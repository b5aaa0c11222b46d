"""The concurrency gate: so many inferences at a time, so many requests waiting, and how long each waited."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import ParamSpec, TypeVar

from stt_server.errors import Overloaded

P = ParamSpec("P")
T = TypeVar("T")


class Ticket:
    """One admitted request: it waits for slots, runs work in them, and knows where its time went.

    A recording of many chunks asks for several slots; its times are those of the request as a whole, so
    `queue_wait` counts only while none of its chunks runs, and `busy` while at least one does. Seconds.
    """

    def __init__(self, gate: Gate, clock: Callable[[], float]) -> None:
        self._gate = gate
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

    async def run(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Waits for a slot, then runs blocking work in its thread.

        A caller that is cancelled leaves at once; its slot is freed when the thread ends, as nothing can stop it.
        """
        self._asked = True
        self._move(waiting=1)
        try:
            await self._gate.slots.acquire()
        finally:
            self._move(waiting=-1)
        loop = asyncio.get_running_loop()
        self._move(running=1)
        future = loop.run_in_executor(self._gate.threads, lambda: work(*args, **kwargs))
        future.add_done_callback(self._left_slot)
        return await asyncio.shield(future)

    def _left_slot(self, future: asyncio.Future[T]) -> None:
        self._gate.slots.release()
        self._move(running=-1)
        if not future.cancelled():
            future.exception()  # a caller that went away doesn't fetch it

    def _move(self, *, waiting: int = 0, running: int = 0) -> None:
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
    """Admits requests while fewer than `max_queue` wait, and gives out `slots` in the order they are asked for."""

    def __init__(self, slots: int, max_queue: int, *, clock: Callable[[], float] = time.monotonic) -> None:
        """
        Args:
            slots: inferences at a time, at least 1.
            max_queue: requests that may wait for one, at least 0.
            clock: monotonic seconds.
        """
        self.size = slots
        self.slots = asyncio.Semaphore(slots)
        self.threads = ThreadPoolExecutor(slots, thread_name_prefix="inference")
        self._max_queue = max_queue
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
        if len(self._admitted) >= self.size + self._max_queue:
            raise Overloaded("the queue is full; try again in a moment")
        ticket = Ticket(self, self._clock)
        self._admitted.add(ticket)
        try:
            yield ticket
        finally:
            self._admitted.discard(ticket)

    def close(self) -> None:
        """Lets running work end; starts no more."""
        self.threads.shutdown(wait=False, cancel_futures=True)
