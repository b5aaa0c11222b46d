"""The decoding children of a service: as many as it has cores, each with one file at a time.

What a file does to a child ends there: the caller is told that the file can't be decoded, another child takes the dead
one's place, and everybody else's go on.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from asyncio import FIRST_COMPLETED
from collections.abc import Callable
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass

from stt_server.audio.container import undecodable
from stt_server.audio.mono import FloatArray
from stt_server.audio.sandbox.worker import DecodeLimits, ExitReason, FileRejected, Worker, WorkerDied
from stt_server.errors import Internal, SttError

log = logging.getLogger(__name__)

_MOST_FILES = 1000
"""That one child decodes, so that nothing adds up."""

_MOST_GROWTH = 64 << 20
"""Bytes of memory that a child may keep from one file to the next."""

_ABANDONED_S = 0.5
"""For a file whose caller has left. Most are done by then, and a new child costs a quarter of that."""


@dataclass(eq=False)
class _Task:
    data: bytes
    result: asyncio.Future[FloatArray]

    def settle(self, outcome: FloatArray | SttError) -> None:
        """Tells its caller, who may have left."""
        if self.result.done():
            return
        if isinstance(outcome, SttError):
            self.result.set_exception(outcome)
        else:
            self.result.set_result(outcome)


class DecoderPool:
    """A pool of them. Used in one event loop."""

    def __init__(self, count: int, bounds: DecodeLimits, on_death: Callable[[ExitReason], None]) -> None:
        """
        Args:
            count: files decoded at a time.
            on_death: told of each child that died before its time; not of those that were replaced by plan.
        """
        self._tasks: asyncio.Queue[_Task] = asyncio.Queue()
        # A child ends with the thread that started it: these stay until the pool is closed.
        self._threads = ThreadPoolExecutor(count, thread_name_prefix="decode")
        self._keepers = [_Keeper(self._tasks, bounds, on_death, self._threads) for _ in range(count)]
        self._starting: list[asyncio.Task[None]] = []
        self._running: list[asyncio.Task[None]] = []

    @property
    def pids(self) -> list[int]:
        """Of those that are there now."""
        return [keeper.child.pid for keeper in self._keepers if keeper.child is not None]

    async def start(self) -> None:
        """Returns once all are ready.

        Raises:
            OSError: one can't be started.
        """
        self._starting = [asyncio.ensure_future(keeper.replace()) for keeper in self._keepers]
        await asyncio.gather(*self._starting)
        self._running = [asyncio.ensure_future(keeper.work()) for keeper in self._keepers]

    async def decode(self, data: bytes) -> FloatArray:
        """The file `data`, as `audio.decode` gives it; waits for a free child.

        Raises:
            SttError: those of `audio.decode`; UnsupportedAudio too where the file was the end of a child, and Internal
                where none can be had.
        """
        task = _Task(data, asyncio.get_running_loop().create_future())
        self._tasks.put_nowait(task)
        return await task.result

    async def close(self) -> None:
        """Ends all, files in work included."""
        await asyncio.gather(*self._starting, return_exceptions=True)
        for running in self._running:
            running.cancel()
        for keeper in self._keepers:
            keeper.kill()
        await asyncio.gather(*self._running, return_exceptions=True)
        # Whoever waits for a child that was killed is done at once.
        await asyncio.get_running_loop().run_in_executor(None, self._threads.shutdown)
        for keeper in self._keepers:
            keeper.end()
        while not self._tasks.empty():
            self._tasks.get_nowait().result.cancel()


class _Keeper:
    """Hands files to one child after another, and sees to it that there always is one."""

    def __init__(
        self,
        tasks: asyncio.Queue[_Task],
        bounds: DecodeLimits,
        on_death: Callable[[ExitReason], None],
        threads: Executor,
    ) -> None:
        self._tasks = tasks
        self._bounds = bounds
        self._on_death = on_death
        self._threads = threads
        self.child: Worker | None = None

    async def work(self) -> None:
        while True:
            task = await self._tasks.get()
            if task.result.done():
                continue  # its caller has left
            try:
                await self._serve(task)
            except (
                Exception
            ):  # no memory left, or a fault of ours: it is this file's, and the next one has a child again
                log.exception("a file was not decoded")
                task.settle(Internal("no file can be decoded now"))
                self.kill()
                await asyncio.get_running_loop().run_in_executor(self._threads, self.end)
            finally:
                task.result.cancel()  # no effect on what is settled

    async def replace(self) -> None:
        """Ends the child, if there is one, and starts another. Raises OSError if that can't be."""
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(self._threads, self.end)
        self.child = await loop.run_in_executor(self._threads, Worker, self._bounds)

    def kill(self) -> None:
        if self.child is not None:
            self.child.kill("killed")

    def end(self) -> None:
        if self.child is not None:
            self.child.end()
            self.child = None

    async def _serve(self, task: _Task) -> None:
        if self.child is not None and not self.child.alive:
            self._mourn(self.child.end())  # of nothing that a caller did
            self.child = None
        try:
            if self.child is None:
                await self.replace()
        except OSError as error:
            log.error("no file can be decoded: %s", error)
            task.settle(Internal("no file can be decoded now"))
            return
        assert self.child is not None  # noqa: S101  else replace has raised
        if not await self._decode(task, self.child):
            with contextlib.suppress(OSError):  # it is tried again with the next file, whose caller is told
                await self.replace()

    async def _decode(self, task: _Task, child: Worker) -> bool:
        """Whether the child is still good for another file."""
        work = asyncio.get_running_loop().run_in_executor(self._threads, child.decode, task.data)
        await asyncio.wait({work, task.result}, timeout=self._bounds.wall_seconds, return_when=FIRST_COMPLETED)
        if task.result.done():
            await asyncio.wait({work}, timeout=_ABANDONED_S)
        if not work.done():
            child.kill("abandoned" if task.result.done() else "time")
        try:
            task.settle(await work)
        except FileRejected as refused:
            log.debug("a file can't be decoded: %s; %s", refused.error.type, ", ".join(refused.frames))
            task.settle(refused.error)
        except WorkerDied as died:
            self._mourn(died.death)
            task.settle(undecodable())
            return False
        return child.files < _MOST_FILES and child.grown < _MOST_GROWTH

    def _mourn(self, death: ExitReason) -> None:
        log.warning("a decoding child died: %s", death)
        self._on_death(death)
