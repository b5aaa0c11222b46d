"""The deployment of `bench scaling`: primaries behind Envoy and one fallback pool, with scripted models."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from itertools import count
from pathlib import Path

from buildscripts.lib.bench.scaling_report import Sample, Setup
from protos.stt.v1 import speech_pb2 as pb
from stt_client import SttClient
from stt_client.bench.load import Reading, Send, call
from stt_client.results import Transcript
from stt_client.rpc import deadline_in
from stt_server.config import Role
from stt_server.testing.envoy import Envoy
from stt_server.testing.network import NamespaceLink
from stt_server.testing.paths import ROOT, SPEECH
from stt_server.testing.processes import HOST
from stt_server.testing.scripted_model import Script
from stt_server.testing.services import ServiceProcess

ENVOY = ROOT / "deploy" / "balancing" / "envoy.yaml"
UNSURE = "unsure"
"""Prompt of the requests that the primaries send to the fallback pool."""
TIMEOUT_S = 120.0
BUSY, WAITING, IN_FLIGHT = "stt_slots_busy_seconds_total", "stt_queue_depth", "stt_in_flight"


def requests_of(share: float) -> Iterator[pb.TranscribeRequest]:
    """Requests without end, of which a share needs the fallback, evenly spread."""
    audio = SPEECH.read_bytes()
    sure, unsure = (
        pb.TranscribeRequest(audio=audio, options=pb.TranscribeOptions(prompt=prompt)) for prompt in ("", UNSURE)
    )
    for number in count():
        yield unsure if int((number + 1) * share) > int(number * share) else sure


class Deployment:
    """A fallback pool, and as many primaries as were added so far.

    Args:
        folder: for the files of all processes.
        links: a namespace for each service; empty: all are on 127.0.0.1.
        stack: ends the processes.
    """

    def __init__(self, setup: Setup, folder: Path, links: Sequence[NamespaceLink], stack: AsyncExitStack) -> None:
        self.primaries: list[ServiceProcess] = []
        self.fallbacks: list[ServiceProcess] = []
        self._setup = setup
        self._folder = folder
        self._links = iter(links)
        self._stack = stack
        self._numbers = count(1)
        self._clients: dict[ServiceProcess, SttClient] = {}

    async def add_fallbacks(self) -> None:
        """Start the fallback pool."""
        keys: dict[str, object] = {"MAX_CONCURRENCY": self._setup.fallback_slots, "MAX_QUEUE": 1024}
        script = Script(seconds=self._setup.fallback_inference)
        self.fallbacks += await self._started("fallback", self._setup.fallbacks, keys, script)

    async def add_primaries(self, number: int) -> None:
        """Start primaries, until there are `number`."""
        pool = "ipv4:" + ",".join(fallback.target for fallback in self.fallbacks)
        keys: dict[str, object] = {"MAX_CONCURRENCY": self._setup.slots, "FALLBACK_URL": pool}
        script = Script(seconds=self._setup.inference, unsure_of=UNSURE)
        self.primaries += await self._started("primary", number - len(self.primaries), keys, script)

    async def _started(self, role: Role, number: int, keys: dict[str, object], script: Script) -> list[ServiceProcess]:
        """Start services side by side."""
        started = []
        for _ in range(number):
            link = next(self._links, None)
            prefix, host = (link.prefix, link.host) if link else ((), HOST)
            folder = self._folder / f"{role}-{next(self._numbers)}"
            # A batch of the scripted model takes as long as its requests one after the other.
            service = ServiceProcess(role, folder, {**keys, "MAX_BATCH_SIZE": 1}, script, prefix=prefix, host=host)
            self._stack.callback(service.kill)
            service.spawn()
            started.append(service)
        for service in started:
            await asyncio.to_thread(service.wait_ready)
            self._clients[service] = await self._stack.enter_async_context(SttClient(service.target))
        return started

    @asynccontextmanager
    async def balanced(self) -> AsyncIterator[tuple[Envoy, Send]]:
        """Run Envoy in front of the primaries; yield it, and a function that sends a request through it."""
        clusters = {
            "grpc": [(primary.host, primary.grpc_port) for primary in self.primaries],
            "http": [(primary.host, primary.http_port) for primary in self.primaries],
        }
        envoy = Envoy(ENVOY, clusters, self._folder)
        with killed_at_end(envoy):
            async with SttClient(envoy.listeners["grpc"]) as client:

                async def send(request: pb.TranscribeRequest) -> Transcript:
                    return await client.send(request, deadline=deadline_in(TIMEOUT_S))

                yield envoy, send

    async def all_reached(self, send: Send, requests: Iterator[pb.TranscribeRequest], callers: int) -> None:
        """Send requests until every primary has had some: Envoy uses one only after its health check.

        Raises:
            TimeoutError: a primary had none.
        """
        before = await self._sums(self.primaries)
        end = time.monotonic() + TIMEOUT_S
        while time.monotonic() < end:
            calls = await asyncio.gather(*(call(send, next(requests)) for _ in range(callers)))
            now = await self._sums(self.primaries)
            if all(busy > earlier for (busy, _, _), (earlier, _, _) in zip(now, before, strict=True)):
                return
            await asyncio.sleep(max(pause for _, pause in calls))
        raise TimeoutError(f"Envoy did not use every primary within {TIMEOUT_S:g} s; see {self._folder}/envoy.log")

    async def sample(self, envoy: Envoy) -> tuple[Sample, Reading]:
        """Counters of all processes now, and the load of the primaries."""
        services = [*self.primaries, *self.fallbacks]
        found = await self._sums(services)
        own, pool = found[: len(self.primaries)], found[len(self.primaries) :]
        busy, total = machine_ticks()
        sample = Sample(
            at=time.perf_counter(),
            services_cpu=sum(service.cpu_seconds() for service in services),
            envoy_cpu=envoy.cpu_seconds(),
            machine_busy=busy,
            machine_total=total,
            primary_busy=sum(seconds for seconds, _, _ in own),
            pool_busy=sum(seconds for seconds, _, _ in pool),
        )
        return sample, Reading(int(sum(flying for _, _, flying in own)), int(sum(depth for _, depth, _ in own)))

    async def _sums(self, services: Sequence[ServiceProcess]) -> list[tuple[float, float, float]]:
        """`BUSY`, `WAITING` and `IN_FLIGHT` of each service."""
        answers = await asyncio.gather(*(self._clients[service].metrics() for service in services))
        lines = [dict(line.rsplit(" ", 1) for line in answer.exposition.splitlines()) for answer in answers]
        return [(float(each[BUSY]), float(each[WAITING]), float(each[IN_FLIGHT])) for each in lines]


@contextmanager
def killed_at_end(process: Envoy) -> Iterator[None]:
    """Start a process that prints no ready line, and kill it at the end of the context."""
    process.spawn()
    try:
        yield
    finally:
        process.kill()


def machine_ticks() -> tuple[int, int]:
    """Time of all cores so far, of all programs: busy, and in total. Clock ticks."""
    user, nice, system, idle, waiting, *others = map(int, Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9])
    busy = user + nice + system + sum(others)
    return busy, busy + idle + waiting
