"""How live streams end that nobody reads any more: what they held is free, and nothing is left running."""

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
from tests.support.services import running, until
from tests.support.speech import RATE, clip, samples_of, silence
from tests.support.streams import Caller, config, opened, pcm, stream

FOX = np.concatenate([silence(0.5), samples_of(clip("en", "quick_brown_fox")), silence(1.0)])
HALF = FOX[: int(1.8 * RATE)]
"""Ends while somebody speaks."""


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
        stream = service._streams.open(half_a_sentence(), service.work.live, Limits(30, 2**20), "leaving")
        async with stream as session, aclosing(session.events()) as events:
            sessions.append(session)
            async for _ in events:
                pass

    monkeypatch.setattr(StreamRecognizer, "recognize", recognize_and_leave)
    model.open.clear()
    reading = asyncio.ensure_future(read())
    with contextlib.suppress(asyncio.CancelledError):
        await reading
    await until(lambda: not service.work.batcher.waiting and not len(sessions[0]._tasks))
    model.open.set()
    (recognition,) = recognitions
    with pytest.raises(asyncio.CancelledError):
        await recognition.hypothesis()
    gc.collect()
    assert not [str(warning.message) for warning in recwarn if warning.category is RuntimeWarning]


@contextlib.asynccontextmanager
async def with_a_deaf_caller(folder: Path, **keys: Any) -> AsyncIterator[tuple[Service, Any, Caller]]:
    """A service, a stub of it, and a stream that has sent all and of which more is to be read than the wire holds."""
    model = ScriptedModel(Script(text=" word" * 20_000))
    options = [*UNLIMITED, ("grpc.http2.bdp_probe", 0)]  # with it, the wire holds megabytes
    async with (
        running(folder, "primary", model, STREAM_IDLE_TIMEOUT_S=1, **keys) as service,
        grpc.aio.insecure_channel(f"127.0.0.1:{service.grpc_port}", options=options) as channel,
    ):
        stub = speech_pb2_grpc.SpeechToTextStub(channel)
        deaf = await opened(stub, interim_results=False)
        await deaf.say(np.tile(FOX, 6), piece=8.0)
        await deaf.next("final")
        await until(lambda: not service._readiness.in_flight)
        yield service, stub, deaf


async def test_a_stream_whose_caller_reads_nothing_is_ended(tmp_path: Path) -> None:
    async with with_a_deaf_caller(tmp_path, MAX_STREAMS=1) as (_, stub, deaf):
        assert await stream(stub, config()) == [], "its place is free"
        code, kind, message = await deaf.failure()
        assert (code, kind) == (grpc.StatusCode.DEADLINE_EXCEEDED, "deadline_exceeded")
        assert "no event was read for 2 s" in message


async def test_one_who_reads_nothing_and_goes_away_is_told_of_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with with_a_deaf_caller(tmp_path) as (_, _, deaf):
        (line,) = lines(caplog, "stt.request")
        assert line.error_type == "deadline_exceeded"  # type: ignore[attr-defined]
        ending = [task for task in asyncio.all_tasks() if "StreamTranscribe" in task.get_name()]
        assert ending, "its status waits to be read"
        deaf.call.cancel()
        await until(lambda: all(task.done() for task in ending))
    assert len(lines(caplog, "stt.request")) == 1
    assert not lines(caplog, "grpc")


def lines(caplog: pytest.LogCaptureFixture, logger: str) -> list[logging.LogRecord]:
    return [record for record in caplog.records if record.name.startswith(logger)]
