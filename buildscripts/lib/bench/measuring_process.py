"""A process of its own for what a benchmark measures, so that two engines share neither memory nor settings.

Imports little: the environment must be right before the engine's libraries are loaded.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import signal
from collections.abc import Callable, Iterable
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING, Any

from stt_server.lifecycle.cpu_libraries import configure_cpu_libraries, set_here
from stt_server.testing.processes import ProcessError

if TYPE_CHECKING:
    from buildscripts.lib.load.closed_loop import Measurement

Serve = Callable[..., Any]
"""Function at the top of a module: `serve(pipe, *arguments)`. It reads orders and sends a Measurement for each, until
it reads None."""


class MeasuringProcess:
    """Process that measures on request, as an async context manager.

    Args:
        serve: what it runs; pickled, as its arguments are.
        configured: use the CPU as the services do; else as any Python program does.
    """

    def __init__(self, serve: Serve, *arguments: object, configured: bool = True) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, self._theirs = context.Pipe()
        self._work = (serve, arguments)
        removed = () if configured else tuple(set_here)
        self._process = context.Process(target=_run, args=(self._theirs, configured, removed), daemon=True)

    async def __aenter__(self) -> MeasuringProcess:
        self._process.start()
        self._theirs.close()
        self._pipe.send(self._work)
        return self

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None:
            self._process.kill()
        elif self._process.is_alive():
            self._pipe.send(None)
        await asyncio.get_running_loop().run_in_executor(None, self._process.join)

    async def measure(self, *order: object) -> Measurement:
        """
        Raises:
            ProcessError: the process has ended.
        """
        try:
            self._pipe.send(order)
            found: Measurement = await asyncio.get_running_loop().run_in_executor(None, self._pipe.recv)
        except (EOFError, OSError):
            raise ProcessError("the engine's process ended; see its messages above") from None
        return found


def _run(pipe: Connection, configured: bool, removed: Iterable[str]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent handles Ctrl-C and ends this process
    for name in removed:
        os.environ.pop(name, None)
    if configured:
        configure_cpu_libraries()
    serve, arguments = pipe.recv()  # imports the engine
    serve(pipe, *arguments)
