"""`GET /v1/stream`: what goes in, what comes out, and how a stream ends."""

from __future__ import annotations

import asyncio
import json
import re
import ssl
from typing import Any

import httpx
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from gateway.http.server import GatewayServer
from gateway.live import session as live_session
from gateway.live.config import FIELDS
from gateway.live.endpoint import CLOSE_CODES
from gateway.options import GatewayOptions, HttpTls
from protos.stt.v1 import speech_pb2
from protos.stt.v1.errors import ERRORS
from stt_server.testing.paths import ROOT
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


async def test_audio_goes_in_and_events_come_out(gateway: GatewayServer, service: ContractService) -> None:
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


async def test_the_config_reaches_the_service(gateway: GatewayServer, service: ContractService) -> None:
    given: dict[str, Any] = {
        "encoding": "mulaw",
        "sample_rate_hertz": 8000,
        "channel_count": 2,
        "interim_results": False,
        "endpoint_silence": 0.25,
        "single_utterance": True,
        "language": None,
        "candidate_languages": ["en", "de"],
        "task": "translate",
        "prompt": "Zoë",
        "hotwords": ["Grüße"],
        "word_timestamps": True,
        "routing": "fallback",
    }
    assert {*given, "api_key"} == set(FIELDS)
    async with streaming(gateway, **given) as socket:
        await socket.send(END)
        await rest(socket)
    config = service.script.streams[0].config
    assert config.format == speech_pb2.AudioFormat(
        encoding=speech_pb2.AUDIO_ENCODING_MULAW, sample_rate_hertz=8000, channel_count=2
    )
    assert config.options == speech_pb2.TranscribeOptions(
        candidate_languages=["en", "de"],
        task=speech_pb2.TASK_TRANSLATE,
        prompt="Zoë",
        hotwords=["Grüße"],
        word_timestamps=True,
        routing=speech_pb2.ROUTING_POLICY_FALLBACK_ONLY,
    )
    assert (config.interim_results, config.single_utterance) == (False, True)
    assert config.endpoint_silence.ToMilliseconds() == 250


async def test_a_flush_keeps_its_place_among_the_audio(gateway: GatewayServer, service: ContractService) -> None:
    async with streaming(gateway, interim_results=False) as socket:
        for message in (SECOND, FLUSH, SECOND, END):
            await socket.send(message)
        events, code = await rest(socket)
    assert [it["final"]["result"]["text"] for it in events] == ["32000 bytes", "64000 bytes"]
    assert service.script.streams[0].kinds == ["audio", "flush", "audio"]
    assert code == 1000


async def test_the_service_may_end_it_first(gateway: GatewayServer, service: ContractService) -> None:
    async with streaming(gateway, single_utterance=True) as socket:
        await socket.send(SECOND)
        await socket.send(FLUSH)
        events, code = await rest(socket)
    assert "final" in events[-1] and code == 1000


@pytest.mark.parametrize(
    ("first", "says"),
    [
        (SECOND, "Audio before config"),
        ("no JSON", "is not valid JSON"),
        ("[" * 50_000, "is not valid JSON"),
        ("[]", "not a JSON object"),
        ('{"sample_rate_hertz": 16000}', "encoding is missing; expected linear16 or mulaw"),
        ('{"encoding": "linear16"}', "sample_rate_hertz is missing; expected samples per second"),
        ({"encodding": "linear16"}, "Unknown field 'encodding'; known fields: api_key, encoding,"),
        ({"encoding": "opus"}, "Invalid encoding 'opus'; expected linear16, mulaw."),
        ({"task": ["translate"]}, "expected transcribe, translate"),
        ({"sample_rate_hertz": "16000"}, "Invalid sample_rate_hertz; expected a whole number"),
        ({"channel_count": True}, "Invalid channel_count; expected a whole number"),
        ({"interim_results": 1}, "Invalid interim_results; expected true or false"),
        ({"endpoint_silence": "1"}, "Invalid endpoint_silence; expected a number of seconds"),
        ({"endpoint_silence": float("nan")}, "Invalid endpoint_silence; expected a number of seconds"),
        ({"endpoint_silence": 10**400}, "Invalid endpoint_silence; expected a number of seconds"),
        ({"endpoint_silence": -1}, "use seconds greater than 0"),
        ({"language": 7}, "Invalid language; expected a string"),
        ({"prompt": "\ud800"}, "Invalid prompt; expected a string"),
        ({"hotwords": "one"}, "Invalid hotwords; expected a list of strings"),
        ({"prompt": "x" * 70_000}, "exceeds the limit of 65536 characters"),
    ],
)
async def test_a_first_message_that_is_no_config_is_told_so(
    gateway: GatewayServer, service: ContractService, first: Any, says: str
) -> None:
    async with calling(gateway) as socket:
        await socket.send(json.dumps({**CONFIG, **first}) if isinstance(first, dict) else first)
        error, code = await failure(socket)
    assert (error["type"], code) == ("invalid_argument", 1007)
    assert says in error["message"]
    assert not service.script.streams


