"""Running services under a soak: their resources as their metrics report them, and callers that suit them."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from buildscripts.lib.load.process_usage import Usage
from buildscripts.lib.soak.monitor import Monitor
from buildscripts.lib.soak.traffic import TO_THE_FALLBACK, Callers, Traffic, stranger_of
from stt_client import SttClient, SttError
from stt_client.client import ClientOptions

RESIDENT = "process_resident_memory_bytes"
DESCRIPTORS = "process_open_fds"
STARTED = "process_start_time_seconds"


class Deployment(Monitor):
    """Monitor of services by their gRPC addresses.

    Args:
        clients: by address.
        started: start of each process, in seconds since 1970.
    """

    def __init__(self, clients: Mapping[str, SttClient], started: Mapping[str, float]) -> None:
        super().__init__()
        self.problems: list[str] = []
        """Restarts, and metrics that could not be read."""
        self._clients = clients
        self._started = dict(started)

    @classmethod
    async def connect(cls, stack: AsyncExitStack, addresses: Sequence[str], options: ClientOptions) -> Deployment:
        """Connect to each service; the stack closes the connections. Raises SttError: one can't be reached."""
        clients = {each: await stack.enter_async_context(SttClient(each, **options)) for each in addresses}
        started = {each: (await process_metrics(client)).get(STARTED, 0.0) for each, client in clients.items()}
        return cls(clients, started)

    async def read_memory(self) -> Mapping[str, float]:
        return {name: use.resident_mib for name, (use, _) in (await self.read()).items()}

    async def read(self) -> Mapping[str, tuple[Usage, int]]:
        found = {}
        for name, client in self._clients.items():
            try:
                values = await process_metrics(client)
            except SttError as error:
                self.problems.append(f"{name}: metrics can't be read: {error.message}")
                continue
            started = values.get(STARTED, 0.0)
            if started != self._started[name]:
                self._started[name] = started
                self.problems.append(f"{name} has restarted, or its address leads to several processes")
            resident = values.get(RESIDENT, 0.0) / 2**20
            found[name] = (Usage(resident, None, 0, int(values.get(DESCRIPTORS, 0)), 0, 0.0), 0)
        return found

    def ends(self) -> Sequence[asyncio.Task[str]]:
        return ()


async def process_metrics(client: SttClient) -> dict[str, float]:
    """Metrics of the process by name. Raises SttError."""
    families = text_string_to_metric_families((await client.metrics()).exposition)
    wanted = (RESIDENT, DESCRIPTORS, STARTED)
    return {sample.name: sample.value for family in families for sample in family.samples if sample.name in wanted}


async def callers_of(server: str, http: str, traffic: Traffic, options: ClientOptions, ca: Path | None) -> Callers:
    """Callers of one service, without the kinds of requests that it can't answer as expected.

    Raises:
        SttError: the service can't be reached.
    """
    async with SttClient(server, **options) as client:
        status = await client.status()
    left_out: list[str] = []
    if status.snapshot.get("circuit") is None:
        left_out += TO_THE_FALLBACK
    if await _is_open(server, options):
        left_out.append("a wrong key")
    verify = ssl.create_default_context(cafile=ca) if ca else True
    return Callers(server, http, traffic, options, status.limits.max_upload_bytes, left_out, verify)


async def _is_open(server: str, options: ClientOptions) -> bool:
    """Whether a service admits any key."""
    async with stranger_of(server, options) as stranger:
        try:
            await stranger.check_admission()
        except SttError as error:
            return error.type != "unauthenticated"
    return True
