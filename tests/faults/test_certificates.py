"""Certificate rotation under load: no request fails, and the new certificates are used."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager

import httpx
import pytest

from stt_server.testing.scripted_model import Script
from tests.faults.steady import PATIENCE_S, Steady, by_grpc, by_rest
from tests.faults.tls_deployment import THEIRS, Deployment, deployment
from tests.support.certificates import Pair, authority, signed
from tests.support.observing import eventually

OWN = "the quick brown fox"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    with deployment(tmp_path_factory.mktemp("certificates")) as running:
        yield running


class Callers:
    """Callers over gRPC, REST and the standalone gateway. Some keep their connections, others open one per request with
    the current certificate."""

    def __init__(self, home: Deployment) -> None:
        self.home = home

    @asynccontextmanager
    async def load(self) -> AsyncIterator[Steady]:
        home, bare = self.home, self.home.context(bare=True)
        async with AsyncExitStack() as self._stack:
            await self.show(home.client)
            apart = httpx.AsyncClient(base_url=f"https://localhost:{home.gateway}", verify=bare, timeout=PATIENCE_S)
            through = by_rest(await self._stack.enter_async_context(apart))
            kept = [self.kept_grpc, self.kept_rest, through]
            async with Steady([*kept, self.new_grpc, *kept, self.new_rest]) as load:
                yield load

    async def show(self, client: Pair) -> None:
        """Use another certificate from the next request on."""
        self.shown = client
        url, context = f"https://localhost:{self.home.primary.http_port}", self.home.context(client)
        http = httpx.AsyncClient(base_url=url, verify=context, timeout=PATIENCE_S)
        self._rest = by_rest(await self._stack.enter_async_context(http))
        self._grpc = by_grpc(await self._stack.enter_async_context(self.home.channel(client)))

    async def kept_grpc(self) -> str:
        return await self._grpc()

    async def kept_rest(self) -> str:
        return await self._rest()

    async def new_grpc(self) -> str:
        async with self.home.channel(self.shown) as channel:
            return await by_grpc(channel)()

    async def new_rest(self) -> str:
        url = f"https://localhost:{self.home.primary.http_port}"
        async with httpx.AsyncClient(base_url=url, verify=self.home.context(self.shown), timeout=PATIENCE_S) as http:
            return await by_rest(http)()


async def served(home: Deployment, port: int, client: Pair | None = None) -> bytes:
    """Server certificate of a new connection (DER); empty if it is refused."""
    context = home.context(client)
    context.set_alpn_protocols(["h2", "http/1.1"])
    try:
        reader, writer = await asyncio.open_connection("localhost", port, ssl=context)
        # In TLS 1.3 a server refuses only after the handshake.
        writer.write(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00")
        await writer.drain()
        if not await reader.read(1):
            return b""
        found = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
        writer.close()
    except OSError:
        return b""
    return bytes(found)


def der(pair: Pair) -> bytes:
    return ssl.PEM_cert_to_DER_cert(pair.cert.read_text())


async def refusals(home: Deployment) -> float:
    """Refused reads of the primary's files."""
    async with httpx.AsyncClient(verify=home.context(bare=True)) as http:
        text = (await http.get(f"https://localhost:{home.gateway}/metrics")).text
    (line,) = (line for line in text.splitlines() if line.startswith('stt_config_reloads_total{result="refused"}'))
    return float(line.rpartition(" ")[2])


async def test_rotating_the_server_certificate_fails_no_request(home: Deployment) -> None:
    fresh = signed(home.folder, "fresh", home.authority)
    ports = (home.primary.grpc_port, home.primary.http_port)
    before = [await served(home, port) for port in ports]
    assert len(before[0]) > 100 and before[0] == before[1]
    async with Callers(home).load() as load:
        await load.answered(OWN)
        refused = await refusals(home)
        # Half-written: the certificate is replaced before its key.
        home.primary_files.swap({"server.pem": fresh.cert})
        await eventually(lambda: refusals(home), refused + 1)
        assert [await served(home, port) for port in ports] == before
        await load.answered(OWN)
        home.primary_files.swap({"server.key": fresh.key})
        for port in ports:
            await eventually(lambda port=port: served(home, port), der(fresh))  # type: ignore[misc]
        home.gateway_files.swap({"server.pem": fresh.cert, "server.key": fresh.key})
        await eventually(lambda: served(home, home.gateway), der(fresh))
        await load.answered(OWN, 50)
    assert load.failures == []
    lines = [json.loads(line) for line in home.primary.log_text().splitlines() if "TLS_KEY" in line and line[0] == "{"]
    assert [line["level"] for line in lines] == ["ERROR", "INFO"]
    assert "is not the private key of TLS_CERT" in lines[0]["message"]


async def test_rotating_the_client_authority_fails_no_request(home: Deployment) -> None:
    ca = authority(home.folder, "new-authority")
    client = signed(home.folder, "new-client", ca)
    both = home.folder / "both.pem"
    both.write_bytes(home.authority.cert.read_bytes() + ca.cert.read_bytes())
    callers = Callers(home)
    ports = (home.primary.grpc_port, home.primary.http_port)
    async with callers.load() as load:
        await load.answered(OWN)
        for port in ports:
            assert await served(home, port, client) == b""
        home.primary_files.swap({"callers.pem": both})
        for port in ports:
            await eventually(lambda port=port: _lets_in(home, port, client), True)  # type: ignore[misc]
        await callers.show(client)
        home.gateway_files.swap({"client.pem": client.cert, "client.key": client.key})
        await eventually(lambda: _gateway_renewed(home), True)
        await load.answered(OWN, 50)
        home.primary_files.swap({"callers.pem": ca.cert})
        for port in ports:
            await eventually(lambda port=port: _lets_in(home, port, home.client), False)  # type: ignore[misc]
        await load.answered(OWN, 50)
    assert load.failures == []
    home.primary_files.swap({"callers.pem": both})
    await eventually(lambda: _lets_in(home, home.primary.grpc_port, home.client), True)


async def _lets_in(home: Deployment, port: int, client: Pair) -> bool:
    return await served(home, port, client) != b""


async def _gateway_renewed(home: Deployment) -> bool:
    return (home.folder / "gateway" / "stderr.log").read_text().count("TLS files reloaded") >= 2


async def test_rotating_the_primarys_client_certificate(home: Deployment) -> None:
    fresh = signed(home.folder, "fresh-to-fallback", home.authority)
    home.primary.act(Script(confidence=0.1))
    async with home.channel() as channel, Steady([by_grpc(channel)], rate=30) as load:
        await load.answered(THEIRS)
        home.primary_files.swap({"to-fallback.pem": fresh.cert, "to-fallback.key": fresh.key})
        await eventually(lambda: _said(home, "files of FALLBACK_CA"), True)
        await load.answered(THEIRS, 30)
    home.primary.act(Script())
    assert load.failures == []
    assert set(load.answers) == {THEIRS}


async def _said(home: Deployment, text: str) -> bool:
    return text in home.primary.log_text()
