"""Errors of a request, raised where they are detected and mapped to a status once, in `rpc`."""

from __future__ import annotations

from typing import ClassVar, Literal

Refused = Literal["queue_full", "deadline", "streams", "uploads"]
"""Why an overloaded service refuses: full queue, deadline that can't be met, live-stream limit, memory of uploads."""


class SttError(Exception):
    """Base class of the errors that a caller gets.

    The message is sent to the caller: it says what to do, and has no path, key or recognized text in it.
    """

    type: ClassVar[str]
    """Key of the row of `protos.stt.v1.errors.ERRORS`."""
    field = ""
    """Path of the invalid field in the request message, such as `options.language`; empty: no single one."""

    def __init__(self, message: str, *, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.retry_after_s = retry_after_s


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

    def __init__(self, message: str, *, field: str = "") -> None:
        super().__init__(message)
        self.field = field


class Overloaded(SttError):
    type = "overloaded"

    def __init__(self, message: str, reason: Refused, *, retry_after_s: float | None = None) -> None:
        super().__init__(message, retry_after_s=retry_after_s)
        self.reason = reason


class DeadlineExceeded(SttError):
    type = "deadline_exceeded"


class Abandoned(SttError):
    """Work was stopped midway because its caller was gone."""

    type = "cancelled"


class FallbackFailed(SttError):
    type = "fallback_failed"


class NotReady(SttError):
    type = "not_ready"


class EngineError(SttError):
    """The model failed on a recording; a fallback may answer instead."""

    type = "internal"


class OutOfMemory(EngineError):
    type = "out_of_memory"


class DeviceFailed(EngineError):
    """The GPU or one of its libraries failed, possibly for good."""


class EngineBug(EngineError):
    """An unexpected exception in the engine. Its cause is logged, not sent to the caller."""


class EngineLost(EngineError):
    """The model no longer works; the process has to be restarted."""

    type = "not_ready"


class Internal(SttError):
    """A bug. Its cause is logged, not sent to the caller."""

    type = "internal"
