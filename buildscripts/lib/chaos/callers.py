"""Callers of a chaos run: one function per transport, and a ledger entry per request."""

from __future__ import annotations

import asyncio
import random
import re
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc
import grpc.aio
import httpx

from buildscripts.lib.chaos.deployment import UNSURE, Deployment, Member
from buildscripts.lib.chaos.ledger import Entry, Ledger
from buildscripts.lib.load.plain_clients import (
    RATE,
    ApiError,
    NoResponse,
    Unreachable,
    openai,
    paced_chunks,
    rest,
    websocket,
    wyoming,
)
from buildscripts.lib.load.realtime_client import realtime
from buildscripts.lib.load.recordings import EncodedClip, matches
from protos.stt.v1 import speech_pb2 as pb
from protos.stt.v1 import speech_pb2_grpc
from stt_client import AudioFormat, Final, SttError, SttPool
from stt_client.request import ROUTINGS

IDS = re.compile(r"\bq\d+q\b")
"""Request marker: part of the prompt or a hotword, and so of a scripted model's text."""

CHANNEL = [("grpc.initial_reconnect_backoff_ms", 100), ("grpc.max_reconnect_backoff_ms", 1000)]


class WrongAnswer(Exception):
    """Not exactly one answer to the request; the text says what."""


@dataclass(frozen=True)
class Connections:
    """Open connections to the deployment."""

    pool: SttPool
    stubs: dict[str, Any]
    """Stub of `SpeechToText` by name of the primary."""
    http: httpx.AsyncClient


@asynccontextmanager
async def connected(deployment: Deployment, deadline: float) -> AsyncIterator[Connections]:
    """Open connections for the duration of the context."""
    a, b = deployment.primaries
    # Connections are not reused: after a send into a connection that is being closed, it is unknown whether the
    # request was received.
    limits = httpx.Limits(max_connections=500, max_keepalive_connections=0)
    async with (
        SttPool([a.grpc, b.grpc]) as pool,
        httpx.AsyncClient(limits=limits, timeout=deadline + 2) as http,
        grpc.aio.insecure_channel(a.grpc, options=CHANNEL) as to_a,
        grpc.aio.insecure_channel(b.grpc, options=CHANNEL) as to_b,
    ):
        stubs = {"a": speech_pb2_grpc.SpeechToTextStub(to_a), "b": speech_pb2_grpc.SpeechToTextStub(to_b)}
        yield Connections(pool, stubs, http)


