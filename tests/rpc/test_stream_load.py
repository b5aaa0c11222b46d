"""Live streams on a busy service: limits, priorities and flow control."""

from __future__ import annotations

import asyncio
from pathlib import Path

import grpc
import numpy as np

from protos.stt.v1 import speech_pb2_grpc
from stt_server.app import Service
from stt_server.testing.scripted_model import Script, ScriptedModel
from tests.support.services import channel_to, running, stub_of, transcribe, until
from tests.support.speech import RATE
from tests.support.streams import (
    MIDDLE,
    audio,
    audio_processed,
    config,
    finals,
    metric,
    opened,
    pcm,
    recording_of,
    stream,
)

FOX = recording_of("quick_brown_fox")
HALF, REST = FOX[:MIDDLE], FOX[MIDDLE:]
"""HALF ends in the middle of the speech."""


async def until_stalled(service: Service, seconds: float = 1.0) -> None:
    """Wait until the service has processed some audio, and then none for `seconds`."""
    loop = asyncio.get_running_loop()
    value, since = 0.0, loop.time()
    while not value or loop.time() - since <= seconds:
        await asyncio.sleep(0.02)
        if audio_processed(service) != value:
            value, since = audio_processed(service), loop.time()


async def test_a_stream_over_the_limit_is_refused(tmp_path: Path) -> None:
    async with running(tmp_path, MAX_STREAMS=1) as service, stub_of(service) as stub:
        first = await opened(stub)
        await first.send_audio(HALF)
        await first.next("started")
        code, kind, _ = await (await opened(stub)).failure()
        assert (code, kind) == (grpc.StatusCode.UNAVAILABLE, "overloaded")
        assert (await transcribe(stub))[0].text, "unary calls are admitted"
        await first.finish()
        await until(lambda: metric(service, "stt_streams_active") == 0)
        assert await stream(stub, config()) == []


async def test_drafts_are_thinned_and_run_after_answers(tmp_path: Path, model: ScriptedModel) -> None:
    model.open.clear()
    async with running(tmp_path, "primary", model, MAX_CONCURRENCY=1) as service, stub_of(service) as stub:
        blocking = asyncio.ensure_future(transcribe(stub))
        await asyncio.get_running_loop().run_in_executor(None, model.entered.acquire)
        caller = await opened(stub)
        for at in range(0, int(2.5 * RATE), RATE // 2):
            await caller.send_audio(FOX[at : at + RATE // 2])
            await until(lambda at=at: audio_processed(service) >= (at + RATE // 2) / RATE - 0.1)  # type: ignore[misc]
        waiting = asyncio.ensure_future(transcribe(stub))
        await until(lambda: service.backend.batcher.waiting == 2)
        assert metric(service, "stt_stream_interims_thinned_total") >= 1
        model.open.set()
        await asyncio.gather(blocking, waiting)
        await caller.next("interim")
        await caller.send_audio(FOX[int(2.5 * RATE) :])
        await caller.finish()
    order = [job.draft for job in model.jobs[:3]]
    assert order == [False, False, True], "the later call ran before the draft"
    drafted = model.jobs[2].chunk
    assert drafted.start + len(drafted.samples) / RATE > 2.0, "the draft has the newest audio"


async def test_an_answer_does_not_wait_for_drafts(tmp_path: Path, model: ScriptedModel) -> None:
    model.open.clear()
    async with running(tmp_path, "primary", model, MAX_CONCURRENCY=2) as service, stub_of(service) as stub:
        callers = [await opened(stub) for _ in range(3)]
        for caller in callers:
            await caller.send_audio(HALF)
            await caller.next("started")
        await asyncio.get_running_loop().run_in_executor(None, model.entered.acquire)
        answer = asyncio.ensure_future(transcribe(stub))
        await asyncio.get_running_loop().run_in_executor(None, model.entered.acquire)
        assert [job.draft for job in model.jobs] == [True, False], "one worker takes no drafts"
        model.open.set()
        assert (await answer)[0].text
        for caller in callers:
            await caller.finish()


async def test_a_caller_that_reads_nothing_slows_only_itself(tmp_path: Path, model: ScriptedModel) -> None:
    model.by_job = lambda job: Script(text=" word" * 20_000)
    async with running(tmp_path, "primary", model) as service, stub_of(service) as stub, channel_to(service) as other:
        slow = await opened(stub, interim_results=False)
        sending = asyncio.ensure_future(slow.send_audio(np.tile(FOX, 400), piece=8.0))
        await asyncio.wait_for(until_stalled(service), 60)
        before = audio_processed(service)
        assert not sending.done()
        assert before < 400 * len(FOX) / RATE / 2
        quick = await stream(speech_pb2_grpc.SpeechToTextStub(other), config(), audio(pcm(FOX)))
        assert finals(quick)
        sending.cancel()
        slow.call.cancel()
        await until(lambda: metric(service, "stt_streams_active") == 0)
