"""`GET /v1/stream`: audio, events, limits, origins, close codes and the access log."""

from __future__ import annotations

import asyncio
import json
import ssl

import httpx
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from gateway.http.server import GatewayServer
from gateway.live import session as live_session
from gateway.live.endpoint import CLOSE_CODES
from gateway.options import GatewayOptions, HttpTls
from protos.stt.v1.errors import ERRORS
from tests.support.contract_script import Failure
from tests.support.contract_service import ContractService
from tests.support.live_caller import (
    CONFIG,
    END,
    FLUSH,
    PATIENCE_S,
    SECOND,
    access_lines,
    calling,
    event,
    failure,
    rest,
    streaming,
)

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def test_audio_yields_events_and_a_final(gateway: GatewayServer, service: ContractService) -> None:
    async with streaming(gateway) as socket:
        await socket.send(SECOND)
        interim = {"utterance": 0, "stable_text": "Grüße", "unstable_text": " 32000", "language": "de"}
        assert await event(socket) == {"interim": interim, "audio_processed": 1.0}
        await socket.send(SECOND)
        await socket.send(END)
        (second, final), code = await rest(socket)
    assert second["audio_processed"] == 2.0
    result = final["final"]["result"]
    assert (result["text"], result["language"], result["model"]) == ("64000 bytes", "de", "whisper-tiny")
    assert result["segments"][0] == {**result["segments"][0], "start": 0.5, "end": 1.75}
    assert code == 1000
    assert service.script.streams[0].audio == SECOND * 2 and service.script.streams[0].half_closed


async def test_flush_keeps_its_order_among_audio(gateway: GatewayServer, service: ContractService) -> None:
    async with streaming(gateway, interim_results=False) as socket:
        for message in (SECOND, FLUSH, SECOND, END):
            await socket.send(message)
        events, code = await rest(socket)
    assert [it["final"]["result"]["text"] for it in events] == ["32000 bytes", "64000 bytes"]
    assert service.script.streams[0].kinds == ["audio", "flush", "audio"]
    assert code == 1000


async def test_service_may_end_the_stream_first(gateway: GatewayServer, service: ContractService) -> None:
    async with streaming(gateway, single_utterance=True) as socket:
        await socket.send(SECOND)
        await socket.send(FLUSH)
        events, code = await rest(socket)
    assert "final" in events[-1] and code == 1000


async def test_audio_message_limit_is_one_mebibyte(gateway: GatewayServer, service: ContractService) -> None:
    mebibyte = bytes(live_session.MAX_AUDIO_BYTES)
    async with streaming(gateway, interim_results=False) as socket:
        await socket.send(mebibyte)
        await socket.send(END)
        (final,), code = await rest(socket)
    assert (final["final"]["result"]["text"], code) == (f"{len(mebibyte)} bytes", 1000)
    async with streaming(gateway) as socket:
        await socket.send(mebibyte + b"x")
        error, code = await failure(socket)
    assert (error["type"], code) == ("payload_too_large", 1009)


async def test_message_over_the_frame_limit_is_not_read(gateway: GatewayServer, service: ContractService) -> None:
    async with streaming(gateway) as socket:
        await asyncio.wait_for(service.script.started.wait(), PATIENCE_S)
        await socket.send(bytes(9 * live_session.MAX_AUDIO_BYTES))
        assert await rest(socket) == ([], 1009)
        await asyncio.wait_for(service.script.cancelled.wait(), PATIENCE_S)


async def test_address_and_request_id_reach_the_service(gateway: GatewayServer, service: ContractService) -> None:
    headers = {"X-Forwarded-For": "203.0.113.7", "X-Req-Id": "mine-1"}
    async with calling(gateway, additional_headers=headers) as socket:
        assert socket.response is not None and socket.response.headers["x-req-id"] == "mine-1"
        await socket.send(json.dumps(CONFIG))
        await socket.send(END)
        (final,), _ = await rest(socket)
    assert final["final"]["result"]["request_id"] == "mine-1"
    metadata = service.script.streams[0].metadata
    assert (metadata["x-req-id"], metadata["x-forwarded-for"]) == ("mine-1", "203.0.113.7, 127.0.0.1")


@pytest.mark.parametrize("type_", sorted(ERRORS))
async def test_each_error_type_has_its_close_code(
    gateway: GatewayServer, service: ContractService, free_target: str, type_: str
) -> None:
    server = gateway
    if type_ == "upstream_unavailable":
        server = GatewayServer(GatewayOptions(free_target, host="127.0.0.1", port=0))
        await server.start()
    else:
        service.script.failure = Failure(type_, trailers={"retry-after-ms": "2500"})
    async with streaming(server) as socket:
        error, code = await failure(socket)
    if server is not gateway:
        await server.stop(1)
    # A caller that still receives `cancelled` has lost the service, not itself disconnected.
    assert error["type"] == ("not_ready" if type_ == "cancelled" else type_)
    assert code == CLOSE_CODES[type_]
    assert error["request_id"] and error["message"]
    busy = ERRORS[error["type"]].http in (429, 503)
    assert error.get("retry_after") == (3 if busy else None)


