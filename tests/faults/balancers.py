"""Envoy and HAProxy as deploy/balancing configures them, and a load of every kind of call with a ledger."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any, Literal

import grpc
import httpx
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from protos.stt.v1 import speech_pb2 as pb
from protos.stt.v1 import speech_pb2_grpc
from stt_server.testing.envoy import Envoy, envoy_command
from stt_server.testing.paths import ROOT
from stt_server.testing.processes import HOST, ChildProcess, free_port
from stt_server.testing.services import UNLIMITED, ServiceProcess
from tests.faults.callers import PATIENCE_S, post
from tests.faults.callers import rest as rest_of
from tests.support.needs import lacking
from tests.support.services import speech
from tests.support.speech import RATE
from tests.support.streams import Caller, config, finals, pcm, recording_of

Kind = Literal["envoy", "haproxy"]
CONFIGS = ROOT / "deploy" / "balancing"
RECORDING = recording_of("quick_brown_fox", pause=0.8)
Call = Callable[[str], Awaitable[list[str]]]
"""Makes one call with a prompt of its own, which the scripted model repeats; returns the texts of the answer."""


@dataclass(frozen=True)
class Front:
    """A running balancer."""

    kind: Kind
    grpc: str
    """Target of gRPC callers."""
    http: str
    """Address of HTTP callers, `host:port`."""
    process: ChildProcess


def _envoy(primaries: Sequence[ServiceProcess], folder: Path) -> Front:
    if envoy_command() is None:
        lacking("envoy is not installed; its wheel is for Linux on x86-64 only")
    clusters = {
        "grpc": [(primary.host, primary.grpc_port) for primary in primaries],
        "http": [(primary.host, primary.http_port) for primary in primaries],
    }
    envoy = Envoy(CONFIGS / "envoy.yaml", clusters, folder)
    return Front("envoy", envoy.listeners["grpc"], envoy.listeners["http"], envoy)


def _haproxy(primaries: Sequence[ServiceProcess], folder: Path) -> Front:
    grpc_port, http_port = free_port(), free_port()
    text = (CONFIGS / "haproxy.cfg").read_text()
    for number, primary in enumerate(primaries, 1):
        name = f"primary-{number}"
        text = text.replace(f"{name}:50051", f"{HOST}:{primary.grpc_port}").replace("port 8081", "port CHECK")
        text = text.replace(f"{name}:8081", f"{HOST}:{primary.http_port}")
        lines = [line.replace("CHECK", str(primary.http_port)) if name in line else line for line in text.splitlines()]
        text = "\n".join(lines).replace("port CHECK", "port 8081") + "\n"
    text = text.replace("bind :50051", f"bind {HOST}:{grpc_port}").replace("bind :8081", f"bind {HOST}:{http_port}")
    path = folder / "haproxy.cfg"
    path.write_text(text)
    command = shutil.which("haproxy") or lacking("haproxy is not installed; buildscripts/test unpacks it")
    process = ChildProcess("haproxy", [command, "-db", "-f", str(path)], folder / "haproxy.log")
    return Front("haproxy", f"{HOST}:{grpc_port}", f"{HOST}:{http_port}", process)


@contextmanager
def balancer(kind: Kind, primaries: Sequence[ServiceProcess], folder: Path) -> Iterator[Front]:
    """Run a balancer in front of three primaries, as its file in deploy/balancing says."""
    folder.mkdir(exist_ok=True)
    front = {"envoy": _envoy, "haproxy": _haproxy}[kind](primaries, folder)
    front.process.spawn()
    try:
        yield front
    finally:
        front.process.kill()


@dataclass
class Ledger:
    """Every call and its outcome: answered once with its own text, or failed."""

    text: str
    """What the scripted model says; each answer ends with its call's prompt."""
    answered: Counter[str] = field(default_factory=Counter)
    """By transport."""
    failures: dict[str, list[str]] = field(default_factory=dict)
    over: asyncio.Event = field(default_factory=asyncio.Event)
    _numbers: Iterator[int] = field(default_factory=count)

    async def repeat(self, transport: str, call: Call) -> None:
        """Make one call after the other until `over`; a call returns its texts."""
        self.failures.setdefault(transport, [])
        while not self.over.is_set():
            mark = f"call-{next(self._numbers)}"
            try:
                texts = await asyncio.wait_for(call(mark), PATIENCE_S)
            except InvalidStatus as error:
                refusal = error.response
                self.failures[transport].append(f"{error} {dict(refusal.headers)} {refusal.body!r}"[:600])
            except Exception as error:
                self.failures[transport].append(f"{type(error).__name__}: {error}"[:300])
            else:
                if texts == [f"{self.text} {mark}"]:
                    self.answered[transport] += 1
                else:
                    self.failures[transport].append(f"{mark}: {texts}")

    def failed(self) -> dict[str, list[str]]:
        """Failures of the transports that had some."""
        return {transport: failures for transport, failures in self.failures.items() if failures}

    async def more(self, calls: int = 12) -> None:
        """Wait until each transport has that many more answers."""
        goals = {transport: self.answered[transport] + calls for transport in self.failures}

        async def reached() -> None:
            while any(self.answered[transport] < goal for transport, goal in goals.items()):  # noqa: ASYNC110
                await asyncio.sleep(0.02)

        try:
            await asyncio.wait_for(reached(), PATIENCE_S)
        except TimeoutError:
            raise AssertionError((goals, self.answered, self.failures)) from None


