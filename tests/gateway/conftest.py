"""One scripted service and one gateway in front of it, for all tests that need no settings of their own."""

from __future__ import annotations

import socket
import subprocess
from collections.abc import AsyncIterator

import httpx
import pytest
import pytest_asyncio

from gateway.http.server import GatewayServer
from gateway.options import GatewayOptions, HttpTls
from tests.support.scripted_gateway_service import ScriptedService


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def running_service() -> AsyncIterator[ScriptedService]:
    service = ScriptedService()
    await service.start()
    yield service
    await service.stop()


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def gateway(running_service: ScriptedService) -> AsyncIterator[GatewayServer]:
    server = GatewayServer(GatewayOptions(target=running_service.address, host="127.0.0.1", port=0))
    await server.start()
    yield server
    await server.stop(1)


@pytest_asyncio.fixture(loop_scope="session")
async def service(running_service: ScriptedService) -> AsyncIterator[ScriptedService]:
    running_service.reset()
    await running_service.serving(True)
    yield running_service


@pytest_asyncio.fixture(loop_scope="session")
async def http(gateway: GatewayServer, service: ScriptedService) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{gateway.port}", timeout=30) as client:
        yield client


@pytest.fixture
def free_target() -> str:
    """An address where nothing listens."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return f"127.0.0.1:{listener.getsockname()[1]}"


@pytest.fixture(scope="session")
def pem(tmp_path_factory: pytest.TempPathFactory) -> HttpTls:
    """A certificate for localhost that signed itself."""
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
