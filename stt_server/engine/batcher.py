"""Schedules chunks onto the model's workers, in batches.

Chunks wait in the event loop, queued by the request that they belong to. A free worker takes the next request's chunk
and waiting chunks of the same group. While it encodes them (one by one on a CPU), chunks that arrive may still join;
then all are decoded together. A worker never waits for a batch to fill, so an idle machine adds no delay. Batches are
kept small enough for the deadlines of their chunks, and chunks that can't meet their deadline any more are dropped
before they occupy a worker.

Live streams add drafts and speculative work, which may turn out to be unneeded. They have a lower priority and start
only while nothing more urgent waits, so that they delay an answer by one inference at most.
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
from itertools import islice

from stt_server.engine.health.failures import lost
from stt_server.engine.health.model_health import ModelHealth
from stt_server.engine.health.watchdog import Watchdog
from stt_server.engine.inference import probe, recognize_each
from stt_server.engine.queue import ChunkQueue, Entry, Owner, Priority
from stt_server.engine.types import ChunkJob, Hypothesis, Recognizer
from stt_server.errors import DeadlineExceeded, EngineError, EngineLost, SttError

JOIN_TIMEOUT_S = 1.0
"""Seconds that a worker waits for the event loop to add chunks to its batch, so that a blocked loop can't hold it."""

HANGS_S = {"cpu": 600.0}
"""Seconds after which an inference counts as hung, by device. A CPU shared with other work may just be slow."""
HANGS_ON_GPU_S = 120.0
HANGS_FACTOR = 20
"""An inference expected to take long hangs only after this multiple of its forecast."""

BATCH_SHARE = 0.8
"""Share of the time left before a batch's tightest deadline that the batch may be expected to take."""


@dataclass(frozen=True)
class InferenceTimes:
    """Callbacks that measure and forecast how long inferences take."""

    forecast: Callable[[Sequence[ChunkJob]], float] = lambda jobs: 0.0
    """Seconds that one inference of these chunks is expected to take; 0 if unknown."""
    observe: Callable[[Sequence[ChunkJob], float], None] = lambda jobs, seconds: None
    """Called after each inference that succeeded for all its chunks, drafts excepted, with its seconds."""


@dataclass(eq=False)
class _Batch:
    priority: Priority
    group: Hashable
    started: float
    """Monotonic seconds."""
    entries: list[Entry] = field(default_factory=list)
    open: bool = True
    """Whether chunks of the same priority and group may still join."""


