"""`transcribe_with_progress` of the SDK: a client, a blocking client and a pool."""

from __future__ import annotations

import asyncio
from contextlib import aclosing

import pytest

from stt_client import (
    CallRecord,
    Progress,
    SettledSegments,
    SttClient,
    SttPool,
    SyncSttClient,
    TranscribeEvent,
    Transcript,
)
from stt_client.errors import DeadlineExceeded, Overloaded
from tests.support.contract_script import Failure, Script
from tests.support.contract_service import serving

WAIT_S = 20


def shape(events: list[TranscribeEvent]) -> list[float | str]:
    """Seconds of each progress, and the texts."""
    return [
        event.audio_settled
        if isinstance(event, Progress)
        else " ".join(segment.text for segment in event.segments)
        if isinstance(event, SettledSegments)
        else event.text
        for event in events
    ]


async def test_progress_segments_and_the_transcript_arrive_in_order() -> None:
    records: list[CallRecord] = []
    async with serving() as served, SttClient(served.target, telemetry=records.append) as client:
        events = [event async for event in client.transcribe_with_progress(b"x", request_id="mine", language="en")]
        same = await client.transcribe(b"x", request_id="mine")
    assert shape(events) == [0.65, "hello world", 1.3, "hello world"]
    assert events[-1] == same
    assert isinstance(events[-1], Transcript)
    assert events[-1].metadata["x-final-model"] == "tiny"
    assert served.script.requests[0].options.language == "en"
    assert [(record.method, record.ok) for record in records] == [
        ("TranscribeWithProgress", True),
        ("Transcribe", True),
    ]
    assert records[0].transcript == same


async def test_events_arrive_before_the_result() -> None:
    async with (
        serving(Script(hold_result=asyncio.Event())) as served,
        SttClient(served.target) as client,
        aclosing(client.transcribe_with_progress(b"x")) as events,
    ):
        first = [await asyncio.wait_for(anext(events), WAIT_S) for _ in range(2)]
    assert shape(first) == [0.65, "hello world"]


async def test_errors_are_those_of_transcribe() -> None:
    async with serving(Script(failure=Failure("overloaded"), retryable=False)) as served:
        async with SttClient(served.target) as client:
            with pytest.raises(Overloaded):
                [event async for event in client.transcribe_with_progress(b"x")]
        served.script.failure, served.script.hold = None, asyncio.Event()
        async with SttClient(served.target) as client:
            with pytest.raises(DeadlineExceeded):
                [event async for event in client.transcribe_with_progress(b"x", timeout=0.05)]


async def test_an_older_service_gives_the_transcript_alone() -> None:
    async with serving(Script(reports_progress=False)) as served, SttClient(served.target) as client:
        events = [event async for event in client.transcribe_with_progress(b"x")]
    assert shape(events) == ["hello world"]


async def test_another_service_of_a_pool_continues_without_repetition() -> None:
    async with (
        serving(Script(hold_result=asyncio.Event())) as first,
        serving() as second,
        SttPool([first.target, second.target]) as pool,
        aclosing(pool.transcribe_with_progress(b"x")) as events,
    ):
        seen = [await asyncio.wait_for(anext(events), WAIT_S) for _ in range(2)]
        await first.stop()
        seen += [event async for event in events]
    assert shape(seen) == [0.65, "hello world", 0.65, 1.3, "hello world"]
    assert len(second.script.requests) == 1


async def test_a_blocking_client_iterates() -> None:
    async with serving() as served:

        def run() -> list[TranscribeEvent]:
            with SyncSttClient(served.target) as client:
                return list(client.transcribe_with_progress(b"x"))

        assert shape(await asyncio.to_thread(run)) == [0.65, "hello world", 1.3, "hello world"]


def test_speed_and_time_left_are_those_of_this_run() -> None:
    halfway = Progress(audio_duration=100, audio_settled=60, elapsed=2, audio_kept=20)
    assert (halfway.speed, halfway.time_left) == (20, 2)
    assert Progress(None, 0, 0).speed is None
    assert Progress(None, 5, 1).time_left is None
