"""Callers that disconnect: work for them stops on both services of a pair, with a real model."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import Any

import grpc
import numpy as np
import pytest
from websockets.asyncio.client import connect

from protos.stt.v1 import speech_pb2 as pb
from protos.stt.v1.speech_pb2_grpc import SpeechToTextStub
from stt_client import SttClient
from stt_server.testing.paths import ROOT, SAMPLES, TINY
from stt_server.testing.services import ServiceProcess, running
from tests.support.needs import lacking
from tests.support.speech import samples_of, silence, wav_of

pytestmark = pytest.mark.model

SLOTS = 2
LENGTH_S = 6 * 60
"""Length of the long recording: many times what may still be processed after its caller left."""
CHUNK_S = 9.0
"""Length of a chunk of long recordings of these clips."""
IDLE_S = 0.8
"""Seconds almost without processor time after which a service is considered idle."""
IDLE_CPU_S = 0.4
"""Processor time of idle services during a check, and the resolution of the processor's clock."""
MOST_CHUNKS = 3 * SLOTS
"""Chunks' worth of processor time, of about 40, that may be spent after the caller left: those that were running, one
in each slot since nothing is batched, and what contention for the processor adds."""
BUSY_CPU_S = 0.6
"""Seconds of processor time after which a service is recognizing the long recording: voice activity detection is over,
and tens of chunks wait."""
PATIENCE_S = 60.0
NOTHING_LEFT = {"stt_queue_depth 0.0", "stt_in_flight 0.0"}


@dataclass(frozen=True)
class Pair:
    primary: ServiceProcess
    fallback: ServiceProcess
    recording: bytes
    chunk_cpu_s: float
    """Processor time of one chunk's request."""

    def cpu(self) -> float:
        return self.primary.cpu_seconds() + self.fallback.cpu_seconds()

    async def until_idle(self) -> float:
        """Wait until both services are idle; processor time until then."""
        last, since = self.cpu(), asyncio.get_running_loop().time()
        until = since + PATIENCE_S
        while (now := asyncio.get_running_loop().time()) < since + IDLE_S:
            assert now < until, "the services did not become idle"
            await asyncio.sleep(0.05)
            if self.cpu() - last > 0.04:
                last, since = self.cpu(), now
        return last

    async def until_busy(self, service: ServiceProcess, cpu_s: float = BUSY_CPU_S) -> None:
        """Wait until a service, idle before, has used that much processor time."""
        before, until = service.cpu_seconds(), asyncio.get_running_loop().time() + PATIENCE_S
        while service.cpu_seconds() < before + cpu_s:
            assert asyncio.get_running_loop().time() < until, "no work began"
            await asyncio.sleep(0.02)

    async def check_dropped(self, at_leaving: float) -> None:
        """Assert that both services only finished work in progress and dropped the call."""
        spent = await self.until_idle() - at_leaving
        for service in (self.primary, self.fallback):
            async with SttClient(service.target) as client:
                until = asyncio.get_running_loop().time() + PATIENCE_S
                while not set((await client.metrics()).exposition.splitlines()) >= NOTHING_LEFT:
                    assert asyncio.get_running_loop().time() < until, "the call was not dropped"
                    await asyncio.sleep(0.2)
                assert await client.health()
        assert spent <= MOST_CHUNKS * self.chunk_cpu_s + IDLE_CPU_S
        assert await self.until_idle() - at_leaving <= MOST_CHUNKS * self.chunk_cpu_s + 2 * IDLE_CPU_S


def spoken(seconds: float) -> bytes:
    """The English clips, repeated, as a WAV."""
    clips = [samples_of(path) for path in sorted((SAMPLES / "en").glob("*.wav"))]
    once = np.concatenate([part for samples in clips for part in (samples, silence(0.8))])
    return wav_of(np.tile(once, int(seconds * 16000 / len(once)) + 1)[: int(seconds * 16000)])


@pytest.fixture(scope="module")
def services(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[ServiceProcess, ServiceProcess]]:
    if not TINY.exists():
        lacking("the starter model is missing: run buildscripts/models starter")
    keys: dict[str, object] = {"MAX_CONCURRENCY": SLOTS, "MAX_BATCH_SIZE": 1, "BEAM_SIZE": 1}
    folder = tmp_path_factory.mktemp("leaving")
    fallback = ServiceProcess("fallback", folder / "fallback", keys)
    with running(fallback):
        primary = ServiceProcess("primary", folder / "primary", keys | {"FALLBACK_URL": f"grpc://{fallback.target}"})
        with running(primary):
            yield primary, fallback


@pytest.fixture(scope="module")
def recordings() -> tuple[bytes, bytes]:
    return spoken(LENGTH_S), spoken(CHUNK_S)


_chunk_cpu: list[float] = []


@pytest.fixture
async def pair(services: tuple[ServiceProcess, ServiceProcess], recordings: tuple[bytes, bytes]) -> Pair:
    pair = Pair(*services, recordings[0], 0.0)
    before = await pair.until_idle()
    if not _chunk_cpu:
        async with SttClient(pair.primary.target) as client:
            await client.transcribe(recordings[1], routing="primary")
        _chunk_cpu.append(await pair.until_idle() - before)
    return Pair(*services, recordings[0], _chunk_cpu[0])


