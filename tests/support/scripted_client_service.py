"""A real grpc.aio server on a free port whose answers a test scripts: no model, no audio, the contract's trailers."""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc
import grpc.aio
from google.protobuf.duration_pb2 import Duration
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from protos.stt.v1 import speech_pb2, speech_pb2_grpc
from protos.stt.v1.errors import ERRORS

MAX_MESSAGE_BYTES = 64 * 1024 * 1024

SNAPSHOT: dict[str, Any] = {
    "service": "primary",
    "model": "tiny",
    "server_commit": "abc123",
    "uptime_s": 12.5,
    "requests": {"total": 8, "errors": {}},
    "fallback": {"used": 1, "skipped": 3, "failed": 0},
    "latency_ms": {"total": {"p50": 100.0, "p95": 200.0, "p99": 300.0}},
    "queue": {"depth": 2, "in_flight": 1},
    "gpu": None,
}


@dataclass(frozen=True)
class Failure:
    """An error that the servicer answers with. `type` empty: a bare status, as the transport sends one."""

    type: str = ""
    message: str = "as the script says"
    status: str = "UNAVAILABLE"
    trailers: tuple[tuple[str, str], ...] = ()


def response(text: str = "hello world", request_id: str = "") -> speech_pb2.TranscribeResponse:
    """A whole answer, each field set."""
    words = [
        speech_pb2.Word(start=Duration(), end=Duration(nanos=400_000_000), text="hello", probability=0.9),
        speech_pb2.Word(start=Duration(nanos=400_000_000), end=Duration(seconds=1), text="world", probability=0.8),
    ]
    segment = speech_pb2.Segment(
        start=Duration(),
        end=Duration(seconds=1, nanos=234_567_000),
        text=text,
        avg_logprob=-0.25,
        no_speech_prob=0.01,
        compression_ratio=1.1,
        model="tiny",
        words=words,
    )
    return speech_pb2.TranscribeResponse(
        request_id=request_id,
        text=text,
        language="en",
        language_probability=0.99,
        audio_duration=Duration(seconds=1, nanos=300_000_000),
        segments=[segment],
        routing=speech_pb2.Routing(
            fallback_used=True,
            final_model="tiny",
            confidence_below=True,
            language_check_applicable=True,
            reasons=[speech_pb2.ROUTE_REASON_LOW_LOGPROB, speech_pb2.ROUTE_REASON_FEW_WORDS],
            primary_confidence=0.4,
        ),
        timings=speech_pb2.Timings(
            queue_wait=Duration(nanos=1_500_000),
            primary_infer=Duration(nanos=20_000_000),
            fallback_infer=Duration(),
            total=Duration(nanos=25_250_000),
        ),
    )


Stream = Callable[[Any, Any], AsyncIterator[speech_pb2.StreamTranscribeResponse]]
Answer = Callable[[speech_pb2.TranscribeRequest], "str | Failure | Awaitable[str]"]


@dataclass
class Script:
    """What the servicer does, and what it saw."""

    failures: deque[Failure] = field(default_factory=deque)
    """Answered first, one a call."""
    always: Failure | None = None
    """Answered to every call."""
    text: str = "hello world"
    answer: Answer | None = None
    """Chooses the text, or the failure, by the request."""
    stream: Stream | None = None
    """Answers `StreamTranscribe`: given the requests and the call's context."""
    hold: asyncio.Event | None = None
    """Each call waits for it."""
    status_failure: Failure | None = None
    snapshot_json: str = json.dumps(SNAPSHOT)

    started: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when a call has arrived."""
    cancelled: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when a caller went away while its call was held."""
    requests: list[speech_pb2.TranscribeRequest] = field(default_factory=list)
    metadata: list[dict[str, str]] = field(default_factory=list)
    status_metadata: list[dict[str, str]] = field(default_factory=list)
    admission_metadata: list[dict[str, str]] = field(default_factory=list)
    time_remaining: list[float | None] = field(default_factory=list)
    now: int = 0
    peak: int = 0
    """Most calls at a time."""

    def fail(self, *failures: Failure) -> None:
        self.failures.extend(failures)


def _seen(context: Any) -> dict[str, str]:
    return {key: value for key, value in context.invocation_metadata() or ()}


async def _abort(context: Any, failure: Failure, request_id: str) -> None:
    if not failure.type:
        await context.abort(grpc.StatusCode[failure.status], failure.message, failure.trailers)
    kind = ERRORS[failure.type]
    trailers = [
        ("x-req-id", request_id),
        ("x-error-type", failure.type),
        ("x-error-message", failure.message),
        *failure.trailers,
    ]
    await context.abort(grpc.StatusCode[kind.status or "UNAVAILABLE"], failure.message, tuple(trailers))


