"""The error table: gRPC status, HTTP code, retry advice and documentation of every error type.

Services, gateway and clients use this one table; `buildscripts/errors` generates docs/errors.md from it. Statuses are
names rather than `grpc.StatusCode`, for code that doesn't import gRPC.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

ERROR_DOMAIN = "stt.v1"
"""`domain` of every `google.rpc.ErrorInfo`."""

MAX_MESSAGE_BYTES = 256
"""Longest error message, which is sent in a header as printable ASCII."""

Retry = Literal["no", "after", "elsewhere"]
"""`no`: the same request fails again. `after`: retry after the wait. `elsewhere`: retry at once on another service of
the same kind, or after the wait on the same one."""


@dataclass(frozen=True, kw_only=True)
class ErrorKind:
    """One row of the table."""

    type: str
    """Value of `X-Error-Type`."""
    status: str
    """Name of the gRPC status; empty if only the gateway sends this type."""
    http: int
    """HTTP status code; 499 appears in logs only."""
    retry: Retry = "no"
    """Whether and where retrying helps."""
    retry_after_s: float | None = None
    """Seconds to wait before a retry unless the service computes a better value; None if retrying doesn't help."""
    pushed_back: bool = False
    """Send the trailer `grpc-retry-pushback-ms: -1`, so that gRPC doesn't retry by itself: it would double the load of
    a busy service, and the primary has already retried a failed fallback."""
    advice: str
    """What the caller can do."""
    operator: str
    """What the operator should look at."""

    @property
    def sends_retry_after(self) -> bool:
        """Whether responses carry `Retry-After`, or the trailer `retry-after-ms`."""
        return self.http in (429, 503)


_ROWS = (
    ErrorKind(
        type="unauthenticated",
        status="UNAUTHENTICATED",
        http=401,
        advice="Send 'Authorization: Bearer KEY' with one of API_KEYS.",
        operator="Many at once: a key was removed from API_KEYS too early, or someone is guessing keys.",
    ),
    ErrorKind(
        type="rate_limited",
        status="RESOURCE_EXHAUSTED",
        http=429,
        retry="after",
        retry_after_s=1.0,
        advice="Wait for Retry-After, or request a higher RATE_LIMIT_RPS.",
        operator="stt_key_requests_total shows which key. With capacity left, raise RATE_LIMIT_RPS and _BURST.",
    ),
    ErrorKind(
        type="payload_too_large",
        status="RESOURCE_EXHAUSTED",
        http=413,
        advice="Send a shorter or more compressed recording.",
        operator="MAX_UPLOAD_MB, which protects latency; set the same value on primary and fallback.",
    ),
    ErrorKind(
        type="audio_too_long",
        status="INVALID_ARGUMENT",
        http=413,
        advice="Split the recording; MAX_AUDIO_SECONDS is the limit.",
        operator="MAX_AUDIO_SECONDS; set the same value on primary and fallback.",
    ),
    ErrorKind(
        type="empty_audio",
        status="INVALID_ARGUMENT",
        http=400,
        advice="Send a recording with at least one sample.",
        operator="Nothing. Many from one key: that caller's recorder or form is broken.",
    ),
    ErrorKind(
        type="unsupported_audio",
        status="INVALID_ARGUMENT",
        http=415,
        advice="Send WAV, FLAC, MP3, Ogg/Opus, M4A, WebM, AMR, AIFF, WMA or another common format.",
        operator="Nothing. Many from one key: that caller sends another container, or probes the service.",
    ),
    ErrorKind(
        type="invalid_argument",
        status="INVALID_ARGUMENT",
        http=400,
        advice="Correct the option that the message names.",
        operator="Nothing. After an update of a client, compare its requests with /openapi.json.",
    ),
    ErrorKind(
        type="overloaded",
        status="UNAVAILABLE",
        http=503,
        retry="elsewhere",
        retry_after_s=1.0,
        pushed_back=True,
        advice="Retry after Retry-After, or use another service.",
        operator="stt_queue_depth and stt_queue_wait_seconds: load exceeds capacity. Add a primary; keep MAX_QUEUE.",
    ),
    ErrorKind(
        type="deadline_exceeded",
        status="DEADLINE_EXCEEDED",
        http=504,
        advice="Allow more time, or send shorter recordings.",
        operator="The largest of the X-...-ms times: queue, inference or fallback; or callers allow too little time.",
    ),
    ErrorKind(
        type="cancelled",
        status="CANCELLED",
        http=499,
        advice="The caller disconnected; nothing to do.",
        operator="Nothing. Many at once: callers give up on a slow service before their deadline.",
    ),
    ErrorKind(
        type="fallback_failed",
        status="UNAVAILABLE",
        http=502,
        retry="after",
        retry_after_s=1.0,
        pushed_back=True,
        advice="Retry in a moment; X-Fallback-Error gives the reason.",
        operator="X-Fallback-Error, in the table below. FALLBACK_ON_ERROR=degrade returns the primary's text.",
    ),
    ErrorKind(
        type="not_ready",
        status="UNAVAILABLE",
        http=503,
        retry="elsewhere",
        retry_after_s=1.0,
        advice="The service is starting or stopping: use another one, or retry after Retry-After.",
        operator="If it lasts longer than a start: the service's log, its model folder and its health.",
    ),
    ErrorKind(
        type="out_of_memory",
        status="UNAVAILABLE",
        http=503,
        retry="elsewhere",
        retry_after_s=1.0,
        pushed_back=True,
        advice="Retry after Retry-After, or use another service.",
        operator="stt_gpu_mem_used_mb and other processes on the GPU; then MAX_CONCURRENCY and MAX_BATCH_SIZE.",
    ),
    ErrorKind(
        type="internal",
        status="INTERNAL",
        http=500,
        advice="A bug: report it with its X-Req-Id.",
        operator="The service's log has the traceback, under the request's id.",
    ),
    ErrorKind(
        type="upstream_unavailable",
        status="",
        http=502,
        retry="elsewhere",
        retry_after_s=1.0,
        advice="Retry in a moment, or use another gateway.",
        operator="Whether the service runs, the gateway's --target, and TLS on both sides.",
    ),
)

