"""Ten times what a service can do: what it takes is answered in time, the rest is refused at once, and it recovers."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx

from stt_client import SttClient
from stt_server.testing.load import Grpc, Rest, Tally, offer
from stt_server.testing.scripted_model import Script
from stt_server.testing.services import ServiceProcess, running
from tests.faults.callers import until_in_flight
from tests.faults.hostile import FORM, head, header_of, status_of
from tests.support.speech import silence, wav_of

INFERENCE_S, SLOTS = 0.1, 2
CAPACITY = SLOTS / INFERENCE_S
"""Requests a second."""
SECONDS = 6.0
TIMEOUTS = (1.2, 6.0)
"""The one is less than a full queue takes, the other more."""
MOST_LATE = 0.02
"""Share of what was taken: this machine has other things to do too."""


@asynccontextmanager
async def looked_after(client: SttClient, url: str) -> AsyncIterator[list[float]]:
    """Asks for health again and again, over gRPC and REST; each time's seconds, negative where it was not well."""
    found: list[float] = []

    async def look() -> None:
        async with httpx.AsyncClient(base_url=url, timeout=30) as http:
            while True:
                began = time.perf_counter()
                healthy = await client.health() and (await http.get("/v1/health")).status_code == 200
                found.append((time.perf_counter() - began) * (1 if healthy else -1))
                await asyncio.sleep(0.1)

    looking = asyncio.create_task(look())
    try:
        yield found
    finally:
        looking.cancel()


async def metric(client: SttClient, name: str) -> float:
    """A sample of the service's metrics, by its name and labels."""
    lines = (await client.metrics()).exposition.splitlines()
    return float(next(line for line in lines if line.startswith(f"{name} ")).rpartition(" ")[2])


async def test_at_ten_times_its_capacity_all_is_answered_in_time_or_refused_at_once(tmp_path: Path) -> None:
    keys: dict[str, object] = {"MAX_CONCURRENCY": SLOTS, "VAD_FILTER": "false", "MAX_QUEUE": 48}
    primary = ServiceProcess("primary", tmp_path, keys, Script(seconds=INFERENCE_S))
    with running(primary):
        wav = wav_of(silence(0.5))
        async with SttClient(primary.target) as client, primary.channel() as channel:
            transports = (Grpc(channel, wav), rest := Rest(primary.http_port, wav))
            before = Tally(await offer(transports, CAPACITY / 2, 2, TIMEOUTS))
            resident = primary.resident_mib()
            async with looked_after(client, primary.url) as health:
                during = Tally(await offer(transports, 10 * CAPACITY, SECONDS, TIMEOUTS))
            after = Tally(await offer(transports, CAPACITY / 2, 2, TIMEOUTS))
            rest.close()
            left = [await metric(client, name) for name in ("stt_queue_depth", "stt_in_flight")]
            refused = [
                await metric(client, f'stt_refusals_total{{reason="{reason}"}}')
                for reason in ("deadline", "queue_full")
            ]
        grown = primary.resident_mib() - resident

    assert (len(before.answered), len(after.answered)) == (CAPACITY, CAPACITY)
    assert not during.failed
    assert len(during.late) <= MOST_LATE * len(during.answered)
    # A full queue goes on after the last request; what it has of it makes up for the first moments.
    assert len(during.answered) >= 0.7 * CAPACITY * SECONDS
    assert len(during.answered) + len(during.late) + len(during.refused) == 10 * CAPACITY * SECONDS
    inside, seen = during.refusal(0.99)[0], during.refusal(0.9)[1]
    assert inside < 0.05
    assert seen < 0.5
    assert all(outcome.retry_after_s for outcome in during.refused)
    assert (
        {outcome.transport for outcome in during.answered}
        == {outcome.transport for outcome in during.refused}
        == {"grpc", "rest"}
    )
    assert sum(refused) == len(during.refused) + len(after.refused)
    assert min(refused) > 0
    assert len(health) > SECONDS
    assert min(health) > 0, "it was not SERVING all the time"
    assert sorted(health)[len(health) // 2] < 0.5
    assert left == [0, 0]
    assert grown < 64
    assert after.latency(0.5) < 3 * before.latency(0.5)


async def test_a_full_queue_refuses_an_upload_before_it_is_received(tmp_path: Path) -> None:
    keys: dict[str, object] = {"MAX_CONCURRENCY": 1, "MAX_QUEUE": 0, "VAD_FILTER": "false"}
    primary = ServiceProcess("primary", tmp_path, keys, Script(seconds=30))
    with running(primary):
        async with SttClient(primary.target, timeout=60) as client, httpx.AsyncClient(base_url=primary.url) as http:
            held = asyncio.create_task(client.transcribe(wav_of(silence(0.5))))
            await until_in_flight(http, 1)
            reader, writer = await asyncio.open_connection("127.0.0.1", primary.http_port)
            writer.write(head(FORM, "Content-Length: 500000"))  # and nothing of it
            answer = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 5)
            assert (status_of(answer), header_of(answer, "X-Error-Type")) == (503, "overloaded")
            assert header_of(answer, "Retry-After")
            assert await metric(client, 'stt_refusals_total{reason="queue_full"}') == 1
            writer.close()
            held.cancel()
