"""Restarted and killed services: callers of the remaining ones notice nothing."""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import grpc
import httpx
import pytest

from protos.stt.v1 import speech_pb2 as pb
from protos.stt.v1 import speech_pb2_grpc
from stt_client import SttPool
from stt_server.testing.network import connections
from stt_server.testing.scripted_model import Script
from stt_server.testing.services import UNLIMITED, GatewayProcess, ServiceProcess, running
from tests.faults.callers import PATIENCE_S, http, post
from tests.support.observing import eventually
from tests.support.services import speech

SMALL, LARGER = "the smaller model says", "the larger model says"
NOTICED_S = 40.0
"""Longest wait, in seconds, for a client to find a restarted service: it tries every 2 s at least."""


@dataclass
class Deployment:
    """Two primaries, two fallbacks, and a gateway in front of both primaries."""

    primaries: tuple[ServiceProcess, ...]
    fallbacks: tuple[ServiceProcess, ...]
    gateway: GatewayProcess


def several(processes: tuple[ServiceProcess, ...]) -> str:
    return f"ipv4:{','.join(process.target for process in processes)}"


@pytest.fixture(scope="module")
def deployment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    folder = tmp_path_factory.mktemp("deployment")
    script = Script(text=LARGER)
    fallbacks = tuple(ServiceProcess("fallback", folder / f"fallback{n}", {}, script) for n in (1, 2))
    with running(*fallbacks):
        keys: dict[str, object] = {"FALLBACK_URL": several(fallbacks)}
        unsure = Script(text=SMALL, confidence=0.1, seconds=0.02)  # each call needs the fallback
        primaries = tuple(ServiceProcess("primary", folder / f"primary{n}", keys, unsure) for n in (1, 2))
        with running(*primaries):
            gateway = GatewayProcess(folder / "gateway", several(primaries))
            with running(gateway):
                yield Deployment(primaries, fallbacks, gateway)


PAUSE_S = 0.1
"""Between two calls of a load, in seconds: starting services need the processor too."""


class Load:
    """Repeated calls, and their outcomes."""

    def __init__(self) -> None:
        self.answered = 0
        self.failures: list[str] = []
        self._over = False

    async def run(self, call: Callable[[], Awaitable[str]]) -> None:
        while not self._over:
            try:
                text = await call()
            except Exception as error:
                self.failures.append(f"{type(error).__name__}: {error}"[:300])
            else:
                self.answered += 1
                if text != LARGER:
                    self.failures.append(text)
            await asyncio.sleep(PAUSE_S)

    def end(self) -> None:
        self._over = True


SERVICE_CONFIG = {
    "loadBalancingConfig": [{"round_robin": {}}],
    "healthCheckConfig": {"serviceName": "stt.v1.SpeechToText"},
    "methodConfig": [
        {
            "name": [{"service": "stt.v1.SpeechToText"}],
            "retryPolicy": {
                "maxAttempts": 3,
                "initialBackoff": "0.2s",
                "maxBackoff": "2s",
                "backoffMultiplier": 2,
                "retryableStatusCodes": ["UNAVAILABLE"],
            },
        }
    ],
}
"""gRPC service config of a plain channel: round robin over healthy services, with retries."""


@asynccontextmanager
async def loaded(deployment: Deployment) -> AsyncIterator[tuple[SttPool, dict[str, Load]]]:
    """Loads from the SDK's pool, a plain channel over both addresses, and REST through a gateway."""
    audio = speech()
    loads = {"pool": Load(), "channel": Load(), "REST": Load()}
    options = [
        *UNLIMITED,
        ("grpc.service_config", json.dumps(SERVICE_CONFIG)),
        ("grpc.max_reconnect_backoff_ms", 2000),
    ]
    async with (
        SttPool([process.target for process in deployment.primaries]) as pool,
        grpc.aio.insecure_channel(several(deployment.primaries), options=options) as channel,
        httpx.AsyncClient(base_url=deployment.gateway.url, timeout=PATIENCE_S) as rest,
    ):
        stub = speech_pb2_grpc.SpeechToTextStub(channel)

        async def by_pool() -> str:
            return (await pool.transcribe(audio)).text

        async def by_channel() -> str:
            answer = await stub.Transcribe(pb.TranscribeRequest(audio=audio), timeout=PATIENCE_S)
            return str(answer.text)

        async def by_rest() -> str:
            answer = await post(rest, audio)
            return str(answer.json().get("text") or answer.text)

        calls: dict[str, Callable[[], Awaitable[str]]] = {"pool": by_pool, "channel": by_channel, "REST": by_rest}
        tasks = [asyncio.ensure_future(loads[name].run(call)) for name, call in calls.items() for _ in range(2)]
        await pool.wait_ready(at_least=2)
        try:
            yield pool, loads
        finally:
            for load in loads.values():
                load.end()
            await asyncio.gather(*tasks)