class ScriptedSpeech(speech_pb2_grpc.SpeechToTextServicer):
    def __init__(self, script: Script) -> None:
        self._script = script

    async def Transcribe(self, request: speech_pb2.TranscribeRequest, context: Any) -> speech_pb2.TranscribeResponse:
        script = self._script
        script.requests.append(request)
        script.metadata.append(_seen(context))
        script.time_remaining.append(context.time_remaining())
        request_id = script.metadata[-1].get("x-req-id", "")
        script.now += 1
        script.peak = max(script.peak, script.now)
        script.started.set()
        try:
            text = await self._text(request, context, request_id)
        except asyncio.CancelledError:
            script.cancelled.set()
            raise
        finally:
            script.now -= 1
        context.set_trailing_metadata((("x-req-id", request_id), ("x-final-model", "tiny")))
        return response(text, request_id)

    async def _text(self, request: speech_pb2.TranscribeRequest, context: Any, request_id: str) -> str:
        script = self._script
        if script.hold is not None:
            await script.hold.wait()
        failure = script.failures.popleft() if script.failures else script.always
        said = script.answer(request) if script.answer is not None else script.text
        if isinstance(said, Awaitable):
            said = await said
        if isinstance(said, Failure):
            failure, said = said, ""
        if failure is not None:
            await _abort(context, failure, request_id)
        return said

    async def StreamTranscribe(self, request_iterator: Any, context: Any) -> Any:
        script = self._script
        script.metadata.append(_seen(context))
        script.time_remaining.append(context.time_remaining())
        script.started.set()
        failure = script.failures.popleft() if script.failures else script.always
        if failure is not None:
            await _abort(context, failure, script.metadata[-1].get("x-req-id", ""))
        assert script.stream is not None, "the test scripted no stream"
        # A handler that stands at its `yield` hears of a caller who went away only by this.
        finished = False

        def ended(_: object) -> None:
            if not finished:
                script.cancelled.set()

        context.add_done_callback(ended)
        async for response in script.stream(request_iterator, context):
            yield response
        finished = True


class ScriptedOperations(speech_pb2_grpc.OperationsServicer):
    def __init__(self, script: Script) -> None:
        self._script = script

    async def GetStatus(self, request: speech_pb2.GetStatusRequest, context: Any) -> speech_pb2.GetStatusResponse:
        self._script.status_metadata.append(_seen(context))
        if self._script.status_failure is not None:
            await _abort(context, self._script.status_failure, "")
        return speech_pb2.GetStatusResponse(
            service="primary",
            model="tiny",
            device="cpu",
            compute_type="int8",
            server_commit="abc123",
            uptime=Duration(seconds=12, nanos=500_000_000),
            limits=speech_pb2.Limits(
                max_upload_bytes=16 * 1024 * 1024,
                max_audio_duration=Duration(seconds=3600),
                max_concurrency=2,
                max_queue=64,
            ),
            snapshot_json=self._script.snapshot_json,
        )

    async def CheckAdmission(
        self, request: speech_pb2.CheckAdmissionRequest, context: Any
    ) -> speech_pb2.CheckAdmissionResponse:
        self._script.admission_metadata.append(_seen(context))
        if self._script.status_failure is not None:
            await _abort(context, self._script.status_failure, "")
        return speech_pb2.CheckAdmissionResponse(max_upload_bytes=16 * 1024 * 1024)

    async def GetMetrics(self, request: speech_pb2.GetMetricsRequest, context: Any) -> speech_pb2.GetMetricsResponse:
        return speech_pb2.GetMetricsResponse(exposition="stt_in_flight 0\n", content_type="text/plain; version=0.0.4")


@dataclass
class Served:
    """A running server."""

    target: str
    script: Script
    server: grpc.aio.Server
    health: health.aio.HealthServicer

    @property
    def port(self) -> int:
        return int(self.target.rsplit(":", 1)[1])

    async def set_serving(self, serving: bool) -> None:
        """Changes the health that the server reports."""
        state = health_pb2.HealthCheckResponse
        await self.health.set("", state.SERVING if serving else state.NOT_SERVING)

    async def stop(self) -> None:
        await self.server.stop(None)


async def start(
    script: Script | None = None,
    *,
    port: int = 0,
    with_health: bool = True,
    credentials: grpc.ServerCredentials | None = None,
    max_message_bytes: int = MAX_MESSAGE_BYTES,
) -> Served:
    """A server on 127.0.0.1; `port` 0 takes a free one."""
    script = script or Script()
    options = [
        ("grpc.max_receive_message_length", max_message_bytes),
        ("grpc.max_send_message_length", max_message_bytes),
        # A restarted test server takes the same port again; two at a time must not share one.
        ("grpc.so_reuseport", 0),
    ]
    server = grpc.aio.server(options=options)
    speech_pb2_grpc.add_SpeechToTextServicer_to_server(ScriptedSpeech(script), server)
    speech_pb2_grpc.add_OperationsServicer_to_server(ScriptedOperations(script), server)
    servicer = health.aio.HealthServicer()
    await servicer.set("", health_pb2.HealthCheckResponse.SERVING)
    if with_health:
        health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    address = f"127.0.0.1:{port}"
    bound = server.add_secure_port(address, credentials) if credentials else server.add_insecure_port(address)
    await server.start()
    return Served(f"127.0.0.1:{bound}", script, server, servicer)


@asynccontextmanager
async def serving(script: Script | None = None, **options: Any) -> AsyncIterator[Served]:
    served = await start(script, **options)
    try:
        yield served
    finally:
        await served.stop()
