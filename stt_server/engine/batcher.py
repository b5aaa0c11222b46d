"""Who is recognized next, and together with whom.

Chunks wait in the event loop, each with the request that it belongs to. A free worker takes the chunk of the request
whose turn it is, and with it what else waits of the same group. While it encodes them, one by one on a CPU, others may
come: those join before all are decoded together. Nothing waits for company: an idle machine adds no delay. A batch is
no larger than the deadlines in it allow, and what can't be in time any more is dropped before it takes a worker.

Live streams add work that may turn out to be for nothing. It has a lower priority: it begins only where nothing
of a higher one waits, so that it delays answers by one inference at most.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import math
import time
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import islice, zip_longest

from stt_server.engine.health.failures import lost
from stt_server.engine.health.model_health import ModelHealth
from stt_server.engine.health.watchdog import Watchdog
from stt_server.engine.inference import probe, recognize_each
from stt_server.engine.queue import Entry, Owner, Priority, Waiting
from stt_server.engine.types import ChunkJob, Hypothesis, Recognizer
from stt_server.errors import DeadlineExceeded, EngineError, EngineLost, SttError

JOIN_TIMEOUT_S = 1.0
"""How long a worker waits to hear from the event loop who joins its batch, at most: a stopped loop must not hold it."""

HANGS_S = {"cpu": 600.0}
"""An inference that takes longer never ends. A CPU that others use as well is merely slow for long."""
HANGS_ON_GPU_S = 120.0
HANGS_FACTOR = 20
"""Of what an inference was expected to take, if that is more."""

BATCH_SHARE = 0.8
"""Of the time left to the caller in the greatest hurry, that a batch may be expected to take."""


Measured = Callable[[Sequence[ChunkJob], float], None]
"""Told of each inference that went well: what it was of, and the seconds that it took. Drafts don't count."""

Forecast = Callable[[Sequence[ChunkJob]], float]
"""Seconds that one inference of some chunks is expected to take; 0 where nothing is known."""


@dataclass(eq=False)
class _Batch:
    priority: Priority
    group: Hashable
    began: float
    """Monotonic seconds."""
    entries: list[Entry] = field(default_factory=list)
    open: bool = True
    """Others of its priority and group may still join."""
    watchdog: Watchdog | None = None


