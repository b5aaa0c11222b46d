"""Deployment of chaos runs: two primaries, a relay to the fallback behind them, and a stand-alone gateway."""

from __future__ import annotations

import asyncio
import os
import random
import secrets
import signal
import socket
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from buildscripts.lib.load.process_usage import PROC, descendants
from buildscripts.lib.load.relay import Relay
from buildscripts.lib.models.pins import ROOT
from stt_server.testing.processes import HOST, ChildProcess
from stt_server.testing.scripted_model import Script
from stt_server.testing.services import make_model_folder, write_config

PORTS = range(20000, 32000)
"""Below the ephemeral ports of Linux: a port must stay free while its service is down."""

UNSURE = "unsure"
"""Word in a request's prompt that makes the primary unsure."""
CHILDREN_EXIT_S = 5.0
"""Time for children to end after their parent, seconds."""

Settings = dict[str, str | int | float]


@dataclass
class Member:
    """One service or gateway, which faults may act on."""

    name: str
    folder: Path
    command: tuple[str, ...]
    settings: Settings
    """Of its .env file; empty for a gateway."""
    grpc_port: int
    http_port: int
    wyoming_port: int = 0
    """0: off."""
    script: Script | None = None
    problems: list[str] = field(default_factory=list)
    """Bad exit statuses, and child processes left behind."""
    starts: int = 0
    _process: ChildProcess | None = None

    @property
    def grpc(self) -> str:
        return f"{HOST}:{self.grpc_port}"

    @property
    def http(self) -> str:
        return f"http://{HOST}:{self.http_port}"

    @property
    def wyoming(self) -> str:
        return f"{HOST}:{self.wyoming_port}"

    @property
    def config(self) -> Path:
        return self.folder / "service.env"

    @property
    def temporary(self) -> Path:
        return self.folder / "tmp"

    @property
    def process(self) -> ChildProcess:
        assert self._process is not None, "start it first"  # noqa: S101
        return self._process

    async def start(self) -> None:
        """Start or restart it on its ports; return when it is ready.

        Raises:
            ProcessError: it does not get ready.
        """
        self.temporary.mkdir(parents=True, exist_ok=True)
        self.write_config()
        self.act(self.script)
        environ = {**os.environ, "CONFIG_PATH": str(self.config), "TMPDIR": str(self.temporary)}
        environ["STT_SCRIPT"] = str(self.folder / "script.json")
        self.starts += 1
        log = self.folder / f"log-{self.starts}"
        self._process = ChildProcess(self.name, self.command, log, environ=environ, new_session=True)
        self._process.spawn()
        await asyncio.to_thread(self._process.wait_ready)

    def write_config(self, **keys: str | int | float) -> None:
        """Write its .env file, with changed keys."""
        self.settings |= keys
        write_config(self.config, self.settings)

    def act(self, script: Script | None) -> None:
        """Change the scripted model's behaviour from the next inference on; no effect on a real model."""
        if script is not None:
            script.write(self.folder / "script.json")

    async def kill(self) -> None:
        """Send SIGKILL and wait."""
        below = descendants(self.process.pid)
        await asyncio.to_thread(self.process.kill)
        await self._note_orphans(below)

    async def wait_exit(self, within: float) -> None:
        """Wait until it ends by itself; status 0 and children left behind count as problems.

        Raises:
            subprocess.TimeoutExpired: it still runs.
        """
        below = descendants(self.process.pid)
        if await asyncio.to_thread(self.process.wait, within) == 0:
            self.problems.append(f"{self.name} ended by itself with status 0")
        await self._note_orphans(below)

    async def stop(self) -> None:
        """Send SIGTERM and wait; a status other than 0 and children left behind count as problems."""
        if self._process is None:
            return
        self.process.send(signal.SIGCONT)
        below = descendants(self.process.pid)
        if status := await asyncio.to_thread(self.process.stop):
            self.problems.append(f"{self.name} ended with status {status} after SIGTERM")
        await self._note_orphans(below)

    async def _note_orphans(self, below: list[int]) -> None:
        loop = asyncio.get_running_loop()
        end = loop.time() + CHILDREN_EXIT_S
        while alive := [pid for pid in below if _runs(pid)]:
            if loop.time() > end:
                self.problems.append(f"{self.name} left {len(alive)} children behind")
                return
            await asyncio.sleep(0.05)


