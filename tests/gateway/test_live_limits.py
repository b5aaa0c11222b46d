"""Live streams whose caller, service or gateway stops, stalls, or cannot keep up."""

from __future__ import annotations

import asyncio
import json
import socket as sockets
import struct
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from websockets.exceptions import ConnectionClosed

from gateway.http import websocket
from gateway.http.inbox import Inbox
from gateway.http.server import GatewayServer
from gateway.options import GatewayOptions
from stt_client import FLUSH, Flush
from tests.support.contract_script import Failure
from tests.support.contract_service import ContractService
from tests.support.live_caller import (
    CONFIG,
    END,
    PATIENCE_S,
    SECOND,
    access_lines,
    calling,
    event,
    failure,
    rest,
    streaming,
)
from tests.support.services import until

pytestmark = pytest.mark.asyncio(loop_scope="session")


@pytest_asyncio.fixture(loop_scope="session")
async def own(service: ContractService) -> AsyncIterator[GatewayServer]:
    """Gateway that the test may stop."""
    server = GatewayServer(GatewayOptions(service.target, host="127.0.0.1", port=0))
    await server.start()
    yield server
    await server.stop(1)


@pytest.mark.parametrize("politely", [True, False])
async def test_disconnecting_cancels_the_call(
    gateway: GatewayServer, service: ContractService, monkeypatch: pytest.MonkeyPatch, politely: bool
) -> None:
    half_closes: list[Inbox[object]] = []
    monkeypatch.setattr(Inbox, "end", half_closes.append)
    service.script.hold = asyncio.Event()  # a call whose audio merely ended would last
    with access_lines("leaving") as lines:
        async with streaming(gateway, request_id="leaving") as socket:
            await socket.send(SECOND)
            await event(socket)
            if politely:
                await socket.close(1001)
            else:
                socket.transport.abort()
            await asyncio.wait_for(service.script.cancelled.wait(), PATIENCE_S)
        line = await asyncio.wait_for(lines.get(), PATIENCE_S)
    assert (line["status"], line["error_type"]) == (101, "cancelled")
    assert line["close_code"] == (1001 if politely else 1005)
    # Seen from here: to the service, the requests of a cancelled call end like those of a half-closed one.
    assert not half_closes


