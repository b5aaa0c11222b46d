"""Samples of a soak run by sixths of its time, and a check for growth."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

from buildscripts.lib.figures import figure
from buildscripts.lib.load.process_usage import Usage

PARTS = 6
"""Parts of a run. The first is excluded from comparisons: allocators, caches and pools fill up in it."""

MAX_GROWTH_MIB = 32.0
"""Largest growth of the floor from the second sixth to the last."""
MAX_SLOPE_MIB_PER_HOUR = 16.0
MIN_HOURS_FOR_MEMORY = 0.5
"""Shortest run whose memory is judged: before that, the first long recording dominates the slope."""
SLACK: Mapping[str, float] = {"threads": 4, "descriptors": 8, "children": 2, "files": 4}
"""Largest increase from the second sixth to the last: work in progress varies."""


@dataclass(frozen=True)
class Sample:
    """One process at one time."""

    hours: float
    """Since the start of the run."""
    usage: Usage
    floor_mib: float
    """Smallest resident size since the previous sample.

    Batches of long recordings take and return 200 MiB; memory that is never returned remains in the floor.
    """
    files: int
    """Number of files in its temporary folder."""


def sixths(samples: Sequence[Sample], value: Callable[[Sample], float]) -> list[float]:
    """Median of each sixth of the time; a sixth without samples repeats the previous one."""
    begin, end = samples[0].hours, samples[-1].hours
    parts: list[list[float]] = [[] for _ in range(PARTS)]
    for sample in samples:
        place = (sample.hours - begin) / ((end - begin) or 1)
        parts[min(PARTS - 1, int(place * PARTS))].append(value(sample))
    medians: list[float] = []
    for part in parts:
        medians.append(statistics.median(part) if part else medians[-1])
    return medians


@dataclass(frozen=True)
class Slope:
    """Growth per hour."""

    per_hour: float
    at_least: float
    """Lower end of the 95 % interval."""


def slope(points: Sequence[tuple[float, float]]) -> Slope:
    """Theil-Sen estimator: median of the slopes of all pairs of (hours, value); robust against outliers.

    Theil 1950, Sen 1968. The interval uses Kendall's normal approximation.
    """
    slopes = sorted((b[1] - a[1]) / (b[0] - a[0]) for a, b in combinations(points, 2) if b[0] > a[0])
    if not slopes:
        return Slope(0.0, 0.0)
    count = len(points)
    width = 1.96 * math.sqrt(count * (count - 1) * (2 * count + 5) / 18)
    return Slope(statistics.median(slopes), slopes[max(0, int((len(slopes) - width) / 2))])


def memory_slope(samples: Sequence[Sample]) -> Slope:
    """Slope of the floor in MiB, over the last two thirds of the time."""
    third = samples[0].hours + hours(samples) / 3
    return slope([(sample.hours, sample.floor_mib) for sample in samples if sample.hours >= third])


def least_of_halves(samples: Sequence[Sample]) -> tuple[float, float]:
    """Least resident size in MiB of the first half of the time, without the first sixth, and of the second half."""
    begin, length = samples[0].hours, hours(samples)
    first = [s.floor_mib for s in samples if begin + length / PARTS <= s.hours <= begin + length / 2]
    second = [s.floor_mib for s in samples if s.hours > begin + length / 2]
    return min(first or second, default=0.0), min(second or first, default=0.0)


VALUES: Mapping[str, Callable[[Sample], float]] = {
    "threads": lambda sample: sample.usage.threads,
    "descriptors": lambda sample: sample.usage.descriptors,
    "children": lambda sample: sample.usage.children,
    "files": lambda sample: sample.files,
}


def hours(samples: Sequence[Sample]) -> float:
    """Hours from the first sample to the last."""
    return samples[-1].hours - samples[0].hours


def growth_problems(name: str, samples: Sequence[Sample]) -> list[str]:
    """A line for each resource that grew; empty if none did."""
    found = []
    if hours(samples) >= MIN_HOURS_FOR_MEMORY:
        memory, rise = sixths(samples, lambda sample: sample.floor_mib), memory_slope(samples)
        if (by := memory[-1] - memory[1]) > MAX_GROWTH_MIB:
            found.append(f"{name}: memory grew by {by:.0f} MiB from the second sixth to the last")
        if rise.per_hour > MAX_SLOPE_MIB_PER_HOUR and rise.at_least > 0:
            found.append(f"{name}: memory grows by {rise.per_hour:.0f} MiB per hour over the last two thirds")
    for what, value in VALUES.items():
        parts = sixths(samples, value)
        if parts[-1] > parts[1] + SLACK[what]:
            found.append(f"{name}: {what} grew from {parts[1]:g} to {parts[-1]:g}")
    return found


def growth_table(name: str, samples: Sequence[Sample]) -> str:
    """Markdown table of medians with a line per sixth. What is 0 throughout is left out: it may be unknown."""
    values: Mapping[str, Callable[[Sample], float]] = {
        "resident MiB": lambda sample: sample.usage.resident_mib,
        "floor MiB": lambda sample: sample.floor_mib,
        "unique MiB": lambda sample: sample.usage.unique_mib or 0.0,
        "children MiB": lambda sample: sample.usage.children_mib,
        **VALUES,
    }
    columns = {what: medians for what, value in values.items() if any(medians := sixths(samples, value))}
    lines = [f"| {name} | {' | '.join(columns)} |", "|" + "---|" * (len(columns) + 1)]
    for number, row in enumerate(zip(*columns.values()), 1):
        lines.append(f"| {number} | {' | '.join(f'{value:.0f}' for value in row)} |")
    return "\n".join(lines)


def plot(
    samples: Mapping[str, Sequence[Sample]], latencies: Sequence[tuple[float, float]], title: str, path: Path
) -> None:
    """Memory, counts and latency over the hours, as a PNG file.

    Args:
        samples: by process.
        latencies: (hours since the start, median seconds).
    """
    with figure(path, title, rows=3, figsize=(9, 9), sharex=True) as (memory, counts, latency):
        for name, own in samples.items():
            times = [sample.hours for sample in own]
            memory.plot(times, [sample.usage.resident_mib for sample in own], label=f"{name}, resident")
            memory.plot(times, [sample.floor_mib for sample in own], "--", label=f"{name}, floor")
            memory.plot(times, [sample.usage.children_mib for sample in own], ":", label=f"{name}, child processes")
            for what, value in VALUES.items():
                counts.plot(times, [value(sample) for sample in own], label=f"{name}, {what}")
        latency.plot(*zip(*latencies) if latencies else ((), ()), label="short recordings, median")
        for axes, label in ((memory, "MiB"), (counts, "number"), (latency, "seconds")):
            axes.set(ylabel=label)
            axes.set_ylim(bottom=0)
            axes.grid(alpha=0.3)
            axes.legend(fontsize="small", ncols=2)
        latency.set(xlabel="hours")
