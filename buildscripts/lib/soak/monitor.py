"""Samples of the processes under a soak, wherever they run."""

from __future__ import annotations

import asyncio
import math
import statistics
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence

from buildscripts.lib.load.process_usage import Usage
from buildscripts.lib.soak.growth import Sample


class Monitor(ABC):
    """Samples of processes by name."""

    def __init__(self) -> None:
        self.samples: dict[str, list[Sample]] = {}
        self.latencies: list[tuple[float, float]] = []
        """(hours, median seconds)."""
        self.began = time.monotonic()
        self._floors: dict[str, float] = {}
        """Smallest resident size since the last sample, MiB."""

    @abstractmethod
    async def read_memory(self) -> Mapping[str, float]:
        """Resident size of each process that can be read, MiB."""

    @abstractmethod
    async def read(self) -> Mapping[str, tuple[Usage, int]]:
        """Usage, and number of temporary files, of each process that can be read."""

    @abstractmethod
    def ends(self) -> Sequence[asyncio.Task[str]]:
        """A task for each process whose end can be noticed; its result says how the process ended."""

    async def sample_memory(self) -> None:
        """Read the resident size of each process."""
        for name, resident in (await self.read_memory()).items():
            self._floors[name] = min(self._floors.get(name, math.inf), resident)

    async def sample(self, latencies: list[float]) -> str:
        """Sample each process; return a line to print.

        Args:
            latencies: of short recordings since the last sample, in seconds; emptied.
        """
        now = (time.monotonic() - self.began) / 3600
        parts = [f"{now * 60:7.1f} min"]
        for name, (use, files) in (await self.read()).items():
            floor = min(self._floors.pop(name, math.inf), use.resident_mib)
            self.samples.setdefault(name, []).append(Sample(now, use, floor, files))
            parts.append(f"{name}: {_described(use, floor, files)}")
        if latencies:
            self.latencies.append((now, statistics.median(latencies)))
            parts.append(f"median {self.latencies[-1][1]:.3f} s of {len(latencies)}")
            latencies.clear()
        return " | ".join(parts)


def _described(use: Usage, floor: float, files: int) -> str:
    """Usage as text. Counts of 0 are left out: a process on another machine reports few of them."""
    parts = [f"{use.resident_mib:.0f} MiB ({floor:.0f} at least)"]
    if use.threads:
        parts.append(f"{use.threads} threads")
    parts.append(f"{use.descriptors} descriptors")
    if use.children:
        parts.append(f"{use.children} children ({use.children_mib:.0f} MiB)")
    if files:
        parts.append(f"{files} files")
    return ", ".join(parts)
