"""How live streams end: idle, cancelled, unread, or drained. Nothing is left running."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from protos.stt.v1 import speech_pb2_grpc
from stt_server.app import Service
from stt_server.audio import AudioFormat, Chunk
from stt_server.engine.types import DecodeOptions
from stt_server.streaming.events import Audio, Flush, Message, StreamConfig
from stt_server.streaming.recognition import StreamRecognizer, UtteranceRecognition
from stt_server.streaming.session import Limits, Session
from stt_server.testing.scripted_model import Script, ScriptedModel
from stt_server.testing.services import UNLIMITED
from tests.support.services import running, stub_of, transcribe, until
from tests.support.speech import RATE, silence
from tests.support.streams import (
    MIDDLE,
    Caller,
    audio_processed,
    config,
    kind_of,
    metric,
    opened,
    pcm,
    recording_of,
    stream,
)

FOX = recording_of("quick_brown_fox")
HALF, REST = FOX[:MIDDLE], FOX[MIDDLE:]
"""HALF ends in the middle of the speech."""


async def half_a_sentence() -> AsyncIterator[Message]:
    yield StreamConfig(DecodeOptions(), AudioFormat("linear16", RATE, 1))
    yield Audio(pcm(HALF))
    yield Flush()
    await asyncio.Event().wait()


async def test_leaving_before_a_final_starts_frees_it_too(
    service: Service, model: ScriptedModel, monkeypatch: pytest.MonkeyPatch, recwarn: pytest.WarningsRecorder
) -> None:
    recognitions: list[UtteranceRecognition] = []
    sessions: list[Session] = []
    recognize = StreamRecognizer.recognize

    def recognize_and_leave(self: StreamRecognizer, chunk: Chunk, *, speculative: bool = False) -> UtteranceRecognition:
        recognitions.append(recognize(self, chunk, speculative=speculative))
        reading.cancel()
        return recognitions[-1]

    async def read() -> None:
        stream = service._streams.open(half_a_sentence(), service.backend.live, Limits(30, 2**20), "leaving")
        async with stream as session, aclosing(session.events()) as events:
            sessions.append(session)
            async for _ in events:
                pass

    monkeypatch.setattr(StreamRecognizer, "recognize", recognize_and_leave)
    model.open.clear()
    reading = asyncio.ensure_future(read())
    with contextlib.suppress(asyncio.CancelledError):
        await reading
    await until(lambda: not service.backend.batcher.waiting and not len(sessions[0]._tasks))
    model.open.set()
    (recognition,) = recognitions
    with pytest.raises(asyncio.CancelledError):
        await recognition.hypothesis()
    gc.collect()
    assert not [str(warning.message) for warning in recwarn if warning.category is RuntimeWarning]


@contextlib.asynccontextmanager
async def unread_stream(folder: Path, **keys: Any) -> AsyncIterator[tuple[Service, Any, Caller]]:
    """A service, a stub of it, and a stream with more unread events than the connection buffers."""
    model = ScriptedModel(Script(text=" word" * 20_000))
    options = [*UNLIMITED, ("grpc.http2.bdp_probe", 0)]  # with it, the connection buffers megabytes
    async with (
        running(folder, "primary", model, STREAM_IDLE_TIMEOUT_S=1, **keys) as service,
        grpc.aio.insecure_channel(f"127.0.0.1:{service.grpc_port}", options=options) as channel,
    ):
        stub = speech_pb2_grpc.SpeechToTextStub(channel)
        unread = await opened(stub, interim_results=False)
        await unread.send_audio(np.tile(FOX, 6), piece=8.0)
        await unread.next("final")
        await until(lambda: not service.readiness.in_flight)
        yield service, stub, unread


async def test_an_unread_stream_is_ended(tmp_path: Path) -> None:
    async with unread_stream(tmp_path, MAX_STREAMS=1) as (_, stub, unread):
        assert await stream(stub, config()) == [], "it no longer counts toward the limit"
        code, kind, message = await unread.failure()
        assert (code, kind) == (grpc.StatusCode.DEADLINE_EXCEEDED, "deadline_exceeded")
        assert "no event was read for 2 s" in message


async def test_an_unread_stream_that_is_cancelled_is_logged_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with unread_stream(tmp_path) as (_, _, unread):
        (line,) = lines(caplog, "stt.request")
        assert line.error_type == "deadline_exceeded"  # type: ignore[attr-defined]
        ending = [task for task in asyncio.all_tasks() if "StreamTranscribe" in task.get_name()]
        assert ending, "its status is still unread"
        unread.call.cancel()
        await until(lambda: all(task.done() for task in ending))
    assert len(lines(caplog, "stt.request")) == 1
    assert not lines(caplog, "grpc")


async def test_an_idle_stream_gets_its_final_and_ends(tmp_path: Path) -> None:
    async with running(tmp_path, STREAM_IDLE_TIMEOUT_S=1) as service, stub_of(service) as stub:
        caller = await opened(stub)
        await caller.send_audio(HALF)
        code, kind, message = await caller.failure()
        assert kind_of(caller.responses[-1]) == "final"
        assert (code, kind) == (grpc.StatusCode.DEADLINE_EXCEEDED, "deadline_exceeded")
        assert "1 s" in message
        silent = Caller(stub.StreamTranscribe())
        assert (await silent.failure())[1] == "deadline_exceeded"


async def test_a_cancelled_stream_frees_everything(tmp_path: Path, model: ScriptedModel) -> None:
    model.open.clear()
    async with running(tmp_path, "primary", model, MAX_CONCURRENCY=1) as service, stub_of(service) as stub:
        caller = await opened(stub)
        await caller.send_audio(HALF)
        await caller.next("started")
        await asyncio.get_running_loop().run_in_executor(None, model.entered.acquire)
        caller.call.cancel()
        await until(lambda: metric(service, "stt_streams_active") == 0 and not service.readiness.in_flight)
        assert (service.backend.batcher.waiting, service.queue_depth) == (0, 0)
        model.open.set()
        assert (await transcribe(stub))[0].text
        exposition = service.instruments.metrics.exposition()[0]
    assert 'stt_requests_exceptions_total{endpoint="/v1/stream",type="cancelled"} 1.0' in exposition


async def test_draining_waits_for_the_final_of_an_utterance(tmp_path: Path, model: ScriptedModel) -> None:
    async with running(tmp_path, "primary", model, DRAIN_TIMEOUT_S=4) as service, stub_of(service) as stub:
        speaking, quiet = await opened(stub), await opened(stub)
        await speaking.send_audio(HALF)
        await speaking.next("started")
        await quiet.send_audio(silence(0.5))
        await until(lambda: audio_processed(service) > 2.1)
        stopping = asyncio.ensure_future(service.stop())
        code, kind, _ = await quiet.failure()
        assert (code, kind) == (grpc.StatusCode.UNAVAILABLE, "not_ready")
        await speaking.send_audio(REST)
        code, kind, _ = await speaking.failure()
        assert (code, kind) == (grpc.StatusCode.UNAVAILABLE, "not_ready")
        assert kind_of(speaking.responses[-1]) == "final"
        await stopping


async def test_draining_ends_a_stream_before_its_config(tmp_path: Path) -> None:
    async with running(tmp_path, DRAIN_TIMEOUT_S=4) as service, stub_of(service) as stub:
        caller = Caller(stub.StreamTranscribe())
        await until(lambda: metric(service, "stt_streams_active") == 1)
        stopping = asyncio.ensure_future(service.stop())
        assert (await caller.failure())[:2] == (grpc.StatusCode.UNAVAILABLE, "not_ready")
        await stopping


async def test_draining_ends_an_utterance_without_a_pause(tmp_path: Path, model: ScriptedModel) -> None:
    async with running(tmp_path, "primary", model, DRAIN_TIMEOUT_S=2) as service, stub_of(service) as stub:
        speaking = await opened(stub)
        await speaking.send_audio(HALF)
        await speaking.next("started")
        stopping = asyncio.ensure_future(service.stop())
        _, kind, _ = await speaking.failure()
        assert kind == "not_ready"
        assert kind_of(speaking.responses[-1]) == "final"
        await stopping


def lines(caplog: pytest.LogCaptureFixture, logger: str) -> list[logging.LogRecord]:
    return [record for record in caplog.records if record.name.startswith(logger)]
