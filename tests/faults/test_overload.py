"""Ten times a service's capacity: it answers what it admits in time, refuses the rest at once, and recovers.

All bounds compare figures of the same run, so that a busy machine changes both sides.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from stt_client import SttClient
from stt_server.testing.load import Grpc, Rest, Tally, offer
from stt_server.testing.scripted_model import Script
from stt_server.testing.services import ServiceProcess, running
from tests.faults.callers import PATIENCE_S, until_in_flight
from tests.faults.hostile import FORM, head, header_of, status_of
from tests.support.speech import silence, wav_of

INFERENCE_S, SLOTS, MAX_QUEUE = 0.5, 2, 16
CAPACITY = SLOTS / INFERENCE_S
"""Requests per second. Low, so that the callers and the service need little of the processor."""
SECONDS = 8.0
TIMEOUTS = (4.0, 20.0)
"""Seconds; a full queue takes longer than the first and less than the second."""
MAX_LATE = 0.1
"""Share of the admitted requests. Without admission by deadline, most of those with the short timeout are late."""


@dataclass(frozen=True)
class Overload:
    """Measurements before, during and after an overload of one service."""

    before: Tally
    during: Tally
    after: Tally
    health: list[float]
    """Seconds of each health check during the overload; negative if the service was not SERVING."""
    left: list[float]
    """`stt_queue_depth` and `stt_in_flight` at the end."""
    refusals: list[float]
    """`stt_refusals_total` with the reasons `deadline` and `queue_full`."""
    grown_mib: float
    """Growth of the resident memory."""


@asynccontextmanager
async def polled_health(client: SttClient, url: str) -> AsyncIterator[list[float]]:
    """Check health over gRPC and REST ten times a second; see `Overload.health`."""
    found: list[float] = []

    async def poll() -> None:
        async with httpx.AsyncClient(base_url=url, timeout=PATIENCE_S) as http:
            while True:
                began = time.perf_counter()
                healthy = await client.health() and (await http.get("/v1/health")).status_code == 200
                found.append((time.perf_counter() - began) * (1 if healthy else -1))
                await asyncio.sleep(0.1)

    polling = asyncio.create_task(poll())
    try:
        yield found
    finally:
        polling.cancel()


async def metric(client: SttClient, name: str) -> float:
    """Value of a sample of the service's metrics; `name` includes its labels."""
    lines = (await client.metrics()).exposition.splitlines()
    return float(next(line for line in lines if line.startswith(f"{name} ")).rpartition(" ")[2])


async def measure(primary: ServiceProcess) -> Overload:
    """Offer half the capacity, ten times the capacity, and half of it again."""
    wav = wav_of(silence(0.5))
    async with SttClient(primary.target) as client, primary.channel() as channel:
        transports = (Grpc(channel, wav), rest := Rest(primary.http_port, wav))
        before = Tally(await offer(transports, CAPACITY / 2, 2, TIMEOUTS))
        resident = primary.resident_mib()
        async with polled_health(client, primary.url) as health:
            during = Tally(await offer(transports, 10 * CAPACITY, SECONDS, TIMEOUTS))
        after = Tally(await offer(transports, CAPACITY / 2, 2, TIMEOUTS))
        rest.close()
        left = [await metric(client, name) for name in ("stt_queue_depth", "stt_in_flight")]
        refusals = [
            await metric(client, f'stt_refusals_total{{reason="{reason}"}}') for reason in ("deadline", "queue_full")
        ]
    return Overload(before, during, after, health, left, refusals, primary.resident_mib() - resident)


@pytest.fixture(scope="module")
def overload(tmp_path_factory: pytest.TempPathFactory) -> Overload:
    keys: dict[str, object] = {
        "MAX_CONCURRENCY": SLOTS,
        "MAX_QUEUE": MAX_QUEUE,
        "MAX_BATCH_SIZE": 2,
        "VAD_FILTER": "false",
    }
    primary = ServiceProcess("primary", tmp_path_factory.mktemp("overload"), keys, Script(seconds=INFERENCE_S))
    with running(primary):
        return asyncio.run(measure(primary))


def test_every_request_is_answered_or_refused(overload: Overload) -> None:
    during = overload.during
    assert not during.failed
    assert len(during.answered) + len(during.late) + len(during.refused) == 10 * CAPACITY * SECONDS
    for outcomes in (during.answered, during.refused):
        assert {outcome.transport for outcome in outcomes} == {"grpc", "rest"}


def test_admitted_requests_are_answered_in_time(overload: Overload) -> None:
    during = overload.during
    assert len(during.late) <= MAX_LATE * len(during.answered)
    # The queue's last requests, answered after the load ended, make up for its first moments.
    assert len(during.answered) >= 0.7 * CAPACITY * SECONDS


def test_refusals_are_immediate_and_say_when_to_retry(overload: Overload) -> None:
    during = overload.during
    inside, seen = during.refusal(0.99)[0], during.refusal(0.9)[1]
    answered_inside = sorted(outcome.server_ms or 0.0 for outcome in during.answered)[len(during.answered) // 2] / 1000
    assert inside < answered_inside / 10
    assert seen < during.latency(0.5) / 2
    assert all(outcome.retry_after_s for outcome in during.refused)


def test_refusals_are_counted_by_reason(overload: Overload) -> None:
    assert sum(overload.refusals) == len(overload.during.refused) + len(overload.after.refused)
    assert min(overload.refusals) > 0


def test_health_stays_serving_under_overload(overload: Overload) -> None:
    assert min(overload.health) > 0, "it was not SERVING all the time"
    assert sorted(overload.health)[len(overload.health) // 2] < overload.during.latency(0.5) / 2


def test_service_recovers_from_overload(overload: Overload) -> None:
    assert (len(overload.before.answered), len(overload.after.answered)) == (CAPACITY, CAPACITY)
    assert overload.left == [0, 0]
    assert overload.grown_mib < 64
    assert overload.after.latency(0.5) < 3 * overload.before.latency(0.5)


async def test_full_queue_refuses_upload_before_its_body(tmp_path: Path) -> None:
    keys: dict[str, object] = {"MAX_CONCURRENCY": 1, "MAX_QUEUE": 0, "VAD_FILTER": "false"}
    primary = ServiceProcess("primary", tmp_path, keys, Script(seconds=2 * PATIENCE_S))
    with running(primary):
        async with SttClient(primary.target) as client, httpx.AsyncClient(base_url=primary.url) as http:
            held = asyncio.create_task(client.transcribe(wav_of(silence(0.5)), timeout=2 * PATIENCE_S))
            await until_in_flight(http, 1)
            reader, writer = await asyncio.open_connection("127.0.0.1", primary.http_port)
            writer.write(head(FORM, "Content-Length: 500000"))  # and none of its body
            answer = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), PATIENCE_S)
            assert (status_of(answer), header_of(answer, "X-Error-Type")) == (503, "overloaded")
            assert header_of(answer, "Retry-After")
            assert await metric(client, 'stt_refusals_total{reason="queue_full"}') == 1
            writer.close()
            held.cancel()
