"""What a scripted service answers, and a record of what it received."""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

import grpc

from protos.stt.v1 import speech_pb2
from tests.support.contract_messages import SNAPSHOT, EchoStream, transcript

Request = speech_pb2.TranscribeRequest
Response = speech_pb2.TranscribeResponse
StreamResponse = speech_pb2.StreamTranscribeResponse
Metadata = dict[str, str]

MIB = 1024 * 1024


@dataclass(frozen=True)
class Failure:
    """An error answer."""

    type: str = ""
    """Row of the error table; empty: a bare status without the contract's trailers, as the transport sends one."""
    message: str = "scripted failure"
    status: grpc.StatusCode = grpc.StatusCode.UNAVAILABLE
    """Only without a type."""
    trailers: Mapping[str, str | bytes] = field(default_factory=dict)
    """Sent over those of the contract."""


@dataclass
class Call:
    """A received unary call."""

    request: Request
    metadata: Metadata
    time_remaining: float | None


@dataclass
class StreamCall:
    """What a stream has received so far."""

    metadata: Metadata
    time_remaining: float | None
    config: speech_pb2.StreamConfig = field(default_factory=speech_pb2.StreamConfig)
    received: bytearray = field(default_factory=bytearray)
    """All audio so far; appended in place, since a copy per message is slow for long streams."""
    kinds: list[str] = field(default_factory=list)
    """`audio` and `flush`, in order of arrival."""
    half_closed: bool = False

    @property
    def audio(self) -> bytes:
        return bytes(self.received)


Reply = str | Response | Failure
Stream = Callable[[AsyncIterator[Any], Any], AsyncIterator[StreamResponse]]


@dataclass
class Script:
    """What the service answers, and a record of what it received."""

    response: Response = field(default_factory=transcript)
    reply: Callable[[Request], Reply | Awaitable[Reply]] | None = None
    """Chooses the response, or only its text, or a failure, by the request."""
    failures: deque[Failure] = field(default_factory=deque)
    """Answered first, one per call."""
    failure: Failure | None = None
    """Answered to every call once `failures` is empty."""
    retryable: bool = True
    """False: failures tell gRPC not to retry, so that each request is one call."""
    stream: Stream | None = None
    """Answers `StreamTranscribe`, given the requests and the call's context; None: `echo` does."""
    echo: EchoStream = field(default_factory=EchoStream)
    keys: Collection[str] = ()
    """Keys to require as Bearer; empty: none needed."""
    hold: asyncio.Event | None = None
    """Unary calls wait for it before they answer, streams once the caller has half-closed."""
    read_audio: asyncio.Event | None = None
    """Streams wait for it after their config."""
    status_failure: Failure | None = None
    """Answered to `GetStatus` and `CheckAdmission`."""
    admission_failure: Failure | None = None
    """Answered to `CheckAdmission`."""
    snapshot_json: str = json.dumps(SNAPSHOT)
    exposition: str = "stt_in_flight 0\n"
    max_upload_bytes: int = 16 * MIB
    max_audio_seconds: float = 3600
    uptime_s: float = 12.5
    reports_progress: bool = True
    """False: `TranscribeWithProgress` is not implemented, as in an older service."""
    hold_result: asyncio.Event | None = None
    """`TranscribeWithProgress` waits for it after the first segment."""

    started: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when a call has arrived."""
    cancelled: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when a call ended before its answer was complete."""
    calls: list[Call] = field(default_factory=list)
    streams: list[StreamCall] = field(default_factory=list)
    status_calls: list[Metadata] = field(default_factory=list)
    admission_checks: list[Metadata] = field(default_factory=list)
    refusals: list[tuple[str, str, int]] = field(default_factory=list)
    """Endpoint, error type and number of requests that the gateway refused by itself."""
    in_flight: int = 0
    peak_in_flight: int = 0

    @property
    def requests(self) -> list[Request]:
        return [call.request for call in self.calls]

    def fail(self, *failures: Failure) -> None:
        """Fail the next calls, in this order."""
        self.failures.extend(failures)

    def next_failure(self) -> Failure | None:
        return self.failures.popleft() if self.failures else self.failure
