"""Starting, stopping, TLS, and callers that disconnect."""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import signal
import socket
import ssl
import time
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
import pytest_asyncio

from gateway.http import protocol
from gateway.http import server as gateway_server
from gateway.http.server import GatewayServer
from gateway.listening import PortError
from gateway.options import GatewayOptions, HttpTls
from tests.support.contract_service import ContractService
from tests.support.live_caller import PATIENCE_S, access_lines
from tests.support.raw_http import form, head, part, read_answer

pytestmark = pytest.mark.asyncio(loop_scope="session")

AUDIO = {"audio": ("speech.wav", b"RIFF....", "audio/wav")}


@pytest_asyncio.fixture(loop_scope="session")
async def own(service: ContractService) -> AsyncIterator[GatewayServer]:
    """Gateway that the test may stop."""
    server = GatewayServer(GatewayOptions(service.target, host="127.0.0.1", port=0))
    await server.start()
    yield server
    await server.stop(1)


async def test_disconnecting_cancels_the_call(gateway: GatewayServer, service: ContractService) -> None:
    service.script.hold = asyncio.Event()
    body = form(part("audio", b"abc"))
    _, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
    with access_lines("gone-1") as lines:
        writer.write(head(f"Content-Length: {len(body)}", "X-Req-Id: gone-1") + body)
        await asyncio.wait_for(service.script.started.wait(), PATIENCE_S)
        writer.close()
        await asyncio.wait_for(service.script.cancelled.wait(), PATIENCE_S)
        line = await asyncio.wait_for(lines.get(), PATIENCE_S)
    assert (line["request_id"], line["status"], line["error_type"]) == ("gone-1", 499, "cancelled")


async def test_disconnecting_within_the_body_makes_no_call(gateway: GatewayServer, service: ContractService) -> None:
    _, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
    with access_lines("gone-2") as lines:
        writer.write(head("Content-Length: 1000", "X-Req-Id: gone-2") + b"--frontier\r\n")
        await writer.drain()
        writer.close()
        line = await asyncio.wait_for(lines.get(), PATIENCE_S)
    assert line["status"] == 499
    assert not service.script.calls


async def test_stop_finishes_requests_in_flight_and_refuses_others(
    own: GatewayServer, service: ContractService
) -> None:
    service.script.hold = asyncio.Event()
    idle, writer = await asyncio.open_connection("127.0.0.1", own.port)
    writer.write(b"GET /v1/health HTTP/1.1\r\nHost: x\r\n\r\n")
    assert (await read_answer(idle)).status == 200
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{own.port}", timeout=PATIENCE_S) as http:
        waiting = asyncio.create_task(http.post("/v1/transcribe", files=AUDIO))
        await asyncio.wait_for(service.script.started.wait(), PATIENCE_S)
        stopping = asyncio.create_task(own.stop(PATIENCE_S))
        # Idle connections are closed after the listening socket.
        assert await asyncio.wait_for(idle.read(), PATIENCE_S) == b""
        writer.close()
        await _until_nothing_listens(own.port)
        assert not stopping.done()
        service.script.hold.set()
        assert (await waiting).status_code == 200
        await asyncio.wait_for(stopping, PATIENCE_S)


async def test_announced_shutdown_sends_connection_close(own: GatewayServer) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", own.port)
    request = b"GET /v1/health HTTP/1.1\r\nHost: x\r\n\r\n"
    writer.write(request)
    assert "connection" not in (await read_answer(reader)).headers
    own.announce_shutdown()
    writer.write(request)
    answer = await read_answer(reader)
    assert (answer.status, answer.headers["connection"]) == (200, "close")
    assert await asyncio.wait_for(reader.read(), PATIENCE_S) == b""
    writer.close()


