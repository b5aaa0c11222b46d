"""The service's handle on one decoder child process: starts it, sends it files, receives samples, ends it."""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import subprocess
import sys
import tempfile
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Literal, cast

from stt_server.audio.channels import ChannelBuffer
from stt_server.audio.formats import MAX_CHANNELS, SAMPLE_RATE
from stt_server.audio.mono import FloatArray, most_samples
from stt_server.audio.sandbox import messages
from stt_server.errors import SttError

ExitReason = Literal["killed", "memory", "cpu", "time", "abandoned", "crashed"]
EXIT_REASONS: tuple[ExitReason, ...] = ("killed", "memory", "cpu", "time", "abandoned", "crashed")
"""Why child processes end unexpectedly. Labels of a metric."""

_MEBIBYTE = 1 << 20
_PIPE_BYTES = _MEBIBYTE
"""Requested pipe capacity, so that a usual recording needs few writes. Linux's default is 64 KiB."""

_MAX_MESSAGE = 16 * _MEBIBYTE
"""Largest message accepted from a child; a block of samples has a few hundred KiB."""

_EXIT_TIMEOUT_S = 5.0
"""Seconds that a child has to exit after its input has been closed."""

_EXITS: dict[int, ExitReason] = {
    messages.OUT_OF_MEMORY: "memory",
    -signal.SIGXCPU: "cpu",
    -signal.SIGKILL: "killed",
    -signal.SIGTERM: "killed",
}


@dataclass(frozen=True)
class DecodeLimits:
    """Resources that decoding one file may take."""

    max_seconds: float
    """Seconds of audio."""
    max_bytes: int
    """Size of the file."""

    @property
    def extra_memory(self) -> int:
        """Bytes of address space beyond those of the idle child.

        Covers the file twice, codecs, and the index of an MP4 of the longest recording. Samples are streamed.
        """
        return 4 * self.max_bytes + int(self.max_seconds * 16 * 1024) + 64 * _MEBIBYTE

    @property
    def cpu_seconds(self) -> int:
        """About five times what the slowest input takes, which is eight channels at 192 kHz."""
        return 10 + int(self.max_seconds / 60)

    @property
    def wall_seconds(self) -> float:
        """Longer than the processor time, since the machine is shared with other work."""
        return 3.0 * self.cpu_seconds


class WorkerDied(Exception):
    """The child process has ended or is unusable."""

    def __init__(self, reason: ExitReason) -> None:
        super().__init__(reason)
        self.reason = reason


class FileRejected(Exception):
    """The file can't be decoded; the child process is still usable."""

    def __init__(self, error: SttError, frames: list[str]) -> None:
        super().__init__(error.type)
        self.error = error
        self.frames = frames
        """Stack of an unexpected error."""


class Worker:
    """A child process that is ready for files. Blocking; for use from one thread, except `kill`."""

    def __init__(self, limits: DecodeLimits) -> None:
        """Start the process and wait until it is ready.

        The calling thread must outlive the process: Linux kills a child when the thread that started it ends.

        Raises:
            OSError: it can't be started.
        """
        self._limits = limits
        self._reason: ExitReason | None = None
        self._lock = threading.Lock()
        self.files = 0
        """Number of files decoded so far."""
        numbers = (limits.max_seconds, limits.max_bytes, limits.extra_memory, limits.cpu_seconds, os.getpid())
        # The working directory is deleted once the child is ready: it is empty, and nothing can be created in it.
        with tempfile.TemporaryDirectory(prefix="stt-decode-") as folder:
            self._process = subprocess.Popen(  # noqa: S603
                [sys.executable, "-s", "-m", "stt_server.audio.sandbox.child", *map(str, numbers)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                bufsize=0,
                cwd=folder,
                env=_environment(),
            )
            self._in = cast(IO[bytes], self._process.stdin)
            self._out = cast(IO[bytes], self._process.stdout)
            self._wait_until_ready()
        for pipe in (self._in, self._out):
            _widen(pipe.fileno())
        self._idle_memory = self._resident_memory()

    def _wait_until_ready(self) -> None:
        try:
            if messages.receive(self._out.fileno(), 0)[0] == messages.READY:
                return
        except (EOFError, ValueError):
            pass
        self.kill("crashed")
        raise OSError(f"a decoder process failed to start ({self.close()})")

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    @property
    def memory_growth(self) -> int:
        """Bytes of resident memory beyond those at the start; 0 if the system doesn't report them."""
        return self._resident_memory() - self._idle_memory

    def decode(self, data: bytes, *, separate_channels: bool = False) -> list[FloatArray]:
        """Decode a file to float32 at 16 kHz: all channels mixed into one, or each by itself.

        Raises:
            FileRejected: the file can't be decoded.
            WorkerDied: the process ended or broke the protocol. It is closed then.
        """
        self.files += 1
        try:
            kind = messages.SEPARATE if separate_channels else messages.FILE
            messages.send(self._in.fileno(), kind, memoryview(data))
            return self._receive_samples()
        except (OSError, EOFError):
            raise WorkerDied(self.close()) from None
        except ValueError:  # a message that our code doesn't send
            self.kill("crashed")
            raise WorkerDied(self.close()) from None

    def _receive_samples(self) -> list[FloatArray]:
        buffer = ChannelBuffer()
        left = [most_samples(self._limits.max_seconds) + SAMPLE_RATE] * MAX_CHANNELS
        channel = 0
        while True:
            kind, content = messages.receive(self._out.fileno(), _MAX_MESSAGE)
            if kind == messages.SAMPLES:
                left[channel] -= len(content) // 4
                if left[channel] < 0 or len(content) % 4:
                    raise ValueError("too many samples, or a part of one")
                buffer.add_bytes(channel, content)
            elif kind == messages.CHANNEL:
                (channel,) = content
                if channel >= MAX_CHANNELS:
                    raise ValueError(f"no such channel: {channel}")
            elif kind == messages.DONE:
                return buffer.channels()
            elif kind == messages.REJECTED:
                raise FileRejected(*messages.unpack_error(content))
            else:
                raise ValueError(f"unexpected message kind {kind}")

    def kill(self, reason: ExitReason) -> None:
        """Kill the process, with the reason to report unless there is one already. Thread-safe."""
        with self._lock:
            self._reason = self._reason or reason
        self._process.kill()

    def close(self) -> ExitReason:
        """End the process and wait for it. Returns why it ended, if it wasn't by this call."""
        with contextlib.suppress(OSError):
            self._in.close()
        self._out.close()
        try:
            status = self._process.wait(_EXIT_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            status = self._process.wait()
        return self._reason or _EXITS.get(status, "crashed")

    def _resident_memory(self) -> int:
        """Bytes."""
        try:
            pages = Path(f"/proc/{self.pid}/statm").read_text("ascii").split()[1]
        except OSError:
            return 0
        return int(pages) * os.sysconf("SC_PAGESIZE")


def _environment() -> dict[str, str]:
    """The variables that a child's interpreter needs to find its modules, and no others."""
    kept = {name: os.environ[name] for name in ("LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH") if name in os.environ}
    # One thread for the maths library: each reserves address space, and nothing runs in parallel.
    return {
        **kept,
        "PYTHONPATH": os.pathsep.join(str(Path(entry).absolute()) for entry in sys.path),
        "OPENBLAS_NUM_THREADS": "1",
    }


def _widen(descriptor: int) -> None:
    """Enlarge a pipe, where the system supports and permits it."""
    if hasattr(fcntl, "F_SETPIPE_SZ"):
        with contextlib.suppress(OSError):
            fcntl.fcntl(descriptor, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
