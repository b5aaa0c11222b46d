"""Transports of a chaos run: how each kind of caller sends a request, and what counts as its answer."""

from __future__ import annotations

import random
import re
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from typing import Any

import grpc
import grpc.aio
import httpx

from buildscripts.lib.chaos.deployment import UNSURE, Deployment, Member
from buildscripts.lib.chaos.ledger import Entry
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
from stt_client import AudioFormat, Final, SttPool
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
class Transports:
    """Sends one request by the transport that its ledger entry names, and checks the answer."""

    deployment: Deployment
    connections: Connections
    clips: list[EncodedClip]
    chance: random.Random

    async def send(self, entry: Entry, said: EncodedClip) -> None:
        """Send a request.

        Raises:
            ApiError, Unreachable, NoResponse, SttError: it has no answer.
            WrongAnswer: the answer is not that of the request.
        """
        await TRANSPORTS[entry.transport](self, entry, said)

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


Call = Callable[[Transports, Entry, EncodedClip], Coroutine[None, None, None]]
TRANSPORTS: dict[str, Call] = {
    "pool": Transports.by_pool,
    "gRPC": Transports.by_stub,
    "REST": Transports.by_rest,
    "OpenAI": Transports.by_openai,
    "stream": Transports.by_stream,
    "WebSocket": Transports.by_websocket,
    "Realtime": Transports.by_realtime,
    "Wyoming": Transports.by_wyoming,
}
STREAMS = ("stream", "WebSocket", "Realtime", "Wyoming")
"""Transports of live audio, sent at a multiple of its pace."""


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
