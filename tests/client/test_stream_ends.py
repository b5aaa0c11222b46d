"""How streams of `SttClient` end: errors, cancellation, timeouts, and a slow service."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing

import pytest

from protos.stt.v1 import speech_pb2
from stt_client import CallRecord, SttClient
from stt_client.errors import Cancelled, DeadlineExceeded, Internal, InvalidArgument, UpstreamUnavailable
from tests.support.contract_script import Failure, Script
from tests.support.contract_service import serving, unused_port
from tests.support.letter_stream import FORMAT, WAIT_S, Letters, chunks, endless, finals, speech


async def test_an_error_of_the_audio_iterator_cancels_the_call() -> None:
    script = Script(stream=Letters())
    records: list[CallRecord] = []

    async def broken() -> AsyncIterator[bytes]:
        yield speech("ab")
        raise OSError("the microphone is gone")

    async with serving(script) as served, SttClient(served.target, telemetry=records.append) as client:
        with pytest.raises(OSError, match="the microphone is gone"):
            _ = [event async for event in client.stream(broken(), encoding=FORMAT)]
        await asyncio.wait_for(script.cancelled.wait(), WAIT_S)
    assert [(record.ok, record.error_type) for record in records] == [(False, "cancelled")]


async def test_a_chunk_that_is_not_bytes_is_a_type_error() -> None:
    async def numbers() -> AsyncIterator[bytes]:
        yield 320  # type: ignore[misc]

    async with serving(Script(stream=Letters())) as served, SttClient(served.target) as client:
        with pytest.raises(TypeError, match="of type int: audio must yield bytes or FLUSH"):
            _ = [event async for event in client.stream(numbers(), encoding=FORMAT)]


async def test_closing_the_generator_cancels_the_call() -> None:
    script = Script(stream=Letters())
    closed = asyncio.Event()
    async with serving(script) as served, SttClient(served.target) as client:
        async with aclosing(client.stream(endless(closed), encoding=FORMAT)) as events:
            async for _ in events:
                break
        assert closed.is_set()
        await asyncio.wait_for(script.cancelled.wait(), WAIT_S)


async def test_cancelling_the_task_cancels_the_call_and_closes_the_audio() -> None:
    letters = Letters()
    script = Script(stream=letters)
    closed = asyncio.Event()
    async with serving(script) as served, SttClient(served.target) as client:

        async def listen() -> None:
            async for _ in client.stream(endless(closed), encoding=FORMAT, interim_results=False):
                pass

        task = asyncio.create_task(listen())
        await asyncio.wait_for(letters.got_audio.wait(), WAIT_S)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert closed.is_set()
        await asyncio.wait_for(script.cancelled.wait(), WAIT_S)


async def test_closing_the_client_ends_its_streams() -> None:
    letters = Letters()
    closed = asyncio.Event()
    async with serving(Script(stream=letters)) as served:
        client = SttClient(served.target)

        async def listen() -> None:
            async for _ in client.stream(endless(closed), encoding=FORMAT, interim_results=False):
                pass

        task = asyncio.create_task(listen())
        await asyncio.wait_for(letters.got_audio.wait(), WAIT_S)
        await client.close()
        with pytest.raises(Cancelled, match="the client was closed"):
            await asyncio.wait_for(task, WAIT_S)
        assert closed.is_set()


@pytest.mark.parametrize("resume", [False, True])
async def test_single_utterance_ends_the_sending(resume: bool) -> None:
    closed = asyncio.Event()

    async def talker() -> AsyncIterator[bytes]:
        yield speech("ab      ")
        async for chunk in endless(closed):
            yield chunk

    records: list[CallRecord] = []
    async with (
        serving(Script(stream=Letters())) as served,
        SttClient(served.target, telemetry=records.append) as client,
    ):
        stream = client.stream(talker(), encoding=FORMAT, single_utterance=True, resume=resume)
        events = [event async for event in stream]
    assert finals(events) == ["ab"]
    assert [record.ok for record in records] == [True]


@pytest.mark.parametrize("resume", [False, True])
async def test_request_errors_are_raised_by_type(resume: bool) -> None:
    script = Script(failure=Failure("invalid_argument", "no such language"))
    records: list[CallRecord] = []
    async with serving(script) as served, SttClient(served.target, telemetry=records.append) as client:
        with pytest.raises(InvalidArgument, match="no such language"):
            _ = [event async for event in client.stream(chunks("ab"), encoding=FORMAT, resume=resume)]
    assert [record.error_type for record in records] == ["invalid_argument"]
    assert len(script.streams) == 1


async def test_an_unexpected_error_of_the_service_is_internal() -> None:
    async def fails(requests: object, context: object) -> AsyncIterator[speech_pb2.StreamTranscribeResponse]:
        raise RuntimeError("a bug")
        yield

    async with serving(Script(stream=fails)) as served, SttClient(served.target) as client:
        with pytest.raises(Internal):
            _ = [event async for event in client.stream(chunks("ab"), encoding=FORMAT, resume=True)]


@pytest.mark.parametrize("resume", [False, True])
async def test_an_unreachable_service_fails_before_audio_is_pulled(resume: bool) -> None:
    pulled = False

    async def audio() -> AsyncIterator[bytes]:
        nonlocal pulled
        pulled = True
        yield b""

    async with SttClient(f"127.0.0.1:{unused_port()}") as client:
        with pytest.raises(UpstreamUnavailable):
            _ = [event async for event in client.stream(audio(), encoding=FORMAT, resume=resume)]
    assert not pulled


@pytest.mark.parametrize("resume", [False, True])
async def test_a_timeout_ends_the_stream(resume: bool) -> None:
    closed = asyncio.Event()
    async with serving(Script(stream=Letters())) as served, SttClient(served.target) as client:
        with pytest.raises(DeadlineExceeded):
            stream = client.stream(endless(closed), encoding=FORMAT, timeout=0.3, resume=resume)
            _ = [event async for event in stream]
    assert closed.is_set()
