"""`grpc_health_probe`, Kubernetes's usual probe, and health-checking clients of gRPC: their exact calls.

The probe (https://github.com/grpc-ecosystem/grpc-health-probe) connects within `-connect-timeout`, calls
`grpc.health.v1.Health/Check` for `-service` within `-rpc-timeout`, and exits with a status of its own for each outcome.
gRPC's client-side health checking and Envoy hold a `Watch` open.
"""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from stt_server.app import Service
from stt_server.config import parse
from stt_server.testing.scripted_model import ScriptedModel
from tests.support.certificates import Pair, authority, signed
from tests.support.services import running, settings_text, stub_of, transcribe, until

HEALTHY, CONNECTION_FAILURE, RPC_FAILURE, UNHEALTHY = 0, 2, 3, 4
"""Exit statuses of the probe."""

SERVING, NOT_SERVING = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING
NAMES = ("", "stt.v1.SpeechToText")
PATIENCE_S = 20.0
"""Instead of the probe's 1 s, since other work may share the machine."""


@dataclass(frozen=True)
class Probe:
    """The options of `grpc_health_probe`, named like them."""

    addr: str
    service: str = ""
    connect_timeout: float = PATIENCE_S
    rpc_timeout: float = PATIENCE_S
    tls_ca_cert: Path | None = None
    """With it, `-tls`."""
    tls_client: Pair | None = None
    tls_server_name: str = ""
    gzip: bool = False
    rpc_header: tuple[tuple[str, str], ...] = ()

    async def status(self) -> int:
        """Exit status."""
        return (await self.run())[0]

    async def run(self) -> tuple[int, grpc.StatusCode]:
        """Exit status, and the status of the call."""
        async with self._channel() as channel:
            try:
                await asyncio.wait_for(channel.channel_ready(), self.connect_timeout)
            except asyncio.TimeoutError:
                return CONNECTION_FAILURE, grpc.StatusCode.UNAVAILABLE
            request = health_pb2.HealthCheckRequest(service=self.service)
            try:
                answer = await health_pb2_grpc.HealthStub(channel).Check(
                    request,
                    timeout=self.rpc_timeout,
                    metadata=self.rpc_header,
                    compression=grpc.Compression.Gzip if self.gzip else None,
                )
            except grpc.aio.AioRpcError as error:
                return RPC_FAILURE, error.code()
        return (HEALTHY if answer.status == SERVING else UNHEALTHY), grpc.StatusCode.OK

    def _channel(self) -> grpc.aio.Channel:
        options = [("grpc.primary_user_agent", "grpc_health_probe"), ("grpc.use_local_subchannel_pool", 1)]
        if self.tls_ca_cert is None:
            return grpc.aio.insecure_channel(self.addr, options)
        if self.tls_server_name:
            options.append(("grpc.ssl_target_name_override", self.tls_server_name))
        shown: tuple[bytes | None, bytes | None] = (None, None)
        if self.tls_client is not None:
            shown = (self.tls_client.key.read_bytes(), self.tls_client.cert.read_bytes())
        credentials = grpc.ssl_channel_credentials(self.tls_ca_cert.read_bytes(), *shown)
        return grpc.aio.secure_channel(self.addr, credentials, options)


def address(service: Service) -> str:
    return f"127.0.0.1:{service.grpc_port}"


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("role", ["primary", "fallback"])
async def test_ready_service_is_healthy_under_both_names_without_a_key(tmp_path: Path, role: Any, name: str) -> None:
    async with running(tmp_path, role, API_KEYS="web:0123456789abcdef") as service:
        assert await Probe(address(service), name).status() == HEALTHY


async def test_unknown_name_is_not_found(service: Service) -> None:
    assert await Probe(address(service), "no.such.Service").run() == (RPC_FAILURE, grpc.StatusCode.NOT_FOUND)


async def test_compression_and_headers_of_the_probe_are_accepted(service: Service) -> None:
    probe = Probe(address(service), gzip=True, rpc_header=(("authorization", "Bearer wrong"), ("x-any", "thing")))
    assert await probe.status() == HEALTHY


async def test_service_is_unhealthy_while_its_model_loads_and_while_it_drains(tmp_path: Path) -> None:
    loaded, model = threading.Event(), ScriptedModel()

    def load(_: object) -> ScriptedModel:
        loaded.wait(PATIENCE_S)
        return model

    service = Service(parse(settings_text(tmp_path, "primary", DRAIN_TIMEOUT_S=PATIENCE_S), "primary"), load)
    starting = asyncio.ensure_future(service.start())
    try:
        await until(lambda: service.grpc_port)
        assert await Probe(address(service)).status() == UNHEALTHY
        loaded.set()
        await starting
        assert await Probe(address(service)).status() == HEALTHY
        model.open.clear()
        async with stub_of(service) as stub:
            answer = asyncio.ensure_future(transcribe(stub))
            await until(lambda: model.running)
            stopping = asyncio.ensure_future(service.stop())
            async with watched(address(service), "") as states:
                assert await anext(states) == NOT_SERVING
            assert await Probe(address(service)).status() == UNHEALTHY
            model.open.set()
            await answer
        await stopping
    finally:
        model.open.set()
        loaded.set()
    assert await Probe(address(service), connect_timeout=0.2).status() == CONNECTION_FAILURE


