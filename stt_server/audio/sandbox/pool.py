"""A pool of decoder workers, each of which decodes one file at a time in its own child process.

Damage from a file is limited to its worker: the caller gets an error, the child process is replaced, and files in
other workers aren't affected.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from asyncio import FIRST_COMPLETED
from collections.abc import Callable
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

from stt_server.audio.container import undecodable
from stt_server.audio.mono import FloatArray
from stt_server.audio.sandbox.worker import DecodeLimits, ExitReason, FileRejected, Worker, WorkerDied
from stt_server.errors import Internal, SttError

log = logging.getLogger(__name__)

_MAX_FILES = 1000
"""Files after which a child process is replaced, so that nothing accumulates in it."""

_MAX_GROWTH = 64 << 20
"""Bytes of memory growth after which a child process is replaced."""

_ABANDONED_S = 0.5
"""Seconds that a file may take after its caller left. Most are done by then; a new process takes a quarter of that."""


@dataclass(eq=False)
class _Task:
    data: bytes
    separate_channels: bool
    result: asyncio.Future[list[FloatArray]]

    def settle(self, outcome: list[FloatArray] | SttError) -> None:
        """Set the result, unless the caller has left."""
        if self.result.done():
            return
        if isinstance(outcome, SttError):
            self.result.set_exception(outcome)
        else:
            self.result.set_result(outcome)


class DecoderPool:
    """Decodes untrusted files in child processes. For one event loop."""

    def __init__(self, workers: int, limits: DecodeLimits, on_death: Callable[[ExitReason], None]) -> None:
        """
        Args:
            workers: number of files decoded at a time.
            on_death: called for each child process that ends unexpectedly, not for planned replacements.
        """
        self._tasks: asyncio.Queue[_Task] = asyncio.Queue()
        # A child process is killed when the thread that started it ends, so the threads live as long as the pool.
        self._threads = ThreadPoolExecutor(workers, thread_name_prefix="decode")
        self._slots = [_Slot(self._tasks, limits, on_death, self._threads) for _ in range(workers)]
        self._starting: list[asyncio.Task[Worker]] = []
        self._running: list[asyncio.Task[None]] = []

    @property
    def pids(self) -> list[int]:
        """Ids of the child processes."""
        return [slot.worker.pid for slot in self._slots if slot.worker is not None]

    async def start(self) -> None:
        """Start all child processes and wait until they are ready.

        Raises:
            OSError: one can't be started.
        """
        self._starting = [asyncio.ensure_future(slot.start_worker()) for slot in self._slots]
        await asyncio.gather(*self._starting)
        self._running = [asyncio.ensure_future(slot.run()) for slot in self._slots]

    async def decode(self, data: bytes, *, separate_channels: bool = False) -> list[FloatArray]:
        """Decode a file as `audio.decode` does, once a worker is free.

        Returns:
            The samples of the mix, or of each channel.

        Raises:
            SttError: as `audio.decode`; also UnsupportedAudio if the file ended its child process, and Internal if no
                child process can be started.
        """
        task = _Task(data, separate_channels, asyncio.get_running_loop().create_future())
        self._tasks.put_nowait(task)
        return await task.result

    async def close(self) -> None:
        """End all child processes at once. Cancels pending files."""
        await asyncio.gather(*self._starting, return_exceptions=True)
        for running in self._running:
            running.cancel()
        for slot in self._slots:
            slot.kill()
        await asyncio.gather(*self._running, return_exceptions=True)
        # Threads that read from a killed process return at once.
        await asyncio.get_running_loop().run_in_executor(None, self._threads.shutdown)
        for slot in self._slots:
            slot.close()
        while not self._tasks.empty():
            self._tasks.get_nowait().result.cancel()


class _Slot:
    """One place in the pool: takes files from the queue and replaces its worker when needed."""

    def __init__(
        self,
        tasks: asyncio.Queue[_Task],
        limits: DecodeLimits,
        on_death: Callable[[ExitReason], None],
        threads: Executor,
    ) -> None:
        self._tasks = tasks
        self._limits = limits
        self._on_death = on_death
        self._threads = threads
        self.worker: Worker | None = None

    async def run(self) -> None:
        """Decode files until cancelled."""
        while True:
            task = await self._tasks.get()
            if task.result.done():
                continue  # its caller has left
            try:
                await self._serve(task)
            except Exception:  # out of memory or a bug; the next file gets a new worker
                log.exception("decoding failed unexpectedly")
                task.settle(Internal("the audio decoder failed; retry later"))
                self.kill()
                await asyncio.get_running_loop().run_in_executor(self._threads, self.close)
            finally:
                task.result.cancel()  # no effect on a settled result

    async def start_worker(self) -> Worker:
        """Replace the worker, if there is one, by a new one. Raises OSError if it can't be started."""
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(self._threads, self.close)
        self.worker = worker = await loop.run_in_executor(self._threads, Worker, self._limits)
        return worker

    def kill(self) -> None:
        if self.worker is not None:
            self.worker.kill("killed")

    def close(self) -> None:
        if self.worker is not None:
            self.worker.close()
            self.worker = None

    async def _serve(self, task: _Task) -> None:
        if self.worker is not None and not self.worker.alive:  # ended while idle
            self._report_death(self.worker.close())
            self.worker = None
        try:
            worker = self.worker or await self.start_worker()
        except OSError as error:
            log.error("a decoder process can't be started: %s", error)
            task.settle(Internal("the audio decoder can't be started; retry later"))
            return
        if not await self._decode(task, worker):
            with contextlib.suppress(OSError):  # retried, and reported, with the next file
                await self.start_worker()

    async def _decode(self, task: _Task, worker: Worker) -> bool:
        """Decode a file and settle its task. Returns whether the worker can take another file."""
        decode = partial(worker.decode, task.data, separate_channels=task.separate_channels)
        work = asyncio.get_running_loop().run_in_executor(self._threads, decode)
        await asyncio.wait({work, task.result}, timeout=self._limits.wall_seconds, return_when=FIRST_COMPLETED)
        if task.result.done():
            await asyncio.wait({work}, timeout=_ABANDONED_S)
        if not work.done():
            worker.kill("abandoned" if task.result.done() else "time")
        try:
            task.settle(await work)
        except FileRejected as rejected:
            log.debug("file rejected: %s; %s", rejected.error.type, ", ".join(rejected.frames))
            task.settle(rejected.error)
        except WorkerDied as died:
            self._report_death(died.reason)
            task.settle(undecodable())
            return False
        return worker.files < _MAX_FILES and worker.memory_growth < _MAX_GROWTH

    def _report_death(self, reason: ExitReason) -> None:
        log.warning("a decoder process died: %s", reason)
        self._on_death(reason)
