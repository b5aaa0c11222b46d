"""Restrictions that a child process puts on itself before it reads an untrusted file.

They need no privileges. Code that takes over the process can't lift them, except for the limit on processor time, which
is raised for each file: the service's own timeout backs it up.
"""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import sys
from pathlib import Path

from stt_server.audio.sandbox.seccomp import install_filter

_PR_SET_PDEATHSIG = 1
_PR_SET_NO_NEW_PRIVS = 38
"""Options of Linux's prctl."""

KEPT_DESCRIPTORS = 3
"""Standard input, output and error."""


def confine(extra_memory: int, parent: int) -> None:
    """Deny this process files, sockets, writes and new processes, and end it when its parent ends.

    Args:
        extra_memory: bytes of address space that it may take beyond its current ones.
        parent: process id of the parent.
    """
    set_limits(extra_memory, parent)
    if sys.platform == "linux":
        install_filter()


def set_limits(extra_memory: int, parent: int) -> None:
    """The part of `confine` that doesn't need seccomp."""
    # Ctrl-C in a terminal signals the whole process group; files that the service has accepted are still decoded.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if sys.platform == "linux":
        _end_with_parent(parent)
        _set(resource.RLIMIT_AS, _address_space() + extra_memory)
        _set(resource.RLIMIT_NPROC, 0)
    _set(resource.RLIMIT_CORE, 0)
    _set(resource.RLIMIT_FSIZE, 0)
    # All descriptors below the limit are in use, so that no file or socket can be opened.
    _set(resource.RLIMIT_NOFILE, KEPT_DESCRIPTORS)


def grant_cpu(seconds: int) -> None:
    """Raise the limit on processor time to `seconds` from now, rounded up. SIGXCPU ends the process at the limit."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    until = int(used.ru_utime + used.ru_stime) + 1 + seconds
    hard = resource.getrlimit(resource.RLIMIT_CPU)[1]
    resource.setrlimit(resource.RLIMIT_CPU, (until if hard == resource.RLIM_INFINITY else min(until, hard), hard))


def _set(which: int, limit: int) -> None:
    """Set the soft and hard limit, no higher than the current hard limit."""
    hard = resource.getrlimit(which)[1]
    limit = limit if hard == resource.RLIM_INFINITY else min(limit, hard)
    resource.setrlimit(which, (limit, limit))


def _address_space() -> int:
    """Bytes."""
    return int(Path("/proc/self/statm").read_text("ascii").split()[0]) * resource.getpagesize()


def _end_with_parent(parent: int) -> None:
    """Have the kernel kill this process when its parent ends, and forbid it to gain privileges."""
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        raise SystemExit("the parent process has ended")
