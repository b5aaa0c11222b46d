"""A server of the contract that says what a test tells it to: for what only needs someone to answer."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import grpc.aio
from google.protobuf.duration_pb2 import Duration
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1.health import aio as health_aio

from protos.stt.v1 import speech_pb2, speech_pb2_grpc

Request = speech_pb2.TranscribeRequest
Response = speech_pb2.TranscribeResponse
Reply = Callable[[Request], Awaitable[Response]]

_OPTIONS = [("grpc.max_receive_message_length", 32 * 1024 * 1024)]


def answer(request: Request, *, fallback_used: bool = False, total_s: float = 0.1) -> Response:
    """A transcript as a service would send it."""
    model = "whisper-medium-ct2" if fallback_used else "whisper-small-ct2"
    reasons = [speech_pb2.ROUTE_REASON_LOW_LOGPROB, speech_pb2.ROUTE_REASON_FEW_WORDS] if fallback_used else []
    return Response(
        request_id="scripted",
        text="hello there",
        language=request.options.language or "en",
        routing=speech_pb2.Routing(
            fallback_used=fallback_used,
            final_model=model,
            confidence_below=fallback_used,
            language_check_applicable=not request.options.language,
            reasons=reasons,
        ),
        timings=speech_pb2.Timings(total=Duration(nanos=int(total_s * 1e9))),
    )


@dataclass
class Scripted(speech_pb2_grpc.SpeechToTextServicer):
    """Answers `Transcribe` with `reply`, and keeps what it was asked."""

    reply: Reply
    key: str = ""
    """Refuse callers who don't send this as Bearer; empty: open."""
    requests: list[Request] = field(default_factory=list)

    async def Transcribe(self, request: Request, context: grpc.aio.ServicerContext[Request, Response]) -> Response:
        metadata = {str(key): value for key, value in context.invocation_metadata() or ()}
        if self.key and metadata.get("authorization") != f"Bearer {self.key}":
            trailer = (
                ("x-error-type", "unauthenticated"),
                ("x-error-message", "no key"),
                ("x-req-id", "scripted"),
            )
            await context.abort(grpc.StatusCode.UNAUTHENTICATED, "no key", trailer)
        self.requests.append(request)
        response = await self.reply(request)
        context.set_trailing_metadata(
            (
                ("x-req-id", response.request_id),
                ("x-final-model", response.routing.final_model),
                ("x-fallback-used", str(response.routing.fallback_used).lower()),
            )
        )
        return response

    async def StreamTranscribe(
        self,
        request_iterator: AsyncIterator[speech_pb2.StreamTranscribeRequest],
        context: grpc.aio.ServicerContext[speech_pb2.StreamTranscribeRequest, speech_pb2.StreamTranscribeResponse],
    ) -> AsyncIterator[speech_pb2.StreamTranscribeResponse]:
        await context.abort(grpc.StatusCode.UNIMPLEMENTED, "not scripted")
        yield speech_pb2.StreamTranscribeResponse()  # makes this a generator, as gRPC wants it


@asynccontextmanager
async def serving(
    servicer: Scripted,
    *,
    status: health_pb2.HealthCheckResponse.ServingStatus.ValueType = health_pb2.HealthCheckResponse.SERVING,
    credentials: grpc.ServerCredentials | None = None,
) -> AsyncIterator[int]:
    """`servicer` and a health service on a free port of 127.0.0.1: yields the port."""
    server = grpc.aio.server(options=_OPTIONS)
    speech_pb2_grpc.add_SpeechToTextServicer_to_server(servicer, server)
    health = health_aio.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(health, server)
    await health.set("", status)
    if credentials is None:
        port = server.add_insecure_port("127.0.0.1:0")
    else:
        port = server.add_secure_port("127.0.0.1:0", credentials)
    await server.start()
    try:
        yield port
    finally:
        await server.stop(0)
