"""Interface of the fallback, the larger model in another service."""

from __future__ import annotations

from typing import Protocol

from stt_server.request import Answer, Request


class FallbackError(Exception):
    """The fallback did not answer.

    Attributes:
        code: the value of `fallback_error`; `protos.stt.v1.errors.FALLBACK_CODES` lists them all.
    """

    def __init__(self, code: str) -> None:
        super().__init__(code)
        self.code = code


class Fallback(Protocol):
    """A service that transcribes with a larger model."""

    async def transcribe(self, request: Request, timeout_s: float) -> Answer:
        """Return the fallback's answer, with times from the start of the request's own audio.

        Raises:
            FallbackError: no usable answer within `timeout_s` seconds.
        """
        ...


class ClosableFallback(Fallback, Protocol):
    """A fallback that holds connections."""

    async def close(self) -> None: ...
