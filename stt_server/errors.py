"""What can go wrong with a request: raised where it is known, mapped to a status once, at the edge of `rpc`."""

from __future__ import annotations

from typing import ClassVar, Literal

Refused = Literal["queue_full", "deadline", "streams"]
"""Why a service that is busy refuses: too many wait, it can't be in time, too many live streams are open."""


class SttError(Exception):
    """A request that can't be answered.

    The message goes to the caller: it says what to do, and holds no path, key or text of the recording.
    """

    type: ClassVar[str]
    """The row of `protos.stt.v1.errors.ERRORS`."""

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


class Overloaded(SttError):
    type = "overloaded"

    def __init__(self, message: str, reason: Refused, *, retry_after_s: float | None = None) -> None:
        super().__init__(message, retry_after_s=retry_after_s)
        self.reason = reason


class DeadlineExceeded(SttError):
    type = "deadline_exceeded"


class Abandoned(SttError):
    """Work was given up in its middle: nobody waits for it any more."""

    type = "cancelled"


class FallbackFailed(SttError):
    type = "fallback_failed"


class NotReady(SttError):
    type = "not_ready"


class EngineError(SttError):
    """The model failed on this recording. With a fallback, that answers instead."""

    type = "internal"


class OutOfMemory(EngineError):
    type = "out_of_memory"


class DeviceFailed(EngineError):
    """The GPU, or a library on it, failed; it may go on failing."""


class EngineBug(EngineError):
    """An exception of the engine that nobody foresaw. Its cause is logged, and never told to the caller."""


class EngineLost(EngineError):
    """The model doesn't work any more and won't again in this process, which must be started anew."""

    type = "not_ready"


class Internal(SttError):
    """A bug. Its cause is logged, and never told to the caller."""

    type = "internal"