@dataclass
class Callers:
    """Concurrent callers of the deployment."""

    deployment: Deployment
    connections: Connections
    ledger: Ledger
    clips: list[EncodedClip]
    chance: random.Random
    deadline: float
    """Timeout of an upload, in seconds."""
    began: float = field(default_factory=time.monotonic)
    made: int = 0

    @property
    def now(self) -> float:
        """Seconds since the start of the run."""
        return time.monotonic() - self.began

    async def call_repeatedly(self, transport: str, to: str, stop: asyncio.Event, pause: float) -> None:
        """One caller with one request at a time, until `stop`."""
        while not stop.is_set():
            await self.one(transport, to)
            await asyncio.sleep(self.chance.uniform(0.5, 1.5) * pause)

    async def one(self, transport: str, to: str) -> Entry:
        """Make one request and enter it in the ledger."""
        entry, said = self.entry(transport, to, unsure=self.chance.random() < 0.3)
        self.ledger.entries.append(entry)
        leaves = self.chance.uniform(0.0, 0.1) if self.chance.random() < 0.03 else None
        await self._settle(entry, said, leaves)
        return entry

    def entry(self, transport: str, to: str, *, unsure: bool) -> tuple[Entry, EncodedClip]:
        """Prepare a request; return its ledger entry and its recording."""
        said = self.chance.choice(self.clips)
        container = self.chance.choice(("wav", "wav", "wav", "flac", "ogg"))
        streams = transport in STREAMS
        self.made += 1
        entry = Entry(
            id=f"q{self.made}q",
            transport=transport,
            to=to,
            unsure=unsure and not streams,
            container="wav" if streams else container,
            sent=self.now,
            deadline=self.deadline + (said.seconds if streams else 0),
        )
        return entry, said

    async def wait_settled(self) -> None:
        """Wait until all requests that are now in flight have ended."""
        pending = [entry for entry in self.ledger.entries if entry.done is None]
        while True:
            pending = [entry for entry in pending if entry.done is None]
            if not pending:
                return
            await asyncio.sleep(PROBE_S)

    async def wait_healthy(self) -> None:
        """Wait until every transport is answered, and the fallback answers too."""
        while True:
            answers = await asyncio.gather(*(self._is_healthy(*probe) for probe in PROBES))
            if all(answers):
                return
            await asyncio.sleep(PROBE_S)

    async def _is_healthy(self, transport: str, to: str, unsure: bool) -> bool:
        entry, said = self.entry(transport, to, unsure=unsure)
        entry.container = "flac"  # decoded by a child process
        await self._settle(entry, said, None)
        by_fallback = not unsure or not self.deployment.scripted or "the fallback says" in entry.said
        return entry.outcome == "text" and by_fallback

    async def _settle(self, entry: Entry, said: EncodedClip, leaves: float | None) -> None:
        await self.settle(entry, TRANSPORTS[entry.transport](self, entry, said), leaves)

    async def settle(self, entry: Entry, transport: Coroutine[None, None, None], leaves: float | None = None) -> None:
        """Make a request and record its outcome.

        Args:
            leaves: cancel the request after this many seconds.
        """
        call = asyncio.ensure_future(transport)
        try:
            await asyncio.wait((call,), timeout=leaves)
            if not call.done():
                call.cancel()
            await call
            entry.outcome = "text"
        except asyncio.CancelledError:
            if leaves is None:
                raise
            entry.outcome = "left"
        except SttError as error:
            entry.outcome, entry.detail = "refused", error.type
        except ApiError as error:
            entry.outcome, entry.detail = "refused", str(error)
        except Unreachable as error:
            entry.outcome, entry.detail = "unreachable", str(error)
        except NoResponse as error:
            entry.outcome, entry.detail = "broken", str(error)
        except WrongAnswer as error:
            entry.outcome, entry.detail = "wrong", str(error)
        finally:
            call.cancel()
        entry.done = self.now

    def check_answer(self, entry: Entry, said: EncodedClip, text: str, request_id: str) -> None:
        """Check that the answer belongs to the request.

        Raises:
            WrongAnswer: it does not.
        """
        entry.said = text
        if request_id != entry.id:
            raise WrongAnswer(f"answered as request {request_id!r}")
        if self.deployment.scripted:
            if set(IDS.findall(text)) != {entry.id}:
                raise WrongAnswer(f"the text is {text[:200]!r}")
        elif not matches(text, said, self.clips):
            raise WrongAnswer(f"the text is {text[:200]!r}")

    def prompt(self, entry: Entry) -> str:
        """Prompt that identifies the request in a scripted model's text; empty for a real model."""
        if not self.deployment.scripted:
            return ""
        return f"{entry.id} {UNSURE}" if entry.unsure else entry.id

    def routing(self, entry: Entry) -> str:
        return "fallback" if entry.unsure and not self.deployment.scripted else "auto"

    def metadata(self, entry: Entry) -> tuple[tuple[str, str], ...]:
        return (("authorization", f"Bearer {self.deployment.key}"), ("x-req-id", entry.id))

    async def by_pool(self, entry: Entry, said: EncodedClip) -> None:
        transcript = await self.connections.pool.transcribe(
            said.files[entry.container],
            prompt=self.prompt(entry),
            routing=self.routing(entry),
            timeout=entry.deadline,
            metadata=self.metadata(entry),
        )
        self.check_answer(entry, said, transcript.text, transcript.request_id)

    async def by_stub(self, entry: Entry, said: EncodedClip) -> None:
        policy: Any = ROUTINGS[self.routing(entry)]
        options = pb.TranscribeOptions(prompt=self.prompt(entry), routing=policy)
        request = pb.TranscribeRequest(audio=said.files[entry.container], options=options)
        response = await self.call_stub(entry, request)
        self.check_answer(entry, said, response.text, response.request_id)

    async def call_stub(self, entry: Entry, request: pb.TranscribeRequest) -> pb.TranscribeResponse:
        """Call `Transcribe` once, without the SDK's retries.

        Raises:
            ApiError, Unreachable, NoResponse
        """
        try:
            call: Any = self.connections.stubs[entry.to].Transcribe(
                request, timeout=entry.deadline, metadata=self.metadata(entry)
            )
            response: pb.TranscribeResponse = await call
            return response
        except grpc.aio.AioRpcError as error:
            raise _error_of_rpc(error) from None

    async def by_rest(self, entry: Entry, said: EncodedClip) -> None:
        fields = {"prompt": self.prompt(entry), "routing": self.routing(entry)}
        headers = {"X-Req-Id": entry.id, "X-Timeout-Ms": f"{entry.deadline * 1000:.0f}"}
        url = self._member(entry.to).http
        answer = await rest(
            self.connections.http, url, said.files[entry.container], self.deployment.key, fields, headers
        )
        self.check_answer(entry, said, answer["text"], answer["request_id"])

    async def by_openai(self, entry: Entry, said: EncodedClip) -> None:
        fields = {"prompt": self.prompt(entry), "routing": self.routing(entry)}
        fields["stream"] = self.chance.choice(("true", "false"))
        headers = {"X-Req-Id": entry.id, "X-Timeout-Ms": f"{entry.deadline * 1000:.0f}"}
        audio, url = said.files[entry.container], self._member(entry.to).http
        answer = await openai(self.connections.http, url, audio, self.deployment.key, fields, headers)
        self.check_answer(entry, said, *answer)

    async def by_stream(self, entry: Entry, said: EncodedClip) -> None:
        finals: dict[int, str] = {}
        events = self.connections.pool.stream(
            paced_chunks(said.pcm, 2),
            encoding=AudioFormat("linear16", RATE),
            prompt=self.prompt(entry),
            timeout=entry.deadline,
            metadata=self.metadata(entry),
            resume=True,
        )
        async with aclosing(events):
            async for event in events:
                if isinstance(event, Final):
                    if event.utterance in finals:
                        raise WrongAnswer(f"utterance {event.utterance} was returned twice")
                    finals[event.utterance] = event.result.text
        self.check_answer(entry, said, " ".join(finals.values()), entry.id)

    async def by_websocket(self, entry: Entry, said: EncodedClip) -> None:
        config = {"prompt": self.prompt(entry)}
        url = self._member(entry.to).http
        text = await websocket(url, paced_chunks(said.pcm, 2), self.deployment.key, config, entry.deadline)
        self.check_answer(entry, said, text, entry.id)

    async def by_realtime(self, entry: Entry, said: EncodedClip) -> None:
        by_hand = self.chance.random() < 0.5
        settings = {"transcription": {"prompt": self.prompt(entry)}, **({"turn_detection": None} if by_hand else {})}
        url, headers = self._member(entry.to).http, {"X-Req-Id": entry.id}
        pcm = paced_chunks(said.pcm, 2)
        text = await realtime(url, pcm, self.deployment.key, settings, headers, entry.deadline)
        self.check_answer(entry, said, text, entry.id)

    async def by_wyoming(self, entry: Entry, said: EncodedClip) -> None:
        marker = [entry.id] if self.deployment.scripted else []
        address = self._member(entry.to).wyoming
        text = await wyoming(address, paced_chunks(said.pcm, 2), marker, entry.deadline)
        self.check_answer(entry, said, text, entry.id)

    def _member(self, name: str) -> Member:
        return {member.name: member for member in self.deployment.members}[name]


