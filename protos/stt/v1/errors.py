"""The error table: the one mapping from what happened to a gRPC status and an HTTP code, and what to do about it.

Services raise by type, the gateway answers by type, clients choose by type; all three read this table, and so does
docs/errors.md, which `buildscripts/errors` writes from it. Statuses are names, not `grpc.StatusCode`, so that code
which knows no gRPC can read it as well.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

ERROR_DOMAIN = "stt.v1"
"""The `domain` of every `google.rpc.ErrorInfo` that a service attaches."""

MAX_MESSAGE_BYTES = 256
"""An error message is printable ASCII and at most this long: it travels in a header."""

Retry = Literal["no", "after", "elsewhere"]
"""`no`: the same request fails again. `after`: once the wait is over. `elsewhere`: at once with another service of the
same kind, which may well answer; with the same one once the wait is over."""


@dataclass(frozen=True, kw_only=True)
class ErrorKind:
    """One row of the table."""

    type: str
    """What callers see in `X-Error-Type`."""
    status: str
    """Name of the gRPC status; empty where only the gateway can say it."""
    http: int
    """HTTP status code; 499 appears in logs only."""
    retry: Retry = "no"
    """Whether trying again helps."""
    retry_after_s: float | None = None
    """Where retrying helps: seconds to wait unless the service knows better."""
    pushed_back: bool = False
    """A caller's library must not try again by itself, so the trailer `grpc-retry-pushback-ms: -1` tells it: a busy
    service would get its load twice, and a failed fallback has been tried again already, by the primary."""
    advice: str
    """What the caller can do about it."""
    operator: str
    """What the operator looks at."""

    @property
    def tells_retry_after(self) -> bool:
        """Whether the answer says how long to wait: in `Retry-After`, or in the trailer `retry-after-ms`."""
        return self.http in (429, 503)


_ROWS = (
    ErrorKind(
        type="unauthenticated",
        status="UNAUTHENTICATED",
        http=401,
        advice="Send 'Authorization: Bearer KEY' with one of API_KEYS.",
        operator="Many at once: a rotation that took a key out of API_KEYS too early, or someone trying keys.",
    ),
    ErrorKind(
        type="rate_limited",
        status="RESOURCE_EXHAUSTED",
        http=429,
        retry="after",
        retry_after_s=1.0,
        advice="Wait for Retry-After, or ask for a higher RATE_LIMIT_RPS.",
        operator="stt_key_requests_total says whose key. Raise RATE_LIMIT_RPS and RATE_LIMIT_BURST if there is room.",
    ),
    ErrorKind(
        type="payload_too_large",
        status="RESOURCE_EXHAUSTED",
        http=413,
        advice="Send a shorter or more compressed recording.",
        operator="MAX_UPLOAD_MB, which protects latency; primary and fallback should have the same.",
    ),
    ErrorKind(
        type="audio_too_long",
        status="INVALID_ARGUMENT",
        http=413,
        advice="Split the recording; MAX_AUDIO_SECONDS is the limit.",
        operator="MAX_AUDIO_SECONDS; primary and fallback should have the same.",
    ),
    ErrorKind(
        type="empty_audio",
        status="INVALID_ARGUMENT",
        http=400,
        advice="Send a recording with at least one sample.",
        operator="Nothing; many from one key: that caller's recorder or form is broken.",
    ),
    ErrorKind(
        type="unsupported_audio",
        status="INVALID_ARGUMENT",
        http=415,
        advice="Send WAV, FLAC, MP3, Ogg/Opus, M4A or WebM.",
        operator="Nothing; many from one key: its caller sends another container, or is up to no good.",
    ),
    ErrorKind(
        type="invalid_argument",
        status="INVALID_ARGUMENT",
        http=400,
        advice="Correct the option that the message names.",
        operator="Nothing; after an update of a client, compare what it sends with /openapi.json.",
    ),
    ErrorKind(
        type="overloaded",
        status="UNAVAILABLE",
        http=503,
        retry="elsewhere",
        retry_after_s=1.0,
        pushed_back=True,
        advice="Try again after Retry-After, or another service.",
        operator="stt_queue_depth and stt_queue_wait_seconds: more comes than fits. Add a primary; leave MAX_QUEUE.",
    ),
    ErrorKind(
        type="deadline_exceeded",
        status="DEADLINE_EXCEEDED",
        http=504,
        advice="Allow more time, or send shorter recordings.",
        operator="Which of the X-...-ms times is the largest: queue, inference, fallback; or callers allow too little.",
    ),
    ErrorKind(
        type="cancelled",
        status="CANCELLED",
        http=499,
        advice="The caller went away; nothing to do.",
        operator="Nothing; many at once: callers give up on a slow service before its deadline does.",
    ),
    ErrorKind(
        type="fallback_failed",
        status="UNAVAILABLE",
        http=502,
        retry="after",
        retry_after_s=1.0,
        pushed_back=True,
        advice="Try again in a moment; X-Fallback-Error says why it was.",
        operator="X-Fallback-Error, in the table below. Meanwhile FALLBACK_ON_ERROR=degrade gives the primary's text.",
    ),
    ErrorKind(
        type="not_ready",
        status="UNAVAILABLE",
        http=503,
        retry="elsewhere",
        retry_after_s=1.0,
        advice="The service is starting or stopping: try another, or this one after Retry-After.",
        operator="For longer than a start takes: the service's log, its model folder and its health.",
    ),
    ErrorKind(
        type="out_of_memory",
        status="UNAVAILABLE",
        http=503,
        retry="elsewhere",
        retry_after_s=1.0,
        pushed_back=True,
        advice="Try again after Retry-After, or another service.",
        operator="stt_gpu_mem_used_mb, and who else is on the GPU; then MAX_CONCURRENCY and MAX_BATCH_SIZE.",
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
        advice="Try again in a moment, or another gateway.",
        operator="Whether the service runs, where the gateway's --target leads, and TLS on both sides.",
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
"""A value of `X-Fallback-Error`; there are no others."""


@dataclass(frozen=True, kw_only=True)
class FallbackKind:
    """Why the fallback was wanted and did not answer."""

    code: FallbackCode
    """What callers see in `X-Fallback-Error`."""
    meaning: str
    """What happened between the two."""
    operator: str
    """What to do about it."""


_CONTENT = "The primary took the request and the fallback did not: the two are of different versions. Update both."

_FALLBACK_ROWS = (
    FallbackKind(
        code="unavailable",
        meaning="Nobody answers at FALLBACK_URL, or who answered hung up.",
        operator="Whether the fallback runs, its port 50052, the name, network policies, TLS on both sides.",
    ),
    FallbackKind(
        code="deadline_exceeded",
        meaning="It did not answer within FALLBACK_TIMEOUT_S, or within what was left of the caller's time.",
        operator="The fallback's own queue and inference times; an ingress or a caller that allows too little.",
    ),
    FallbackKind(
        code="rate_limited",
        meaning="The bucket of the primary's key is empty.",
        operator="Raise RATE_LIMIT_RPS and RATE_LIMIT_BURST of the fallback, or have fewer requests fall back.",
    ),
    FallbackKind(
        code="unauthenticated",
        meaning="FALLBACK_API_KEY is not among the fallback's API_KEYS.",
        operator="A rotation that went halfway: put the key back into the fallback's list.",
    ),
    FallbackKind(
        code="circuit_open",
        meaning="It is away, or failed again and again, so it is not asked until it is back.",
        operator="The primary's log lines on the circuit to the fallback say why; it closes by itself.",
    ),
    FallbackKind(
        code="overloaded",
        meaning="Its queue is full.",
        operator="Add a fallback, or have fewer requests fall back.",
    ),
    FallbackKind(
        code="not_ready",
        meaning="It is starting or stopping.",
        operator="For longer than a start takes: the fallback's log and its model folder.",
    ),
    FallbackKind(
        code="out_of_memory",
        meaning="Its device has no memory left for the request.",
        operator="The fallback's MAX_CONCURRENCY and MAX_BATCH_SIZE, and who else is on its GPU.",
    ),
    FallbackKind(
        code="payload_too_large",
        meaning="Its MAX_UPLOAD_MB is below the primary's.",
        operator="Make the two equal.",
    ),
    FallbackKind(
        code="audio_too_long",
        meaning="Its MAX_AUDIO_SECONDS is below the primary's.",
        operator="Make the two equal.",
    ),
    FallbackKind(code="empty_audio", meaning="It finds no samples.", operator=_CONTENT),
    FallbackKind(code="unsupported_audio", meaning="It can't read the recording.", operator=_CONTENT),
    FallbackKind(
        code="invalid_argument",
        meaning="It doesn't take one of the options, such as a language that its model lacks.",
        operator="Whether its model is multilingual, and whether both services are of the same version.",
    ),
    FallbackKind(
        code="fallback_failed",
        meaning="It has a fallback itself, which failed.",
        operator="FALLBACK_URL leads to a primary: correct the address.",
    ),
    FallbackKind(
        code="unimplemented",
        meaning="Who answers at FALLBACK_URL is no speech service.",
        operator="FALLBACK_URL leads to something else: correct the address.",
    ),
    FallbackKind(
        code="invalid_answer",
        meaning="It answered what no service of ours can: no model's name, impossible numbers, megabytes of text.",
        operator="Whether FALLBACK_URL leads to a fallback, and whether both services are of the same version.",
    ),
    FallbackKind(
        code="internal",
        meaning="It failed, or its answer could not be understood.",
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
    "cancelled": "unavailable",  # the primary still waits, so the fallback let go: a restart
}


def type_of_bare_status(status: str) -> str:
    """The type of an error that came without `x-error-type`: from the transport, or from another server.

    Args:
        status: name of a gRPC status, such as `"UNAVAILABLE"`.
    """
    return _BY_BARE_STATUS.get(status, "internal")


def fallback_code_of(status: str, said: str = "") -> FallbackCode:
    """What goes into `X-Fallback-Error` for a call of the fallback that failed.

    Args:
        status: name of the gRPC status.
        said: the trailer `x-error-type`; empty where there was none. A type that the table lacks counts as none.
    """
    if status == "UNIMPLEMENTED":
        return "unimplemented"
    type_ = said if said in ERRORS else type_of_bare_status(status)
    return FALLBACK_CODES[_FALLBACK_OF_TYPE.get(type_, type_)].code


def header_safe(message: str) -> str:
    """`message` as a header can carry it: printable ASCII, `?` for the rest, at most `MAX_MESSAGE_BYTES` long."""
    printable = "".join(c if " " <= c <= "~" else " " if c.isspace() else "?" for c in message)
    return printable.strip()[:MAX_MESSAGE_BYTES]
