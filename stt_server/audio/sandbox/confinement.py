"""What a process gives up for good before it reads a stranger's file.

Nothing here needs privileges, and nothing can be taken back by who got hold of the process afterwards, but for the
limit on CPU time, which moves with each task: the parent's clock stands behind that.
"""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import sys
from pathlib import Path

from stt_server.audio.sandbox.seccomp import forbid_calls

_PR_SET_PDEATHSIG = 1
_PR_SET_NO_NEW_PRIVS = 38
"""Of Linux's prctl."""

KEPT_DESCRIPTORS = 3
"""Standard input, output and error."""


def shut_in(extra_memory: int, parent: int) -> None:
    """From here on this process opens no file and no socket, writes no file, starts nothing, and ends with `parent`.

    Args:
        extra_memory: bytes of address space that it may take beyond what it has.
        parent: its process id.
    """
    limit(extra_memory, parent)
    if sys.platform == "linux":
        forbid_calls()


def limit(extra_memory: int, parent: int) -> None:
    """What of `shut_in` every system can do."""
    # A terminal's Ctrl-C goes to the whole group; what the service has accepted is decoded to its end.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if sys.platform == "linux":
        _end_with(parent)
        _set(resource.RLIMIT_AS, _address_space() + extra_memory)
        _set(resource.RLIMIT_NPROC, 0)
    _set(resource.RLIMIT_CORE, 0)
    _set(resource.RLIMIT_FSIZE, 0)
    # Every descriptor below the limit is in use: none is left for a file or a socket.
    _set(resource.RLIMIT_NOFILE, KEPT_DESCRIPTORS)


def allow_cpu(seconds: int) -> None:
    """Lets this process compute for so much longer, rounded up to whole seconds; then SIGXCPU ends it."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    until = int(used.ru_utime + used.ru_stime) + 1 + seconds
    hard = resource.getrlimit(resource.RLIMIT_CPU)[1]
    resource.setrlimit(resource.RLIMIT_CPU, (until if hard == resource.RLIM_INFINITY else min(until, hard), hard))


def _set(which: int, limit: int) -> None:
    """Both limits, or what an even lower hard limit leaves."""
    hard = resource.getrlimit(which)[1]
    limit = limit if hard == resource.RLIM_INFINITY else min(limit, hard)
    resource.setrlimit(which, (limit, limit))


def _address_space() -> int:
    """Bytes."""
    return int(Path("/proc/self/statm").read_text("ascii").split()[0]) * resource.getpagesize()


def _end_with(parent: int) -> None:
    """Ends this process when `parent` does, however that ends, and never lets it gain privileges."""
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        raise SystemExit("the parent has gone")