async def restart(process: ServiceProcess) -> None:
    """Stop a service with SIGTERM, and start a new one on its ports."""
    assert await asyncio.to_thread(process.stop) == 0
    await asyncio.to_thread(process.restart)


async def all_connected(deployment: Deployment) -> bool:
    """Whether the callers are connected to both primaries, and the primaries to both fallbacks."""
    callers = (os.getpid(), deployment.gateway.pid)  # pool and channel are in this process and may share a connection
    hops = [(pid, primary.grpc_port) for pid in callers for primary in deployment.primaries]
    hops += [(primary.pid, fallback.grpc_port) for primary in deployment.primaries for fallback in deployment.fallbacks]
    return all(connections(pid, port) for pid, port in hops)


async def more_answers(load: Load, count: int = 25) -> None:
    """Wait until `count` more calls are answered."""
    goal = load.answered + count

    async def reached() -> None:
        while load.answered < goal:  # noqa: ASYNC110 - there is nothing to wait for but the number
            await asyncio.sleep(0.05)

    await asyncio.wait_for(reached(), PATIENCE_S)


async def test_a_rolling_restart_under_load_fails_no_call(deployment: Deployment) -> None:
    async with loaded(deployment) as (pool, loads):
        for process in (*deployment.fallbacks, *deployment.primaries):
            await restart(process)
            await pool.wait_ready(NOTICED_S, at_least=2)
            await eventually(lambda: all_connected(deployment), True, NOTICED_S)
            for load in loads.values():
                await more_answers(load)
    assert {name: load.failures[:3] for name, load in loads.items()} == {"pool": [], "channel": [], "REST": []}


async def test_killing_one_primary_fails_no_call_of_a_pool(deployment: Deployment) -> None:
    async with loaded(deployment) as (pool, loads):
        victim = deployment.primaries[0]
        victim.kill()
        await more_answers(loads["pool"])
        await asyncio.to_thread(victim.restart)
        await pool.wait_ready(NOTICED_S, at_least=2)
        await until_it_answers(victim)
    assert loads["pool"].failures == []
    # A plain channel and the gateway may lose only the calls that were in flight.
    assert sum(len(load.failures) for load in loads.values()) <= 4


async def until_it_answers(process: ServiceProcess) -> None:
    """Wait until a service receives calls."""

    async def reached() -> None:
        async with http(process) as client:
            while (await client.get("/v1/metrics")).json()["requests"]["total"] == 0:  # noqa: ASYNC110 - in another process
                await asyncio.sleep(0.05)

    await asyncio.wait_for(reached(), NOTICED_S)


async def test_killing_one_of_two_fallbacks_fails_no_call(deployment: Deployment) -> None:
    async with loaded(deployment) as (_, loads):
        victim = deployment.fallbacks[1]
        victim.kill()
        await more_answers(loads["pool"])
        await asyncio.to_thread(victim.restart)
        await until_it_answers(victim)
    assert {name: load.failures[:3] for name, load in loads.items()} == {"pool": [], "channel": [], "REST": []}


async def test_a_gateway_answers_502_while_its_services_are_down(deployment: Deployment) -> None:
    async with httpx.AsyncClient(base_url=deployment.gateway.url, timeout=PATIENCE_S) as rest:
        for primary in deployment.primaries:
            primary.kill()
        began = time.monotonic()
        answer = await post(rest)
        assert (answer.status_code, answer.json()["error"]["type"]) == (502, "upstream_unavailable")
        assert (await rest.get("/v1/health")).status_code == 503
        assert time.monotonic() - began < NOTICED_S
        await asyncio.to_thread(deployment.primaries[0].restart)
        began = time.monotonic()
        while (await post(rest)).status_code != 200:
            assert time.monotonic() - began < NOTICED_S
        deployment.gateway.kill()
        deployment.gateway.start()
    async with httpx.AsyncClient(base_url=deployment.gateway.url, timeout=PATIENCE_S) as rest:
        assert (await post(rest)).status_code == 200
    await asyncio.to_thread(deployment.primaries[1].restart)
