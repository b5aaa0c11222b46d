"""`POST /v1/transcribe` with `Accept: text/event-stream`, against a service with a scripted model."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from stt_server.app import Service
from stt_server.testing.scripted_model import ScriptedModel
from tests.support.long_recordings import ONE_BY_ONE, HeldChunks, recording
from tests.support.services import running, until

ACCEPT = {"Accept": "text/event-stream"}


@asynccontextmanager
async def served(folder: Path, model: ScriptedModel, **keys: Any) -> AsyncIterator[tuple[httpx.AsyncClient, Service]]:
    async with (
        running(folder, model=model, HTTP_PORT=0, **ONE_BY_ONE, **keys) as service,
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{service.http_port}", timeout=30) as client,
    ):
        yield client, service


class Events:
    """The events of a response, as they arrive."""

    def __init__(self, response: httpx.Response) -> None:
        self._lines = response.aiter_lines()
        self.seen: list[tuple[str, Any]] = []
        self.comments = 0

    async def read_until(self, name: str) -> Any:
        event = ""
        async for line in self._lines:
            self.comments += line.startswith(":")
            if line.startswith("event: "):
                event = line.removeprefix("event: ")
            elif line.startswith("data: "):
                self.seen.append((event, json.loads(line.removeprefix("data: "))))
                if event == name:
                    return self.seen[-1][1]
        raise AssertionError(f"no event {name} in {self.seen}")

    def of(self, name: str) -> list[Any]:
        return [data for event, data in self.seen if event == name]


def files(chunks: int) -> dict[str, tuple[str, bytes]]:
    return {"audio": ("recording.wav", recording(chunks))}


async def test_segments_arrive_before_the_result_which_repeats_them(tmp_path: Path) -> None:
    script = HeldChunks(held=2)
    async with served(tmp_path, ScriptedModel(by_start=script)) as (client, _):
        plain = (await client.post("/v1/transcribe", files=files(1))).json()
        async with client.stream("POST", "/v1/transcribe", files=files(4), headers=ACCEPT) as response:
            events = Events(response)
            await events.read_until("segments")
            script.released.set()
            result = await events.read_until("result")
    assert response.status_code == 200
    assert response.headers["content-type"].startswith("text/event-stream")
    assert response.headers["cache-control"] == "no-cache"
    assert response.headers["x-accel-buffering"] == "no"
    assert response.headers["x-req-id"] == result["request_id"]
    assert result.keys() == plain.keys()
    assert [segment for data in events.of("segments") for segment in data["segments"]] == result["segments"]
    progress = events.of("progress")
    assert progress[0]["audio_duration"] == result["audio_duration"]
    settled = [data["audio_settled"] for data in progress]
    assert settled == sorted(settled)
    assert settled[-1] == result["audio_duration"]


@pytest.mark.parametrize(
    ("audio", "fields", "status", "kind"),
    [
        (b"no audio at all", {}, 415, "unsupported_audio"),
        (recording(1), {"language": "xx"}, 400, "invalid_argument"),
        (recording(1), {"response_format": "srt"}, 400, "invalid_argument"),
    ],
)
async def test_what_fails_before_decoding_has_its_status(
    tmp_path: Path, audio: bytes, fields: dict[str, str], status: int, kind: str
) -> None:
    async with served(tmp_path, ScriptedModel()) as (client, _):
        answer = await client.post("/v1/transcribe", files={"audio": audio}, data=fields, headers=ACCEPT)
    assert (answer.status_code, answer.headers["x-error-type"]) == (status, kind)
    assert answer.json()["error"]["type"] == kind


async def test_what_fails_later_is_the_last_event(tmp_path: Path) -> None:
    script = HeldChunks(held=2)
    async with served(tmp_path, ScriptedModel(by_start=script)) as (client, _):
        headers = {**ACCEPT, "X-Timeout-Ms": "4000", "X-Req-Id": "late-1"}
        async with client.stream("POST", "/v1/transcribe", files=files(3), headers=headers) as response:
            events = Events(response)
            error = await events.read_until("error")
        script.released.set()
    assert response.status_code == 200
    assert (error["error"]["type"], error["error"]["request_id"]) == ("deadline_exceeded", "late-1")
    assert len(events.of("segments")) >= 1, "what was settled has arrived"
    assert not events.of("result")


async def test_comments_keep_proxies_awake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.http.event_stream.KEEP_AWAKE_S", 0.01)
    script = HeldChunks(held=0)
    async with (
        served(tmp_path, ScriptedModel(by_start=script)) as (client, _),
        client.stream("POST", "/v1/transcribe", files=files(1), headers=ACCEPT) as response,
    ):
        events = Events(response)
        for _ in range(3):
            await events.read_until("progress")
        script.released.set()
        await events.read_until("result")
    assert events.comments > 0


async def test_a_caller_that_disconnects_stops_the_work(tmp_path: Path) -> None:
    script = HeldChunks(held=1)
    model = ScriptedModel(by_start=script)
    async with served(tmp_path, model) as (client, service):
        async with client.stream("POST", "/v1/transcribe", files=files(4), headers=ACCEPT) as response:
            await Events(response).read_until("segments")
        await until(lambda: service.in_flight == 0)
        script.released.set()
    assert len(model.jobs) == 2
