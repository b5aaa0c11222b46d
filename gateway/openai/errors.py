"""Errors in the shape of OpenAI's API, derived from the error table.

The official clients choose an exception by the HTTP status, show `message`, `type`, `param` and `code`, and retry 429
and 5xx unless `x-should-retry` is `false` (https://platform.openai.com/docs/guides/error-codes).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from protos.stt.v1.errors import ERRORS, ErrorKind, header_safe

FILE = "file"
"""Field of the form that has the recording."""


@dataclass(frozen=True)
class OpenAiError:
    """How an error type is sent."""

    http: int
    """HTTP status."""
    type: str
    """`invalid_request_error`, `rate_limit_error` or `server_error`."""
    code: str
    param: str | None
    """Field of the form; None: depends on the request."""
    should_retry: bool
    """Value of `x-should-retry`: a retry helps, and libraries may retry by themselves."""


_CODES = {
    "unauthenticated": "invalid_api_key",
    "rate_limited": "rate_limit_exceeded",
    "invalid_argument": "invalid_value",
}
_ABOUT_THE_FILE = ("payload_too_large", "audio_too_long", "empty_audio", "unsupported_audio")


def _openai_error(kind: ErrorKind) -> OpenAiError:
    below_500 = "rate_limit_error" if kind.http == 429 else "invalid_request_error"
    return OpenAiError(
        http=400 if kind.http == 415 else kind.http,  # as OpenAI answers to files that it can't decode
        type="server_error" if kind.http >= 500 else below_500,
        code=_CODES.get(kind.type, kind.type),
        param=FILE if kind.type in _ABOUT_THE_FILE else None,
        should_retry=kind.retry != "no" and not kind.pushed_back,
    )


OPENAI_ERRORS: Mapping[str, OpenAiError] = {type_: _openai_error(kind) for type_, kind in ERRORS.items()}
"""Every type of the error table."""

_CODES_BY_STATUS: Mapping[tuple[int, str | None], str] = {
    (404, None): "not_found",
    (404, "model"): "model_not_found",
    (405, None): "method_not_allowed",
}
"""Code of an error whose HTTP status isn't that of its type, by status and `param`."""


def error_body(
    type_: str, message: str, request_id: str, *, param: str | None = None, code: str | None = None
) -> dict[str, dict[str, Any]]:
    """JSON body of an error, also used in event streams and Realtime events.

    Args:
        type_: key of `protos.stt.v1.errors.ERRORS`.
        param: field that caused the error; None: that of the type.
        code: instead of the type's.
    """
    kind = OPENAI_ERRORS[type_]
    return {
        "error": {
            "message": header_safe(message),
            "type": kind.type,
            "param": param or kind.param,
            "code": code or kind.code,
            "request_id": request_id,
        }
    }


class OpenAiErrorFormat:
    """Format of error responses, see `gateway.http.errors.ErrorFormat`."""

    def status(self, type_: str) -> int:
        """HTTP status of an error type."""
        return OPENAI_ERRORS[type_].http

    def body(self, type_: str, message: str, request_id: str, *, status: int, field: str | None) -> dict[str, Any]:
        """JSON body of an error."""
        param = field.removesuffix("[]") if field else None
        return error_body(type_, message, request_id, param=param, code=_CODES_BY_STATUS.get((status, field)))

    def headers(self, type_: str, retry_after_s: float) -> Mapping[str, str]:
        """Headers besides those of every error.

        Args:
            retry_after_s: seconds to wait before a retry.
        """
        headers = {"x-should-retry": "true" if OPENAI_ERRORS[type_].should_retry else "false"}
        if ERRORS[type_].sends_retry_after:
            headers["retry-after-ms"] = str(max(1, round(retry_after_s * 1000)))
        return headers
