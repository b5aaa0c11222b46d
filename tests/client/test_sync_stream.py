"""Streams of `SyncSttClient` in a thread, against a scripted server in the test's event loop."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator

import pytest

from stt_client import FLUSH, Final, Flush, StreamEvent, SyncSttClient
from stt_client.errors import Cancelled
from tests.support.contract_script import Script
from tests.support.contract_service import serving
from tests.support.letter_stream import FORMAT, WAIT_S, Letters, finals, speech


def audio(closed: threading.Event | None = None) -> Iterator[bytes | Flush]:
    try:
        yield speech("ab")
        yield FLUSH
        yield speech("cd")
        while closed is not None:
            yield speech(" ")
    finally:
        if closed is not None:
            closed.set()


async def test_events_are_yielded_by_a_generator() -> None:
    def use(target: str) -> list[StreamEvent]:
        with SyncSttClient(target) as client:
            return list(client.stream(audio(), encoding=FORMAT))

    async with serving(Script(stream=Letters())) as served:
        assert finals(await asyncio.to_thread(use, served.target)) == ["ab", "cd"]


async def test_closing_the_generator_cancels_the_call() -> None:
    closed = threading.Event()

    def use(target: str) -> None:
        with SyncSttClient(target) as client:
            events = client.stream(audio(closed), encoding=FORMAT)
            assert any(isinstance(event, Final) for event in events)
            events.close()
            assert closed.wait(WAIT_S)
            assert client.health()

    script = Script(stream=Letters())
    async with serving(script) as served:
        await asyncio.to_thread(use, served.target)
        await asyncio.wait_for(script.cancelled.wait(), WAIT_S)


async def test_closing_the_client_ends_its_streams() -> None:
    def use(target: str) -> None:
        client = SyncSttClient(target)
        events = client.stream(audio(threading.Event()), encoding=FORMAT)
        next(events)
        client.close()
        with pytest.raises((Cancelled, RuntimeError)):
            list(events)

    async with serving(Script(stream=Letters())) as served:
        await asyncio.wait_for(asyncio.to_thread(use, served.target), WAIT_S)


async def test_an_error_of_the_audio_is_raised() -> None:
    def broken() -> Iterator[bytes]:
        yield speech("ab")
        raise OSError("the microphone is gone")

    def use(target: str) -> None:
        with SyncSttClient(target) as client, pytest.raises(OSError, match="the microphone is gone"):
            list(client.stream(broken(), encoding=FORMAT))

    async with serving(Script(stream=Letters())) as served:
        await asyncio.to_thread(use, served.target)