class Batcher:
    """Gives waiting chunks to a recognizer's workers. Everything but the recognizing happens in the event loop."""

    def __init__(
        self,
        recognizer: Recognizer,
        workers: int,
        max_batch: int,
        measured: Measured = lambda jobs, took: None,
        forecast: Forecast = lambda jobs: 0.0,
        health: ModelHealth | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """
        Args:
            workers: inferences at a time, at least 1.
            max_batch: chunks that one inference may take together, at least 1.
            health: told what inferences come to; where they are bad, what waits is given up.
        """
        self.workers = workers
        self._recognizer = recognizer
        self._max_batch = max_batch
        self._measured = measured
        self._forecast = forecast
        self._health = health or ModelHealth()
        self._clock = clock
        self._free = workers
        self._open = 0
        """Workers whose batch may still grow."""
        self._threads = ThreadPoolExecutor(workers, thread_name_prefix="inference")
        self._drafting = 0
        """Workers that recognize drafts."""
        self._waiting = Waiting()

    @property
    def waiting(self) -> int:
        """Chunks that wait for a worker."""
        return len(self._waiting)

    async def recognize(self, job: ChunkJob, owner: Owner, priority: Priority = Priority.ANSWER) -> Hypothesis:
        """Waits for a worker, and for its answer.

        All that waits of one owner is of one priority.

        A caller that is cancelled takes its waiting chunk along. Of one that is being recognized the worker is free
        again only when its thread ends: at the next step of a batch of which nobody wants anything, as nothing can
        stop a step.

        Raises:
            EngineError: the model failed on this chunk, in one of its ways; EngineLost: it works no more at all.
            DeadlineExceeded: there was no time left for an inference.
        """
        if self._health.error is not None:
            raise EngineLost(self._health.error.message) from self._health.error
        result: asyncio.Future[Hypothesis] = asyncio.get_running_loop().create_future()
        job = replace(job, wanted=lambda: not result.done())
        entry = Entry(job, self._recognizer.group_of(job), owner, result)
        self._waiting.add(entry, priority)
        owner.adjust(waiting=1)
        self._dispatch()
        try:
            return await result
        finally:
            self._waiting.remove(entry)

    def promote(self, owner: Owner) -> None:
        """Makes answers of what an owner waits for."""
        self._waiting.promote(owner)
        self._dispatch()

    def renew(self, owner: Owner, job: ChunkJob) -> bool:
        """Puts a newer draft in the place of the one that an owner waits for. False: none waits any more."""
        return self._waiting.renew(owner, job, self._recognizer.group_of(job))

    def close(self) -> None:
        """Lets running work end; starts no more."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _drop_late(self) -> None:
        """Drops what can't be in time any more. Not the only one that waits: its inference delays nobody, and tells
        whether the forecast is right."""
        waiting = self._waiting.of(Priority.ANSWER)
        for entry in waiting if len(waiting) > 1 else ():
            deadline = entry.owner.deadline
            if deadline is not None and self._clock() + self._forecast([entry.job]) > deadline:
                self._waiting.remove(entry)
                entry.fail(DeadlineExceeded("no time is left for an inference"))

    def _dispatch(self) -> None:
        if self._free:
            self._drop_late()
        while self._free and (priority := self._next_priority()) is not None:
            batch = _Batch(priority, self._waiting.next_group(priority), self._clock())
            self._fill(batch, self._free)
            self._free -= 1
            self._open += 1
            self._drafting += priority is Priority.DRAFT
            loop = asyncio.get_running_loop()
            jobs = [entry.job for entry in batch.entries]
            batch.watchdog = Watchdog(self._longest(jobs), partial(self._overdue, batch))
            done = loop.run_in_executor(
                self._threads, recognize_each, self._recognizer, jobs, self._joiner(batch, loop)
            )
            done.add_done_callback(partial(self._finished, batch))

    def _next_priority(self) -> Priority | None:
        """Whose turn it is; None where nobody's, or where the last worker is kept from drafts."""
        priority = self._waiting.first_priority
        return None if priority is Priority.DRAFT and self._drafting >= max(1, self.workers - 1) else priority

    def _joiner(self, batch: _Batch, loop: asyncio.AbstractEventLoop) -> Callable[[], list[ChunkJob]]:
        """Lets a batch grow; called by its worker, in its thread. Nothing: it grows no more."""

        async def join() -> list[ChunkJob]:
            joined = self._fill(batch, self._free + self._open) if self._may_grow(batch) else []
            if not joined:
                self._seal(batch)
            return [entry.job for entry in joined]

        def more() -> list[ChunkJob]:
            try:
                return asyncio.run_coroutine_threadsafe(join(), loop).result(JOIN_TIMEOUT_S)
            except (concurrent.futures.TimeoutError, concurrent.futures.CancelledError, RuntimeError):
                return []

        return more

    def _may_grow(self, batch: _Batch) -> bool:
        """Not where something of a higher priority waits for its worker."""
        return batch.open and self._waiting.first_priority == batch.priority

    def _fill(self, batch: _Batch, takers: int) -> list[Entry]:
        """Takes chunks of a batch's group into it: its share of those that wait.

        Args:
            takers: workers that could take some, its own included; none takes what another could begin with.
        """
        fitting = [entry for entry in self._waiting.of(batch.priority) if entry.group == batch.group]
        limit = min(self._max_batch, self._recognizer.batch_limit(batch.group)) - len(batch.entries)
        share = math.ceil(len(fitting) / takers)
        size = self._in_time(batch, fitting[: max(0, min(limit, share))])
        joined = list(islice(self._waiting.take(batch.priority, batch.group), size))
        batch.entries += joined
        for entry in joined:
            entry.owner.adjust(waiting=-1, running=1)
        return joined

    def _in_time(self, batch: _Batch, wanted: Sequence[Entry]) -> int:
        """How many of some chunks a batch may take, so that it isn't too late for one that would be in time alone."""
        members = [*batch.entries, *wanted]
        deadlines = [entry.owner.deadline for entry in members if entry.owner.deadline is not None]
        each = self._forecast([entry.job for entry in members]) / len(members) if deadlines else 0.0
        left = [deadline - self._clock() for deadline in deadlines]
        tightest = min((seconds for seconds in left if seconds > each), default=0.0)
        if not each or not tightest:
            return len(wanted)
        room = int(BATCH_SHARE * tightest / each) - len(batch.entries)
        return max(0 if batch.entries else 1, min(len(wanted), room))

    def _seal(self, batch: _Batch) -> None:
        self._open -= batch.open
        batch.open = False

    def _put_back(self, batch: _Batch, entries: Sequence[Entry]) -> None:
        """What joined after its worker had given up asking waits again: nobody has recognized it."""
        for entry in entries:
            again = not entry.result.done()
            entry.owner.adjust(running=-1, waiting=again)
            if again:
                self._waiting.add(entry, batch.priority)

    def _longest(self, jobs: Sequence[ChunkJob]) -> float:
        """Seconds after which an inference hangs."""
        at_least = HANGS_S.get(self._recognizer.info.device, HANGS_ON_GPU_S)
        return max(at_least, HANGS_FACTOR * self._forecast(jobs))

    def _overdue(self, batch: _Batch) -> None:
        """Gives the model up. Its thread can't be stopped, and the device behind it answers nobody."""
        error = lost(TimeoutError(f"an inference has not ended after {self._clock() - batch.began:.0f} s"))
        self._health.failed(error)
        for entry in batch.entries:
            entry.fail(error)
        self._give_up(error)

    def _finished(self, batch: _Batch, done: asyncio.Future[list[Hypothesis | SttError]]) -> None:
        self._seal(batch)
        if batch.watchdog is not None:
            batch.watchdog.ended()
        self._free += 1
        self._drafting -= batch.priority is Priority.DRAFT
        failure = None if done.cancelled() else done.exception()
        found: Sequence[Hypothesis | SttError | None] = () if done.cancelled() or failure else done.result()
        if found:
            self._put_back(batch, batch.entries[len(found) :])
            del batch.entries[len(found) :]
            if batch.priority is not Priority.DRAFT and all(isinstance(outcome, Hypothesis) for outcome in found):
                self._measured([entry.job for entry in batch.entries], self._clock() - batch.began)
        for entry, outcome in zip_longest(batch.entries, found):
            entry.owner.adjust(running=-1)
            if entry.result.done():
                continue  # its caller went away
            if isinstance(outcome, Hypothesis):
                entry.result.set_result(outcome)
            else:
                entry.result.set_exception(outcome or failure or EngineError("the engine was closed"))
        self._judge(found)
        if not done.cancelled():
            self._dispatch()

    def _judge(self, found: Sequence[Hypothesis | SttError | None]) -> None:
        """What a batch says of the model. In doubt, silence is to prove that it works."""
        doubtful = False
        for outcome in found:
            if isinstance(outcome, Hypothesis):
                self._health.answered()
            elif isinstance(outcome, EngineError):
                doubtful |= self._health.failed(outcome)
        if self._health.error is not None:
            self._give_up(self._health.error)
        elif doubtful:
            proof = asyncio.get_running_loop().run_in_executor(self._threads, probe, self._recognizer)
            proof.add_done_callback(self._proved)

    def _proved(self, proof: asyncio.Future[EngineLost | None]) -> None:
        if not proof.cancelled() and (error := proof.result()) is not None:
            self._health.give_up(error)
            self._give_up(error)

    def _give_up(self, error: EngineLost) -> None:
        """Fails all that waits: it would only fail later."""
        for entry in self._waiting.all():
            self._waiting.remove(entry)
            entry.fail(error)
