"""One scripted service and one gateway in front of it, shared by all tests that need no settings of their own."""

from __future__ import annotations

import json
import socket
import subprocess
from collections.abc import AsyncIterator

import httpx
import pytest
import pytest_asyncio

from gateway.http.server import GatewayServer
from gateway.options import GatewayOptions, HttpTls
from tests.gateway.transcripts import two_segments
from tests.support.contract_messages import EchoStream
from tests.support.contract_script import Script
from tests.support.contract_service import ContractService


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def running_service() -> AsyncIterator[ContractService]:
    service = ContractService(script())
    await service.start()
    yield service
    await service.stop()


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def gateway(running_service: ContractService) -> AsyncIterator[GatewayServer]:
    server = GatewayServer(GatewayOptions(target=running_service.target, host="127.0.0.1", port=0))
    await server.start()
    yield server
    await server.stop(1)


@pytest_asyncio.fixture(loop_scope="session")
async def service(running_service: ContractService) -> AsyncIterator[ContractService]:
    running_service.script = script()
    await running_service.set_serving(True)
    yield running_service


def script() -> Script:
    """Script that returns the same transcript for every request, and echoes streams."""
    response = two_segments()
    return Script(
        response=response,
        echo=EchoStream(response),
        retryable=False,
        snapshot_json=json.dumps({"server_commit": "abc", "uptime_s": 12.5, "requests": {"total": 3}}),
        exposition='stt_requests_total{endpoint="/v1/transcribe"} 3.0\n',
    )


@pytest_asyncio.fixture(loop_scope="session")
async def http(gateway: GatewayServer, service: ContractService) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{gateway.port}", timeout=30) as client:
        yield client


@pytest.fixture
def free_target() -> str:
    """Address on which nothing listens."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return f"127.0.0.1:{listener.getsockname()[1]}"


@pytest.fixture(scope="session")
def pem(tmp_path_factory: pytest.TempPathFactory) -> HttpTls:
    """Self-signed certificate for localhost."""
    folder = tmp_path_factory.mktemp("pem")
    made = HttpTls(folder / "cert.pem", folder / "key.pem")
    command = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:prime256v1",
        "-nodes",
    ]
    command += ["-keyout", str(made.key), "-out", str(made.cert), "-days", "2", "-subj", "/CN=localhost"]
    command += ["-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
    subprocess.run(command, check=True, capture_output=True)
    return made