@pytest.mark.parametrize("later", ["{}", '{"flush": 1}', '{"flush": {}, "end": {}}', json.dumps(CONFIG), "end"])
async def test_later_text_is_a_command_or_an_error(
    gateway: GatewayServer, service: ContractService, later: str
) -> None:
    async with streaming(gateway) as socket:
        await asyncio.wait_for(service.script.started.wait(), PATIENCE_S)
        await socket.send(later)
        error, code = await failure(socket)
        await asyncio.wait_for(service.script.cancelled.wait(), PATIENCE_S)
    assert (error["type"], code) == ("invalid_argument", 1007)


async def test_nothing_follows_the_end(gateway: GatewayServer, service: ContractService) -> None:
    service.script.hold = asyncio.Event()
    async with streaming(gateway) as socket:
        await socket.send(END)
        await socket.send(SECOND)
        error, code = await failure(socket)
    assert (error["message"], code) == ('Message after {"end": {}}; nothing may follow it.', 1007)


async def test_a_message_takes_a_mebibyte_and_not_a_byte_more(gateway: GatewayServer, service: ContractService) -> None:
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


async def test_what_is_far_too_large_is_not_read(gateway: GatewayServer, service: ContractService) -> None:
    async with streaming(gateway) as socket:
        await asyncio.wait_for(service.script.started.wait(), PATIENCE_S)
        await socket.send(bytes(9 * live_session.MAX_AUDIO_BYTES))
        assert await rest(socket) == ([], 1009)
        await asyncio.wait_for(service.script.cancelled.wait(), PATIENCE_S)


async def test_a_config_that_does_not_come_is_not_waited_for(
    gateway: GatewayServer, service: ContractService, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live_session, "CONFIG_TIMEOUT_S", 0.1)
    async with calling(gateway) as socket:
        error, code = await failure(socket)
    assert (error["type"], error["message"], code) == ("deadline_exceeded", "No config received within 0.1 s.", 1008)


@pytest.mark.parametrize(
    ("header", "api_key", "sent"),
    [
        (None, "right", "Bearer right"),
        ("Bearer right", None, "Bearer right"),
        ("Bearer wrong", "right", "Bearer right"),
        ("Bearer right", "", "Bearer right"),
    ],
)
async def test_the_key_comes_with_the_config_or_a_header(
    gateway: GatewayServer, service: ContractService, header: str | None, api_key: str | None, sent: str
) -> None:
    service.script.keys = frozenset({"right"})
    headers = {"Authorization": header} if header else {}
    async with calling(gateway, additional_headers=headers) as socket:
        await socket.send(json.dumps({**CONFIG, "api_key": api_key}))
        await socket.send(END)
        _, code = await rest(socket)
    assert code == 1000
    assert service.script.streams[0].metadata["authorization"] == sent


