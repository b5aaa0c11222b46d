"""A steady load of short requests over gRPC and REST, and a record of failures."""

from __future__ import annotations

import asyncio
import io
import wave
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from types import TracebackType

import grpc
import httpx
import numpy as np

from protos.stt.v1 import speech_pb2 as pb
from protos.stt.v1 import speech_pb2_grpc

Call = Callable[[], Awaitable[str]]
"""Sends one request and returns its transcript; raises if it fails."""

PATIENCE_S = 60.0
"""Longest wait for any answer, in seconds."""

MOST_PENDING = 20
"""Unanswered requests at a time: a slow machine is offered less instead of ever longer queues."""

NO_RETRY = (("grpc.enable_retries", 0), ("grpc.initial_reconnect_backoff_ms", 200))


def tiny_wav() -> bytes:
    """A tenth of a second of noise."""
    held = io.BytesIO()
    with wave.open(held, "wb") as file:
        file.setparams((1, 2, 16000, 1600, "NONE", ""))
        file.writeframes(np.random.default_rng(1).integers(-9000, 9000, 1600, "<i2").tobytes())
    return held.getvalue()


WAV = tiny_wav()


def by_grpc(channel: grpc.aio.Channel, key: Callable[[], str] = str) -> Call:
    """`Transcribe` without retries."""
    stub = speech_pb2_grpc.SpeechToTextStub(channel)

    async def call() -> str:
        metadata = (("authorization", f"Bearer {key()}"),) if key() else ()
        reply = await stub.Transcribe(pb.TranscribeRequest(audio=WAV), metadata=metadata, timeout=PATIENCE_S)
        return str(reply.text)

    return call


def by_rest(http: httpx.AsyncClient, key: Callable[[], str] = str) -> Call:
    """`POST /v1/transcribe`."""

    async def call() -> str:
        headers = {"Authorization": f"Bearer {key()}"} if key() else {}
        files = {"audio": ("a.wav", WAV, "audio/wav")}
        response = await http.post("/v1/transcribe", files=files, headers=headers)
        if response.status_code != 200:
            raise AssertionError(f"{response.status_code} {response.text}")
        return str(response.json()["text"])

    return call


class Steady:
    """Sends `calls` in turn, `rate` per second in total, at most `MOST_PENDING` at a time."""

    def __init__(self, calls: Sequence[Call], rate: float = 50) -> None:
        self._calls = calls
        self._rate = rate
        self._stop = asyncio.Event()
        self._pending: set[asyncio.Task[None]] = set()
        self.sent = 0
        self.answers: Counter[str] = Counter()
        self.failures: list[str] = []

    async def __aenter__(self) -> Steady:
        self._task = asyncio.ensure_future(self._run())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop, and wait for outstanding answers."""
        self._stop.set()
        await self._task
        await asyncio.gather(*self._pending)

    async def answered(self, text: str, times: int = 10) -> None:
        """Wait for that many more answers with `text`."""
        wanted = self._count(text) + times
        end = asyncio.get_running_loop().time() + PATIENCE_S
        while True:
            if self._count(text) >= wanted:
                return
            assert asyncio.get_running_loop().time() < end, (self.answers, self.failures[-3:])
            await asyncio.sleep(0.02)

    def _count(self, text: str) -> int:
        return sum(count for answer, count in self.answers.items() if text in answer)

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        begun = loop.time()
        while not self._stop.is_set():
            task = asyncio.ensure_future(self._one(self._calls[self.sent % len(self._calls)]))
            self._pending.add(task)
            task.add_done_callback(self._pending.discard)
            self.sent += 1
            await asyncio.sleep(max(0.0, begun + self.sent / self._rate - loop.time()))
            if len(self._pending) >= MOST_PENDING:
                await asyncio.wait(self._pending, return_when=asyncio.FIRST_COMPLETED)

    async def _one(self, call: Call) -> None:
        try:
            self.answers[await call()] += 1
        except (grpc.aio.AioRpcError, httpx.HTTPError, AssertionError, OSError) as error:
            self.failures.append(f"{type(error).__name__} {error}"[:300])