class Batcher:
    """Runs chunks on a recognizer's workers. Only recognition itself runs outside the event loop."""

    def __init__(
        self,
        recognizer: Recognizer,
        workers: int,
        max_batch: int,
        times: InferenceTimes | None = None,
        health: ModelHealth | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """
        Args:
            workers: concurrent inferences, at least 1.
            max_batch: most chunks in one inference, at least 1.
            health: records the outcomes of inferences. Once it reports the model lost, all waiting chunks fail.
            clock: monotonic seconds.
        """
        self.workers = workers
        self._recognizer = recognizer
        self._max_batch = max_batch
        self._times = times or InferenceTimes()
        self._health = health or ModelHealth()
        self._clock = clock
        self.busy_seconds = 0.0
        """Seconds that workers have spent on inferences that have ended, of all workers together."""
        self._free = workers
        self._open = 0
        """Workers whose batch may still grow."""
        self._drafting = 0
        """Workers running a batch of drafts."""
        self._threads = ThreadPoolExecutor(workers, thread_name_prefix="inference")
        self._queue = ChunkQueue()

    @property
    def waiting(self) -> int:
        """Number of chunks waiting for a worker."""
        return len(self._queue)

    async def recognize(self, job: ChunkJob, owner: Owner, priority: Priority = Priority.ANSWER) -> Hypothesis:
        """Queue a chunk and wait for its hypothesis. All waiting chunks of one owner must have the same priority.

        Cancelling the call removes a waiting chunk. A chunk that is being recognized keeps its worker until the thread
        returns: after the current step if no caller wants any chunk of the batch, since a step can't be interrupted.

        Raises:
            EngineError: the model failed on this chunk; EngineLost: the model doesn't work any more.
            DeadlineExceeded: the owner's deadline leaves no time for an inference.
        """
        if self._health.error is not None:
            raise EngineLost(self._health.error.message) from self._health.error
        result: asyncio.Future[Hypothesis] = asyncio.get_running_loop().create_future()
        job = replace(job, wanted=lambda: not result.done())
        entry = Entry(job, self._recognizer.group_of(job), owner, result)
        self._queue.add(entry, priority)
        owner.adjust(waiting=1)
        self._dispatch()
        try:
            return await result
        finally:
            self._queue.remove(entry)

    def promote(self, owner: Owner) -> None:
        """Raise the owner's waiting chunks to `Priority.ANSWER`."""
        self._queue.promote(owner)
        self._dispatch()

    def replace_draft(self, owner: Owner, job: ChunkJob) -> bool:
        """Replace the owner's waiting draft with a newer one; False if none is waiting."""
        return self._queue.replace_draft(owner, job, self._recognizer.group_of(job))

    def close(self) -> None:
        """Stop starting inferences. Running ones end by themselves."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _dispatch(self) -> None:
        """Start batches while there are free workers and waiting chunks."""
        if self._free:
            self._drop_late()
        while self._free and (priority := self._next_priority()) is not None:
            self._start(priority)

    def _drop_late(self) -> None:
        """Fail answers that can't meet their deadline any more.

        A lone one is tried anyway: it delays nothing, and shows whether the forecast is right.
        """
        waiting = self._queue.of(Priority.ANSWER)
        for entry in waiting if len(waiting) > 1 else ():
            deadline = entry.owner.deadline
            if deadline is not None and self._clock() + self._times.forecast([entry.job]) > deadline:
                self._queue.remove(entry)
                entry.settle(DeadlineExceeded("not enough time left before the deadline for an inference"))

    def _next_priority(self) -> Priority | None:
        """The priority to serve next; None if nothing waits, or only drafts and one worker must stay free of them."""
        priority = self._queue.first_priority
        return None if priority is Priority.DRAFT and self._drafting >= max(1, self.workers - 1) else priority

    def _start(self, priority: Priority) -> None:
        """Run the next batch of this priority on a free worker."""
        batch = _Batch(priority, self._queue.next_group(priority), self._clock())
        self._fill(batch, self._free)
        self._free -= 1
        self._open += 1
        self._drafting += priority is Priority.DRAFT
        jobs = [entry.job for entry in batch.entries]
        at_least = HANGS_S.get(self._recognizer.info.device, HANGS_ON_GPU_S)
        limit = max(at_least, HANGS_FACTOR * self._times.forecast(jobs))
        watchdog = Watchdog(limit, partial(self._overdue, batch))
        loop = asyncio.get_running_loop()
        more = partial(self._more, batch, loop)
        done = loop.run_in_executor(self._threads, recognize_each, self._recognizer, jobs, more)
        done.add_done_callback(partial(self._finished, batch, watchdog))

    def _more(self, batch: _Batch, loop: asyncio.AbstractEventLoop) -> list[ChunkJob]:
        """Chunks that join a running batch; none once it is closed. Called in the worker's thread."""
        try:
            return asyncio.run_coroutine_threadsafe(self._join(batch), loop).result(JOIN_TIMEOUT_S)
        except (concurrent.futures.TimeoutError, concurrent.futures.CancelledError, RuntimeError):
            return []

    async def _join(self, batch: _Batch) -> list[ChunkJob]:
        """Add waiting chunks to a batch. Close it if there are none, or if more urgent ones need its worker."""
        may_grow = batch.open and self._queue.first_priority == batch.priority
        joined = self._fill(batch, self._free + self._open) if may_grow else []
        if not joined:
            self._seal(batch)
        return [entry.job for entry in joined]

    def _fill(self, batch: _Batch, takers: int) -> list[Entry]:
        """Move the batch's share of the waiting chunks of its group into it.

        Args:
            takers: workers that could take some of them, including this one. The chunks are shared evenly, so that no
                worker takes what another one could start with.
        """
        fitting = [entry for entry in self._queue.of(batch.priority) if entry.group == batch.group]
        limit = min(self._max_batch, self._recognizer.batch_limit(batch.group)) - len(batch.entries)
        share = math.ceil(len(fitting) / takers)
        size = self._in_time(batch, fitting[: max(0, min(limit, share))])
        joined = list(islice(self._queue.take(batch.priority, batch.group), size))
        batch.entries += joined
        for entry in joined:
            entry.owner.adjust(waiting=-1, running=1)
        return joined

    def _in_time(self, batch: _Batch, wanted: Sequence[Entry]) -> int:
        """How many of `wanted` the batch can take without missing a deadline that the chunk would meet alone."""
        members = [*batch.entries, *wanted]
        deadlines = [entry.owner.deadline for entry in members if entry.owner.deadline is not None]
        each = self._times.forecast([entry.job for entry in members]) / len(members) if deadlines else 0.0
        left = [deadline - self._clock() for deadline in deadlines]
        tightest = min((seconds for seconds in left if seconds > each), default=0.0)
        if not each or not tightest:
            return len(wanted)
        room = int(BATCH_SHARE * tightest / each) - len(batch.entries)
        return max(0 if batch.entries else 1, min(len(wanted), room))

    def _seal(self, batch: _Batch) -> None:
        """Close a batch to further chunks."""
        self._open -= batch.open
        batch.open = False

    def _finished(self, batch: _Batch, watchdog: Watchdog, done: asyncio.Future[list[Hypothesis | SttError]]) -> None:
        """Settle a batch's chunks and start the next batch."""
        self._seal(batch)
        watchdog.cancel()
        self.busy_seconds += self._clock() - batch.started
        self._free += 1
        self._drafting -= batch.priority is Priority.DRAFT
        failure = EngineError("the engine was closed") if done.cancelled() else done.exception()
        if failure is not None:
            for entry in batch.entries:
                entry.owner.adjust(running=-1)
                entry.settle(failure)
        else:
            self._settle(batch, done.result())
            self._check_health(done.result())
        if not done.cancelled():
            self._dispatch()

    def _settle(self, batch: _Batch, outcomes: Sequence[Hypothesis | SttError]) -> None:
        """Give each chunk of a batch its outcome.

        Chunks without one joined after their worker had stopped waiting for the event loop: they are queued again.
        """
        late = batch.entries[len(outcomes) :]
        del batch.entries[len(outcomes) :]
        for entry in late:
            wanted = not entry.result.done()
            entry.owner.adjust(running=-1, waiting=wanted)
            if wanted:
                self._queue.add(entry, batch.priority)
        if batch.priority is not Priority.DRAFT and all(isinstance(outcome, Hypothesis) for outcome in outcomes):
            self._times.observe([entry.job for entry in batch.entries], self._clock() - batch.started)
        for entry, outcome in zip(batch.entries, outcomes, strict=True):
            entry.owner.adjust(running=-1)
            entry.settle(outcome)

    def _overdue(self, batch: _Batch) -> None:
        """Give up on the model: a hung inference can't be stopped, and its device answers nothing else either."""
        error = lost(TimeoutError(f"inference has not ended after {self._clock() - batch.started:.0f} s"))
        self._health.record_failure(error)
        for entry in batch.entries:
            entry.settle(error)
        self._fail_all(error)

    def _check_health(self, outcomes: Sequence[Hypothesis | SttError]) -> None:
        """Record a batch's outcomes. Probe the model if they are suspicious; fail all waiting chunks if it is lost."""
        suspicious = False
        for outcome in outcomes:
            if isinstance(outcome, Hypothesis):
                self._health.record_success()
            elif isinstance(outcome, EngineError):
                suspicious |= self._health.record_failure(outcome)
        if self._health.error is not None:
            self._fail_all(self._health.error)
        elif suspicious:
            probing = asyncio.get_running_loop().run_in_executor(self._threads, probe, self._recognizer)
            probing.add_done_callback(self._probed)

    def _probed(self, probing: asyncio.Future[EngineLost | None]) -> None:
        if not probing.cancelled() and (error := probing.result()) is not None:
            self._health.mark_lost(error)
            self._fail_all(error)

    def _fail_all(self, error: EngineLost) -> None:
        """Fail all waiting chunks."""
        for entry in self._queue.all():
            self._queue.remove(entry)
            entry.settle(error)
