"""Exceptions of calls: one for each type of the error table."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from protos.stt.v1.errors import ERRORS, ErrorKind
from protos.stt.v1.wire import X_REQ_ID


class SttError(Exception):
    """A call failed. Each error type has its own subclass."""

    type = "internal"
    """Error type, as in the trailer `x-error-type`."""

    def __init__(
        self, message: str, *, metadata: Mapping[str, str] = MappingProxyType({}), invalid_field: str = ""
    ) -> None:
        super().__init__(message)
        self.message = message
        self.invalid_field = invalid_field
        """Path of the invalid field in the request message, such as `options.language`; empty: no single one."""
        self.metadata = metadata
        """Trailing metadata of the call: lower-case names, such as `x-queue-wait-ms`."""

    @property
    def kind(self) -> ErrorKind:
        """Row of the error table."""
        return ERRORS[self.type]

    @property
    def request_id(self) -> str:
        """Id in the service's log; empty if the call didn't reach the service."""
        return self.metadata.get(X_REQ_ID, "")

    @property
    def fallback_error(self) -> str:
        """Error type of the fallback service; empty if it wasn't called or didn't fail."""
        return self.metadata.get("x-fallback-error", "")

    @property
    def retry_after_s(self) -> float | None:
        """Seconds to wait before a retry; None if a retry is pointless."""
        try:
            return float(self.metadata["retry-after-ms"]) / 1000
        except (KeyError, ValueError):
            return self.kind.retry_after_s


class Unauthenticated(SttError):
    """The API key is missing or unknown."""

    type = "unauthenticated"


class RateLimited(SttError):
    """The rate limit of the key or address is exceeded."""

    type = "rate_limited"


class PayloadTooLarge(SttError):
    """The recording exceeds the size limit of the service, or of this client."""

    type = "payload_too_large"


class AudioTooLong(SttError):
    """The decoded audio exceeds the duration limit of the service."""

    type = "audio_too_long"


class EmptyAudio(SttError):
    """The recording contains no samples."""

    type = "empty_audio"


class UnsupportedAudio(SttError):
    """The recording is not audio, or its format is not supported."""

    type = "unsupported_audio"


class InvalidArgument(SttError):
    """An option is invalid."""

    type = "invalid_argument"


class Overloaded(SttError):
    """The queue of the service is full."""

    type = "overloaded"


class DeadlineExceeded(SttError):
    """The timeout passed before the answer."""

    type = "deadline_exceeded"


class Cancelled(SttError):
    """The client was closed, or the audio iterator cancelled, during the call."""

    type = "cancelled"


class FallbackFailed(SttError):
    """The fallback service was needed and failed."""

    type = "fallback_failed"


class NotReady(SttError):
    """The service is starting or shutting down."""

    type = "not_ready"


class OutOfMemory(SttError):
    """The GPU of the service is out of memory."""

    type = "out_of_memory"


class Internal(SttError):
    """The service has a bug, or sent an unknown error type."""

    type = "internal"


class UpstreamUnavailable(SttError):
    """The service can't be reached, or refused the connection."""

    type = "upstream_unavailable"


_BY_TYPE = {cls.type: cls for cls in SttError.__subclasses__()}

ELSEWHERE = tuple(cls for cls in SttError.__subclasses__() if ERRORS[cls.type].retry == "elsewhere")
"""Errors of a service rather than of the request: another service may succeed, or the same one later."""


def error_of(type_: str, message: str, metadata: Mapping[str, str], invalid_field: str = "") -> SttError:
    """Exception for an error type; `Internal` if this version doesn't know it."""
    return _BY_TYPE.get(type_, Internal)(message, metadata=metadata, invalid_field=invalid_field)
