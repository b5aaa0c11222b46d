"""Services and gateways as real processes, with their configuration files."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import grpc

from protos.stt.v1.wire import ReadyLine
from stt_server.config import Role
from stt_server.testing.paths import ROOT, TINY
from stt_server.testing.processes import HOST, ChildProcess, installed_command
from stt_server.testing.scripted_model import Script

MODEL_KEYS: Mapping[Role, str] = {"primary": "CT2_SMALL_PATH", "fallback": "CT2_MEDIUM_PATH"}
"""Configuration key of the model's folder."""
UNLIMITED = (("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1))
"""gRPC channel options: messages of any size, for tests of the server's own limits."""

_PAGE = os.sysconf("SC_PAGE_SIZE")


def write_config(path: Path, settings: Mapping[str, object]) -> None:
    """Replace an .env file atomically. Only its owner may read it, as it may hold keys."""
    lines = [f'{key}="{value}"\n' if " " in str(value) else f"{key}={value}\n" for key, value in settings.items()]
    scratch = path.with_suffix(".new")
    scratch.touch(mode=0o600)
    scratch.write_text("".join(lines))
    scratch.replace(path)


def make_model_folder(folder: Path) -> Path:
    """Make a folder that the configuration accepts as a model; only a scripted model can be loaded from it."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.bin").touch()
    return folder


class ServiceProcess(ChildProcess):
    """One service of the pair, on free ports of an address.

    Args:
        folder: for all of its files.
        keys: of its .env file, in addition to defaults.
        script: of a scripted model; None: run `TINY`.
        prefix: command to run the service with, such as `ip netns exec NAME`.
        host: address.
    """

    def __init__(
        self,
        service: Role,
        folder: Path,
        keys: Mapping[str, object],
        script: Script | None = None,
        *,
        prefix: tuple[str, ...] = (),
        host: str = HOST,
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.service = service
        self.host = host
        self.folder = folder
        self.script = script
        self.prefix = prefix
        self.config = folder / f"stt_{service}.env"
        self.grpc_port = 0
        """Known once the service is ready."""
        self.http_port = 0
        """0 if HTTP is off."""
        self.wyoming_port = 0
        """0 if the Wyoming protocol is off."""
        module = f"stt_server.{service}" if script is None else "stt_server.testing.scripted_service"
        environ = {"CONFIG_PATH": str(self.config), "PYTHONPATH": str(ROOT), "PATH": os.environ["PATH"]}
        environ["STT_SCRIPT"] = str(folder / "script.json")
        super().__init__(
            f"stt-{service}",
            [*prefix, sys.executable, "-m", module, *([service] if script is not None else [])],
            folder / "stderr.log",
            environ=environ,
            cwd=folder,
        )
        model = TINY if script is None else make_model_folder(folder / f"scripted-{service}")
        self.keys: dict[str, object] = {MODEL_KEYS[service]: model, "HOST": host, "DEVICE": "cpu"}
        self.keys |= {"COMPUTE_TYPE": "int8", "GRPC_PORT": 0, "HTTP_PORT": 0, "RATE_LIMIT_RPS": 0}
        self.keys |= {"DRAIN_TIMEOUT_S": 10}
        self.write_config(**keys)

    def write_config(self, **keys: object) -> None:
        """Change keys of the .env file, now and for later starts."""
        self.keys |= keys
        write_config(self.config, self.keys)

    def act(self, script: Script) -> None:
        """Change the scripted model's behaviour from the next inference on."""
        script.write(self.folder / "script.json")

    def spawn(self) -> None:
        if self.script is not None:
            self.act(self.script)
        super().spawn()

    def wait_ready(self, timeout_s: float = 300.0) -> ReadyLine:
        ready = super().wait_ready(timeout_s)
        assert ready.service == self.service, ready  # noqa: S101
        self.grpc_port = ready.grpc_port
        self.http_port = ready.http_port if ready.http else 0
        self.wyoming_port = ready.wyoming_port if ready.wyoming else 0
        return ready

    def restart(self) -> None:
        """Start again on the same ports."""
        self.write_config(GRPC_PORT=self.grpc_port, HTTP_PORT=self.http_port or "off")
        self.start()

    @property
    def target(self) -> str:
        return f"{self.host}:{self.grpc_port}"

    @property
    def url(self) -> str:
        return f"http://{self.host}:{self.http_port}"

    def channel(self) -> grpc.aio.Channel:
        return grpc.aio.insecure_channel(self.target, options=UNLIMITED)

    def resident_mib(self) -> float:
        """Resident memory without child processes, MiB."""
        return int(Path(f"/proc/{self.pid}/statm").read_text().split()[1]) * _PAGE / 2**20

    def descriptors(self) -> int:
        return sum(1 for _ in Path(f"/proc/{self.pid}/fd").iterdir())

    def threads(self) -> int:
        return sum(1 for _ in Path(f"/proc/{self.pid}/task").iterdir())


def installed_service(service: Role, config: Path, log: Path, **environ: str) -> ChildProcess:
    """`stt-primary` or `stt-fallback` as operators start it: the console script, with this process's environment."""
    name = f"stt-{service}"
    environ = {**os.environ, "CONFIG_PATH": str(config), **environ}
    return ChildProcess(name, [installed_command(name)], log, environ=environ, new_session=True)


class GatewayProcess(ChildProcess):
    """`stt-gateway` in front of a service, on 127.0.0.1.

    Args:
        folder: for its log, `stderr.log`.
        port: 0: a free one, kept for later starts.
    """

    def __init__(self, folder: Path, target: str, arguments: tuple[str, ...] = (), port: int = 0) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.port = port
        self._arguments = ("--target", target, "--host", HOST, *arguments)
        environ = {"PYTHONPATH": str(ROOT), "PATH": os.environ["PATH"]}
        super().__init__("stt-gateway", (), folder / "stderr.log", environ=environ)

    def spawn(self) -> None:
        self.command = (sys.executable, "-m", "gateway", "--port", str(self.port), *self._arguments)
        super().spawn()

    def wait_ready(self, timeout_s: float = 300.0) -> ReadyLine:
        ready = super().wait_ready(timeout_s)
        self.port = ready.http_port
        return ready

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.port}"


@contextmanager
def running(*processes: ChildProcess) -> Iterator[None]:
    """Start processes side by side; kill them at the end, if they still run."""
    try:
        for process in processes:
            process.spawn()
        for process in processes:
            process.wait_ready()
        yield
    finally:
        for process in processes:
            process.kill()
