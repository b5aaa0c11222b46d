"""Realtime sessions in front of services with the production wiring and a scripted model."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stt_server.testing.paths import SPEECH
from stt_server.testing.scripted_model import Script, ScriptedModel
from tests.support.pair import pair
from tests.support.realtime_caller import TRANSCRIPTION, Event, realtime
from tests.support.services import running, until
from tests.support.speech import linear16, samples_of, silence
from tests.support.streams import metric

MANUAL = {"turn_detection": None}
RATE = 24000
AUDIO = linear16(np.concatenate([silence(0.3), samples_of(SPEECH), silence(1.5)]), RATE)
"""One utterance at 24 kHz, the default format."""


async def test_server_vad_and_manual_commits_find_the_speech(tmp_path: Path) -> None:
    model = ScriptedModel()
    async with (
        running(tmp_path, model=model, HTTP_PORT=0) as service,
        realtime(service.http_port, format_=None) as caller,
    ):
        await caller.append(AUDIO)
        detected = await caller.completed()
        await caller.update(**MANUAL)
        await caller.append(AUDIO)
        await caller.commit()
        committed = await caller.completed()
    assert detected["transcript"] == committed["transcript"] == model.script.text
    (started,), (stopped,) = (caller.of(f"input_audio_buffer.speech_{what}") for what in ("started", "stopped"))
    assert 200 <= started["audio_start_ms"] <= 900 and 2000 <= stopped["audio_end_ms"] <= 3500
    assert committed["usage"]["seconds"] == pytest.approx(len(AUDIO) / (2 * RATE), abs=0.001)
    assert committed["routing"]["final_model"]


async def test_times_of_an_item_stay_within_the_audio(tmp_path: Path) -> None:
    """The last window of a call is padded to its whole length."""
    speech = linear16(samples_of(SPEECH), RATE)[: 2 * RATE + 20]
    async with (
        running(tmp_path, model=ScriptedModel(), HTTP_PORT=0) as service,
        realtime(service.http_port, format_=None) as caller,
    ):
        await caller.append(speech)
        await caller.commit()
        await caller.completed()
        await caller.append(bytes(RATE // 5))
        await caller.commit()  # exactly 0.1 s since the last item
        silent = await caller.completed()
    (stopped,) = caller.of("input_audio_buffer.speech_stopped")
    assert stopped["audio_end_ms"] <= 1000
    assert silent["transcript"] == "" and silent["usage"]["seconds"] == 0.1


@pytest.mark.parametrize("settings", [{}, MANUAL])
async def test_streams_are_counted_only_while_there_is_audio(tmp_path: Path, settings: Event) -> None:
    keys: dict[str, Any] = {"MAX_STREAMS": 1, "STREAM_IDLE_TIMEOUT_S": 1, "HTTP_PORT": 0}
    async with (
        running(tmp_path, model=ScriptedModel(), **keys) as service,
        realtime(service.http_port, format_=None) as first,
        realtime(service.http_port, format_=None) as second,
    ):
        if settings:
            await first.update(**settings)
            await second.update(**settings)
        await first.append(AUDIO[: RATE * 2])
        await until(lambda: metric(service, "stt_streams_active") == 1)
        await second.append(AUDIO)
        assert await second.closed() == 1013
        assert second.events[-1]["error"]["code"] == "overloaded"
        await until(lambda: metric(service, "stt_streams_active") == 0)  # after STREAM_IDLE_TIMEOUT_S
        async with realtime(service.http_port, format_=None) as third:
            await third.append(AUDIO)
            await third.completed()
        await until(lambda: metric(service, "stt_streams_active") == 0)
        await first.append(AUDIO[RATE * 2 :])
        await first.commit()
        assert "fox" in (await first.completed())["transcript"]


async def test_a_missing_fallback_fails_no_item(tmp_path: Path) -> None:
    small = ScriptedModel(Script(confidence=0.1))
    async with pair(tmp_path, small, ScriptedModel(), HTTP_PORT=0) as (_, primary, fallback):
        await fallback.stop()
        async with realtime(primary.http_port, format_=None) as caller:
            await caller.append(AUDIO)
            event = await caller.completed()  # with the primary's text, as of all live streams
    assert event["routing"]["fallback_error"] in ("unavailable", "circuit_open")


@pytest.mark.parametrize("settings", [{}, MANUAL])
async def test_a_failing_model_fails_the_item(tmp_path: Path, settings: Event) -> None:
    model = ScriptedModel()
    async with (
        running(tmp_path, model=model, HTTP_PORT=0) as service,
        realtime(service.http_port, format_=None) as caller,
    ):
        await caller.update(**settings)
        model.script = Script(error="engine")
        await caller.append(AUDIO)
        await caller.commit()
        failed = await caller.next(f"{TRANSCRIPTION}.failed")
        model.script = Script()
        await caller.append(AUDIO)
        await caller.commit()
        completed = await caller.completed()
    assert failed["error"]["type"] == "server_error" and failed["error"]["message"]
    assert completed["transcript"] == model.script.text


async def test_stopping_the_service_ends_sessions(tmp_path: Path) -> None:
    async with (
        running(tmp_path, model=ScriptedModel(), HTTP_PORT=0) as service,
        realtime(service.http_port, format_=None) as idle,
        realtime(service.http_port, format_=None) as talking,
    ):
        await talking.append(AUDIO[: RATE * 4])
        await talking.next("input_audio_buffer.speech_started")
        stopping = asyncio.create_task(service.stop())
        assert [await idle.closed(), await talking.closed()] == [1012, 1012]
        await stopping
    assert talking.of(f"{TRANSCRIPTION}.completed")[0]["transcript"]


async def test_the_service_takes_the_longest_texts(tmp_path: Path) -> None:
    async with (
        running(tmp_path, model=ScriptedModel(), HTTP_PORT=0) as service,
        realtime(service.http_port, format_=None) as caller,
    ):
        await caller.update(transcription={"keywords": ["k" * 100] * 200, "prompt": "p" * 4000})
        session = {"audio": {"input": {"transcription": {"keywords": ["word"] * 201}}}}
        await caller.send("session.update", session=session, event_id="mine")
        error = (await caller.next("error"))["error"]
        await caller.append(AUDIO)
        assert (await caller.completed())["transcript"]
    assert (error["param"], error["event_id"]) == ("session.audio.input.transcription.keywords", "mine")


async def test_a_service_with_other_limits_names_the_setting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.openai.realtime.settings.MAX_HOTWORDS", 201)
    async with (
        running(tmp_path, model=ScriptedModel(), HTTP_PORT=0) as service,
        realtime(service.http_port, format_=None) as caller,
    ):
        await caller.update(transcription={"keywords": ["word"] * 201})
        await caller.append(AUDIO)
        error = (await caller.next("error"))["error"]
        assert error["param"] == "session.audio.input.transcription.keywords"
        await caller.update(transcription={"keywords": None})
        await caller.append(AUDIO)
        assert (await caller.completed())["transcript"]
