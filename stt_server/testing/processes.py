"""Services as child processes: their configuration files, ports, ready lines, logs and their end."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from protos.stt.v1.wire import ReadyLine

READY_TIMEOUT_S = 300.0
"""A medium model from a slow disk, on a slow machine."""

STOP_TIMEOUT_S = 20.0
"""Longer than the DRAIN_TIMEOUT_S of the configurations that this writes."""

HOST = "127.0.0.1"


class RunError(Exception):
    """The pair can't be started or has stopped; the message is what the terminal shows."""


@dataclass(frozen=True)
class Ready:
    """What a service's ready line says."""

    grpc: str
    """`host:port`."""
    http: str


def choose_port(wanted: int, say: Callable[[str], None]) -> int:
    """`wanted` if nobody listens there; else 0, which lets the service take a free one."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, wanted))
        except OSError:
            say(f"port {wanted} is taken; taking a free one.")
            return 0
    return wanted


def write_config(path: Path, settings: Mapping[str, str | int | float]) -> None:
    """Writes an .env file that its owner alone may read: there are keys in it."""
    path.touch(mode=0o600)
    path.chmod(0o600)
    lines = [f'{key}="{value}"\n' if " " in str(value) else f"{key}={value}\n" for key, value in settings.items()]
    path.write_text("# Written by buildscripts/run, anew each time.\n" + "".join(lines))


@dataclass
class ServiceProcess:
    """`stt-primary` or `stt-fallback` as a child; its standard output and error go to a log file."""

    name: str
    """The command: `stt-primary` or `stt-fallback`."""
    config: Path
    log: Path
    command: Sequence[str] = ()
    """What to run where it is not the command of that name."""
    environ: Mapping[str, str] = field(default_factory=dict)
    """Over what this process has."""
    _process: asyncio.subprocess.Process | None = None
    _tasks: list[asyncio.Task[None]] = field(default_factory=list)

    @property
    def pid(self) -> int:
        """Of the process, which has been started."""
        assert self._process is not None  # noqa: S101
        return self._process.pid

    async def start(self) -> Ready:
        """Starts it and waits until it serves.

        Raises:
            RunError: it ended, or it did not get ready within `READY_TIMEOUT_S`.
        """
        command = self.command or (str(Path(sys.executable).with_name(self.name)),)
        with self.log.open("wb") as log:
            self._process = await asyncio.create_subprocess_exec(
                *command,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=log,
                env={**os.environ, "CONFIG_PATH": str(self.config), **self.environ},
                start_new_session=True,  # Ctrl-C is ours to pass on: the primary first, then its fallback
            )
        try:
            line = await asyncio.wait_for(self._ready_line(self._process), READY_TIMEOUT_S)
        except asyncio.TimeoutError:
            raise self._error(f"{self.name} was not ready after {READY_TIMEOUT_S:.0f} s") from None
        self._tasks.append(asyncio.create_task(self._keep_output(self._process)))
        ready = ReadyLine.parse(line)
        return Ready(ready.grpc or "", ready.http or "off")

    async def _ready_line(self, process: asyncio.subprocess.Process) -> str:
        assert process.stdout is not None  # noqa: S101
        while line := await process.stdout.readline():
            self._append(line)
            if line.startswith(b"ready "):
                return line.decode().strip()
        raise self._error(f"{self.name} ended with status {await process.wait()} before it was ready")

    async def _keep_output(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdout is not None  # noqa: S101
        while output := await process.stdout.read(1 << 16):
            self._append(output)

    def _append(self, output: bytes) -> None:
        with self.log.open("ab") as log:
            log.write(output)

    def _error(self, what: str) -> RunError:
        tail = self.log.read_text(errors="replace").splitlines()[-12:]
        return RunError("\n".join([f"{what}. The end of {self.log}:", *(f"  {line}" for line in tail)]))

    async def ended(self) -> RunError:
        """Waits until it ends by itself; what to say then."""
        assert self._process is not None  # noqa: S101
        status = await self._process.wait()
        return self._error(f"{self.name} ended with status {status}")

    def send(self, number: signal.Signals) -> None:
        """A signal: SIGHUP, SIGSTOP, SIGCONT, ... One that has ended gets none."""
        assert self._process is not None  # noqa: S101
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(number)

    async def kill(self) -> None:
        """SIGKILL, and waits for its end."""
        assert self._process is not None  # noqa: S101
        self.send(signal.SIGKILL)
        await self._process.wait()
        await asyncio.gather(*self._tasks)

    async def stop(self) -> int:
        """Asks it to finish what is in flight and to end; its exit status. One that takes too long is killed."""
        if self._process is None:
            return 0
        if self._process.returncode is None:
            self.send(signal.SIGTERM)
        try:
            await asyncio.wait_for(self._process.wait(), STOP_TIMEOUT_S)
        except asyncio.TimeoutError:
            self._process.kill()
        await asyncio.gather(*self._tasks)
        return await self._process.wait()