def _runs(pid: int) -> bool:
    """Whether a process exists and is not a zombie."""
    try:
        return (PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@dataclass
class Deployment:
    """All processes, running."""

    a: Member
    """Primary with FALLBACK_ON_ERROR=degrade."""
    b: Member
    """Primary with FALLBACK_ON_ERROR=fail."""
    fallback: Member
    gateway: Member
    """`stt-gateway` in front of `a`."""
    relay: Relay
    """Between the primaries and the fallback."""
    key: str
    """Current key of the callers."""
    scripted: bool

    @property
    def members(self) -> tuple[Member, ...]:
        """In the order of stopping."""
        return self.gateway, self.a, self.b, self.fallback

    @property
    def primaries(self) -> tuple[Member, Member]:
        return self.a, self.b

    def problems(self) -> list[str]:
        """Problems noted when the members were stopped."""
        return [line for member in self.members for line in member.problems]


@asynccontextmanager
async def deployment(folder: Path, scripted: bool) -> AsyncIterator[Deployment]:
    """Start everything in `folder`; stop it at the end of the context."""
    key, between = secrets.token_urlsafe(18), secrets.token_urlsafe(18)
    ports = _free_ports(11)
    fallback = _service("fallback", "fallback", folder, scripted, next(ports), next(ports), API_KEYS=f"pair:{between}")
    relay = Relay(fallback.grpc, next(ports))
    of_primaries: Settings = {
        "API_KEYS": f"load:{key}",
        "WYOMING_API_KEY": key,
        "FALLBACK_URL": f"grpc://{relay.address}",
        "FALLBACK_API_KEY": between,
        "FALLBACK_TIMEOUT_S": 1.5 if scripted else 10,
    }

    def primary(name: str, on_error: str) -> Member:
        settings = {**of_primaries, "WYOMING_PORT": next(ports), "FALLBACK_ON_ERROR": on_error}
        return _service(name, "primary", folder, scripted, next(ports), next(ports), **settings)

    a, b = primary("a", "degrade"), primary("b", "fail")
    port = next(ports)
    command = _beside("stt-gateway"), "--target", a.grpc, "--host", HOST, "--port", str(port), "--log-level", "warning"
    gateway = Member("gateway", folder / "gateway", command, {}, 0, port)
    built = Deployment(a, b, fallback, gateway, relay, key, scripted)
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(relay)
        for member in reversed(built.members):
            stack.push_async_callback(member.stop)
        await fallback.start()
        await asyncio.gather(a.start(), b.start())
        await gateway.start()
        yield built


def _service(
    name: str, service: str, folder: Path, scripted: bool, grpc_port: int, http_port: int, **keys: str | int | float
) -> Member:
    own = folder / name
    own.mkdir(parents=True)
    path_key = "CT2_SMALL_PATH" if service == "primary" else "CT2_MEDIUM_PATH"
    model = ROOT / "models" / ("whisper-tiny.en-ct2" if service == "primary" else "whisper-base-ct2")
    command: tuple[str, ...] = (_beside(f"stt-{service}"),)
    script = None
    if scripted:
        model = make_model_folder(own / "model")
        command = (sys.executable, "-m", "stt_server.testing.scripted_service", service)
        script = Script(seconds=0.01, text=f"the {service} says", unsure_of=UNSURE)
    settings: Settings = {path_key: str(model), "HOST": HOST, "DEVICE": "cpu", "COMPUTE_TYPE": "int8"}
    settings |= {"GRPC_PORT": grpc_port, "HTTP_PORT": http_port, "RATE_LIMIT_RPS": 0, "DRAIN_TIMEOUT_S": 10}
    settings |= {"LOG_LEVEL": "warning", "MAX_UPLOAD_MB": 2, **keys}
    return Member(name, own, command, settings, grpc_port, http_port, int(keys.get("WYOMING_PORT", 0)), script)


def _beside(command: str) -> str:
    """A console script of this virtual environment."""
    return str(Path(sys.executable).with_name(command))


def _free_ports(count: int) -> Iterator[int]:
    found: list[int] = []
    for port in random.SystemRandom().sample(PORTS, len(PORTS)):
        with socket.socket() as probe:
            try:
                probe.bind((HOST, port))
            except OSError:
                continue
        found.append(port)
        if len(found) == count:
            break
    return iter(found)
