"""TLS and mutual TLS on every connection of a real pair, and the errors of refused callers."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from stt_client import SttClient, Tls
from stt_client.cli import main
from stt_client.errors import Unauthenticated, UpstreamUnavailable
from stt_server import healthcheck
from stt_server.testing.paths import SPEECH
from stt_server.testing.scripted_model import Script
from tests.faults.steady import WAV
from tests.faults.tls_deployment import KEY, THEIRS, Deployment, deployment
from tests.support.certificates import Pair, authority, signed
from tests.support.observing import eventually

OWN = "the quick brown fox jumps over the lazy dog"
WITHOUT_A_CERTIFICATE = (httpx.ReadError, httpx.ConnectError, httpx.RemoteProtocolError)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    with deployment(tmp_path_factory.mktemp("tls")) as running:
        yield running


@pytest.fixture(scope="module")
def stranger(home: Deployment) -> Pair:
    """A certificate of an unknown authority, next to the authority's own certificate."""
    return signed(home.folder, "stranger", authority(home.folder, "unknown"))


def tls(home: Deployment, client: Pair | None = None, ca: Path | None = None) -> Tls:
    pair = client or home.client
    return Tls((ca or home.authority.cert).read_bytes(), pair.cert.read_bytes(), pair.key.read_bytes())


def server(home: Deployment, host: str = "127.0.0.1") -> str:
    return f"grpcs://{host}:{home.primary.grpc_port}"


async def test_the_primary_calls_its_fallback_with_certificate_and_key(home: Deployment) -> None:
    home.primary.act(Script(confidence=0.1))
    async with SttClient(server(home), tls=tls(home)) as client:
        answer = await client.transcribe(WAV)
    home.primary.act(Script())
    assert (answer.text, answer.routing.fallback_used, answer.routing.fallback_error) == (THEIRS, True, "")


async def test_a_key_is_required_beside_a_certificate(home: Deployment) -> None:
    target = f"grpcs://localhost:{home.fallback.grpc_port}"
    async with SttClient(target, tls=tls(home)) as client:
        with pytest.raises(Unauthenticated):
            await client.transcribe(WAV)
    async with SttClient(target, tls=tls(home), api_key=KEY) as client:
        assert (await client.transcribe(WAV)).text == THEIRS
    url = f"https://localhost:{home.fallback.http_port}"
    async with httpx.AsyncClient(base_url=url, verify=home.context()) as http:
        for key, status in (("", 401), (KEY, 200)):
            headers = {"Authorization": f"Bearer {key}"} if key else {}
            response = await http.post("/v1/transcribe", files={"audio": ("a.wav", WAV)}, headers=headers)
            assert response.status_code == status


async def test_unknown_clients_are_refused_over_grpc_with_advice(home: Deployment, stranger: Pair) -> None:
    unknown = home.folder / "unknown.pem"
    for target, shown, message in (
        (f"grpc://127.0.0.1:{home.primary.grpc_port}", None, "agree on TLS: grpcs://"),
        (server(home), tls(home, ca=unknown), "pass the authority's certificate (--ca FILE"),
        (server(home), None, "pass the authority's certificate (--ca FILE"),
        (server(home), Tls(home.authority.cert.read_bytes()), "--cert and --key"),
        (server(home), tls(home, stranger), "--cert and --key"),
    ):
        async with SttClient(target, tls=shown) as client:
            with pytest.raises(UpstreamUnavailable) as caught:
                await client.transcribe(WAV)
            assert message in str(caught.value)


