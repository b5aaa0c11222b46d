"""The error table: the one mapping from what happened to a gRPC status and an HTTP code.

Services raise by type, the gateway answers by type, clients choose by type; all three read this table. Statuses are
names, not `grpc.StatusCode`, so that code which knows no gRPC can read it as well.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

ERROR_DOMAIN = "stt.v1"
"""The `domain` of every `google.rpc.ErrorInfo` that a service attaches."""

MAX_MESSAGE_BYTES = 256
"""An error message is printable ASCII and at most this long: it travels in a header."""


@dataclass(frozen=True)
class ErrorKind:
    """One row of the table."""

    type: str
    """What callers see in `X-Error-Type`."""
    status: str
    """Name of the gRPC status; empty where only the gateway can say it."""
    http: int
    """HTTP status code; 499 appears in logs only."""
    retry_after_s: float | None
    """Where retrying helps: seconds to wait unless the service knows better."""
    advice: str
    """What the caller or the operator can do about it."""


def _row(type_: str, status: str, http: int, retry_after_s: float | None, advice: str) -> tuple[str, ErrorKind]:
    return type_, ErrorKind(type_, status, http, retry_after_s, advice)


ERRORS: Mapping[str, ErrorKind] = dict(
    (
        _row("unauthenticated", "UNAUTHENTICATED", 401, None, "Send 'Authorization: Bearer KEY' with one of API_KEYS."),
        _row("rate_limited", "RESOURCE_EXHAUSTED", 429, 1.0, "Wait for Retry-After, or ask for a higher RATE_LIMIT."),
        _row("payload_too_large", "RESOURCE_EXHAUSTED", 413, None, "Send a shorter or more compressed recording."),
        _row("audio_too_long", "INVALID_ARGUMENT", 413, None, "Split the recording; MAX_AUDIO_SECONDS is the limit."),
        _row("empty_audio", "INVALID_ARGUMENT", 400, None, "Send a recording with at least one sample."),
        _row("unsupported_audio", "INVALID_ARGUMENT", 415, None, "Send WAV, FLAC, MP3, Ogg/Opus, M4A or WebM."),
        _row("invalid_argument", "INVALID_ARGUMENT", 400, None, "Correct the option that the message names."),
        _row("overloaded", "UNAVAILABLE", 503, 1.0, "Try again after Retry-After, or add a primary."),
        _row("deadline_exceeded", "DEADLINE_EXCEEDED", 504, None, "Allow more time, or send shorter recordings."),
        _row("cancelled", "CANCELLED", 499, None, "The caller went away; nothing to do."),
        _row("fallback_failed", "UNAVAILABLE", 502, 1.0, "Look at X-Fallback-Error and at the fallback's log."),
        _row("not_ready", "UNAVAILABLE", 503, 1.0, "The service is starting or stopping; try another or wait."),
        _row("out_of_memory", "UNAVAILABLE", 503, 1.0, "Lower MAX_CONCURRENCY or MAX_BATCH_SIZE."),
        _row("internal", "INTERNAL", 500, None, "A bug: report it with its X-Req-Id."),
        _row("upstream_unavailable", "", 502, 1.0, "The gateway can't reach its service; check --target."),
    )
)
"""Every error type, in the contract's order."""

_BY_BARE_STATUS = {
    "UNAUTHENTICATED": "unauthenticated",
    "RESOURCE_EXHAUSTED": "payload_too_large",  # gRPC's own refusal of a message over its limit
    "INVALID_ARGUMENT": "invalid_argument",
    "DEADLINE_EXCEEDED": "deadline_exceeded",
    "CANCELLED": "cancelled",
    "UNAVAILABLE": "upstream_unavailable",
}


def type_of_bare_status(status: str) -> str:
    """The type of an error that came without `x-error-type`: from the transport, or from another server.

    Args:
        status: name of a gRPC status, such as `"UNAVAILABLE"`.
    """
    return _BY_BARE_STATUS.get(status, "internal")


def header_safe(message: str) -> str:
    """`message` as a header can carry it: printable ASCII, `?` for the rest, at most `MAX_MESSAGE_BYTES` long."""
    printable = "".join(c if " " <= c <= "~" else " " if c.isspace() else "?" for c in message)
    return printable.strip()[:MAX_MESSAGE_BYTES]