ERRORS: Mapping[str, ErrorKind] = {kind.type: kind for kind in _ROWS}
"""Every error type, in the contract's order."""

FallbackCode = Literal[
    "unavailable",
    "deadline_exceeded",
    "rate_limited",
    "unauthenticated",
    "circuit_open",
    "overloaded",
    "not_ready",
    "out_of_memory",
    "payload_too_large",
    "audio_too_long",
    "empty_audio",
    "unsupported_audio",
    "invalid_argument",
    "fallback_failed",
    "unimplemented",
    "invalid_answer",
    "internal",
]
"""All values of `X-Fallback-Error`."""


@dataclass(frozen=True, kw_only=True)
class FallbackKind:
    """A reason why the fallback was needed and gave no answer."""

    code: FallbackCode
    """Value of `X-Fallback-Error`."""
    meaning: str
    """What happened between primary and fallback."""
    operator: str
    """What the operator should do."""


_CONTENT = "The primary accepted the request and the fallback did not: their versions differ. Update both."

_FALLBACK_ROWS = (
    FallbackKind(
        code="unavailable",
        meaning="FALLBACK_URL is unreachable, or the connection was lost.",
        operator="Whether the fallback runs; its port 50052, DNS name, network policies, TLS on both sides.",
    ),
    FallbackKind(
        code="deadline_exceeded",
        meaning="No answer within FALLBACK_TIMEOUT_S, or within what was left of the caller's deadline.",
        operator="The fallback's queue and inference times; an ingress or a caller that allows too little time.",
    ),
    FallbackKind(
        code="rate_limited",
        meaning="The rate limit of the primary's key is exceeded.",
        operator="Raise RATE_LIMIT_RPS and RATE_LIMIT_BURST of the fallback, or escalate fewer requests.",
    ),
    FallbackKind(
        code="unauthenticated",
        meaning="FALLBACK_API_KEY is not among the fallback's API_KEYS.",
        operator="A half-finished key rotation: add the key to the fallback's list again.",
    ),
    FallbackKind(
        code="circuit_open",
        meaning="The fallback is down or failed repeatedly; it is not called until it recovers.",
        operator="The primary logs the reason (circuit to the fallback); the circuit closes by itself.",
    ),
    FallbackKind(
        code="overloaded",
        meaning="The fallback's queue is full.",
        operator="Add a fallback, or escalate fewer requests.",
    ),
    FallbackKind(
        code="not_ready",
        meaning="The fallback is starting or stopping.",
        operator="If it lasts longer than a start: the fallback's log and its model folder.",
    ),
    FallbackKind(
        code="out_of_memory",
        meaning="The fallback's device has no memory left for the request.",
        operator="The fallback's MAX_CONCURRENCY and MAX_BATCH_SIZE, and other processes on its GPU.",
    ),
    FallbackKind(
        code="payload_too_large",
        meaning="The fallback's MAX_UPLOAD_MB is below the primary's.",
        operator="Make the two equal.",
    ),
    FallbackKind(
        code="audio_too_long",
        meaning="The fallback's MAX_AUDIO_SECONDS is below the primary's.",
        operator="Make the two equal.",
    ),
    FallbackKind(code="empty_audio", meaning="The fallback found no samples.", operator=_CONTENT),
    FallbackKind(code="unsupported_audio", meaning="The fallback can't decode the recording.", operator=_CONTENT),
    FallbackKind(
        code="invalid_argument",
        meaning="The fallback rejects an option, such as a language that its model lacks.",
        operator="Whether its model is multilingual, and whether both services have the same version.",
    ),
    FallbackKind(
        code="fallback_failed",
        meaning="The service at FALLBACK_URL has a fallback of its own, which failed.",
        operator="FALLBACK_URL points to a primary: correct the address.",
    ),
    FallbackKind(
        code="unimplemented",
        meaning="FALLBACK_URL is not a speech service.",
        operator="FALLBACK_URL points to another kind of server: correct the address.",
    ),
    FallbackKind(
        code="invalid_answer",
        meaning="The answer is not valid: no model name, numbers out of range, megabytes of text.",
        operator="Whether FALLBACK_URL points to a fallback, and whether both services have the same version.",
    ),
    FallbackKind(
        code="internal",
        meaning="The fallback failed, or its error is of an unknown type.",
        operator="The fallback's log has the traceback, under the request's id.",
    ),
)

