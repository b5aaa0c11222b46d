"""Launcher of child processes that print a ready line: services and gateways."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from pathlib import Path

from protos.stt.v1.wire import ReadyLine

HOST = "127.0.0.1"
READY_TIMEOUT_S = 300.0
"""Long enough for a medium model from a slow disk on a slow machine."""
STOP_TIMEOUT_S = 60.0
"""Longer than DRAIN_TIMEOUT_S in the configurations of tests and buildscripts."""
_LOG_TAIL_LINES = 12


class ProcessError(Exception):
    """A child process did not get ready, or ended. The message has the last lines of its log."""


class ChildProcess:
    """A command as a child process: waits for its ready line, and appends its standard error to a log file.

    Methods block; a caller in an event loop wraps those that take long in `asyncio.to_thread`.

    Args:
        name: for messages.
        log: receives standard error.
        environ: all of the environment; None: inherited.
        cwd: None: inherited.
        new_session: keep Ctrl-C in the terminal from reaching the process.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        log: Path,
        *,
        environ: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        new_session: bool = False,
    ) -> None:
        self.name = name
        self.command = tuple(command)
        self.log = log
        self.environ = environ
        self.cwd = cwd
        self.new_session = new_session
        self.output: list[str] = []
        """Lines of standard output since the last start."""
        self._process: subprocess.Popen[bytes] | None = None
        self._reader: threading.Thread | None = None
        self._ready: Future[ReadyLine] = Future()

    def start(self) -> ReadyLine:
        """Start the process and wait until it is ready.

        Raises:
            ProcessError: it ended first, or did not get ready in time.
        """
        self.spawn()
        return self.wait_ready()

    def spawn(self) -> None:
        """Start the process without waiting for its ready line."""
        self.output = []
        self._ready = Future()
        with self.log.open("ab") as log:
            process = subprocess.Popen(  # noqa: S603
                self.command,
                env=self.environ,
                cwd=self.cwd,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                start_new_session=self.new_session,
            )
        self._process = process
        self._reader = threading.Thread(target=self._read_output, args=(process, self._ready), daemon=True)
        self._reader.start()

    def _read_output(self, process: subprocess.Popen[bytes], ready: Future[ReadyLine]) -> None:
        """Read standard output until its end; runs in a thread."""
        assert process.stdout is not None  # noqa: S101
        with process.stdout:
            for line in process.stdout:
                self.output.append(line.decode(errors="replace").rstrip("\n"))
                with contextlib.suppress(ValueError):  # any other line, such as one of a wrapper command
                    if not ready.done():
                        ready.set_result(ReadyLine.parse(self.output[-1]))
        if not ready.done():
            ready.set_exception(self.failure(f"ended with status {process.wait()} before it was ready"))

    def wait_ready(self, timeout_s: float = READY_TIMEOUT_S) -> ReadyLine:
        """Wait for the ready line on standard output.

        Raises:
            ProcessError: the process ended first, or the timeout is over.
        """
        try:
            return self._ready.result(timeout_s)
        except FutureTimeoutError:
            raise self.failure(f"was not ready after {timeout_s:.0f} s") from None

    def failure(self, what: str) -> ProcessError:
        """Error about this process, with the end of its log."""
        tail = self.log_text().splitlines()[-_LOG_TAIL_LINES:]
        return ProcessError("\n".join([f"{self.name} {what}. Last lines of {self.log}:", *(f"  {t}" for t in tail)]))

    @property
    def pid(self) -> int:
        return self._started().pid

    @property
    def running(self) -> bool:
        """Whether the process was started and has not ended."""
        return self._process is not None and self._process.poll() is None

    def send(self, number: signal.Signals) -> None:
        """Send a signal; ignored if the process has ended."""
        with contextlib.suppress(ProcessLookupError):
            self._started().send_signal(number)

    def wait(self, timeout_s: float | None = STOP_TIMEOUT_S) -> int:
        """Wait for the end of the process; return its exit status.

        Raises:
            subprocess.TimeoutExpired: it still runs.
        """
        status = self._started().wait(timeout_s)
        self._join_reader()
        return status

    def stop(self, timeout_s: float = STOP_TIMEOUT_S) -> int:
        """Send SIGTERM and wait; return the exit status. Sends SIGKILL after `timeout_s`.

        Returns 0 if the process was never started.
        """
        if self._process is None:
            return 0
        self.send(signal.SIGTERM)
        try:
            return self.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self.kill()
            return self.wait()

    def ended(self) -> ProcessError:
        """Wait, however long, until the process ends by itself; return the error to raise."""
        return self.failure(f"ended with status {self.wait(None)}")

    def kill(self) -> None:
        """Send SIGKILL and wait. Does nothing if the process has ended or was never started."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._join_reader()

    def children(self) -> list[int]:
        """Process ids of its child processes."""
        found = Path(f"/proc/{self.pid}/task").glob("*/children")
        return [int(pid) for file in found for pid in file.read_text().split()]

    def cpu_seconds(self) -> float:
        """Processor time of the process and its child processes, running ones included."""
        total = 0.0
        for pid in (self.pid, *self.children()):
            try:
                fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            except FileNotFoundError:
                continue
            total += sum(map(int, fields[11:15] if pid == self.pid else fields[11:13])) / os.sysconf("SC_CLK_TCK")
        return total

    def log_text(self) -> str:
        return self.log.read_text(errors="replace")

    def _started(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            raise RuntimeError(f"{self.name} has not been started")
        return self._process

    def _join_reader(self) -> None:
        # Descendants that outlive the process by a moment hold its standard output open.
        if self._reader is not None:
            self._reader.join(timeout=5)


def installed_command(name: str) -> str:
    """Path of a console script of this virtual environment, such as `stt-primary`."""
    return str(Path(sys.executable).with_name(name))


def free_port() -> int:
    """A free TCP port of 127.0.0.1, for a server whose port must be known before it listens."""
    with socket.socket() as taken:
        taken.bind((HOST, 0))
        return int(taken.getsockname()[1])
