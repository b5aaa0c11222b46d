"""Resuming a live stream with a real model: no audio is lost or repeated where it breaks."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack
from pathlib import Path

import numpy as np
import pytest

from stt_client import AudioFormat, Final, SpeechEvent, StreamEvent, SttClient, SttPool
from stt_server.app import Service
from stt_server.engine.whisper import WhisperRecognizer
from tests.support.cut_proxy import cutting
from tests.support.services import running
from tests.support.speech import RATE, Samples, clip, samples_of, silence, words

NAMES = ("quick_brown_fox", "counting", "hello_world", "quick_brown_fox")


@pytest.fixture(scope="module")
def recording() -> bytes:
    parts: list[Samples] = [silence(0.5)]
    for name in NAMES:
        parts += [samples_of(clip("en", name)), silence(1.5)]
    return (np.clip(np.concatenate(parts), -1, 1) * 32767).astype("<i2").tobytes()


async def pieces(pcm: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(pcm), 3200):
        yield pcm[start : start + 3200]


async def events_of(service: Service, pcm: bytes, limits: Sequence[int] = ()) -> list[StreamEvent]:
    """All events of a stream whose connections are cut after `limits` bytes each."""
    async with cutting(f"127.0.0.1:{service.grpc_port}", limits) as (proxy, target), SttClient(target) as client:
        stream = client.stream(pieces(pcm), encoding=AudioFormat("linear16", RATE), resume=True, timeout=100)
        events = [event async for event in stream]
        assert proxy.cuts >= min(len(limits), 1)
        return events


def offsets(events: Sequence[StreamEvent], type_: str) -> list[float]:
    return [event.offset for event in events if isinstance(event, SpeechEvent) and event.type == type_]


def texts(events: Sequence[StreamEvent]) -> list[str]:
    return [words(event.result.text) for event in events if isinstance(event, Final)]


@pytest.mark.model
async def test_a_broken_stream_gives_the_same_texts_as_an_unbroken_one(
    tiny_en: WhisperRecognizer, tmp_path: Path, recording: bytes
) -> None:
    rng = random.Random(4)
    async with running(tmp_path, model=tiny_en) as service:
        whole = await events_of(service, recording)
        assert len(texts(whole)) >= len(NAMES)
        for _ in range(4):
            limits = [rng.randint(1000, len(recording)) for _ in range(rng.randint(1, 3))]
            broken = await events_of(service, recording, limits)
            assert texts(broken) == texts(whole)
            for type_ in ("started", "ended"):
                assert offsets(broken, type_) == pytest.approx(offsets(whole, type_), abs=0.15)


@pytest.mark.model
async def test_a_stream_of_a_stopped_service_resumes_at_another(
    tiny_en: WhisperRecognizer, tmp_path: Path, recording: bytes
) -> None:
    """The service is stopped after the first final, while it receives the rest."""
    encoding = AudioFormat("linear16", RATE)
    more = asyncio.Event()
    rest = RATE * 2 * 5

    async def audio() -> AsyncIterator[bytes]:
        async for piece in pieces(recording[:rest]):
            yield piece
        await more.wait()
        async for piece in pieces(recording[rest:]):
            yield piece

    async with AsyncExitStack() as stack:
        services = [await stack.enter_async_context(running(tmp_path, model=tiny_en)) for _ in range(2)]
        pool = await stack.enter_async_context(SttPool([f"127.0.0.1:{service.grpc_port}" for service in services]))
        events: list[StreamEvent] = []
        stopping: asyncio.Task[None] | None = None
        async for event in pool.stream(audio(), encoding=encoding, resume=True, timeout=100):
            events.append(event)
            if isinstance(event, Final) and stopping is None:
                (busy,) = [number for number, member in enumerate(pool._members) if member.in_flight]
                stopping = asyncio.create_task(services[busy].stop())
                more.set()
        assert stopping is not None
        await stopping
        whole = await events_of(services[1 - busy], recording)
    assert texts(events) == texts(whole)
    for type_ in ("started", "ended"):
        assert offsets(events, type_) == pytest.approx(offsets(whole, type_), abs=0.15)
