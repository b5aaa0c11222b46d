"""Batches of growing size on shortened and full windows: throughput, the knee, memory per request."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median

from buildscripts.lib.gpu.memory import PeakMemory, UsedMib
from stt_server.engine.types import ChunkJob, Recognizer

SIZES = (1, 2, 4, 8, 16, 32)
KNEE_SHARE = 0.9
"""The knee is the smallest batch with this share of the highest throughput."""


@dataclass(frozen=True)
class BatchCost:
    """A batch of one size on one kind of window."""

    window: str
    """`adaptive` or `full`."""
    size: int
    seconds: float
    """Median of a batch."""
    audio: float
    """Seconds of audio in a batch."""
    peak_mib: float | None
    """Highest memory in use; None if it can't be read."""

    @property
    def throughput(self) -> float:
        """Seconds of audio per second."""
        return self.audio / self.seconds


def measure_batches(
    recognizer: Recognizer,
    window: str,
    jobs: Sequence[ChunkJob],
    used_mib: UsedMib,
    *,
    rounds: int,
    in_time: Callable[[], bool],
    sizes: Sequence[int] = SIZES,
) -> list[BatchCost]:
    """Time batches of the same jobs, repeated as needed.

    Args:
        jobs: of one group.
        in_time: whether there is time for another size.
    """
    found: list[BatchCost] = []
    for size in sizes:
        if not in_time():
            break
        batch = [jobs[i % len(jobs)] for i in range(size)]
        times = []
        with PeakMemory(used_mib) as peak:
            for _ in range(rounds):
                began = time.perf_counter()
                recognizer.recognize_batch(batch)
                times.append(time.perf_counter() - began)
        audio = sum(len(job.chunk.samples) for job in batch) / 16000
        found.append(BatchCost(window, size, median(times), audio, peak.mib))
    return found


def knee(costs: Sequence[BatchCost]) -> int | None:
    """The smallest batch size beyond which throughput hardly grows; None without measurements."""
    best = max((cost.throughput for cost in costs), default=0.0)
    return next((cost.size for cost in costs if cost.throughput >= KNEE_SHARE * best), None)


def request_mib(costs: Sequence[BatchCost]) -> float | None:
    """MiB that each further request of a batch adds to the peak; None if memory can't be read."""
    known = [(cost.size, cost.peak_mib) for cost in costs if cost.peak_mib is not None]
    if len(known) < 2:
        return None
    (smallest, least), (largest, most) = known[0], known[-1]
    return max(0.0, most - least) / (largest - smallest)
