"""Messages of the contract for tests: transcripts, their trailing metadata, and a stream that echoes."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

from google.protobuf import any_pb2
from google.protobuf.duration_pb2 import Duration
from google.rpc import error_details_pb2, status_pb2

from protos.stt.v1 import speech_pb2

Response = speech_pb2.TranscribeResponse
StreamResponse = speech_pb2.StreamTranscribeResponse

BYTES_PER_SECOND = 32_000
"""Of 16 kHz LINEAR16, which `EchoStream` takes all audio to be."""

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


def duration(seconds: float) -> Duration:
    """Protobuf duration, rounded to the nanosecond."""
    found = Duration()
    found.FromNanoseconds(round(seconds * 1e9))
    return found


def word(start: float, end: float, text: str, probability: float) -> speech_pb2.Word:
    return speech_pb2.Word(start=duration(start), end=duration(end), text=text, probability=probability)


def transcript(
    text: str = "hello world",
    *,
    request_id: str = "",
    language: str = "en",
    fallback_used: bool = True,
    model: str = "tiny",
) -> Response:
    """Response with every field set: one segment of two words, low confidence."""
    segment = speech_pb2.Segment(
        start=duration(0),
        end=duration(1.234567),
        text=text,
        avg_logprob=-0.25,
        no_speech_prob=0.01,
        compression_ratio=1.1,
        model=model,
        words=[word(0, 0.4, "hello", 0.9), word(0.4, 1, "world", 0.8)],
    )
    return Response(
        request_id=request_id,
        text=text,
        language=language,
        language_probability=0.99,
        audio_duration=duration(1.3),
        segments=[segment],
        routing=speech_pb2.Routing(
            fallback_used=fallback_used,
            final_model=model,
            confidence_below=True,
            language_check_applicable=True,
            reasons=[speech_pb2.ROUTE_REASON_LOW_LOGPROB, speech_pb2.ROUTE_REASON_FEW_WORDS],
            primary_confidence=0.4,
        ),
        timings=speech_pb2.Timings(
            queue_wait=duration(0.0015),
            primary_infer=duration(0.02),
            fallback_infer=duration(0),
            total=duration(0.02525),
        ),
    )


def trailers_of(response: Response) -> dict[str, str]:
    """The contract's trailing metadata of a successful `Transcribe`."""
    routing = response.routing
    reasons = [speech_pb2.RouteReason.Name(reason) for reason in routing.reasons]
    return {
        "x-req-id": response.request_id,
        **timing_trailers(response),
        "x-fallback-used": str(routing.fallback_used).lower(),
        "x-conf-below": str(routing.confidence_below).lower(),
        "x-lang-check-applicable": str(routing.language_check_applicable).lower(),
        "x-final-model": routing.final_model,
        "x-route-reason": ",".join(reason.removeprefix("ROUTE_REASON_").lower() for reason in reasons) or "none",
    }


def bad_request(field: str) -> dict[str, bytes]:
    """The trailer by which an error names an invalid field of the request."""
    violation = error_details_pb2.BadRequest.FieldViolation(field=field)
    detail = any_pb2.Any()
    detail.Pack(error_details_pb2.BadRequest(field_violations=[violation]))
    return {"grpc-status-details-bin": status_pb2.Status(details=[detail]).SerializeToString()}


def timing_trailers(response: Response) -> dict[str, str]:
    names = ("queue_wait", "primary_infer", "fallback_infer", "total")
    found = {name: getattr(response.timings, name).ToNanoseconds() / 1e6 for name in names}
    return {f"x-{name.replace('_', '-')}-ms": f"{ms:.1f}" for name, ms in found.items()}


@dataclass
class EchoStream:
    """Answers audio messages with interims, and a flush and the end with a final that counts the bytes."""

    response: Response = field(default_factory=transcript)
    """Each final, except for its text."""
    interim_text: str = "Grüße"
    interims_per_message: int = 1
    interims_sent: int = 0

    async def __call__(self, requests: AsyncIterator[Any], context: Any) -> AsyncIterator[StreamResponse]:
        config, received = speech_pb2.StreamConfig(), 0
        async for request in requests:
            if request.HasField("config"):
                config = request.config
            elif request.HasField("flush"):
                yield self._final(received)
                if config.single_utterance:
                    return
            else:
                received += len(request.audio)
                for _ in range(self.interims_per_message if config.interim_results else 0):
                    yield self._interim(received)
                    self.interims_sent += 1
        yield self._final(received)

    def _interim(self, received: int) -> StreamResponse:
        interim = speech_pb2.Interim(stable_text=self.interim_text, unstable_text=f" {received}", language="de")
        return StreamResponse(interim=interim, audio_processed=duration(received / BYTES_PER_SECOND))

    def _final(self, received: int) -> StreamResponse:
        final = StreamResponse(audio_processed=duration(received / BYTES_PER_SECOND))
        final.final.result.CopyFrom(self.response)
        final.final.result.text = f"{received} bytes"
        return final
