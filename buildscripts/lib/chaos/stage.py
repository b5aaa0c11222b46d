"""What chaos is brought upon: two primaries, a relay to the fallback behind it, and a gateway of its own."""

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
"""Below those that Linux gives to outgoing connections: a port must not be taken while its service is down."""

UNSURE = "unsure"
"""In a request's prompt: the primary is to doubt itself."""
GONE_S = 5.0
"""After the end of a process, for its children to end."""

Settings = dict[str, str | int | float]


@dataclass
class Member:
    """One service or gateway, which can be harmed."""

    name: str
    folder: Path
    command: tuple[str, ...]
    settings: Settings
    """Of its .env file; a gateway has none."""
    grpc_port: int
    http_port: int
    script: Script | None = None
    leftovers: list[str] = field(default_factory=list)
    """What it left behind when it ended."""
    starts: int = 0
    _process: ChildProcess | None = None

    @property
    def grpc(self) -> str:
        return f"{HOST}:{self.grpc_port}"

    @property
    def http(self) -> str:
        return f"http://{HOST}:{self.http_port}"

    @property
    def config(self) -> Path:
        return self.folder / "service.env"

    @property
    def temporary(self) -> Path:
        return self.folder / "tmp"

    @property
    def process(self) -> ChildProcess:
        assert self._process is not None, "started first"  # noqa: S101
        return self._process

    async def start(self) -> None:
        """Starts it, or starts it again, on the same ports; returns when it is ready.

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
        """Writes its .env file, with other values for some keys from now on."""
        self.settings |= keys
        write_config(self.config, self.settings)

    def act(self, script: Script | None) -> None:
        """From the next inference on its model does this. Nothing where the model is a real one."""
        if script is not None:
            script.write(self.folder / "script.json")

    async def kill(self) -> None:
        """SIGKILL."""
        below = descendants(self.process.pid)
        await asyncio.to_thread(self.process.kill)
        await self._note_orphans(below)

    async def ends_by_itself(self, within: float) -> None:
        """Returns once it has: notes a status of 0, as if all were well, and what is left.

        Raises:
            subprocess.TimeoutExpired: it did not.
        """
        below = descendants(self.process.pid)
        if await asyncio.to_thread(self.process.wait, within) == 0:
            self.leftovers.append(f"{self.name} ended by itself with status 0")
        await self._note_orphans(below)

    async def stop(self) -> None:
        """SIGTERM, and its end: notes a status that is not 0, and what is left."""
        if self._process is None:
            return
        self.process.send(signal.SIGCONT)
        below = descendants(self.process.pid)
        if status := await asyncio.to_thread(self.process.stop):
            self.leftovers.append(f"{self.name} ended with status {status} when it was told to stop")
        await self._note_orphans(below)

    async def _note_orphans(self, below: list[int]) -> None:
        loop = asyncio.get_running_loop()
        end = loop.time() + GONE_S
        while alive := [pid for pid in below if _runs(pid)]:
            if loop.time() > end:
                self.leftovers.append(f"{self.name} left {len(alive)} children behind")
                return
            await asyncio.sleep(0.05)


def _runs(pid: int) -> bool:
    """Whether it is there, and not only its exit status."""
    try:
        return (PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@dataclass
class Stage:
    """All of it, running."""

    a: Member
    """A primary with FALLBACK_ON_ERROR=degrade."""
    b: Member
    """One with `fail`."""
    fallback: Member
    gateway: Member
    """`stt-gateway` in front of `a`."""
    relay: Relay
    """Between both primaries and the fallback."""
    key: str
    """Of the callers, for now."""
    scripted: bool

    @property
    def members(self) -> tuple[Member, ...]:
        """In the order in which they are stopped."""
        return self.gateway, self.a, self.b, self.fallback

    @property
    def primaries(self) -> tuple[Member, Member]:
        return self.a, self.b

    def remains(self) -> list[str]:
        """What the members left behind, once all have been stopped."""
        return [line for member in self.members for line in member.leftovers]


@asynccontextmanager
async def stage(folder: Path, scripted: bool) -> AsyncIterator[Stage]:
    """Starts everything in `folder`; everything has ended when the context has."""
    key, between = secrets.token_urlsafe(18), secrets.token_urlsafe(18)
    ports = _free_ports(9)
    fallback = _service("fallback", "fallback", folder, scripted, next(ports), next(ports), API_KEYS=f"pair:{between}")
    relay = Relay(fallback.grpc, next(ports))
    of_primaries: Settings = {
        "API_KEYS": f"load:{key}",
        "FALLBACK_URL": f"grpc://{relay.address}",
        "FALLBACK_API_KEY": between,
        "FALLBACK_TIMEOUT_S": 1.5 if scripted else 10,
    }
    a = _service(
        "a", "primary", folder, scripted, next(ports), next(ports), **of_primaries, FALLBACK_ON_ERROR="degrade"
    )
    b = _service("b", "primary", folder, scripted, next(ports), next(ports), **of_primaries, FALLBACK_ON_ERROR="fail")
    port = next(ports)
    command = _beside("stt-gateway"), "--target", a.grpc, "--host", HOST, "--port", str(port), "--log-level", "warning"
    gateway = Member("gateway", folder / "gateway", command, {}, 0, port)
    built = Stage(a, b, fallback, gateway, relay, key, scripted)
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
    return Member(name, own, command, settings, grpc_port, http_port, script)


def _beside(command: str) -> str:
    """A command of this virtual environment."""
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
