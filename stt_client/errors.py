"""What a call can fail with: one exception per type of the contract's error table."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from protos.stt.v1.errors import ERRORS, ErrorKind
from protos.stt.v1.wire import X_REQ_ID


class SttError(Exception):
    """A call that failed.

    Subclasses name the type, so that a caller can write `except RateLimited`.
    """

    type = "internal"

    def __init__(self, message: str, *, metadata: Mapping[str, str] = MappingProxyType({})) -> None:
        super().__init__(message)
        self.message = message
        self.metadata = metadata
        """Trailing metadata of the call: lower-case names, such as `x-queue-wait-ms`."""

    @property
    def kind(self) -> ErrorKind:
        """The row of the error table."""
        return ERRORS[self.type]

    @property
    def request_id(self) -> str:
        """The id under which the service logged the call; empty if the call never reached it."""
        return self.metadata.get(X_REQ_ID, "")

    @property
    def fallback_error(self) -> str:
        """Why the fallback could not answer; empty unless it was asked."""
        return self.metadata.get("x-fallback-error", "")

    @property
    def retry_after_s(self) -> float | None:
        """Seconds to wait before trying again; None where that would not help."""
        try:
            return float(self.metadata["retry-after-ms"]) / 1000
        except (KeyError, ValueError):
            return self.kind.retry_after_s


class Unauthenticated(SttError):
    type = "unauthenticated"


class RateLimited(SttError):
    type = "rate_limited"


class PayloadTooLarge(SttError):
    type = "payload_too_large"


class AudioTooLong(SttError):
    type = "audio_too_long"


class EmptyAudio(SttError):
    type = "empty_audio"


class UnsupportedAudio(SttError):
    type = "unsupported_audio"


class InvalidArgument(SttError):
    type = "invalid_argument"


class Overloaded(SttError):
    type = "overloaded"


class DeadlineExceeded(SttError):
    type = "deadline_exceeded"


class Cancelled(SttError):
    type = "cancelled"


class FallbackFailed(SttError):
    type = "fallback_failed"


class NotReady(SttError):
    type = "not_ready"


class OutOfMemory(SttError):
    type = "out_of_memory"


class Internal(SttError):
    type = "internal"


class UpstreamUnavailable(SttError):
    """The service can't be reached."""

    type = "upstream_unavailable"


_BY_TYPE = {cls.type: cls for cls in SttError.__subclasses__()}

ELSEWHERE = tuple(cls for cls in SttError.__subclasses__() if ERRORS[cls.type].retry == "elsewhere")
"""Errors of one service, not of the request: another service may well answer, or the same one later."""


def error_of(type_: str, message: str, metadata: Mapping[str, str]) -> SttError:
    """The exception for an error type; `Internal` for a type that this version doesn't know."""
    return _BY_TYPE.get(type_, Internal)(message, metadata=metadata)