async def test_request_in_transit_to_a_stopping_gateway_is_answered(
    own: GatewayServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(protocol, "LAST_REQUESTS_S", 2.0)
    reader, writer = await asyncio.open_connection("127.0.0.1", own.port)
    writer.write(b"GET /v1/health HTTP/1.1\r\nHost: x\r\n\r\n")
    assert (await read_answer(reader)).status == 200
    stopping = asyncio.create_task(own.stop(PATIENCE_S))
    await _until_nothing_listens(own.port)
    writer.write(b"GET /v1/health HTTP/1.1\r\nHost: x\r\n\r\n")
    answer = await read_answer(reader)
    assert (answer.status, answer.headers["connection"]) == (200, "close")
    writer.close()
    await asyncio.wait_for(stopping, PATIENCE_S)


async def _until_nothing_listens(port: int) -> None:
    """Wait until the gateway has closed its listening socket, as it does when it stops.

    A connection that waits in the socket's backlog as it closes is reset; later ones are refused.
    """

    async def connect_until_it_fails() -> None:
        while True:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
            except (ConnectionRefusedError, ConnectionResetError):
                return
            writer.close()

    await asyncio.wait_for(connect_until_it_fails(), PATIENCE_S)


async def test_request_that_outlasts_the_grace_period_is_503(own: GatewayServer, service: ContractService) -> None:
    service.script.hold = asyncio.Event()
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{own.port}", timeout=PATIENCE_S) as http:
        waiting = asyncio.create_task(http.post("/v1/transcribe", files=AUDIO))
        await asyncio.wait_for(service.script.started.wait(), PATIENCE_S)
        await asyncio.wait_for(own.stop(0.5), PATIENCE_S)
        response = await waiting
    assert (response.status_code, response.headers["x-error-type"]) == (503, "not_ready")
    await asyncio.wait_for(service.script.cancelled.wait(), PATIENCE_S)


async def test_gateway_may_start_before_its_service(free_target: str) -> None:
    server = GatewayServer(GatewayOptions(free_target, host="127.0.0.1", port=0))
    await server.start()
    late = ContractService()
    try:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{server.port}", timeout=PATIENCE_S) as http:
            assert (await http.get("/v1/health")).status_code == 503
            await late.start(free_target)
            for _ in range(10 * PATIENCE_S):
                if (await http.get("/v1/health")).status_code == 200:
                    break
                await asyncio.sleep(0.1)
            assert (await http.post("/v1/transcribe", files=AUDIO)).status_code == 200
    finally:
        await server.stop(1)
        await late.stop()


async def test_target_may_be_a_unix_socket(tmp_path: Path) -> None:
    service = ContractService()
    server = GatewayServer(GatewayOptions(await service.start(f"unix:{tmp_path}/s"), host="127.0.0.1", port=0))
    await server.start()
    try:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{server.port}", timeout=PATIENCE_S) as http:
            assert (await http.post("/v1/transcribe", files=AUDIO)).status_code == 200
    finally:
        await server.stop(1)
        await service.stop()


async def test_port_in_use_is_named(own: GatewayServer, service: ContractService) -> None:
    second = GatewayServer(GatewayOptions(service.target, host="127.0.0.1", port=own.port))
    with pytest.raises(PortError, match=f"HTTP can't listen on 127.0.0.1:{own.port}: {os.strerror(errno.EADDRINUSE)}"):
        await second.start()


async def test_server_changes_no_signal_handlers_or_logging(own: GatewayServer, service: ContractService) -> None:
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    for name in ("uvicorn", "uvicorn.error", "uvicorn.access"):
        logger = logging.getLogger(name)
        assert (logger.handlers, logger.propagate, logger.level) == ([], True, logging.NOTSET)


async def test_incomplete_headers_time_out(own: GatewayServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocol, "HEADERS_TIMEOUT_S", 0.2)
    for sent in (b"", b"GET / HTTP/1.1\r\nHost:"):
        reader, writer = await asyncio.open_connection("127.0.0.1", own.port)
        writer.write(sent)
        assert await asyncio.wait_for(reader.read(), PATIENCE_S) == b""
        writer.close()


async def test_connection_is_reused(own: GatewayServer) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", own.port)
    for _ in range(2):
        writer.write(b"GET /v1/health HTTP/1.1\r\nHost: x\r\n\r\n")
        assert (await asyncio.wait_for(read_answer(reader), PATIENCE_S)).status == 200
    writer.close()


async def test_idle_connection_outlasts_those_of_proxies(
    service: ContractService, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert gateway_server.KEEP_ALIVE_S > 60
    monkeypatch.setattr(gateway_server, "KEEP_ALIVE_S", 1)
    server = GatewayServer(GatewayOptions(service.target, host="127.0.0.1", port=0))
    await server.start()
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        sent_at = time.monotonic()
        writer.write(b"GET /v1/health HTTP/1.1\r\nHost: x\r\n\r\n")
        assert (await asyncio.wait_for(read_answer(reader), PATIENCE_S)).status == 200
        assert await asyncio.wait_for(reader.read(), PATIENCE_S) == b""
        assert time.monotonic() - sent_at > 0.9
        writer.close()
    finally:
        await server.stop(1)


async def test_https_with_a_certificate(service: ContractService, pem: HttpTls) -> None:
    server = GatewayServer(GatewayOptions(service.target, host="127.0.0.1", port=0, http_tls=pem))
    await server.start()
    try:
        trusting = ssl.create_default_context(cafile=str(pem.cert))
        async with httpx.AsyncClient(base_url=f"https://localhost:{server.port}", verify=trusting) as http:
            assert (await http.get("/v1/health")).status_code == 200
    finally:
        await server.stop(1)


async def test_mutual_tls_rejects_callers_without_certificate(service: ContractService, pem: HttpTls) -> None:
    mutual = HttpTls(pem.cert, pem.key, client_ca=pem.cert)
    server = GatewayServer(GatewayOptions(service.target, host="127.0.0.1", port=0, http_tls=mutual))
    await server.start()
    try:
        trusting = ssl.create_default_context(cafile=str(pem.cert))
        async with httpx.AsyncClient(base_url=f"https://localhost:{server.port}", verify=trusting) as http:
            with pytest.raises((httpx.ReadError, httpx.ConnectError, httpx.RemoteProtocolError)):
                await http.get("/v1/health")
        trusting.load_cert_chain(pem.cert, pem.key)
        async with httpx.AsyncClient(base_url=f"https://localhost:{server.port}", verify=trusting) as http:
            assert (await http.get("/v1/health")).status_code == 200
    finally:
        await server.stop(1)


async def test_invalid_certificate_file_fails_the_start(service: ContractService, tmp_path: Path) -> None:
    junk = tmp_path / "junk.pem"
    junk.write_text("not PEM")
    server = GatewayServer(GatewayOptions(service.target, host="127.0.0.1", port=0, http_tls=HttpTls(junk, junk)))
    with pytest.raises(OSError, match=r"junk\.pem"):
        await server.start()
    with socket.create_server(("127.0.0.1", 0)):
        pass
