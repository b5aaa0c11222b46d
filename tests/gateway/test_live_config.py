"""`GET /v1/stream`: the config, commands and keys."""

from __future__ import annotations

import asyncio
import json
import re
from typing import Any

import pytest

from gateway.http.server import GatewayServer
from gateway.live import session as live_session
from gateway.live.config import FIELDS
from gateway.live.endpoint import CLOSE_CODES
from protos.stt.v1 import speech_pb2
from protos.stt.v1.errors import ERRORS
from stt_server.testing.paths import ROOT
from tests.support.contract_service import ContractService
from tests.support.live_caller import (
    CONFIG,
    END,
    PATIENCE_S,
    SECOND,
    access_lines,
    calling,
    failure,
    rest,
    streaming,
)

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def test_config_reaches_the_service(gateway: GatewayServer, service: ContractService) -> None:
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


async def test_whole_numbers_may_have_a_decimal_point(gateway: GatewayServer, service: ContractService) -> None:
    async with streaming(gateway, encoding="alaw", sample_rate_hertz=8000.0, channel_count=2.0) as socket:
        await socket.send(END)
        await rest(socket)
    assert service.script.streams[0].config.format == speech_pb2.AudioFormat(
        encoding=speech_pb2.AUDIO_ENCODING_ALAW, sample_rate_hertz=8000, channel_count=2
    )


@pytest.mark.parametrize(
    ("first", "message"),
    [
        (SECOND, "Audio before config"),
        ("no JSON", "is not valid JSON"),
        ("[" * 50_000, "is not valid JSON"),
        ("[]", "not a JSON object"),
        ('{"sample_rate_hertz": 16000}', "encoding is missing; expected linear16, mulaw, alaw"),
        ('{"encoding": "linear16"}', "sample_rate_hertz is missing; expected samples per second"),
        ({"encodding": "linear16"}, "Unknown field 'encodding'; known fields: api_key, encoding,"),
        ({"encoding": "opus"}, "Invalid encoding 'opus'; expected linear16, mulaw, alaw."),
        ({"task": ["translate"]}, "expected transcribe, translate"),
        ({"sample_rate_hertz": "16000"}, "Invalid sample_rate_hertz; expected a whole number"),
        ({"sample_rate_hertz": 16000.5}, "Invalid sample_rate_hertz; expected a whole number"),
        ({"sample_rate_hertz": float("inf")}, "Invalid sample_rate_hertz; expected a whole number"),
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
async def test_invalid_config_is_rejected(
    gateway: GatewayServer, service: ContractService, first: Any, message: str
) -> None:
    async with calling(gateway) as socket:
        await socket.send(json.dumps({**CONFIG, **first}) if isinstance(first, dict) else first)
        error, code = await failure(socket)
    assert (error["type"], code) == ("invalid_argument", 1007)
    assert message in error["message"]
    assert not service.script.streams


@pytest.mark.parametrize("later", ["{}", '{"flush": 1}', '{"flush": {}, "end": {}}', json.dumps(CONFIG), "end"])
async def test_unknown_command_is_rejected(gateway: GatewayServer, service: ContractService, later: str) -> None:
    async with streaming(gateway) as socket:
        await asyncio.wait_for(service.script.started.wait(), PATIENCE_S)
        await socket.send(later)
        error, code = await failure(socket)
        await asyncio.wait_for(service.script.cancelled.wait(), PATIENCE_S)
    assert (error["type"], code) == ("invalid_argument", 1007)


async def test_message_after_end_is_rejected(gateway: GatewayServer, service: ContractService) -> None:
    service.script.hold = asyncio.Event()
    async with streaming(gateway) as socket:
        await socket.send(END)
        await socket.send(SECOND)
        error, code = await failure(socket)
    assert (error["message"], code) == ('Message after {"end": {}}; nothing may follow it.', 1007)


async def test_missing_config_times_out(
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
async def test_key_is_taken_from_config_or_header(
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
async def test_wrong_key_is_rejected_and_not_logged(
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


async def test_docs_list_every_field_and_close_code() -> None:
    text = (ROOT / "docs" / "live.md").read_text(encoding="utf-8")
    rows = [line.split("|")[1:-1] for line in text.splitlines() if line.startswith("|")]
    fields = {name for first, *_ in rows for name in re.findall(r"`(\w+)`", first)}
    assert fields == set(FIELDS)
    codes = {type_: int(first) for first, *more in rows if first.strip().isdigit() for type_ in _types(more)}
    assert codes == {type_: code for type_, code in CLOSE_CODES.items() if type_ != "cancelled"}


def _types(cells: list[str]) -> list[str]:
    return [name for name in re.findall(r"`(\w+)`", " ".join(cells)) if name in ERRORS]
