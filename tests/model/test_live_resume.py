"""A live stream over a network that breaks, with a real model: nothing is lost at the seams, nor heard twice."""

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


async def heard(service: Service, pcm: bytes, limits: Sequence[int] = ()) -> list[StreamEvent]:
    """Every event, over connections that are cut after so many bytes."""
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
async def test_a_broken_stream_hears_what_an_unbroken_one_does(
    tiny_en: WhisperRecognizer, tmp_path: Path, recording: bytes
) -> None:
    rng = random.Random(4)
    async with running(tmp_path, model=tiny_en) as service:
        whole = await heard(service, recording)
        assert len(texts(whole)) >= len(NAMES)
        for _ in range(4):
            limits = [rng.randint(1000, len(recording)) for _ in range(rng.randint(1, 3))]
            broken = await heard(service, recording, limits)
            assert texts(broken) == texts(whole)
            for type_ in ("started", "ended"):
                assert offsets(broken, type_) == pytest.approx(offsets(whole, type_), abs=0.15)


@pytest.mark.model
async def test_a_service_that_is_stopped_hands_its_streams_to_another(
    tiny_en: WhisperRecognizer, tmp_path: Path, recording: bytes
) -> None:
    """It is stopped after the first final, in what it has been sent of the rest."""
    encoding = AudioFormat("linear16", RATE)
    more = asyncio.Event()
    rest = RATE * 2 * 5

    async def spoken() -> AsyncIterator[bytes]:
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
        async for event in pool.stream(spoken(), encoding=encoding, resume=True, timeout=100):
            events.append(event)
            if isinstance(event, Final) and stopping is None:
                (busy,) = [number for number, member in enumerate(pool._members) if member.in_flight]
                stopping = asyncio.create_task(services[busy].stop())
                more.set()
        assert stopping is not None
        await stopping
        whole = await heard(services[1 - busy], recording)
    assert texts(events) == texts(whole)
    for type_ in ("started", "ended"):
        assert offsets(events, type_) == pytest.approx(offsets(whole, type_), abs=0.15)