async def test_busy_service_is_healthy(tmp_path: Path) -> None:
    model = ScriptedModel()
    model.open.clear()
    async with running(tmp_path, model=model, MAX_CONCURRENCY=1, MAX_QUEUE=0) as service, stub_of(service) as stub:
        answer = asyncio.ensure_future(transcribe(stub))
        await until(lambda: model.running)
        assert await Probe(address(service)).status() == HEALTHY
        model.open.set()
        await answer


@contextmanager
def silent_listener() -> Iterator[str]:
    """An address that accepts connections and never says a word, like a frozen process."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield f"127.0.0.1:{listener.getsockname()[1]}"


async def test_connect_timeout_ends_the_probe_of_a_frozen_process() -> None:
    with silent_listener() as frozen:
        assert await Probe(frozen, connect_timeout=0.2).status() == CONNECTION_FAILURE


@asynccontextmanager
async def watched(target: str, name: str) -> AsyncIterator[AsyncIterator[int]]:
    """The statuses that a `Watch` sends."""
    async with grpc.aio.insecure_channel(target) as channel:
        call = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest(service=name))
        yield (answer.status async for answer in call)


@pytest.mark.parametrize("name", NAMES)
async def test_watch_sends_the_status_and_each_change(tmp_path: Path, name: str) -> None:
    async with running(tmp_path) as service, watched(address(service), name) as states:
        assert await anext(states) == SERVING
        stopping = asyncio.ensure_future(service.stop())
        assert await anext(states) == NOT_SERVING
        with pytest.raises(grpc.aio.AioRpcError) as ended:
            await anext(states)
        await stopping
    assert ended.value.code() is grpc.StatusCode.UNAVAILABLE


async def test_watch_of_an_unknown_name_stays_open_and_says_so(service: Service) -> None:
    async with watched(address(service), "no.such.Service") as states:
        assert await anext(states) == health_pb2.HealthCheckResponse.SERVICE_UNKNOWN


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Pair]:
    """An authority, a server certificate for `stt.internal`, a client certificate, and a stranger's authority."""
    folder = tmp_path_factory.mktemp("certificates")
    ca = authority(folder, "ca")
    return {
        "ca": ca,
        "server": signed(folder, "server", ca, names="DNS:stt.internal"),
        "client": signed(folder, "client", ca),
        "stranger": authority(folder, "stranger"),
    }


@pytest.fixture
async def secure(tmp_path: Path, certificates: dict[str, Pair]) -> AsyncIterator[Service]:
    """A service that requires client certificates."""
    server = certificates["server"]
    files: dict[str, Any] = {"TLS_CERT": server.cert, "TLS_KEY": server.key, "TLS_CLIENT_CA": certificates["ca"].cert}
    async with running(tmp_path, **files) as service:
        yield service


async def test_probe_with_tls_options_is_healthy(secure: Service, certificates: dict[str, Pair]) -> None:
    probe = Probe(
        address(secure),
        "stt.v1.SpeechToText",
        tls_ca_cert=certificates["ca"].cert,
        tls_client=certificates["client"],
        tls_server_name="stt.internal",
    )
    assert await probe.status() == HEALTHY


@pytest.mark.parametrize(
    "changed",
    [
        {"tls_ca_cert": None, "tls_client": None, "tls_server_name": ""},
        {"tls_client": None},
        {"tls_server_name": ""},
        {"tls_server_name": "other.internal"},
        {"tls_ca_cert": "stranger"},
    ],
    ids=["plain-text", "no-client-certificate", "no-server-name", "other-server-name", "other-authority"],
)
async def test_probe_without_one_of_them_cannot_connect(
    secure: Service, certificates: dict[str, Pair], changed: dict[str, Any]
) -> None:
    options: dict[str, Any] = {"tls_ca_cert": "ca", "tls_client": certificates["client"]}
    options |= {"tls_server_name": "stt.internal", **changed}
    if options["tls_ca_cert"]:
        options["tls_ca_cert"] = certificates[options["tls_ca_cert"]].cert
    probe = Probe(address(secure), connect_timeout=1.0, **options)
    assert await probe.status() != HEALTHY