@pytest.mark.parametrize("api_key", ["wrong", None, "Zoë", "k" * 5000])
async def test_a_wrong_key_is_refused_and_never_logged(
    gateway: GatewayServer, service: ContractService, caplog: pytest.LogCaptureFixture, api_key: str | None
) -> None:
    service.script.keys = frozenset({"right"})
    with caplog.at_level("DEBUG"), access_lines("refused-1") as lines:
        async with streaming(gateway, request_id="refused-1", api_key=api_key) as socket:
            error, code = await failure(socket)
        await asyncio.wait_for(lines.get(), PATIENCE_S)
    assert (error["type"], code) == ("unauthenticated", 1008)
    ours = [repr(record.__dict__) for record in caplog.records if not record.name.startswith("websockets")]
    assert api_key is None or not any(api_key in line for line in ours)


async def test_address_and_id_reach_the_service(gateway: GatewayServer, service: ContractService) -> None:
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
async def test_each_row_of_the_error_table_has_its_close_code(
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
    # Nobody is left to hear `cancelled`: whoever hears it lost the service.
    assert error["type"] == ("not_ready" if type_ == "cancelled" else type_)
    assert code == CLOSE_CODES[type_]
    assert error["request_id"] and error["message"]
    busy = ERRORS[error["type"]].http in (429, 503)
    assert error.get("retry_after") == (3 if busy else None)


@pytest.mark.parametrize("config_key", [True, False])
async def test_one_line_a_stream_at_its_end(gateway: GatewayServer, service: ContractService, config_key: bool) -> None:
    with access_lines("one") as lines:
        async with calling(gateway, additional_headers={"X-Req-Id": "one"}) as socket:
            await socket.send(json.dumps({**CONFIG, "api_key": "s3cret"} if config_key else {"x": 1}))
            await socket.send(SECOND)
            await event(socket)
            if config_key:
                await socket.send(END)
            await rest(socket)
        line = await asyncio.wait_for(lines.get(), PATIENCE_S)
    told = {name: line[name] for name in ("request_id", "method", "path", "status", "close_code")}
    code = 1000 if config_key else 1007
    assert told == {"request_id": "one", "method": "GET", "path": "/v1/stream", "status": 101, "close_code": code}
    assert line.get("error_type") == (None if config_key else "invalid_argument")
    assert line["seconds"] > 0 and line["bytes_sent"] > 50
    assert line["bytes"] > len(SECOND) if config_key else line["bytes"] > 0
    assert "s3cret" not in repr(line) and "Grüße" not in repr(line)
    assert lines.empty()


@pytest.mark.parametrize("origin", [None, "http://127.0.0.1:PORT", "https://127.0.0.1:PORT", "https://app.example"])
async def test_pages_of_this_host_and_of_listed_ones_may_call(service: ContractService, origin: str | None) -> None:
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
async def test_pages_of_other_hosts_may_not(gateway: GatewayServer, service: ContractService, origin: str) -> None:
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


async def test_without_an_upgrade_the_path_says_what_it_takes(
    http: httpx.AsyncClient, service: ContractService
) -> None:
    response = await http.get("/v1/stream")
    assert (response.status_code, response.headers["upgrade"]) == (426, "websocket")
    assert "WebSocket" in response.json()["error"]["message"]


async def test_another_path_takes_no_socket(gateway: GatewayServer, service: ContractService) -> None:
    with pytest.raises(InvalidStatus) as refused:
        await connect(f"ws://127.0.0.1:{gateway.port}/v1/else")
    assert refused.value.response.status_code == 403


async def test_over_tls_it_is_the_same(service: ContractService, pem: HttpTls) -> None:
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


async def test_the_docs_know_every_field_and_every_close_code() -> None:
    text = (ROOT / "docs" / "live.md").read_text(encoding="utf-8")
    rows = [line.split("|")[1:-1] for line in text.splitlines() if line.startswith("|")]
    fields = {name for first, *_ in rows for name in re.findall(r"`(\w+)`", first)}
    assert fields == set(FIELDS)
    codes = {type_: int(first) for first, *more in rows if first.strip().isdigit() for type_ in _types(more)}
    assert codes == {type_: code for type_, code in CLOSE_CODES.items() if type_ != "cancelled"}


def _types(cells: list[str]) -> list[str]:
    return [name for name in re.findall(r"`(\w+)`", " ".join(cells)) if name in ERRORS]
