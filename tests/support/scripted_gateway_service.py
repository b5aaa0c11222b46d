"""A service that answers what a test tells it to: real gRPC on a real socket, no model behind it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import grpc
from google.protobuf.duration_pb2 import Duration
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from protos.stt.v1 import speech_pb2, speech_pb2_grpc
from protos.stt.v1.errors import ERRORS

if TYPE_CHECKING:
    Context = grpc.aio.ServicerContext[Any, Any]
Metadata = dict[str, str]

MIB = 1024 * 1024

TIMES = {
    "x-queue-wait-ms": "1.5",
    "x-primary-infer-ms": "120.0",
    "x-fallback-infer-ms": "0.0",
    "x-total-ms": "123.4",
}
ROUTED = {
    "x-fallback-used": "false",
    "x-conf-below": "true",
    "x-lang-check-applicable": "true",
    "x-final-model": "whisper-tiny",
    "x-route-reason": "low_logprob,few_words",
}


@dataclass
class Failure:
    """How a call is to fail: a row of the error table, or a bare status as a transport gives it."""

    type: str
    message: str = "as scripted"
    extra: Metadata = field(default_factory=dict)
    bare: grpc.StatusCode | None = None

    async def abort(self, context: Context, metadata: Metadata) -> None:
        if self.bare is not None:
            await context.abort(self.bare, self.message)
        status = getattr(grpc.StatusCode, ERRORS[self.type].status)
        told = {**metadata, **self.extra, "x-error-type": self.type, "x-error-message": self.message}
        # One attempt a request: the tests count them.
        told["grpc-retry-pushback-ms"] = "-1"
        await context.abort(status, self.message, tuple(told.items()))


@dataclass
class Call:
    request: speech_pb2.TranscribeRequest
    metadata: Metadata
    time_remaining: float | None


@dataclass
class StreamCall:
    """What a stream has brought so far."""

    metadata: Metadata
    config: speech_pb2.StreamConfig = field(default_factory=speech_pb2.StreamConfig)
    received: bytearray = field(default_factory=bytearray)
    """Bytes of audio, appended in place: copying them for each message would take longer than the test."""
    kinds: list[str] = field(default_factory=list)
    """`audio` and `flush`, as they came."""
    half_closed: bool = False

    @property
    def audio(self) -> bytes:
        return bytes(self.received)


class ScriptedService(speech_pb2_grpc.SpeechToTextServicer, speech_pb2_grpc.OperationsServicer):
    """Set its attributes to say what happens next; `reset` between tests."""

    def __init__(self) -> None:
        self.health = health.aio.HealthServicer()
        self.address = ""
        self._server: grpc.aio.Server | None = None
        self.reset()

    def reset(self) -> None:
        self.failure: Failure | None = None
        self.status_failure: Failure | None = None
        self.keys: frozenset[str] = frozenset()
        self.max_upload_bytes = 16 * MIB
        self.response = a_response()
        self.calls: list[Call] = []
        self.streams: list[StreamCall] = []
        self.read_audio = asyncio.Event()
        """Unset: a stream takes its config and then nothing."""
        self.read_audio.set()
        self.interims_a_message = 1
        self.interim_text = "Grüße"
        self.interims_sent = 0
        self.status_calls: list[Metadata] = []
        self.admission_checks: list[Metadata] = []
        self.hold: asyncio.Event | None = None
        self.started = asyncio.Event()
        self.cancelled = asyncio.Event()

    async def start(self, address: str = "127.0.0.1:0") -> str:
        """Listens; returns the target."""
        options = [("grpc.max_receive_message_length", -1), ("grpc.so_reuseport", 0)]
        server = grpc.aio.server(options=options)
        speech_pb2_grpc.add_SpeechToTextServicer_to_server(self, server)
        speech_pb2_grpc.add_OperationsServicer_to_server(self, server)
        health_pb2_grpc.add_HealthServicer_to_server(self.health, server)
        port = server.add_insecure_port(address)
        await server.start()
        await self.serving(True)
        self._server = server
        self.address = address if address.startswith("unix:") else f"127.0.0.1:{port}"
        return self.address

    async def stop(self) -> None:
        if self._server is not None:
            await self._server.stop(0)

    async def serving(self, serving: bool) -> None:
        state = health_pb2.HealthCheckResponse.SERVING if serving else health_pb2.HealthCheckResponse.NOT_SERVING
        for name in ("", "stt.v1.SpeechToText"):
            await self.health.set(name, state)

    async def Transcribe(
        self, request: speech_pb2.TranscribeRequest, context: Context
    ) -> speech_pb2.TranscribeResponse:
        metadata = _received(context)
        self.calls.append(Call(request, metadata, context.time_remaining()))
        self.started.set()
        if self.hold is not None:
            try:
                await self.hold.wait()
            except asyncio.CancelledError:
                self.cancelled.set()
                raise
        if self.failure is not None:
            await self.failure.abort(context, TIMES)
        context.set_trailing_metadata(tuple({"x-req-id": metadata["x-req-id"], **TIMES, **ROUTED}.items()))
        response = speech_pb2.TranscribeResponse()
        response.CopyFrom(self.response)
        response.request_id = metadata["x-req-id"]
        return response

    def TranscribeWithProgress(self, request: Any, context: Any) -> Any:
        raise NotImplementedError

    async def StreamTranscribe(
        self, request_iterator: AsyncIterator[speech_pb2.StreamTranscribeRequest], context: Context
    ) -> AsyncIterator[speech_pb2.StreamTranscribeResponse]:
        """An interim for each message of audio; a final, which tells the bytes, at a flush and at the end."""
        call = StreamCall(_received(context))
        self.streams.append(call)
        self.started.set()
        if self.keys and call.metadata.get("authorization") not in {f"Bearer {key}" for key in self.keys}:
            await Failure("unauthenticated", "A valid key is needed.").abort(context, {})
        try:
            async for response in self._responses(call, request_iterator, context):
                yield response
        except (asyncio.CancelledError, GeneratorExit):  # gRPC ends a cancelled call in either way
            self.cancelled.set()
            raise

    async def _responses(
        self, call: StreamCall, messages: AsyncIterator[speech_pb2.StreamTranscribeRequest], context: Context
    ) -> AsyncIterator[speech_pb2.StreamTranscribeResponse]:
        async for message in messages:
            kind = message.WhichOneof("payload")
            if kind == "config":
                call.config.CopyFrom(message.config)
                if self.failure is not None:
                    await self.failure.abort(context, {"x-req-id": call.metadata["x-req-id"]})
                await self.read_audio.wait()
                continue
            call.kinds.append(str(kind))
            call.received += message.audio
            if kind == "flush":
                yield self._final(call)
                if call.config.single_utterance:
                    return
            elif call.config.interim_results:
                for _ in range(self.interims_a_message):
                    yield _interim(call, self.interim_text)
                    self.interims_sent += 1
        await asyncio.sleep(0)  # a cancelled call ends here too, and is cancelled one turn of the loop later
        call.half_closed = True
        if self.hold is not None:
            await self.hold.wait()
        yield self._final(call)

    def _final(self, call: StreamCall) -> speech_pb2.StreamTranscribeResponse:
        response = speech_pb2.StreamTranscribeResponse(audio_processed=_at(len(call.received) / 32000))
        response.final.result.CopyFrom(self.response)
        response.final.result.request_id = call.metadata["x-req-id"]
        response.final.result.text = f"{len(call.received)} bytes"
        return response

    async def GetStatus(self, request: speech_pb2.GetStatusRequest, context: Context) -> speech_pb2.GetStatusResponse:
        metadata = _received(context)
        self.status_calls.append(metadata)
        if self.status_failure is not None:
            await self.status_failure.abort(context, {})
        return speech_pb2.GetStatusResponse(
            service="primary",
            model="whisper-tiny",
            device="cpu",
            limits=speech_pb2.Limits(max_upload_bytes=self.max_upload_bytes),
            snapshot_json=json.dumps({"server_commit": "abc", "uptime_s": 12.5, "requests": {"total": 3}}),
        )

    async def CheckAdmission(
        self, request: speech_pb2.CheckAdmissionRequest, context: Context
    ) -> speech_pb2.CheckAdmissionResponse:
        metadata = _received(context)
        self.admission_checks.append(metadata)
        if self.status_failure is not None:
            await self.status_failure.abort(context, {})
        wanted = {f"Bearer {key}" for key in self.keys}
        if wanted and metadata.get("authorization") not in wanted:
            await Failure("unauthenticated", "A valid key is needed.").abort(context, {})
        return speech_pb2.CheckAdmissionResponse(max_upload_bytes=self.max_upload_bytes)

    async def GetMetrics(
        self, request: speech_pb2.GetMetricsRequest, context: Context
    ) -> speech_pb2.GetMetricsResponse:
        return speech_pb2.GetMetricsResponse(
            exposition='stt_requests_total{endpoint="/v1/transcribe"} 3.0\n',
            content_type="text/plain; version=1.0.0; charset=utf-8",
        )


def _received(context: Context) -> Metadata:
    return {name: str(value) for name, value in context.invocation_metadata() or ()}


def _interim(call: StreamCall, text: str) -> speech_pb2.StreamTranscribeResponse:
    interim = speech_pb2.Interim(stable_text=text, unstable_text=f" {len(call.received)}", language="de")
    return speech_pb2.StreamTranscribeResponse(interim=interim, audio_processed=_at(len(call.received) / 32000))


def a_response() -> speech_pb2.TranscribeResponse:
    """A transcript of two segments, the first with words."""
    word = speech_pb2.Word(start=_at(0.5), end=_at(0.9), text=" Grüße", probability=0.9)
    return speech_pb2.TranscribeResponse(
        text="Grüße, Welt. 你好。",
        language="de",
        language_probability=0.75,
        audio_duration=_at(3.25),
        segments=[
            _segment(0.5, 1.75, "Grüße, Welt.", [word]),
            _segment(2.0, 3.25, "你好。", []),
        ],
        routing=speech_pb2.Routing(
            final_model="whisper-tiny",
            confidence_below=True,
            language_check_applicable=True,
            reasons=[speech_pb2.ROUTE_REASON_LOW_LOGPROB, speech_pb2.ROUTE_REASON_FEW_WORDS],
            primary_confidence=0.5,
        ),
        timings=speech_pb2.Timings(
            queue_wait=_at(0.0015), primary_infer=_at(0.12), fallback_infer=_at(0), total=_at(0.1234)
        ),
    )


def _segment(start: float, end: float, text: str, words: list[speech_pb2.Word]) -> speech_pb2.Segment:
    return speech_pb2.Segment(
        start=_at(start),
        end=_at(end),
        text=text,
        avg_logprob=-0.5,
        no_speech_prob=0.125,
        compression_ratio=1.25,
        model="whisper-tiny",
        words=words,
    )


def _at(seconds: float) -> Duration:
    nanos = round(seconds * 1e9)
    return Duration(seconds=nanos // 10**9, nanos=nanos % 10**9)