@pytest.mark.parametrize("config_key", [True, False])
async def test_stream_has_one_access_log_line(
    gateway: GatewayServer, service: ContractService, config_key: bool
) -> None:
    with access_lines("one") as lines:
        async with calling(gateway, additional_headers={"X-Req-Id": "one"}) as socket:
            await socket.send(json.dumps({**CONFIG, "api_key": "s3cret"} if config_key else {"x": 1}))
            await socket.send(SECOND)
            await event(socket)
            if config_key:
                await socket.send(END)
            await rest(socket)
        line = await asyncio.wait_for(lines.get(), PATIENCE_S)
    logged = {name: line[name] for name in ("request_id", "method", "path", "status", "close_code")}
    code = 1000 if config_key else 1007
    assert logged == {"request_id": "one", "method": "GET", "path": "/v1/stream", "status": 101, "close_code": code}
    assert line.get("error_type") == (None if config_key else "invalid_argument")
    assert line["seconds"] > 0 and line["bytes_sent"] > 50
    assert line["bytes"] > len(SECOND) if config_key else line["bytes"] > 0
    assert "s3cret" not in repr(line) and "Grüße" not in repr(line)
    assert lines.empty()


@pytest.mark.parametrize("origin", [None, "http://127.0.0.1:PORT", "https://127.0.0.1:PORT", "https://app.example"])
async def test_same_and_listed_origins_are_allowed(service: ContractService, origin: str | None) -> None:
    options = GatewayOptions(service.target, host="127.0.0.1", port=0, cors_origins=("https://app.example",))
    server = GatewayServer(options)
    await server.start()
    try:
        given = origin and origin.replace("PORT", str(server.port))
        async with calling(server, additional_headers={"Origin": given} if given else {}) as socket:
            await socket.send(json.dumps(CONFIG))
            await socket.send(END)
            assert (await rest(socket))[1] == 1000
    finally:
        await server.stop(1)


@pytest.mark.parametrize(
    "origin", ["https://evil.example", "http://127.0.0.1:1", "null", "http://127.0.0.1.evil.example", "http://[", ""]
)
async def test_other_origins_get_403(gateway: GatewayServer, service: ContractService, origin: str) -> None:
    with access_lines("foreign-page") as lines, pytest.raises(InvalidStatus) as refused:
        async with calling(gateway, additional_headers={"Origin": origin, "X-Req-Id": "foreign-page"}):
            pass
    response = refused.value.response
    assert response.status_code == 403
    assert json.loads(response.body or b"")["error"]["request_id"] == response.headers["x-req-id"]
    assert "Origin" in response.headers["x-error-message"]
    line = await asyncio.wait_for(lines.get(), PATIENCE_S)
    assert (line["status"], line.get("close_code")) == (403, None)
    assert not service.script.streams


async def test_request_without_upgrade_is_426(http: httpx.AsyncClient, service: ContractService) -> None:
    response = await http.get("/v1/stream")
    assert (response.status_code, response.headers["upgrade"]) == (426, "websocket")
    assert "WebSocket" in response.json()["error"]["message"]


@pytest.mark.parametrize("path", ["/v1/else", "/v1/transcribe", "/", "/v1/stream/", "/%0d%0a"])
async def test_websocket_at_an_unknown_path_is_404(
    gateway: GatewayServer, service: ContractService, caplog: pytest.LogCaptureFixture, path: str
) -> None:
    headers = {"X-Req-Id": "lost"}
    with access_lines("lost") as lines:
        with pytest.raises(InvalidStatus) as refused:
            await connect(f"ws://127.0.0.1:{gateway.port}{path}", additional_headers=headers)
        line = await asyncio.wait_for(lines.get(), PATIENCE_S)
    response = refused.value.response
    assert (response.status_code, line["status"], line.get("close_code")) == (404, 404, None)
    assert json.loads(response.body or b"")["error"]["request_id"] == "lost"
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


async def test_stream_over_tls(service: ContractService, pem: HttpTls) -> None:
    server = GatewayServer(GatewayOptions(service.target, host="127.0.0.1", port=0, http_tls=pem))
    await server.start()
    try:
        trusting = ssl.create_default_context(cafile=str(pem.cert))
        async with connect(f"wss://localhost:{server.port}/v1/stream", ssl=trusting) as socket:
            for message in (json.dumps(CONFIG), SECOND, END):
                await socket.send(message)
            events, code = await rest(socket)
        assert (len(events), code) == (2, 1000)
    finally:
        await server.stop(1)
