"""A recognizer that a test steps through, and requests that count their chunks, for tests of the batcher."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field

import numpy as np

from stt_server.engine.batcher import Batcher
from stt_server.engine.queue import Priority
from stt_server.engine.types import ChunkJob, DecodeOptions, Hypothesis, ModelInfo, Samples
from stt_server.errors import EngineError
from tests.support.services import until


@dataclass(eq=False)
class NamedChunk:
    """A chunk with a name and a group instead of audio."""

    name: str
    group: str = "short"
    samples: Samples = field(default_factory=lambda: np.zeros(1, dtype=np.float32))
    start: float = 0.0
    speech: tuple[tuple[float, float], ...] = ()
    speech_certain: bool = True


class HeldModel:
    """A recognizer that blocks in each batch until `step` is called."""

    def __init__(self, fail: frozenset[str] = frozenset(), limit: int = 100) -> None:
        """
        Args:
            fail: batches with a chunk of one of these names fail.
        """
        self.info = ModelInfo("held", "cpu", "float32", ("en",))
        self.batches: list[list[str]] = []
        """Names of the chunks of each batch."""
        self._fail = fail
        self._limit = limit
        self._steps = threading.Semaphore(0)
        self._entered = threading.Semaphore(0)

    def group_of(self, job: ChunkJob) -> Hashable:
        return str(job.chunk.group)  # type: ignore[attr-defined]

    def batch_limit(self, group: Hashable) -> int:
        return self._limit

    def recognize_batch(
        self, jobs: Sequence[ChunkJob], more: Callable[[], Sequence[ChunkJob]] = tuple
    ) -> list[Hypothesis]:
        self.batches.append(names_of(jobs))
        self._wait_for_step()
        return self._hypotheses(names_of(jobs))

    def _wait_for_step(self) -> None:
        self._entered.release()
        assert self._steps.acquire(timeout=10)

    def _hypotheses(self, names: list[str]) -> list[Hypothesis]:
        if self._fail.intersection(names):
            raise EngineError(f"can't do {names}")
        return [Hypothesis((), name, None, (), False) for name in names]

    async def entered(self, times: int = 1) -> None:
        """Wait until workers have begun so many steps."""
        for _ in range(times):
            await asyncio.get_running_loop().run_in_executor(None, self._entered.acquire)

    def step(self, times: int = 1) -> None:
        self._steps.release(times)


class JoiningModel(HeldModel):
    """Lets chunks join after each step, like a recognizer that encodes chunk by chunk."""

    def recognize_batch(
        self, jobs: Sequence[ChunkJob], more: Callable[[], Sequence[ChunkJob]] = tuple
    ) -> list[Hypothesis]:
        joined, together = jobs, list(jobs)
        while joined:
            self._wait_for_step()
            joined = more()
            together += joined
        self.batches.append(names_of(together))
        return self._hypotheses(names_of(together))


class CountingOwner:
    """An owner that counts its waiting and running chunks."""

    def __init__(self, deadline: float | None = None) -> None:
        self.deadline = deadline
        self.waiting = self.running = 0

    def adjust(self, *, waiting: int = 0, running: int = 0) -> None:
        self.waiting += waiting
        self.running += running


def names_of(jobs: Sequence[ChunkJob]) -> list[str]:
    return [job.chunk.name for job in jobs]  # type: ignore[attr-defined]


def submit(
    batcher: Batcher,
    name: str,
    owner: CountingOwner | None = None,
    group: str = "short",
    priority: Priority = Priority.ANSWER,
) -> asyncio.Future[Hypothesis]:
    """Start recognizing a chunk. The language of its hypothesis is its name."""
    job = ChunkJob(NamedChunk(name, group), DecodeOptions())
    return asyncio.ensure_future(batcher.recognize(job, owner or CountingOwner(), priority))


async def until_waiting(batcher: Batcher, count: int) -> None:
    """Wait until so many chunks are queued."""
    await until(lambda: batcher.waiting == count)