@asynccontextmanager
async def cancelling(pair: Pair, routing: str) -> AsyncIterator[None]:
    async with pair.primary.channel() as channel:
        call = _call(channel, pair, routing)
        yield
        call.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await call


def _call(channel: grpc.aio.Channel, pair: Pair, routing: str, timeout_s: float | None = None) -> Any:
    policy = pb.ROUTING_POLICY_FALLBACK_ONLY if routing == "fallback" else pb.ROUTING_POLICY_PRIMARY_ONLY
    request = pb.TranscribeRequest(audio=pair.recording, options=pb.TranscribeOptions(routing=policy))
    return SpeechToTextStub(channel).Transcribe(request, timeout=timeout_s)


@asynccontextmanager
async def hanging_up(pair: Pair, routing: str) -> AsyncIterator[None]:
    """REST call whose connection is closed."""
    _, writer = await asyncio.open_connection("127.0.0.1", pair.primary.http_port)
    parts = [
        f'--x\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n'.encode() + value + b"\r\n"
        for name, value in (("routing", routing.encode()), ("audio", pair.recording))
    ]
    body = b"".join(parts) + b"--x--\r\n"
    head = "POST /v1/transcribe HTTP/1.1\r\nHost: x\r\nContent-Type: multipart/form-data; boundary=x\r\n"
    writer.write(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
    await writer.drain()
    yield
    writer.close()
    await writer.wait_closed()


@asynccontextmanager
async def being_killed(pair: Pair, routing: str) -> AsyncIterator[None]:
    """Client process killed with SIGKILL."""
    path = pair.primary.folder / "long.wav"
    path.write_bytes(pair.recording)
    arguments = ("transcribe", str(path), "--routing", routing, "--server", pair.primary.target)
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "stt_client.cli", *arguments),
        env={"PYTHONPATH": str(ROOT)},
        stdout=asyncio.subprocess.DEVNULL,
    )
    yield
    process.kill()
    await process.wait()


@asynccontextmanager
async def dropping_a_socket(pair: Pair, routing: str) -> AsyncIterator[None]:
    """Live stream over a WebSocket with minutes of speech, cut off."""
    url = f"ws://127.0.0.1:{pair.primary.http_port}/v1/stream"
    async with connect(url, compression=None, max_size=None) as socket:
        await socket.send(json.dumps({"encoding": "linear16", "sample_rate_hertz": 16000, "routing": routing}))

        async def speak() -> None:
            pcm = pair.recording[44:]
            for at in range(0, len(pcm), 32000):
                await socket.send(pcm[at : at + 32000])

        speaking = asyncio.create_task(speak())
        yield
        speaking.cancel()
        socket.transport.abort()


Disconnect = Callable[[Pair, str], AbstractAsyncContextManager[None]]
"""A kind of disconnection: entering the context makes the call, leaving it disconnects."""


@pytest.mark.parametrize(
    ("disconnect", "routing"),
    [
        (cancelling, "primary"),
        (cancelling, "fallback"),
        (hanging_up, "fallback"),
        (being_killed, "primary"),
        (dropping_a_socket, "primary"),
    ],
    ids=lambda value: value if isinstance(value, str) else value.__name__,
)
async def test_disconnecting_stops_the_work(pair: Pair, disconnect: Disconnect, routing: str) -> None:
    async with disconnect(pair, routing):
        await pair.until_busy(pair.fallback if routing == "fallback" else pair.primary)
        at_leaving = pair.cpu()
    await pair.check_dropped(at_leaving)


async def exceeded(pair: Pair, timeout_s: float) -> dict[str, str]:
    """Trailing metadata of a call whose deadline passes; empty if the transport ended it before the service did."""
    async with pair.primary.channel() as channel:
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await _call(channel, pair, "fallback", timeout_s=timeout_s)
    assert error.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    return {name: str(value) for name, value in error.value.trailing_metadata() or ()}


async def test_deadline_stops_the_work_and_is_reported(pair: Pair) -> None:
    for _ in range(10):  # a busy machine may miss the 50 ms that the service keeps for its report
        began = asyncio.get_running_loop().time()
        trailers = await exceeded(pair, timeout_s=2.0)
        at_leaving = pair.cpu()
        assert asyncio.get_running_loop().time() - began < 2.0 + PATIENCE_S / 2
        await pair.check_dropped(at_leaving)
        if trailers:
            break
    assert trailers["x-error-type"] == "deadline_exceeded"
    assert 0 < float(trailers["x-total-ms"]) <= 2000


async def test_disconnecting_stops_voice_activity_detection(pair: Pair) -> None:
    slow = pb.AudioFormat(encoding=pb.AUDIO_ENCODING_LINEAR16, sample_rate_hertz=4000, channel_count=1)
    half_an_hour = np.frombuffer(pair.recording[44:], "<i2")[::4].tobytes() * 5
    async with pair.primary.channel() as channel:
        call = SpeechToTextStub(channel).Transcribe(pb.TranscribeRequest(audio=half_an_hour, format=slow))
        await pair.until_busy(pair.primary, cpu_s=0.8)
        at_leaving = pair.cpu()
        call.cancel()
    await pair.check_dropped(at_leaving)