Call = Callable[[Callers, Entry, EncodedClip], Coroutine[None, None, None]]
TRANSPORTS: dict[str, Call] = {
    "pool": Callers.by_pool,
    "gRPC": Callers.by_stub,
    "REST": Callers.by_rest,
    "OpenAI": Callers.by_openai,
    "stream": Callers.by_stream,
    "WebSocket": Callers.by_websocket,
    "Realtime": Callers.by_realtime,
    "Wyoming": Callers.by_wyoming,
}
PROBES = (
    ("pool", "pool", False),
    *(("gRPC", name, unsure) for name in ("a", "b") for unsure in (False, True)),
    *((transport, name, False) for transport in ("REST", "OpenAI") for name in ("a", "b", "gateway")),
)
PROBE_S = 0.05
"""Seconds between two checks of the state of requests or services."""
STREAMS = ("stream", "WebSocket", "Realtime", "Wyoming")
CALLERS = (
    *(("pool", "pool"),) * 4,
    *(("gRPC", name) for name in ("a", "a", "b", "b")),
    *(("REST", name) for name in ("a", "b", "gateway", "gateway")),
    *(("OpenAI", name) for name in ("a", "gateway")),
    *(("stream", "pool"),) * 2,
    *(("WebSocket", name) for name in ("a", "gateway")),
    *(("Realtime", name) for name in ("a", "gateway")),
    *(("Wyoming", name) for name in ("a", "b")),
)
"""Transport and destination of each caller."""


def _error_of_rpc(error: grpc.aio.AioRpcError) -> Exception:
    """Exception for a failed RPC."""
    trailers: dict[str, Any] = dict(error.trailing_metadata() or ())
    if said := trailers.get("x-error-type"):
        return ApiError(said)
    if error.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
        return ApiError("deadline_exceeded")  # by the client's own clock
    details = f"{error.code().name}: {error.details()}"
    # gRPC cancels a call that reaches a server during its shutdown before any handler sees it.
    unseen = error.code() is grpc.StatusCode.CANCELLED or "failed to connect" in details.lower()
    return Unreachable(details) if unseen else NoResponse(details)
