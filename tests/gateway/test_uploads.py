"""Bodies that are too large, too slow, rejected early, or malformed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import httpx
import pytest
import pytest_asyncio

from gateway.http.server import GatewayServer
from gateway.options import GatewayOptions
from tests.support.contract_script import MIB
from tests.support.contract_service import ContractService
from tests.support.live_caller import PATIENCE_S
from tests.support.raw_http import chunked, exchange, form, head, part, read_answer

pytestmark = pytest.mark.asyncio(loop_scope="session")

FILE = '; filename="a.wav"'


def upload(size: int) -> bytes:
    return form(part("language", b"en"), part("audio", bytes(size), FILE))


async def test_upload_of_exactly_the_limit_passes(http: httpx.AsyncClient, service: ContractService) -> None:
    response = await http.post("/v1/transcribe", files={"audio": ("a", bytes(16 * MIB))})
    assert response.status_code == 200
    assert len(service.script.calls[0].request.audio) == 16 * MIB


async def test_upload_over_the_limit_is_413(http: httpx.AsyncClient, service: ContractService) -> None:
    response = await http.post("/v1/transcribe", files={"audio": ("a", bytes(16 * MIB + 1))})
    assert response.status_code == 413
    assert response.headers["x-error-type"] == "payload_too_large"
    assert "16777216" in response.headers["x-error-message"]
    assert not service.script.calls


async def test_limit_may_exceed_grpc_defaults(http: httpx.AsyncClient, service: ContractService) -> None:
    service.script.max_upload_bytes = 70 * MIB
    response = await http.post("/v1/transcribe", files={"audio": ("a", bytes(66 * MIB))})
    assert response.status_code == 200


@pytest.mark.parametrize(("size", "status"), [(1000, 200), (1001, 413), (3 * MIB, 413)])
async def test_limit_applies_to_chunked_bodies(
    gateway: GatewayServer, service: ContractService, size: int, status: int
) -> None:
    service.script.max_upload_bytes = 1000
    answer = await exchange(gateway.port, head("Transfer-Encoding: chunked") + chunked(upload(size), 700))
    assert answer.status == status


async def test_declared_size_over_the_limit_is_413_at_once(gateway: GatewayServer, service: ContractService) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
    writer.write(head("Content-Length: 1000000000000"))
    answer = await asyncio.wait_for(read_answer(reader), PATIENCE_S)
    writer.close()
    assert answer.status == 413
    assert answer.headers["connection"] == "close"


@pytest.mark.parametrize("size", [17 * MIB + 4096, 40 * MIB])
async def test_caller_that_writes_before_reading_sees_the_413(
    http: httpx.AsyncClient, gateway: GatewayServer, service: ContractService, size: int
) -> None:
    response = await http.post("/v1/transcribe", files={"audio": ("a", bytes(size))})
    assert response.status_code == 413
    body = upload(size)
    answer = await exchange(gateway.port, head(f"Content-Length: {len(body)}") + body)
    assert answer.status == 413
    assert answer.json()["error"]["type"] == "payload_too_large"


async def test_body_rejected_at_its_first_part_is_drained(gateway: GatewayServer, service: ContractService) -> None:
    body = form(part("oops", b"1"), part("audio", bytes(8 * MIB)))
    answer = await exchange(gateway.port, head(f"Content-Length: {len(body)}") + body)
    assert (answer.status, answer.headers["x-error-type"]) == (400, "invalid_argument")


async def test_bytes_beyond_content_length_are_ignored(gateway: GatewayServer, service: ContractService) -> None:
    body = upload(10)
    answer = await exchange(gateway.port, head(f"Content-Length: {len(body)}") + body + bytes(100))
    assert answer.status == 200
    assert service.script.calls[0].request.audio == bytes(10)


async def test_body_truncated_by_content_length_is_rejected(gateway: GatewayServer, service: ContractService) -> None:
    body = upload(10)
    answer = await exchange(gateway.port, head(f"Content-Length: {len(body) - 20}") + body)
    assert (answer.status, answer.headers["x-error-type"]) == (400, "invalid_argument")
    assert not service.script.calls


async def test_wrong_key_is_401_before_the_body(gateway: GatewayServer, service: ContractService) -> None:
    service.script.keys = frozenset({"right"})
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
    writer.write(head("Authorization: Bearer wrong", "Content-Length: 1000000"))
    answer = await asyncio.wait_for(read_answer(reader), PATIENCE_S)
    writer.close()
    assert answer.status == 401
    assert answer.headers["www-authenticate"] == "Bearer"


async def test_expect_100_with_a_wrong_key_is_401(gateway: GatewayServer, service: ContractService) -> None:
    service.script.keys = frozenset({"right"})
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
    writer.write(head("Expect: 100-continue", "Content-Length: 1000000"))
    everything = await asyncio.wait_for(reader.read(), PATIENCE_S)
    writer.close()
    assert everything.startswith(b"HTTP/1.1 401 ")


async def test_expect_100_with_a_valid_key_continues(gateway: GatewayServer, service: ContractService) -> None:
    body = upload(10)
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
    writer.write(head("Expect: 100-continue", f"Content-Length: {len(body)}"))
    assert (await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), PATIENCE_S)).startswith(b"HTTP/1.1 100 ")
    writer.write(body)
    assert (await read_answer(reader)).status == 200
    writer.close()


@pytest.mark.parametrize(
    "lines",
    [
        ("Authorization: Bearer right", "Authorization: Bearer right"),
        ("Authorization: Bearer ri\xe9ght",),
        ("Authorization: Bearer right\x01",),
        ("Authorization: Bearer " + "x" * 5000,),
        ("Authorization:",),
        (),
    ],
)
async def test_unusable_key_is_401(gateway: GatewayServer, service: ContractService, lines: tuple[str, ...]) -> None:
    service.script.keys = frozenset({"right"})
    body = upload(10)
    answer = await exchange(gateway.port, head(*lines, f"Content-Length: {len(body)}") + body)
    assert answer.status == 401
    assert answer.json()["error"]["request_id"] == answer.headers["x-req-id"]


async def test_headers_may_have_any_bytes(gateway: GatewayServer, service: ContractService) -> None:
    body = upload(10)
    lines = ("X-Req-Id: \xe9\xff", "X-Forwarded-For: \xe4, 1.2.3.4", f"Content-Length: {len(body)}")
    answer = await exchange(gateway.port, head(*lines) + body)
    assert answer.status == 200
    assert service.script.calls[0].metadata["x-forwarded-for"] == "unknown, 1.2.3.4, 127.0.0.1"


async def test_bytes_that_are_not_http_get_the_error_shape(gateway: GatewayServer, service: ContractService) -> None:
    answer = await exchange(gateway.port, b"\x16\x03\x01\x02\x00\r\n\r\n")
    assert answer.status == 400
    assert answer.json()["error"]["request_id"] == answer.headers["x-req-id"]


@pytest_asyncio.fixture(loop_scope="session")
async def impatient(service: ContractService) -> AsyncIterator[GatewayServer]:
    options = GatewayOptions(service.target, host="127.0.0.1", port=0, body_timeout_s=0.3)
    server = GatewayServer(options)
    await server.start()
    yield server
    await server.stop(1)


async def test_paused_upload_is_504(impatient: GatewayServer, service: ContractService) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", impatient.port)
    writer.write(head("Content-Length: 100000") + upload(10)[:50])
    answer = await asyncio.wait_for(read_answer(reader), PATIENCE_S)
    writer.close()
    assert (answer.status, answer.headers["x-error-type"]) == (504, "deadline_exceeded")
    assert not service.script.calls


async def test_trickling_upload_is_504(impatient: GatewayServer, service: ContractService) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", impatient.port)
    writer.write(head("Content-Length: 100000"))

    async def trickle() -> None:
        for byte in upload(90000):
            writer.write(bytes([byte]))
            await asyncio.sleep(0.02)

    trickling = asyncio.create_task(trickle())
    answer = await asyncio.wait_for(read_answer(reader), PATIENCE_S)
    assert not trickling.done()
    trickling.cancel()
    writer.close()
    assert answer.status == 504
