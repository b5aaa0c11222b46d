"""The story of one finished request: told once by `rpc`, read by metrics, log and snapshot alike."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from protos.stt.v1.errors import ERRORS, type_of_bare_status
from stt_server.errors import Refused

Endpoint = Literal["/v1/transcribe", "/v1/stream"]
"""`/v1/transcribe` for `Transcribe` however it came, `/v1/stream` for streams."""

FallbackResult = Literal["used", "skipped", "failed"]

TRANSCRIBE: Endpoint = "/v1/transcribe"
STREAM: Endpoint = "/v1/stream"


@dataclass(frozen=True, kw_only=True)
class Call:
    """One finished request. It has no field for a key, an address or a transcript, so none can be shown by accident.

    Durations are seconds; None where the step didn't happen or isn't known, never 0 in its place.
    """

    endpoint: Endpoint
    method: str
    """Full gRPC method name: `/stt.v1.SpeechToText/Transcribe`."""
    request_id: str
    key_name: str | None
    """The name that the configuration gives the caller's key, never the key; None for a caller without one."""
    status: str
    """Name of the gRPC status: `OK`, `UNAVAILABLE`, ..."""
    http: int
    """200, or the code of the error table; 499 for a caller who went away."""
    total: float
    """From the request's arrival to its answer."""
    error_type: str | None = None
    """A type of the error table; None on success."""
    refused: Refused | None = None
    """Why a busy service would not take it; of `overloaded` alone."""
    error_message: str = ""
    """What the caller was told, as in `X-Error-Message`; empty on success."""
    model: str | None = None
    """The model whose text was returned."""
    route_reasons: tuple[str, ...] = ()
    """`low_logprob`, `few_words`, ...: names of `RouteReason` in lower case, without their prefix."""
    fallback_result: FallbackResult | None = None
    """None for a request that never got as far as a routing decision."""
    fallback_error: str = ""
    """Why the fallback was wanted and did not answer, as in `X-Fallback-Error`."""
    queue_wait: float | None = None
    primary_infer: float | None = None
    """Inference of the service's own model."""
    fallback_infer: float | None = None
    """The fallback's answer as the primary saw it, the way there included."""
    audio_seconds: float | None = None
    """Length of the decoded recording."""
    suppressed: tuple[str, ...] = ()
    """Why texts were dropped as invented, one for each: of `engine.hallucination.REASONS`."""
    audio_bytes: int | None = None
    """Size of the upload."""
    language: str | None = None

    @property
    def failure(self) -> str | None:
        """The error type, always one of the error table; None on success. A type that it lacks is `internal`."""
        if self.status == "OK":
            return None
        named = self.error_type or type_of_bare_status(self.status)
        return named if named in ERRORS else "internal"

    @property
    def latency(self) -> float | None:
        """`total` where that is how long a caller waited; None for a stream, which lasts as long as its caller
        speaks."""
        return None if self.endpoint == STREAM else self.total

    @property
    def real_time_factor(self) -> float | None:
        """Seconds of inference, the fallback's included, per second of audio; None where either is unknown."""
        known = [seconds for seconds in (self.primary_infer, self.fallback_infer) if seconds is not None]
        return sum(known) / self.audio_seconds if known and self.audio_seconds else None