FALLBACK_CODES: Mapping[str, FallbackKind] = {kind.code: kind for kind in _FALLBACK_ROWS}
"""Every value of `X-Fallback-Error`."""

_BY_BARE_STATUS = {
    "UNAUTHENTICATED": "unauthenticated",
    "RESOURCE_EXHAUSTED": "payload_too_large",  # gRPC's own refusal of a message over its limit
    "INVALID_ARGUMENT": "invalid_argument",
    "DEADLINE_EXCEEDED": "deadline_exceeded",
    "CANCELLED": "cancelled",
    "UNAVAILABLE": "upstream_unavailable",
}

_FALLBACK_OF_TYPE = {
    "upstream_unavailable": "unavailable",
    "cancelled": "unavailable",  # not by the primary, which still waits: the fallback is restarting
}


def type_of_bare_status(status: str) -> str:
    """Type of an error without `x-error-type`: from the transport, or from another server.

    Args:
        status: name of a gRPC status, such as `"UNAVAILABLE"`.
    """
    return _BY_BARE_STATUS.get(status, "internal")


def fallback_code_of(status: str, error_type: str = "") -> FallbackCode:
    """`X-Fallback-Error` of a failed call to the fallback.

    Args:
        status: name of the gRPC status.
        error_type: the trailer `x-error-type`; empty without one. Unknown types are ignored.
    """
    if status == "UNIMPLEMENTED":
        return "unimplemented"
    type_ = error_type if error_type in ERRORS else type_of_bare_status(status)
    return FALLBACK_CODES[_FALLBACK_OF_TYPE.get(type_, type_)].code


def header_safe(message: str) -> str:
    """`message` as printable ASCII, with `?` for other characters, cut to `MAX_MESSAGE_BYTES`."""
    printable = "".join(c if " " <= c <= "~" else " " if c.isspace() else "?" for c in message)
    return printable.strip()[:MAX_MESSAGE_BYTES]
