"""The pair that a soak runs itself, as two processes on this machine."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import httpx

from buildscripts.lib.load.process_usage import PROC, Usage, descendants, files_below, resident, usage
from buildscripts.lib.soak.monitor import Monitor
from protos.stt.v1.wire import ReadyLine
from stt_server.config import Role
from stt_server.testing.processes import HOST, ChildProcess
from stt_server.testing.services import installed_service, write_config

UPLOAD_MIB = 6
"""MAX_UPLOAD_MB of both services: admits two minutes of WAV, and keeps too large uploads cheap."""


class LocalPair(Monitor):
    """Monitor of child processes.

    Args:
        folders: for the temporary files of each.
        addresses: ready line of each.
    """

    def __init__(
        self, processes: dict[str, ChildProcess], folders: dict[str, Path], addresses: dict[str, ReadyLine]
    ) -> None:
        super().__init__()
        self.processes = processes
        self.folders = folders
        self.addresses = addresses

    async def read_memory(self) -> Mapping[str, float]:
        """Raises FileNotFoundError: a process has ended."""
        return {name: resident(process.pid) for name, process in self.processes.items()}

    async def read(self) -> Mapping[str, tuple[Usage, int]]:
        """Raises ProcessLookupError, FileNotFoundError: a process has ended."""
        return {name: (usage(process.pid), files_below(self.folders[name])) for name, process in self.processes.items()}

    def ends(self) -> Sequence[asyncio.Task[str]]:
        async def end_of(process: ChildProcess) -> str:
            return str(await asyncio.to_thread(process.ended))

        return [asyncio.create_task(end_of(process)) for process in self.processes.values()]


@asynccontextmanager
async def pair(scratch: Path, primary: Path, fallback: Path) -> AsyncIterator[tuple[LocalPair, str]]:
    """Run both services with keys and the gateway; yield their monitor and the callers' key."""
    key, between = secrets.token_urlsafe(24), secrets.token_urlsafe(24)
    common: dict[str, str | int] = {"HOST": HOST, "DEVICE": "cpu", "COMPUTE_TYPE": "int8", "GRPC_PORT": 0}
    common |= {"HTTP_PORT": 0, "LOG_LEVEL": "warning", "DRAIN_TIMEOUT_S": 10, "MAX_UPLOAD_MB": UPLOAD_MIB}
    common |= {"RATE_LIMIT_RPS": 200, "RATE_LIMIT_BURST": 400}
    processes: dict[str, ChildProcess] = {}
    folders: dict[str, Path] = {}

    async def start(name: Role, **keys: str | int) -> ReadyLine:
        config = scratch / f"stt_{name}.env"
        write_config(config, common | keys)
        folders[name] = scratch / f"tmp-{name}"
        folders[name].mkdir()
        process = installed_service(name, config, config.with_suffix(".log"), TMPDIR=str(folders[name]))
        processes[name] = process
        process.spawn()
        return await asyncio.to_thread(process.wait_ready)

    try:
        behind = await start("fallback", CT2_MEDIUM_PATH=str(fallback), API_KEYS=f"primary:{between}")
        ready = await start(
            "primary",
            CT2_SMALL_PATH=str(primary),
            API_KEYS=f"callers:{key}",
            WYOMING_PORT=0,
            WYOMING_API_KEY=key,
            FALLBACK_URL=f"grpc://{behind.grpc}",
            FALLBACK_API_KEY=between,
        )
        yield LocalPair(dict(reversed(processes.items())), folders, {"primary": ready, "fallback": behind}), key
    finally:
        for process in reversed(processes.values()):
            await asyncio.to_thread(process.stop)


async def busy_without_callers(monitor: LocalPair) -> list[str]:
    """Wait until both services are idle; return problems."""
    return [line for ready in monitor.addresses.values() for line in await not_idle(f"http://{ready.http}")]


async def not_idle(url: str) -> list[str]:
    """Wait for a service without callers to become idle; return the problem if it doesn't."""
    idle = {"stt_in_flight": "0.0", "stt_queue_depth": "0.0"}
    async with httpx.AsyncClient() as http:
        for _ in range(50):
            lines = (line.split() for line in (await http.get(f"{url}/metrics")).text.splitlines())
            found = {words[0]: words[1] for words in lines if words and words[0] in idle}
            if found == idle:
                return []
            await asyncio.sleep(0.2)
    return [f"{url} is not idle without callers: {found}"]


async def stop_both(monitor: LocalPair) -> list[str]:
    """Stop both services, the primary first; return problems."""
    problems = []
    for name, process in monitor.processes.items():
        below = descendants(process.pid)
        if status := await asyncio.to_thread(process.stop):
            problems.append(f"{name} ended with status {status}")
        if alive := [pid for pid in below if (PROC / str(pid)).exists()]:
            problems.append(f"{name} left {len(alive)} processes")
        if left := files_below(monitor.folders[name]):
            problems.append(f"{name} left {left} temporary files")
    return problems
