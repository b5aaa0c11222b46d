"""`POST /v1/audio/transcriptions` with `stream=true`."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from gateway.http.server import GatewayServer
from gateway.openai.answers import TextEvents
from protos.stt.v1 import speech_pb2
from stt_client.convert import settled_of, transcript_of
from stt_server.testing.scripted_model import ScriptedModel
from tests.gateway.test_openai_errors import assert_openai_error, client_of
from tests.support.contract_script import Failure
from tests.support.contract_service import ContractService
from tests.support.long_recordings import ONE_BY_ONE, HeldChunks, recording
from tests.support.services import running, until

in_session = pytest.mark.asyncio(loop_scope="session")

PATH = "/v1/audio/transcriptions"
RECORDING = ("speech.wav", b"RIFF....", "audio/wav")
STREAM: dict[str, Any] = {"files": {"file": RECORDING}, "data": {"stream": "true", "model": "gpt-4o-transcribe"}}
TEXT = "Grüße, Welt. 你好。"


def events_of(body: str) -> list[Any]:
    """Events of a response, `[DONE]` excepted, which must be the last."""
    blocks = [block for block in body.split("\n\n") if block and not block.startswith(":")]
    assert all(block.startswith("data: ") and "\n" not in block for block in blocks)
    texts = [block.removeprefix("data: ") for block in blocks]
    events = [json.loads(text) for text in texts if text != "[DONE]"]
    assert "error" in events[-1] or texts[-1] == "[DONE]"
    return events


def deltas_of(events: list[Any]) -> list[str]:
    return [event["delta"] for event in events if event.get("type") == "transcript.text.delta"]


@in_session
async def test_deltas_put_together_are_the_text(http: httpx.AsyncClient, service: ContractService) -> None:
    response = await http.post(PATH, **STREAM)
    assert response.status_code == 200
    assert response.headers["content-type"].startswith("text/event-stream")
    assert response.headers["cache-control"] == "no-cache"
    assert response.headers["x-accel-buffering"] == "no"
    assert response.headers["x-request-id"] == response.headers["x-req-id"]
    *deltas, done = events_of(response.text)
    assert deltas == [
        {"type": "transcript.text.delta", "delta": "Grüße, Welt."},
        {"type": "transcript.text.delta", "delta": " 你好。"},
    ]
    plain = (await http.post("/v1/transcribe", files={"audio": RECORDING})).json()
    assert done == {
        "type": "transcript.text.done",
        "text": TEXT,
        "languages": [{"code": "de"}],
        "routing": plain["routing"],
    }


@in_session
async def test_official_client_reads_the_first_delta_before_the_result(
    gateway: GatewayServer, service: ContractService
) -> None:
    service.script.hold_result = asyncio.Event()
    async with client_of(gateway, _strict_response_validation=True) as client:
        stream = await client.audio.transcriptions.create(file=RECORDING, model="whisper-1", stream=True)
        events = [await anext(stream)]
        service.script.hold_result.set()
        events += [event async for event in stream]
    assert [event.type for event in events] == [
        "transcript.text.delta",
        "transcript.text.delta",
        "transcript.text.done",
    ]
    assert "".join(getattr(event, "delta", "") for event in events) == getattr(events[-1], "text", None) == TEXT


@in_session
async def test_silence_has_no_delta(http: httpx.AsyncClient, service: ContractService) -> None:
    service.script.response.ClearField("text")
    service.script.response.ClearField("segments")
    events = events_of((await http.post(PATH, **STREAM)).text)
    assert [(event["type"], event["text"]) for event in events] == [("transcript.text.done", "")]


@in_session
async def test_older_service_without_progress_gives_one_delta(
    http: httpx.AsyncClient, service: ContractService
) -> None:
    service.script.reports_progress = False
    events = events_of((await http.post(PATH, **STREAM)).text)
    assert deltas_of(events) == [TEXT]


@in_session
async def test_error_before_the_first_event_has_its_status(http: httpx.AsyncClient, service: ContractService) -> None:
    service.script.failure = Failure("unsupported_audio")
    assert_openai_error(await http.post(PATH, **STREAM), "unsupported_audio")


@pytest.mark.parametrize(
    ("parts", "text"),
    [
        (["One.", "Two."], "One. Two."),
        (["Wait", "..."], "Wait..."),
        (["", "One.", ""], "One."),
        (["你好", "hello"], "你好 hello"),
        (["你", "好。"], "你好。"),
        ([], "One."),
        (["One."], "One."),
        (["One. Two."], "One."),
    ],
)
def test_deltas_are_the_text_whatever_is_between_segments(parts: list[str], text: str) -> None:
    events = TextEvents()
    sent = ""
    for part in parts:
        settled = speech_pb2.SettledSegments(segments=[speech_pb2.Segment(text=part)])
        sent += events.event(settled_of(settled))
    sent += events.event(transcript_of(speech_pb2.TranscribeResponse(text=f" {text}\n"), {}))
    *deltas, done = events_of(sent)
    assert "".join(delta["delta"] for delta in deltas) == done["text"]
    assert "".join(done["text"].split()) == "".join(("".join(parts) or text).split())


def test_each_segment_is_a_delta_though_several_are_settled_together() -> None:
    segments = [speech_pb2.Segment(text=text) for text in (" One.", "", "Two.")]
    lines = TextEvents().event(settled_of(speech_pb2.SettledSegments(segments=segments)))
    data = [json.loads(block.removeprefix("data: ")) for block in lines.split("\n\n") if block]
    assert deltas_of(data) == ["One.", " Two."]


def test_lines_are_ascii() -> None:
    line = TextEvents().event(transcript_of(speech_pb2.TranscribeResponse(text="a\u2028b\x85ü"), {}))
    assert line.isascii()
    assert deltas_of(events_of(line)) == ["a\u2028b\x85ü"]


async def test_deltas_arrive_as_chunks_are_settled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.http.event_stream.KEEP_AWAKE_S", 0.01)
    script = HeldChunks(held=2)
    files = {"file": ("recording.wav", recording(4))}
    async with (
        running(tmp_path, model=ScriptedModel(by_start=script), HTTP_PORT=0, **ONE_BY_ONE) as service,
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{service.http_port}", timeout=30) as client,
    ):
        async with client.stream("POST", PATH, files=files, data={"stream": "true"}) as response:
            lines, received = response.aiter_lines(), []
            async for line in lines:
                received.append(line)
                if line.startswith("data:"):
                    break
            script.released.set()
            received += [line async for line in lines]
        events = events_of("\n".join(received) + "\n")
        text = (await client.post("/v1/transcribe", files={"audio": files["file"]})).json()["text"]
    assert len(deltas_of(events)) > 1
    assert "".join(deltas_of(events)) == events[-1]["text"] == text
    assert any(line.startswith(":") for line in received)


async def test_error_after_the_first_delta_is_the_last_event(tmp_path: Path) -> None:
    script = HeldChunks(held=2)
    files = {"file": ("recording.wav", recording(3))}
    headers = {"X-Timeout-Ms": "4000", "X-Req-Id": "late-1"}
    async with (
        running(tmp_path, model=ScriptedModel(by_start=script), HTTP_PORT=0, **ONE_BY_ONE) as service,
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{service.http_port}", timeout=30) as client,
    ):
        response = await client.post(PATH, files=files, data={"stream": "true"}, headers=headers)
        official = openai.AsyncOpenAI(base_url=f"http://127.0.0.1:{service.http_port}/v1", api_key="k", max_retries=0)
        stream = await official.audio.transcriptions.create(
            file=files["file"], model="", stream=True, extra_headers=headers
        )
        with pytest.raises(openai.APIError) as caught:
            async for _ in stream:
                pass
        script.released.set()
    assert response.status_code == 200
    *deltas, last = events_of(response.text)
    assert len(deltas) >= 1, "what was settled has arrived"
    assert last["error"] == {
        "message": last["error"]["message"],
        "type": "server_error",
        "param": None,
        "code": "deadline_exceeded",
        "request_id": "late-1",
    }
    assert caught.value.code == "deadline_exceeded"


async def test_a_caller_that_disconnects_stops_the_work(tmp_path: Path) -> None:
    script = HeldChunks(held=1)
    files = {"file": ("recording.wav", recording(4))}
    async with (
        running(tmp_path, model=ScriptedModel(by_start=script), HTTP_PORT=0, **ONE_BY_ONE) as service,
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{service.http_port}", timeout=30) as client,
    ):
        async with client.stream("POST", PATH, files=files, data={"stream": "true"}) as response:
            async for line in response.aiter_lines():
                if line.startswith("data:"):
                    break
        await until(lambda: service.in_flight == 0)
        script.released.set()
