"""One decoding child as its service sees it: started, sent a file, read from, ended."""

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
from typing import Literal

from stt_server.audio.formats import SAMPLE_RATE
from stt_server.audio.mono import FloatArray, Recording, most_samples
from stt_server.audio.sandbox import messages
from stt_server.errors import SttError

ExitReason = Literal["killed", "memory", "cpu", "time", "abandoned", "crashed"]
EXIT_REASONS: tuple[ExitReason, ...] = ("killed", "memory", "cpu", "time", "abandoned", "crashed")
"""Why children die before their time."""

_MEBIBYTE = 1 << 20
_PIPE_BYTES = _MEBIBYTE
"""Asked for, so that a usual recording takes few turns; Linux gives 64 KiB by default."""

_LONGEST_MESSAGE = 16 * _MEBIBYTE
"""Of a child's; a block of samples has some hundred KiB."""

_LAST_WORDS_S = 5.0
"""From the end of its input to its own."""

_EXITS: dict[int, ExitReason] = {
    messages.OUT_OF_MEMORY: "memory",
    -signal.SIGXCPU: "cpu",
    -signal.SIGKILL: "killed",
    -signal.SIGTERM: "killed",
}


@dataclass(frozen=True)
class DecodeLimits:
    """What one file may cost a child."""

    max_seconds: float
    """Of audio."""
    max_bytes: int
    """Of the file."""

    @property
    def extra_memory(self) -> int:
        """Bytes of address space beyond what the bare child has: the file twice, some for codecs, and the index that an
        MP4 of the longest recording has; samples are handed on as they come."""
        return 4 * self.max_bytes + int(self.max_seconds * 16 * 1024) + 64 * _MEBIBYTE

    @property
    def cpu_seconds(self) -> int:
        """About five times what an hour of eight channels at 192 kHz takes here, the slowest there is."""
        return 10 + int(self.max_seconds / 60)

    @property
    def wall_seconds(self) -> float:
        """Of a machine that has other things to do."""
        return 3.0 * self.cpu_seconds


class WorkerDied(Exception):
    """The child is no more, or of no more use."""

    def __init__(self, death: ExitReason) -> None:
        super().__init__(death)
        self.death = death


class FileRejected(Exception):
    """The child works on; the file was no good."""

    def __init__(self, error: SttError, frames: list[str]) -> None:
        super().__init__(error.type)
        self.error = error
        self.frames = frames
        """Where in the code an unexpected error came from."""


class Worker:
    """A child, ready for files. Blocks: used from one thread, but for `kill`."""

    def __init__(self, bounds: DecodeLimits) -> None:
        """Starts it.

        The thread that makes it must outlive it: Linux ends a child with the thread that started it.

        Raises:
            OSError: it can't be started.
        """
        self._bounds = bounds
        self._death: ExitReason | None = None
        self._lock = threading.Lock()
        self.files = 0
        """Decoded so far."""
        numbers = (bounds.max_seconds, bounds.max_bytes, bounds.extra_memory, bounds.cpu_seconds, os.getpid())
        # Its working directory is gone once it is ready: there is nothing in it, and nothing can be put there.
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
            assert self._process.stdin and self._process.stdout  # noqa: S101  for the type checker
            self._in, self._out = self._process.stdin, self._process.stdout
            self._wait_until_ready()
        for pipe in (self._in, self._out):
            _widen(pipe.fileno())
        self._bare_memory = self._memory()

    def _wait_until_ready(self) -> None:
        try:
            if messages.receive(self._out.fileno(), 0)[0] == messages.READY:
                return
        except (EOFError, ValueError):
            pass
        self.kill("crashed")
        raise OSError(f"a decoding child can't be started; it ended with status {self.end()}")

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    @property
    def grown(self) -> int:
        """Bytes of memory in use beyond those at its start; 0 where the system doesn't tell."""
        return self._memory() - self._bare_memory

    def decode(self, data: bytes) -> FloatArray:
        """Raises: FileRejected; WorkerDied, and then the child is to be ended."""
        self.files += 1
        try:
            messages.send(self._in.fileno(), messages.FILE, memoryview(data))
            return self._read_answer()
        except (OSError, EOFError):
            raise WorkerDied(self.end()) from None
        except ValueError:  # nothing of ours talks like that
            self.kill("crashed")
            raise WorkerDied(self.end()) from None

    def _read_answer(self) -> FloatArray:
        recording = Recording()
        left = most_samples(self._bounds.max_seconds) + SAMPLE_RATE
        while True:
            kind, content = messages.receive(self._out.fileno(), _LONGEST_MESSAGE)
            if kind == messages.SAMPLES:
                left -= len(content) // 4
                if left < 0 or len(content) % 4:
                    raise ValueError("no recording is like that")
                recording.add_bytes(content)
            elif kind == messages.DONE:
                return recording.samples()
            elif kind == messages.REFUSED:
                raise FileRejected(*messages.unpack_error(content))
            else:
                raise ValueError("no message of ours")

    def kill(self, death: ExitReason) -> None:
        """From any thread; `death` is what is said to have been the cause, if none was before."""
        with self._lock:
            self._death = self._death or death
        self._process.kill()

    def end(self) -> ExitReason:
        """Makes sure that it is gone; what it died of, if that wasn't this call."""
        with contextlib.suppress(OSError):
            self._in.close()
        self._out.close()
        try:
            status = self._process.wait(_LAST_WORDS_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            status = self._process.wait()
        return self._death or _EXITS.get(status, "crashed")

    def _memory(self) -> int:
        """Bytes resident."""
        try:
            pages = Path(f"/proc/{self.pid}/statm").read_text("ascii").split()[1]
        except OSError:
            return 0
        return int(pages) * os.sysconf("SC_PAGESIZE")


def _environment() -> dict[str, str]:
    """What a child's interpreter needs to find its modules, and nothing else of what this process knows."""
    kept = {name: os.environ[name] for name in ("LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH") if name in os.environ}
    # One thread of the maths library: each reserves address space, and there is nothing to compute in parallel.
    return {
        **kept,
        "PYTHONPATH": os.pathsep.join(str(Path(entry).absolute()) for entry in sys.path),
        "OPENBLAS_NUM_THREADS": "1",
    }


def _widen(descriptor: int) -> None:
    """A pipe; as it is, where the system has no wider ones or gives this user none."""
    if hasattr(fcntl, "F_SETPIPE_SZ"):
        with contextlib.suppress(OSError):
            fcntl.fcntl(descriptor, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
