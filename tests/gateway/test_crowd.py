"""Limits on connections and on upload memory: slow callers are cancelled, and health is always served."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from functools import partial

import httpx
import pytest
import pytest_asyncio

from gateway import app
from gateway.http import drain, protocol, uploads
from gateway.http.errors import Refusal
from gateway.http.protocol import GatewayProtocol
from gateway.http.server import GatewayServer
from gateway.http.uploads import FULL_SIZE_UPLOADS, MIN_UPLOAD_AGE_S, UploadBudget
from gateway.options import GatewayOptions
from tests.support.clock import ManualClock
from tests.support.contract_service import ContractService
from tests.support.live_caller import PATIENCE_S
from tests.support.raw_http import Answer, head, read_answer
from tests.support.services import until

pytestmark = pytest.mark.asyncio(loop_scope="session")

Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]
SLOW_HEAD = b"POST /v1/transcribe HTTP/1.1\r\nHost: gateway\r\nX-Sl"
SLOW_BODY = head("Content-Length: 100000") + b"--front"


@dataclass
class SmallGateway:
    port: int
    uploads: UploadBudget
    heard_from: set[object] = field(default_factory=set)
    """Connections that have sent something."""


@pytest_asyncio.fixture(loop_scope="session")
async def small(service: ContractService, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[SmallGateway]:
    """Gateway for three connections and two spare ones. Uploads never count as slow, and draining never ends."""
    monkeypatch.setattr(uploads, "MIN_UPLOAD_AGE_S", 3600.0)
    monkeypatch.setattr(drain, "DRAIN_S", 3600.0)
    monkeypatch.setattr(drain, "DRAIN_IDLE_S", 3600.0)
    monkeypatch.setattr(protocol, "HEADERS_TIMEOUT_S", 3600.0)
    monkeypatch.setattr(protocol, "MAX_CONNECTIONS", 3)
    monkeypatch.setattr(protocol, "SPARE_CONNECTIONS", 2)
    gateway = SmallGateway(0, UploadBudget())
    monkeypatch.setattr(app, "UploadBudget", lambda: gateway.uploads)
    data_received = GatewayProtocol.data_received

    def noted(self: GatewayProtocol, data: bytes) -> None:
        data_received(self, data)
        gateway.heard_from.add(self)

    monkeypatch.setattr(GatewayProtocol, "data_received", noted)
    server = GatewayServer(GatewayOptions(service.target, host="127.0.0.1", port=0, body_timeout_s=3600))
    await server.start()
    gateway.port = server.port
    yield gateway
    await server.stop(1)


@asynccontextmanager
async def connections(small: SmallGateway, count: int, sent: bytes) -> AsyncIterator[list[Connection]]:
    """Callers that have sent `sent` and no more, each after the previous one has arrived."""
    async with AsyncExitStack() as stack:
        found: list[Connection] = []
        for number in range(1, count + 1):
            reader, writer = await asyncio.open_connection("127.0.0.1", small.port)
            stack.callback(writer.close)
            writer.write(sent)
            uploading = min(number, protocol.MAX_CONNECTIONS) if sent == SLOW_BODY else 0
            await until(partial(_have_arrived, small, number, uploading))
            found.append((reader, writer))
        yield found


def _have_arrived(small: SmallGateway, callers: int, uploading: int) -> bool:
    return len(small.heard_from) == callers and len(small.uploads) == uploading


async def get(small: SmallGateway, path: str) -> httpx.Response:
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{small.port}", timeout=PATIENCE_S) as client:
        return await client.get(path)


async def post(small: SmallGateway) -> httpx.Response:
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{small.port}", timeout=PATIENCE_S) as client:
        return await client.post("/v1/transcribe", files={"audio": ("a.wav", b"abc")})


async def answer_of(connection: Connection) -> Answer:
    return await asyncio.wait_for(read_answer(connection[0]), PATIENCE_S)


async def test_longest_idle_connection_is_closed_over_the_limit(small: SmallGateway) -> None:
    async with connections(small, 3, SLOW_HEAD) as slow:
        assert (await post(small)).status_code == 200
        assert await asyncio.wait_for(slow[0][0].read(), PATIENCE_S) == b""
        assert not any(reader.at_eof() for reader, _ in slow[1:])
        slow[2][1].write(b"ow: 1\r\nConnection: close\r\n\r\n")
        assert (await answer_of(slow[2])).status == 400, "the other connections are still served"


async def test_slowest_upload_is_cancelled_over_the_limit(small: SmallGateway, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uploads, "MIN_UPLOAD_AGE_S", 0.0)
    async with connections(small, 3, SLOW_BODY) as slow:
        assert (await post(small)).status_code == 200
        answer = await answer_of(slow[0])
    assert (answer.status, answer.headers["x-error-type"], answer.headers["retry-after"]) == (503, "overloaded", "1")


async def test_new_connection_is_rejected_if_no_upload_is_slow(small: SmallGateway) -> None:
    async with connections(small, 3, SLOW_BODY):
        response = await post(small)
        assert (response.status_code, response.headers["x-error-type"]) == (503, "overloaded")
        assert response.headers["retry-after"] == "1"
        assert response.headers["connection"] == "close"
        for path in ("/v1/health", "/v1/metrics", "/metrics"):
            assert (await get(small, path)).status_code == 200
        upgrade = {"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Key": "x", "Origin": "null"}
        async with httpx.AsyncClient() as client:
            refused = await client.get(f"http://127.0.0.1:{small.port}/v1/stream", headers=upgrade)
        assert refused.status_code == 503
    assert (await post(small)).status_code == 200


async def test_connection_over_the_spare_ones_is_closed_at_once(small: SmallGateway) -> None:
    async with connections(small, 5, SLOW_BODY):
        with pytest.raises(httpx.TransportError):
            await get(small, "/v1/health")
    assert (await get(small, "/v1/health")).status_code == 200


async def test_upload_budget_cancels_the_slowest_upload() -> None:
    clock = ManualClock()
    budget = UploadBudget(clock)
    with budget.upload() as fast, budget.upload() as slow:
        budget.add(slow, 10, 1000)
        budget.add(fast, 1000 * FULL_SIZE_UPLOADS - 10, 1000)
        with pytest.raises(Refusal) as refused:
            budget.add(fast, 1, 1000)
        assert refused.value.type == "overloaded"
        clock.now += MIN_UPLOAD_AGE_S + 1
        budget.add(fast, 1, 1000)
        assert (slow.cancelled.done(), fast.cancelled.done()) == (True, False)


async def test_upload_budget_is_released_after_each_upload() -> None:
    budget = UploadBudget()
    for _ in range(3):
        with budget.upload() as upload:
            budget.add(upload, 1000 * FULL_SIZE_UPLOADS, 1000)