async def test_hang_up_while_reading_is_paused_cancels_the_call(
    gateway: GatewayServer, service: ContractService, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(websocket, "HANGUP_CHECK_INTERVAL_S", 0.05)
    service.script.read_audio = asyncio.Event()
    async with streaming(gateway) as socket:
        pushing = asyncio.create_task(_push(socket, until_cut=True))
        await _stands_still(socket)
        # A reset, since a FIN would be queued behind the unread audio.
        ours = socket.transport.get_extra_info("socket")
        ours.setsockopt(sockets.SOL_SOCKET, sockets.SO_LINGER, struct.pack("ii", 1, 0))
        socket.transport.abort()
        await asyncio.wait_for(service.script.cancelled.wait(), PATIENCE_S)
        await pushing


async def test_back_pressure_reaches_the_caller(gateway: GatewayServer, service: ContractService) -> None:
    service.script.read_audio = asyncio.Event()
    async with streaming(gateway, interim_results=False) as socket:
        pushing = asyncio.create_task(_push(socket, messages=400))
        await _stands_still(socket)
        assert not pushing.done()
        service.script.read_audio.set()
        await pushing
        await socket.send(END)
        (final,), code = await rest(socket)
    assert (final["final"]["result"]["text"], code) == (f"{400 * 64 * 1024} bytes", 1000)


async def test_slow_reader_delays_only_its_own_stream(gateway: GatewayServer, service: ContractService) -> None:
    service.script.echo.interims_per_message, service.script.echo.interim_text = 5000, "x" * 20_000
    async with calling(gateway, max_queue=1) as slow:
        await slow.send(json.dumps(CONFIG))
        await slow.send(SECOND)
        await _still(lambda: service.script.echo.interims_sent)
        held = service.script.echo.interims_sent
        assert held < service.script.echo.interims_per_message
        service.script.echo.interims_per_message, service.script.echo.interim_text = 1, "x"
        async with streaming(gateway) as quick:
            await quick.send(SECOND)
            await quick.send(END)
            assert (await rest(quick))[1] == 1000
        for _ in range(held + 1):  # more than had been sent, so the service continues
            await event(slow)
        await slow.close()


async def test_caller_that_stops_reading_is_disconnected(
    gateway: GatewayServer, service: ContractService, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(websocket, "UNREAD_TIMEOUT_S", 0.3)
    service.script.echo.interims_per_message, service.script.echo.interim_text = 5000, "x" * 20_000
    async with calling(gateway, max_queue=1) as socket:
        await socket.send(json.dumps(CONFIG))
        await socket.send(SECOND)
        await asyncio.wait_for(service.script.cancelled.wait(), PATIENCE_S)
        socket.transport.abort()


async def test_caller_that_answers_no_ping_is_disconnected(
    service: ContractService, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = await _with_quick_pings(service, monkeypatch)
    try:
        with access_lines("by-hand") as lines:
            reader, writer = await _by_hand(server)
            line = await asyncio.wait_for(lines.get(), PATIENCE_S)
        assert (line["status"], line["error_type"]) == (101, "cancelled")
        assert (await asyncio.wait_for(reader.read(), PATIENCE_S)).startswith(b"\x89")  # the ping
        writer.close()
    finally:
        await server.stop(1)


async def test_audio_counts_as_an_answer_to_pings(service: ContractService, monkeypatch: pytest.MonkeyPatch) -> None:
    # Long enough for a process that is not scheduled for a while.
    server = await _with_quick_pings(service, monkeypatch, timeout_s=0.5)
    try:
        reader, writer = await _by_hand(server)
        writer.write(_frame(json.dumps({**CONFIG, "interim_results": False}).encode(), opcode=1))
        speaking = asyncio.create_task(_speak(writer))
        pings = 0
        while pings < 4:  # the first unanswered ping would be the last
            some = await asyncio.wait_for(reader.read(100), PATIENCE_S)
            assert some, "the connection was closed"
            pings += some.count(b"\x89\x04")
        assert not service.script.cancelled.is_set()
        speaking.cancel()
        writer.close()
    finally:
        await server.stop(1)


async def test_stop_sends_the_final_and_not_ready(own: GatewayServer, service: ContractService) -> None:
    async with streaming(own, interim_results=False) as socket:
        await socket.send(SECOND)
        await until(lambda: service.script.streams and service.script.streams[0].audio)
        stopping = asyncio.create_task(own.stop(PATIENCE_S))
        (final, error), code = await rest(socket)
        await asyncio.wait_for(stopping, PATIENCE_S)
    assert final["final"]["result"]["text"] == "32000 bytes"
    assert (error["error"]["type"], code) == ("not_ready", 1012)
    assert service.script.streams[0].half_closed


async def test_stop_lets_an_ended_stream_finish_normally(own: GatewayServer, service: ContractService) -> None:
    service.script.hold = asyncio.Event()
    async with streaming(own, interim_results=False) as socket:
        await socket.send(SECOND)
        await socket.send(END)
        await until(lambda: service.script.streams and service.script.streams[0].half_closed)
        stopping = asyncio.create_task(own.stop(PATIENCE_S))
        service.script.hold.set()
        (final,), code = await rest(socket)
        await asyncio.wait_for(stopping, PATIENCE_S)
    assert ("final" in final, code) == (True, 1000)


async def test_stream_that_outlasts_the_grace_period_is_not_ready(own: GatewayServer, service: ContractService) -> None:
    service.script.hold = asyncio.Event()
    async with streaming(own) as socket:
        await asyncio.wait_for(service.script.started.wait(), PATIENCE_S)
        stopping = asyncio.create_task(own.stop(0.1))
        error, code = await failure(socket)
        await asyncio.wait_for(stopping, PATIENCE_S)
        await asyncio.wait_for(service.script.cancelled.wait(), PATIENCE_S)
    assert (error["type"], code) == ("not_ready", 1012)


async def test_socket_without_config_does_not_delay_stop(own: GatewayServer) -> None:
    async with calling(own) as socket:
        stopping = asyncio.create_task(own.stop(PATIENCE_S))
        error, code = await failure(socket)
        await asyncio.wait_for(stopping, PATIENCE_S)
    assert (error["type"], code) == ("not_ready", 1012)


async def test_service_error_is_passed_to_the_caller(gateway: GatewayServer, service: ContractService) -> None:
    service.script.failure = Failure("overloaded", "All 32 streams are taken.", trailers={"retry-after-ms": "4000"})
    async with streaming(gateway) as socket:
        error, code = await failure(socket)
    assert error["message"] == "All 32 streams are taken."
    assert (error["type"], error["retry_after"], code) == ("overloaded", 4, 1013)


async def test_inbox_is_ordered_and_bounded() -> None:
    inbox: Inbox[bytes | Flush] = Inbox(limit=100)
    await inbox.put(b"x" * 150)
    late = asyncio.create_task(inbox.put(FLUSH))
    await asyncio.sleep(0)
    assert not late.done()
    items = inbox.items()
    assert await anext(items) == b"x" * 150
    await late
    await inbox.end()
    await inbox.put(b"too late")
    assert [item async for item in items] == [FLUSH]


async def _push(socket: object, messages: int = 4000, until_cut: bool = False) -> None:
    """Send messages of 64 KiB as fast as they are accepted."""
    try:
        for _ in range(messages):
            await socket.send(bytes(64 * 1024))  # type: ignore[attr-defined]
    except ConnectionClosed:
        assert until_cut


async def _stands_still(socket: object) -> None:
    """Wait until the caller's write buffer no longer shrinks."""
    transport = socket.transport  # type: ignore[attr-defined]
    await until(lambda: transport.get_write_buffer_size() > 0)
    await _still(transport.get_write_buffer_size)


async def _still(number: object) -> None:
    """Wait until a number has stayed the same for 30 samples, 10 ms apart."""
    last, same = None, 0
    while same < 30:
        await asyncio.sleep(0.01)
        now = number()  # type: ignore[operator]
        same = same + 1 if now == last and now else 0
        last = now


async def _with_quick_pings(
    service: ContractService, monkeypatch: pytest.MonkeyPatch, timeout_s: float = 0.1
) -> GatewayServer:
    monkeypatch.setattr("gateway.http.server.PING_INTERVAL_S", 0.1)
    monkeypatch.setattr("gateway.http.server.PING_TIMEOUT_S", timeout_s)
    server = GatewayServer(GatewayOptions(service.target, host="127.0.0.1", port=0))
    await server.start()
    return server


async def _by_hand(server: GatewayServer) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """WebSocket of a caller that answers no pings."""
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    head = ("GET /v1/stream HTTP/1.1", "Host: x", "Connection: Upgrade", "Upgrade: websocket")
    more = ("Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==", "X-Req-Id: by-hand", "", "")
    writer.write("\r\n".join(head + more).encode())
    assert b" 101 " in await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), PATIENCE_S)
    return reader, writer


async def _speak(writer: asyncio.StreamWriter) -> None:
    """Send 10 ms of audio every 10 ms until cancelled."""
    while True:
        writer.write(_frame(bytes(320), opcode=2))
        await asyncio.sleep(0.01)


def _frame(payload: bytes, opcode: int) -> bytes:
    """A client frame, masked with zeros."""
    return struct.pack("!BBH", 0x80 | opcode, 0x80 | 126, len(payload)) + bytes(4) + payload
