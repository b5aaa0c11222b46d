"""Memory, threads, open files and children of running processes. Linux only."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path

PROC = Path("/proc")


@dataclass(frozen=True)
class Usage:
    """Resources of one process."""

    resident_mib: float
    unique_mib: float | None
    """Unique set size (USS); None if it can't be read."""
    threads: int
    descriptors: int
    children: int
    """Number of all descendants."""
    children_mib: float
    """Resident memory of all descendants together."""


def usage(pid: int) -> Usage:
    """Measure a process.

    Raises:
        FileNotFoundError, ProcessLookupError: it has ended.
    """
    home = PROC / str(pid)
    below = descendants(pid)
    return Usage(
        resident_mib=resident(pid),
        unique_mib=_unique(home),
        threads=sum(1 for _ in (home / "task").iterdir()),
        descriptors=sum(1 for _ in (home / "fd").iterdir()),
        children=len(below),
        children_mib=sum(map(_resident_or_gone, below)),
    )


def resident(pid: int) -> float:
    """Resident memory, MiB."""
    lines = (PROC / str(pid) / "status").read_text(encoding="ascii", errors="replace").splitlines()
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("VmRSS:")), 0.0)


def descendants(pid: int) -> list[int]:
    """Process ids of all descendants; empty if the process has ended."""
    found: list[int] = []
    for task in (PROC / str(pid) / "task").glob("*/children"):
        with contextlib.suppress(OSError):
            for child in map(int, task.read_text().split()):
                found += [child, *descendants(child)]
    return found


def files_below(folder: Path) -> int:
    """Number of files and folders below a folder that other processes write to."""
    return sum(1 for _ in folder.rglob("*"))


def _resident_or_gone(pid: int) -> float:
    try:
        return resident(pid)
    except OSError:
        return 0.0


def _unique(home: Path) -> float | None:
    try:
        lines = (home / "smaps_rollup").read_text(encoding="ascii").splitlines()
    except OSError:  # another user's process, or an old kernel
        return None
    kibibytes = [int(line.split()[1]) for line in lines if line.startswith(("Private_Clean:", "Private_Dirty:"))]
    return sum(kibibytes) / 1024
