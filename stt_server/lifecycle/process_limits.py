"""What a service's process asks of its machine, and the bound on how long it stays there."""

from __future__ import annotations

import contextlib
import os
import resource
import socket
import sys
import tempfile
import threading
from pathlib import Path

ENOUGH_FILES = 256
"""Open files that a service can start with; each connection takes one besides."""

MOST_FILES = 65536
"""More are not asked for: 32 live streams and a full queue take some hundreds."""


def prepare() -> None:
    """Leaves no memory behind in a core dump, and takes as many open files as the machine allows.

    Raises:
        OSError: it allows too few, or no temporary folder.
    """
    # Keys, recordings and texts are in memory; nobody expects them in a file of the working directory.
    _, most = resource.getrlimit(resource.RLIMIT_CORE)
    resource.setrlimit(resource.RLIMIT_CORE, (0, most))
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    allowed = MOST_FILES if hard == resource.RLIM_INFINITY else min(hard, MOST_FILES)
    if allowed < ENOUGH_FILES:
        raise OSError(f"only {allowed} files may be open, and {ENOUGH_FILES} are needed: raise `ulimit -n`")
    if soft != resource.RLIM_INFINITY and soft < allowed:
        with contextlib.suppress(ValueError):  # macOS has a limit of its own, below the one that it tells
            resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
    try:
        tempfile.gettempdir()  # it tries to write there
    except OSError as error:
        said = f"no temporary folder can be written to, and TMPDIR names none: {error.strerror}"
        raise OSError(said) from error


def why_not_listen(host: str, port: int) -> str:
    """Why nobody can listen there now; empty where somebody can.

    gRPC itself tells only that it can't, and writes a line of its own to standard error.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except OSError as error:
        return error.strerror or str(error)
    reasons = [_why_not_bind(family, address) for family, _, _, _, address in found]
    return "" if "" in reasons else reasons[0]


def why_not_listen_at(path: Path) -> str:
    """The same of a Unix socket."""
    reason = _why_not_bind(socket.AF_UNIX, str(path))
    path.unlink(missing_ok=True)
    return reason


def _why_not_bind(family: int, address: tuple[object, ...] | str) -> str:
    try:
        with socket.socket(family, socket.SOCK_STREAM) as listener:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
    except OSError as error:
        return error.strerror or str(error)
    return ""


def end_within(seconds: float, status: int) -> None:
    """Ends the process after `seconds`, whatever still runs in it.

    A model that loads and an inference that hangs can't be interrupted, and Python waits for their threads at its end.
    """
    timer = threading.Timer(seconds, os._exit, (status,))
    timer.daemon = True
    timer.start()


def let_go_of_output() -> None:
    """Drops what standard output and error do not take: Python would end with 120 over it, whatever the status."""
    for stream in (sys.stdout, sys.stderr):
        if stream is None:
            continue
        try:
            stream.flush()
        except OSError:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, stream.fileno())
            os.close(nowhere)
