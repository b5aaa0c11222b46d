"""The Wyoming protocol: disconnecting, size, time, number of connections, stopping, replaced connections."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest
import pytest_asyncio
from wyoming.audio import AudioChunk, AudioStart, AudioStop
from wyoming.event import async_write_event
from wyoming.ping import Ping

from gateway.http.server import GatewayServer
from gateway.listening import PortError
from gateway.options import GatewayOptions, WyomingOptions
from gateway.wyoming import caller, connection, server
from stt_server.testing.wyoming_caller import speak
from tests.support.contract_service import ContractService
from tests.support.wyoming_caller import PATIENCE_S, calling, error, transcript

pytestmark = pytest.mark.asyncio(loop_scope="session")

SECOND = bytes(32_000)
START = AudioStart(16_000, 2, 1).event()


@pytest_asyncio.fixture(loop_scope="session")
async def own(service: ContractService) -> AsyncIterator[GatewayServer]:
    """Gateway that the test may stop."""
    options = GatewayOptions(service.target, "127.0.0.1", 0, wyoming=WyomingOptions(0), body_timeout_s=5)
    server = GatewayServer(options)
    await server.start()
    yield server
    await server.stop(1)


async def test_disconnecting_cancels_the_call(own: GatewayServer, service: ContractService) -> None:
    service.script.hold = asyncio.Event()
    async with calling(own.wyoming_port) as client:
        await speak(client, SECOND)
        await asyncio.wait_for(service.script.started.wait(), PATIENCE_S)
    await asyncio.wait_for(service.script.cancelled.wait(), PATIENCE_S)


async def test_audio_over_the_upload_limit_is_refused_while_it_is_sent(
    own: GatewayServer, service: ContractService
) -> None:
    service.script.max_upload_bytes = len(SECOND)
    async with calling(own.wyoming_port) as client:
        await speak(client, SECOND)
        assert (await transcript(client)).text
        await speak(client, SECOND + b"\0\0")
        assert (await error(client)).code == "payload_too_large"
    assert len(service.script.calls) == 1


async def test_audio_that_does_not_continue_is_refused(service: ContractService) -> None:
    options = GatewayOptions(service.target, "127.0.0.1", 0, wyoming=WyomingOptions(0), body_timeout_s=0.05)
    hasty = GatewayServer(options)
    await hasty.start()
    try:
        async with calling(hasty.wyoming_port) as client:
            await client.write_event(START)
            failed = await error(client)
    finally:
        await hasty.stop(1)
    assert failed.code == "deadline_exceeded" and "audio-stop" in failed.text


async def test_idle_connection_is_closed(
    own: GatewayServer, service: ContractService, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "IDLE_TIMEOUT_S", 0.01)
    async with calling(own.wyoming_port) as client:
        assert await client.read_event() is None


async def test_caller_that_does_not_read_is_disconnected(
    own: GatewayServer, service: ContractService, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(caller, "WRITE_TIMEOUT_S", 0.05)

    async def send_until_disconnected() -> None:
        _, writer = await asyncio.open_connection("127.0.0.1", own.wyoming_port)
        with contextlib.suppress(ConnectionError):
            while True:
                await async_write_event(Ping("x" * 60_000).event(), writer)
        writer.close()

    await asyncio.wait_for(send_until_disconnected(), PATIENCE_S)


async def test_over_the_connection_limit_the_longest_idle_one_is_closed(
    own: GatewayServer, service: ContractService, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "MAX_CONNECTIONS", 2)
    async with calling(own.wyoming_port) as first, calling(own.wyoming_port) as second:
        for client in (second, first):
            await client.write_event(Ping().event())
            assert await client.read_event() is not None
        async with calling(own.wyoming_port) as third:
            assert await second.read_event() is None
            await third.write_event(Ping().event())
            assert await third.read_event() is not None
            await first.write_event(Ping().event())
            assert await first.read_event() is not None


async def test_over_the_connection_limit_those_with_audio_are_kept(
    own: GatewayServer, service: ContractService, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "MAX_CONNECTIONS", 2)
    async with AsyncExitStack() as stack:
        speaking = [await stack.enter_async_context(calling(own.wyoming_port)) for _ in range(2)]
        for client in speaking:
            await client.write_event(START)
            await client.write_event(Ping().event())
            assert await client.read_event() is not None
        async with calling(own.wyoming_port) as late:
            assert (await error(late)).code == "overloaded"
        for client in speaking:
            await client.write_event(AudioChunk(16_000, 2, 1, SECOND).event())
            await client.write_event(AudioStop().event())
            assert (await transcript(client)).text


async def test_stop_closes_idle_connections_and_waits_for_speakers(
    own: GatewayServer, service: ContractService
) -> None:
    async with calling(own.wyoming_port) as idle, calling(own.wyoming_port) as speaking:
        for client in (idle, speaking):
            await client.write_event(Ping().event())
            assert await client.read_event() is not None
        await speaking.write_event(START)
        await speaking.write_event(Ping().event())
        assert await speaking.read_event() is not None
        stopping = asyncio.ensure_future(own.stop(PATIENCE_S))
        assert await idle.read_event() is None
        assert not stopping.done()
        await speaking.write_event(AudioChunk(16_000, 2, 1, SECOND).event())
        await speaking.write_event(AudioStop().event())
        assert (await transcript(speaking)).text
        assert await speaking.read_event() is None
        await asyncio.wait_for(stopping, PATIENCE_S)


async def test_end_of_the_grace_period_is_an_error(own: GatewayServer, service: ContractService) -> None:
    service.script.hold = asyncio.Event()
    async with calling(own.wyoming_port) as client:
        await speak(client, SECOND)
        await asyncio.wait_for(service.script.started.wait(), PATIENCE_S)
        stopping = asyncio.ensure_future(own.stop(0.01))
        assert (await error(client)).code == "not_ready"
        await asyncio.wait_for(stopping, PATIENCE_S)


async def test_replaced_connection_to_the_service_finishes_its_call(
    own: GatewayServer, service: ContractService
) -> None:
    service.script.hold = asyncio.Event()
    async with calling(own.wyoming_port) as client:
        await speak(client, SECOND)
        await asyncio.wait_for(service.script.started.wait(), PATIENCE_S)
        own.reconnect(None)
        service.script.hold.set()
        assert (await transcript(client)).text
        await speak(client, SECOND)
        assert (await transcript(client)).text


async def test_changed_key_is_used_by_open_connections(own: GatewayServer, service: ContractService) -> None:
    service.script.keys = ["new"]
    async with calling(own.wyoming_port) as client:
        await client.write_event(Ping().event())
        assert await client.read_event() is not None
        own.use_wyoming_key("new")
        await speak(client, SECOND)
        assert (await transcript(client)).text


async def test_unreachable_service_is_an_error(free_target: str) -> None:
    server = GatewayServer(GatewayOptions(free_target, "127.0.0.1", 0, wyoming=WyomingOptions(0)))
    await server.start()
    try:
        async with calling(server.wyoming_port) as client:
            await speak(client, SECOND)
            failed = await error(client)
    finally:
        await server.stop(1)
    assert failed.code == "upstream_unavailable" and free_target not in failed.text


async def test_port_in_use_is_named_and_leaves_nothing_open(own: GatewayServer, service: ContractService) -> None:
    taken = GatewayOptions(service.target, "127.0.0.1", 0, wyoming=WyomingOptions(own.wyoming_port or 0))
    second = GatewayServer(taken)
    with pytest.raises(PortError, match=rf"Wyoming can't listen on 127.0.0.1:{own.wyoming_port}: "):
        await second.start()
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", second.port)
