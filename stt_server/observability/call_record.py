"""The record of one finished request, from which metrics, snapshot and request log are fed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from protos.stt.v1.errors import ERRORS, type_of_bare_status
from protos.stt.v1.trace_context import TraceContext
from stt_server.errors import Refused
from stt_server.request import Step

Endpoint = Literal["/v1/transcribe", "/v1/stream"]
"""`/v1/transcribe` for `Transcribe` over gRPC or REST, `/v1/stream` for live streams."""

FallbackResult = Literal["used", "skipped", "failed"]

TRANSCRIBE: Endpoint = "/v1/transcribe"
STREAM: Endpoint = "/v1/stream"


@dataclass(frozen=True, kw_only=True)
class CallRecord:
    """One finished request. No field holds a key, an address or a transcript, so none can leak into a log.

    Durations are seconds. None: the step did not happen or its value is unknown; 0 never stands for either.
    """

    endpoint: Endpoint
    method: str
    """Full gRPC method name: `/stt.v1.SpeechToText/Transcribe`."""
    request_id: str
    key_name: str | None
    """Configured name of the caller's API key; None without a key."""
    status: str
    """Name of the gRPC status: `OK`, `UNAVAILABLE`, ..."""
    http: int
    """HTTP status of the error table; 200 on success, 499 if the caller disconnected."""
    total: float
    """Arrival of the request to its answer."""
    error_type: str | None = None
    """Type of the error table; None on success."""
    refused: Refused | None = None
    """Why the request was refused as `overloaded`; None for every other outcome."""
    error_message: str = ""
    """Error message sent to the caller, as in `X-Error-Message`; empty on success."""
    model: str | None = None
    """Model that produced the returned transcript."""
    route_reasons: tuple[str, ...] = ()
    """Names of `RouteReason` in lower case without their prefix: `low_logprob`, `few_words`, ..."""
    fallback_result: FallbackResult | None = None
    """None: the request never reached a routing decision."""
    fallback_error: str = ""
    """Why the fallback did not answer a request that was sent to it, as in `X-Fallback-Error`."""
    queue_wait: float | None = None
    primary_infer: float | None = None
    """Inference of the service's own model."""
    fallback_infer: float | None = None
    """On the primary: the call to the fallback, network time included."""
    audio_seconds: float | None = None
    """Length of the decoded audio."""
    suppressed: tuple[str, ...] = ()
    """Why texts were dropped as hallucinations, one of `engine.hallucination.REASONS` per dropped text."""
    redecoded_seconds: float = 0.0
    """What decoding chunks again took, in the seconds of `engine.acceptance.RedecodingBudget`."""
    audio_bytes: int | None = None
    """Size of the upload."""
    language: str | None = None
    span: TraceContext | None = None
    """The call in its caller's trace."""
    steps: tuple[Step, ...] = ()

    @property
    def failure(self) -> str | None:
        """Error type of the error table; None on success. Types outside the table count as `internal`."""
        if self.status == "OK":
            return None
        error_type = self.error_type or type_of_bare_status(self.status)
        return error_type if error_type in ERRORS else "internal"

    @property
    def latency(self) -> float | None:
        """`total` of a unary call; None for a stream, which lasts as long as its caller keeps it open."""
        return None if self.endpoint == STREAM else self.total

    @property
    def real_time_factor(self) -> float | None:
        """Seconds of inference, fallback included, per second of audio; None if either is unknown."""
        known = [seconds for seconds in (self.primary_infer, self.fallback_infer) if seconds is not None]
        return sum(known) / self.audio_seconds if known and self.audio_seconds else None