class Callers:
    """One function for each kind of call, which returns the texts of its answer."""

    def __init__(self, front: Front, stub: Any, client: httpx.AsyncClient) -> None:
        self._front = front
        self._stub = stub
        self._client = client

    async def unary(self, mark: str) -> list[str]:
        request = pb.TranscribeRequest(audio=speech(), options=pb.TranscribeOptions(prompt=mark))
        return [(await self._stub.Transcribe(request, timeout=PATIENCE_S, wait_for_ready=True)).text]

    async def stream(self, mark: str) -> list[str]:
        caller = Caller(self._stub.StreamTranscribe())
        await caller.send(config(options=pb.TranscribeOptions(prompt=mark), interim_results=False))
        await caller.send_audio(RECORDING)
        return [final.result.text for final in finals(await caller.finish())]

    async def rest(self, mark: str) -> list[str]:
        response = await post(self._client, prompt=mark)
        response.raise_for_status()
        return [response.json()["text"]]

    async def websocket(self, mark: str) -> list[str]:
        url = f"ws://{self._front.http}/v1/stream"
        async with connect(url, compression=None, max_size=None, open_timeout=PATIENCE_S) as socket:
            settings = {"encoding": "linear16", "sample_rate_hertz": RATE, "interim_results": False, "prompt": mark}
            await socket.send(json.dumps(settings))
            data = pcm(RECORDING)
            for at in range(0, len(data), 3200):
                await socket.send(data[at : at + 3200])
            await socket.send('{"end": {}}')
            events, code = await rest_of(socket)
        texts = [event["final"]["result"]["text"] for event in events if "final" in event]
        if code != 1000:
            raise ConnectionError(f"closed with {code}: {events[-1:]}")
        return texts


def again(call: Call) -> Call:
    """A caller that tries again, as HAProxy leaves it to the callers."""

    async def repeated(mark: str) -> list[str]:
        for pause_s in (0.2, 0.4, 0.8):
            try:
                return await call(mark)
            except (grpc.aio.AioRpcError, httpx.HTTPError, InvalidStatus, OSError, AssertionError):
                await asyncio.sleep(pause_s)
        return await call(mark)

    return repeated


@asynccontextmanager
async def connected(front: Front) -> AsyncIterator[Callers]:
    """Callers over a gRPC channel and an HTTP client of their own."""
    async with (
        grpc.aio.insecure_channel(front.grpc, options=[*UNLIMITED, ("grpc.enable_retries", 0)]) as channel,
        httpx.AsyncClient(base_url=f"http://{front.http}", timeout=PATIENCE_S) as client,
    ):
        yield Callers(front, speech_pb2_grpc.SpeechToTextStub(channel), client)


@asynccontextmanager
async def loaded(front: Front, text: str, each: int = 2) -> AsyncIterator[Ledger]:
    """A load of unary calls, streams, REST and WebSockets, `each` at a time; they end with the block."""
    ledger = Ledger(text)
    async with connected(front) as callers:
        kinds: dict[str, Call] = {
            "gRPC": callers.unary,
            "stream": callers.stream,
            "REST": callers.rest,
            "WebSocket": callers.websocket,
        }
        if front.kind == "haproxy":
            kinds = {name: again(call) for name, call in kinds.items()}
        tasks = [asyncio.ensure_future(ledger.repeat(name, call)) for name, call in kinds.items() for _ in range(each)]
        await asyncio.sleep(0)  # each has its place in the ledger
        try:
            yield ledger
        finally:
            ledger.over.set()
            await asyncio.gather(*tasks)