async def test_unknown_clients_are_refused_over_https(home: Deployment, stranger: Pair) -> None:
    url = f"https://localhost:{home.primary.http_port}"
    async with httpx.AsyncClient(base_url=url, verify=home.context()) as http:
        assert (await http.post("/v1/transcribe", files={"audio": ("a.wav", WAV)})).json()["text"] == OWN
    for context in (home.context(bare=True), home.context(stranger)):
        async with httpx.AsyncClient(base_url=url, verify=context) as http:
            with pytest.raises(WITHOUT_A_CERTIFICATE):
                await http.get("/v1/health")
    async with httpx.AsyncClient(base_url=url) as http:
        with pytest.raises(httpx.ConnectError, match="CERTIFICATE_VERIFY_FAILED"):
            await http.get("/v1/health")
    async with httpx.AsyncClient(base_url=url.replace("https", "http")) as http:
        with pytest.raises(httpx.RemoteProtocolError):
            await http.get("/v1/health")


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion:DeprecationWarning")
async def test_old_versions_of_tls_are_refused(home: Deployment) -> None:
    for port in (home.primary.grpc_port, home.primary.http_port):
        context = home.context()
        context.set_alpn_protocols(["h2"])
        context.minimum_version = ssl.TLSVersion.TLSv1
        context.maximum_version = ssl.TLSVersion.TLSv1_1
        context.set_ciphers("ALL:@SECLEVEL=0")
        with socket.create_connection(("localhost", port), 10) as plain, pytest.raises((ssl.SSLError, OSError)):
            await asyncio.to_thread(context.wrap_socket, plain, server_hostname="localhost")


async def test_expired_and_foreign_certificates_are_refused(home: Deployment) -> None:
    original = {name: home.folder / name for name in ("server.pem", "server.key")}
    for name, names, expired, message in (
        ("elsewhere", "DNS:elsewhere.example.com", False, "connect to a name that it lists"),
        ("old", "DNS:localhost,IP:127.0.0.1", True, "has expired: renew it"),
    ):
        pair = signed(home.folder, name, home.authority, names=names, expired=expired)
        home.primary_files.swap({"server.pem": pair.cert, "server.key": pair.key})
        await eventually(lambda: _refusal(home), message)
        async with httpx.AsyncClient(verify=home.context()) as http:
            with pytest.raises(httpx.ConnectError, match="CERTIFICATE_VERIFY_FAILED"):
                await http.get(f"https://localhost:{home.primary.http_port}/v1/health")
    home.primary_files.swap(original)
    await eventually(lambda: _refusal(home), "")


async def _refusal(home: Deployment) -> str:
    """Second sentence of the error for a new caller; empty if there is no error."""
    async with SttClient(server(home), tls=tls(home)) as client:
        try:
            await client.status()
        except UpstreamUnavailable as error:
            known = ("connect to a name that it lists", "has expired: renew it")
            return next((message for message in known if message in str(error)), str(error))
    return ""


async def test_the_command_line_client_uses_certificates(home: Deployment, capsys: pytest.CaptureFixture[str]) -> None:
    file = str(SPEECH)
    options = ["--server", server(home), "--ca", str(home.authority.cert)]
    shown = ["--cert", str(home.client.cert), "--key", str(home.client.key)]
    for command in (["transcribe", file], ["stream", file], ["status"]):
        assert await asyncio.to_thread(main, [*command, *options, *shown]) == 0, command
        out = capsys.readouterr().out
        assert "health: serving" in out if command == ["status"] else OWN in out
        assert await asyncio.to_thread(main, [*command, *options]) == 1, command
        message = "".join(capsys.readouterr())
        assert "--cert and --key" in message, command


async def test_a_standalone_gateway_serves_https_before_mutual_tls(home: Deployment) -> None:
    url = f"https://localhost:{home.gateway}"
    async with httpx.AsyncClient(base_url=url, verify=home.context(bare=True)) as http:
        assert (await http.get("/v1/health")).status_code == 200
        assert (await http.post("/v1/transcribe", files={"audio": ("a.wav", WAV)})).json()["text"] == OWN
    async with httpx.AsyncClient(base_url=url) as http:
        with pytest.raises(httpx.ConnectError, match="CERTIFICATE_VERIFY_FAILED"):
            await http.get("/v1/health")


@pytest.mark.parametrize("service", ["primary", "fallback"])
def test_the_health_check_uses_mutual_tls(
    home: Deployment, service: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    process = home.primary if service == "primary" else home.fallback
    config = tmp_path / process.config.name
    text = process.config.read_text().replace("GRPC_PORT=0", f"GRPC_PORT={process.grpc_port}")
    config.write_text(text)
    assert healthcheck.main(["--config", str(config), "--timeout", "60"]) == 0
    assert capsys.readouterr().out.startswith("SERVING: 127.0.0.1:")
    config.write_text("".join(line for line in text.splitlines(True) if not line.startswith("TLS_")))
    assert healthcheck.main(["--config", str(config), "--timeout", "60"]) == 1
    assert "no answer: UNAVAILABLE" in capsys.readouterr().out
