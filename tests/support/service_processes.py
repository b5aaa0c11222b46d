"""Services as real processes: started, looked into, stopped, killed."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import grpc

from protos.stt.v1.wire import ReadyLine
from stt_server.config import Role
from stt_server.testing.scripted_service import Script
from tests.support.services import LARGE, MODELS, ROOT

TINY = MODELS / "whisper-tiny.en-ct2"
PATH_KEY = {"primary": "CT2_SMALL_PATH", "fallback": "CT2_MEDIUM_PATH"}
_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")


@dataclass
class ServiceProcess:
    """One service of the pair, with a real model or a scripted one. `folder` holds all of its files."""

    service: Role
    folder: Path
    keys: dict[str, object]
    """Of its .env file, over the defaults of `config_text`."""
    script: Script | None = None
    """None: the smallest starter model."""
    prefix: tuple[str, ...] = ()
    """A command that runs it, such as `ip netns exec NAME`."""
    grpc_port: int = 0
    http_port: int = 0
    _process: subprocess.Popen[str] | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.config = self.folder / f"stt_{self.service}.env"
        self.log = self.folder / "stderr.log"
        self.write_config(**self.keys)

    def write_config(self, **keys: object) -> None:
        """Replaces the .env file in one step; `keys` over those of the start."""
        self.keys = self.keys | keys
        scratch = self.config.with_suffix(".new")
        scratch.write_text(self._config_text())
        scratch.replace(self.config)

    def _config_text(self) -> str:
        model = TINY
        if self.script is not None:
            model = self.folder / f"scripted-{self.service}"
            model.mkdir(exist_ok=True)
            (model / "model.bin").touch()
        values: dict[str, object] = {PATH_KEY[self.service]: model, "HOST": "127.0.0.1", "DEVICE": "cpu"}
        values |= {"COMPUTE_TYPE": "int8", "GRPC_PORT": 0, "HTTP_PORT": 0, "RATE_LIMIT_RPS": 0, "DRAIN_TIMEOUT_S": 10}
        return "".join(f"{name}={value}\n" for name, value in (values | self.keys).items())

    def act(self, script: Script) -> None:
        """From the next inference on the scripted model does this."""
        script.write(self.folder / "script.json")

    def spawn(self) -> None:
        """Starts it and doesn't wait; its standard error is added to `log`."""
        command = [sys.executable, "-m", f"stt_server.{self.service}"]
        environ = {"CONFIG_PATH": str(self.config), "PYTHONPATH": str(ROOT), "PATH": os.environ["PATH"]}
        if self.script is not None:
            self.act(self.script)
            command = [sys.executable, "-m", "stt_server.testing.scripted_service", self.service]
            environ["STT_SCRIPT"] = str(self.folder / "script.json")
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [*self.prefix, *command],
                env=environ,
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )

    def wait_ready(self) -> None:
        """Reads its ready line; fails with the end of its log where it ends instead."""
        assert self._process is not None
        assert self._process.stdout is not None
        line = self._process.stdout.readline().rstrip()
        try:
            ready = ReadyLine.parse(line)
        except ValueError as error:
            raise AssertionError(f"{error}; the log ends with:\n{self.log.read_text()[-2000:]}") from None
        assert ready.service == self.service
        self.grpc_port, self.http_port = ready.grpc_port, ready.http_port if ready.http else 0

    def start(self) -> ServiceProcess:
        self.spawn()
        self.wait_ready()
        return self

    def restart(self) -> None:
        """Starts it again, on the ports that it had."""
        self.write_config(GRPC_PORT=self.grpc_port, HTTP_PORT=self.http_port or "off")
        self.start()

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether it was started and has not ended."""
        return self._process is not None and self._process.poll() is None

    @property
    def target(self) -> str:
        return f"127.0.0.1:{self.grpc_port}"

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.http_port}"

    def channel(self) -> grpc.aio.Channel:
        return grpc.aio.insecure_channel(self.target, options=LARGE)

    def send(self, number: signal.Signals) -> None:
        """A signal: SIGTERM, SIGHUP, SIGSTOP, SIGCONT, ..."""
        assert self._process is not None
        self._process.send_signal(number)

    def wait(self, timeout_s: float = 60) -> int:
        """Its exit status, once it has ended."""
        assert self._process is not None
        return self._process.wait(timeout_s)

    def kill(self) -> None:
        """SIGKILL, and waits for its end. A process that has ended, or was never started, is left."""
        if self._process is None:
            return
        self._process.kill()
        self._process.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()

    def stop(self, timeout_s: float = 60) -> int:
        """SIGTERM; its exit status."""
        self.send(signal.SIGTERM)
        return self.wait(timeout_s)

    def log_text(self) -> str:
        return self.log.read_text(errors="replace")

    def children(self) -> list[int]:
        """Processes that it has started."""
        found = Path(f"/proc/{self.pid}/task").glob("*/children")
        return [int(pid) for file in found for pid in file.read_text().split()]

    def resident_mib(self) -> float:
        """Of the process alone, MiB."""
        return int(Path(f"/proc/{self.pid}/statm").read_text().split()[1]) * _PAGE / 2**20

    def cpu_seconds(self) -> float:
        """Spent by the process and its children, those that still run included."""
        total = 0.0
        for pid in (self.pid, *self.children()):
            try:
                fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            except FileNotFoundError:
                continue
            total += sum(map(int, fields[11:15] if pid == self.pid else fields[11:13])) / _TICKS
        return total

    def descriptors(self) -> int:
        return sum(1 for _ in Path(f"/proc/{self.pid}/fd").iterdir())

    def threads(self) -> int:
        return sum(1 for _ in Path(f"/proc/{self.pid}/task").iterdir())


def free_port() -> int:
    """A port of 127.0.0.1 that nobody has, for who must know it before it is listened on."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


@contextmanager
def running(*processes: ServiceProcess) -> Iterator[None]:
    """Starts services side by side; they are killed at the end, if they still run."""
    try:
        for process in processes:
            process.spawn()
        for process in processes:
            process.wait_ready()
        yield
    finally:
        for process in processes:
            process.kill()
