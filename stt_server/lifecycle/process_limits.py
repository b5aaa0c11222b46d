"""Process limits and forced exit."""

from __future__ import annotations

import contextlib
import math
import os
import resource
import sys
import tempfile
import threading
from pathlib import Path

MIN_OPEN_FILES = 256
"""Open files that a service needs at least; each connection adds one."""

MAX_OPEN_FILES = 65536
"""Limit that is set where the system allows more: 32 live streams and a full queue take some hundreds."""


def set_process_limits() -> None:
    """Disable core dumps, and raise the limit of open files as far as allowed.

    Raises:
        OSError: the limit of open files is too low, or there is no temporary folder.
    """
    # A core dump would contain keys, recordings and transcripts.
    _, hard_core = resource.getrlimit(resource.RLIMIT_CORE)
    resource.setrlimit(resource.RLIMIT_CORE, (0, hard_core))
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    allowed = MAX_OPEN_FILES if hard == resource.RLIM_INFINITY else min(hard, MAX_OPEN_FILES)
    if allowed < MIN_OPEN_FILES:
        raise OSError(f"the limit of open files is {allowed}, and {MIN_OPEN_FILES} are needed: raise `ulimit -n`")
    if soft != resource.RLIM_INFINITY and soft < allowed:
        with contextlib.suppress(ValueError):  # macOS has a lower limit than the one it reports
            resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
    try:
        tempfile.gettempdir()  # tries to write there
    except OSError as error:
        raise OSError(f"no temporary folder is writable; set TMPDIR to one: {error.strerror}") from error


def usable_cores() -> int:
    """Number of cores that this process may use: those it may run on, or the quota of its container, rounded up."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, math.ceil(min(cores, cpu_quota())))


def cpu_quota(system: Path = Path("/")) -> float:
    """Cores' worth of processor time that control groups allow this process; infinite without a limit.

    Docker's --cpus, Kubernetes' limits and systemd's CPUQuota set it; the number of cores doesn't show it.

    Args:
        system: folder with `proc` and `sys`.
    """
    try:
        lines = (system / "proc/self/cgroup").read_text(errors="replace").splitlines()
    except OSError:
        return math.inf
    quota = math.inf
    for fields in (line.split(":", 2) for line in lines):
        if len(fields) != 3:
            continue
        _, controllers, group = fields
        if controllers == "":
            mounts, limit = ("sys/fs/cgroup", "sys/fs/cgroup/unified"), _quota
        elif "cpu" in controllers.split(","):
            mounts, limit = ("sys/fs/cgroup/cpu", "sys/fs/cgroup/cpu,cpuacct"), _quota_of_version_1
        else:
            continue
        # Each group above limits this one, too. In a container the path may be the host's: then the root has the limit.
        path = Path(group.lstrip("/"))
        quota = min([quota, *(limit(system / mount / part) for mount in mounts for part in (path, *path.parents))])
    return quota


def _quota(group: Path) -> float:
    """Quota of one control group of version 2."""
    with contextlib.suppress(OSError, ValueError, ZeroDivisionError):
        allowed, period = (group / "cpu.max").read_text().split()
        return float(allowed) / float(period) if allowed != "max" else math.inf
    return math.inf


def _quota_of_version_1(group: Path) -> float:
    with contextlib.suppress(OSError, ValueError, ZeroDivisionError):
        allowed = float((group / "cpu.cfs_quota_us").read_text())
        period = float((group / "cpu.cfs_period_us").read_text())
        return allowed / period if allowed > 0 else math.inf
    return math.inf


def exit_within(seconds: float, status: int) -> None:
    """Exit the process after `seconds`, whatever still runs.

    Python waits for threads at exit, and a model that is loading or an inference that hangs can't be interrupted.
    """
    timer = threading.Timer(seconds, os._exit, (status,))
    timer.daemon = True
    timer.start()


def discard_unwritable_output() -> None:
    """Redirect standard output and error to /dev/null if they can't be flushed: Python would exit with status 120."""
    for stream in (sys.stdout, sys.stderr):
        if stream is None:
            continue
        try:
            stream.flush()
        except OSError:
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, stream.fileno())
            os.close(null)
