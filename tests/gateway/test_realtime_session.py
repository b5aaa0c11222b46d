"""`GET /v1/realtime`: the handshake, messages that are not taken, and how sessions end."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
import pytest_asyncio
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from gateway.http.server import GatewayServer
from gateway.openai.realtime import session as realtime_session
from gateway.options import GatewayOptions
from protos.stt.v1.errors import ERRORS
from tests.support.contract_script import Failure
from tests.support.contract_service import ContractService
from tests.support.letter_stream import Letters
from tests.support.live_caller import PATIENCE_S, access_lines
from tests.support.realtime_caller import TRANSCRIPTION, realtime
from tests.support.services import until

pytestmark = pytest.mark.asyncio(loop_scope="session")

MANUAL = {"turn_detection": None}
KEY = "sk-secret"


@pytest_asyncio.fixture(loop_scope="session")
async def own(service: ContractService) -> AsyncIterator[GatewayServer]:
    """Gateway that the test may stop."""
    server = GatewayServer(GatewayOptions(service.target, host="127.0.0.1", port=0))
    await server.start()
    yield server
    await server.stop(1)


async def refused(gateway: GatewayServer, **options: Any) -> tuple[int, dict[str, Any], Any]:
    """Status, JSON of the error and headers of a handshake that must be refused."""
    with pytest.raises(InvalidStatus) as found:
        await connect(f"ws://127.0.0.1:{gateway.port}/v1/realtime", **options)
    response = found.value.response
    error: dict[str, Any] = json.loads(response.body or b"")["error"]
    assert error["request_id"] == response.headers["x-request-id"] == response.headers["x-req-id"]
    return response.status_code, error, response.headers


@pytest.mark.parametrize("headers", [{}, {"Authorization": "Bearer wrong"}, {"Authorization": "Bearer a\tb"}])
async def test_no_or_a_wrong_key_is_401(
    gateway: GatewayServer, service: ContractService, headers: dict[str, str]
) -> None:
    service.script.keys = {KEY}
    status, error, answered = await refused(gateway, additional_headers=headers)
    assert (status, error["type"], error["code"]) == (401, "invalid_request_error", "invalid_api_key")
    assert answered["www-authenticate"] == "Bearer" and not service.script.streams


async def test_the_key_is_taken_from_the_header(gateway: GatewayServer, service: ContractService) -> None:
    service.script.keys, headers = {KEY}, {"Authorization": f"Bearer {KEY}", "OpenAI-Beta": "realtime=v1"}
    offered = ["openai-insecure-api-key.other"]
    async with realtime(gateway.port, additional_headers=headers, subprotocols=offered) as caller:
        assert caller.socket.subprotocol is None
        await caller.append(bytes(1600))
        await caller.commit()
        await caller.completed()
    assert {stream.metadata["authorization"] for stream in service.script.streams} == {f"Bearer {KEY}"}


async def test_the_key_is_taken_from_the_subprotocol(gateway: GatewayServer, service: ContractService) -> None:
    service.script.keys = {KEY}
    offered = [f"openai-insecure-api-key.{KEY}", "realtime", "openai-beta.realtime-v1"]
    with access_lines("browser") as lines:
        headers = {"X-Req-Id": "browser"}
        async with realtime(gateway.port, subprotocols=offered, additional_headers=headers) as caller:
            assert caller.socket.subprotocol == "realtime"
            await caller.append(bytes(1600))
            await caller.commit()
            await caller.completed()
        line = await asyncio.wait_for(lines.get(), PATIENCE_S)
    assert KEY not in repr(line)
    metadata = service.script.streams[0].metadata
    assert (metadata["authorization"], metadata["x-req-id"]) == (f"Bearer {KEY}", "browser")


async def test_a_key_in_the_address_is_not_taken(gateway: GatewayServer, service: ContractService) -> None:
    service.script.keys = {KEY}
    with pytest.raises(InvalidStatus) as found:
        await connect(f"ws://127.0.0.1:{gateway.port}/v1/realtime?api_key={KEY}&authorization=Bearer%20{KEY}")
    assert found.value.response.status_code == 401


async def test_another_origin_is_403(gateway: GatewayServer, service: ContractService) -> None:
    status, error, _ = await refused(gateway, additional_headers={"Origin": "https://evil.example"})
    assert (status, error["type"]) == (403, "invalid_request_error")


@pytest.mark.parametrize("path", ["/v1/realtime", "/v1/realtime?intent=transcription"])
async def test_a_request_without_upgrade_is_426(http: httpx.AsyncClient, service: ContractService, path: str) -> None:
    response = await http.get(path)
    assert (response.status_code, response.headers["upgrade"]) == (426, "websocket")
    assert response.json()["error"]["type"] == "invalid_request_error"


@pytest.mark.parametrize(("type_", "status"), [("not_ready", 503), ("upstream_unavailable", 502)])
async def test_a_service_that_takes_no_calls_refuses_the_handshake(
    gateway: GatewayServer, service: ContractService, free_target: str, type_: str, status: int
) -> None:
    server = gateway
    if type_ == "upstream_unavailable":
        server = GatewayServer(GatewayOptions(free_target, host="127.0.0.1", port=0))
        await server.start()
    else:
        service.script.status_failure = Failure(type_, trailers={"retry-after-ms": "2500"})
    found, error, headers = await refused(server)
    if server is not gateway:
        await server.stop(1)
    assert found == status
    if status != 502:
        assert (headers["retry-after"], headers["retry-after-ms"]) == ("3", "2500")
    assert error["code"] == type_


@pytest.mark.parametrize("type_", ["overloaded", "rate_limited"])
async def test_a_service_without_room_refuses_no_session(
    gateway: GatewayServer, service: ContractService, type_: str
) -> None:
    service.script.status_failure = Failure(type_)
    async with realtime(gateway.port) as caller:
        await caller.append(bytes(1600))
        await caller.commit()
        await caller.completed()


@pytest.mark.parametrize(
    ("sent", "code", "param"),
    [
        ("{", "invalid_event", None),
        ("[]", "invalid_event", None),
        ('"x"', "invalid_event", None),
        ("[" * 100_000, "invalid_event", None),
        (b"\0\1", "invalid_event", None),
        ('{"event_id": "mine"}', "invalid_event", "type"),
        ('{"type": 5, "event_id": "mine"}', "invalid_event", "type"),
        ('{"type": "\\ud800", "event_id": "mine"}', "invalid_event", "type"),
        ('{"type": "response.create", "event_id": "mine"}', "invalid_event", "type"),
        ('{"type": "conversation.item.create", "item": {}, "event_id": "mine"}', "invalid_event", "type"),
        ('{"type": "session.update", "event_id": "mine"}', "invalid_value", "session"),
        ('{"type": "session.update", "session": [], "event_id": "mine"}', "invalid_value", "session"),
        ('{"type": "input_audio_buffer.append", "event_id": "mine"}', "invalid_value", "audio"),
        ('{"type": "input_audio_buffer.append", "audio": 7, "event_id": "mine"}', "invalid_value", "audio"),
        ('{"type": "input_audio_buffer.append", "audio": "a*b=", "event_id": "mine"}', "invalid_value", "audio"),
        ('{"type": "input_audio_buffer.append", "audio": "QQ", "event_id": "mine"}', "invalid_value", "audio"),
        ('{"type": "input_audio_buffer.append", "audio": "\u00e9QQ=", "event_id": "mine"}', "invalid_value", "audio"),
    ],
)
async def test_a_message_that_is_not_taken_ends_no_session(
    gateway: GatewayServer, service: ContractService, sent: str | bytes, code: str, param: str | None
) -> None:
    async with realtime(gateway.port) as caller:
        await caller.socket.send(sent)
        error = (await caller.next("error"))["error"]
        await caller.append(bytes(1600))
        await caller.commit()
        await caller.completed()
    assert (error["type"], error["code"], error["param"]) == ("invalid_request_error", code, param)
    assert error["event_id"] == ("mine" if "mine" in str(sent) else None)
    assert error["message"]


@pytest.mark.parametrize(
    ("event_id", "repeated"), [("\ud83d", True), ("x" * 512, True), ("x" * 513, False), (5, False)]
)
async def test_unusable_event_ids_are_not_repeated(
    gateway: GatewayServer, service: ContractService, event_id: Any, repeated: bool
) -> None:
    async with realtime(gateway.port) as caller:
        await caller.send("nothing", event_id=event_id)
        assert (await caller.next("error"))["error"]["event_id"] == (event_id if repeated else None)


async def test_half_a_minute_fits_into_one_message(gateway: GatewayServer, service: ContractService) -> None:
    async with realtime(gateway.port, format_=None) as caller:
        await caller.append(bytes(30 * 48000))
        await caller.commit()
        event = await caller.completed()
    assert event["transcript"] == f"{30 * 48000} bytes"


async def test_a_message_over_2_mib_closes_the_connection(gateway: GatewayServer, service: ContractService) -> None:
    async with realtime(gateway.port, format_=None) as caller:
        await caller.socket.send("x" * (2 * 1024 * 1024 + 1))
        assert await caller.closed() == 1009


@pytest.mark.parametrize("type_", sorted(ERRORS))
@pytest.mark.parametrize("settings", [{}, MANUAL])
async def test_errors_of_the_service_end_the_session_or_the_item(
    gateway: GatewayServer, service: ContractService, type_: str, settings: dict[str, Any]
) -> None:
    service.script.failure = Failure(type_, "scripted")
    ends = {"unauthenticated": 1011, "rate_limited": 1013, "overloaded": 1013, "cancelled": 1012, "not_ready": 1012}
    ends |= {"out_of_memory": 1013, "upstream_unavailable": 1011}
    async with realtime(gateway.port, settings=settings) as caller:
        await caller.append(bytes(1600))
        await caller.commit()
        if type_ == "deadline_exceeded":  # as after a pause: the item is what was recognized
            service.script.failure = None
            await caller.completed()
            return
        if not settings and type_ == "invalid_argument":  # of the settings: others may be taken
            assert (await caller.next("error"))["error"]["code"] == "invalid_value"
            assert not (await caller.completed())["transcript"]
            service.script.failure = None
            await caller.update(transcription={"prompt": "shorter"})
            await caller.append(bytes(1600))
            await caller.commit()
            assert (await caller.completed())["transcript"]
            return
        if settings and type_ not in ends:
            assert (await caller.next(f"{TRANSCRIPTION}.failed"))["error"]["type"]
            service.script.failure = None
            await caller.append(bytes(1600))
            await caller.commit()
            await caller.completed()
            return
        assert await caller.closed() == ends.get(type_, 1011)
    assert caller.events[-1]["type"] == "error" and caller.events[-1]["error"]["event_id"] is None
    assert caller.kinds.count("failed") == (1 if settings else 0)


async def test_the_service_may_end_a_session_while_the_caller_is_silent(
    gateway: GatewayServer, service: ContractService
) -> None:
    async def drained(requests: Any, context: Any) -> Any:
        async for request in requests:
            if request.audio:
                await service._abort(context, Failure("not_ready", "The service is draining."))
            yield service.script.echo._interim(0)

    service.script.stream = drained
    with access_lines("drained") as lines:
        async with realtime(gateway.port, additional_headers={"X-Req-Id": "drained"}) as caller:
            await caller.append(bytes(1600))
            assert await caller.closed() == 1012
        line = await asyncio.wait_for(lines.get(), PATIENCE_S)
    assert caller.events[-1]["error"] == {
        "type": "server_error",
        "code": "not_ready",
        "message": "The service is draining.",
        "param": None,
        "event_id": None,
    }
    assert (line["status"], line["close_code"], line["error_type"]) == (101, 1012, "not_ready")


async def test_stopping_ends_idle_sessions_at_once(own: GatewayServer) -> None:
    async with realtime(own.port) as caller:
        stopping = asyncio.create_task(own.stop(PATIENCE_S))
        assert await caller.closed() == 1012
        await asyncio.wait_for(stopping, PATIENCE_S)
    assert caller.events[-1]["error"]["code"] == "not_ready"


async def test_stopping_finishes_what_was_said(own: GatewayServer, service: ContractService) -> None:
    service.script.stream = letters = Letters()
    async with realtime(own.port) as caller:
        await caller.say("abc")
        await asyncio.wait_for(letters.got_audio.wait(), PATIENCE_S)
        stopping = asyncio.create_task(own.stop(PATIENCE_S))
        assert await caller.closed() == 1012
        await asyncio.wait_for(stopping, PATIENCE_S)
    (completed,) = caller.of(f"{TRANSCRIPTION}.completed")
    assert completed["transcript"] == "abc" and caller.events[-1]["type"] == "error"


async def test_a_session_without_events_expires(
    gateway: GatewayServer, service: ContractService, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(realtime_session, "SESSION_S", 0.2)
    async with realtime(gateway.port) as caller:
        assert await caller.closed() == 1001
    error = caller.events[-1]["error"]
    assert error["code"] == "session_expired"


@pytest.mark.parametrize("said", ["", "abc      ", "abc"])
async def test_leaving_is_an_error_only_with_speech_unfinished(
    gateway: GatewayServer, service: ContractService, said: str
) -> None:
    service.script.stream = Letters()
    with access_lines("leaving") as lines:
        async with realtime(gateway.port, additional_headers={"X-Req-Id": "leaving"}) as caller:
            if said:
                await caller.say(said)
                await caller.next(f"{TRANSCRIPTION}.completed" if " " in said else f"{TRANSCRIPTION}.delta")
            await caller.socket.close(1000)
        line = await asyncio.wait_for(lines.get(), PATIENCE_S)
        unfinished = said == "abc"
        assert line.get("error_type") == ("cancelled" if unfinished else None)
        assert (line["path"], line["status"], line["close_code"]) == ("/v1/realtime", 101, 1000)
        if unfinished:
            await asyncio.wait_for(service.script.cancelled.wait(), PATIENCE_S)
        elif said:
            await until(lambda: service.script.streams[0].half_closed)
            assert not service.script.cancelled.is_set()


async def test_base64_of_any_length_is_appended(gateway: GatewayServer, service: ContractService) -> None:
    async with realtime(gateway.port, settings=MANUAL) as caller:
        for size in (0, 1, 2, 3, 4, 5):
            await caller.send("input_audio_buffer.append", audio=base64.b64encode(bytes(range(size))).decode())
        await caller.append(bytes(1600))
        await caller.commit()
        await caller.completed()
    expected = b"".join(bytes(range(size)) for size in range(6)) + bytes(1600)
    assert service.script.streams[0].audio == expected[: len(expected) // 2 * 2]
