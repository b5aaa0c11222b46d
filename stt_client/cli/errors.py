"""Errors as the user of the `stt` command sees them."""

from __future__ import annotations

from stt_client.errors import SttError

ADVICE = {
    "unauthenticated": "Pass a valid key by --api-key or $STT_API_KEY.",
    "rate_limited": "Wait a moment, or use fewer --jobs.",
    "overloaded": "Use fewer --jobs, add a --server, or retry later.",
    "payload_too_large": "Convert it to WAV, so that stt can split it.",
    "audio_too_long": "Convert it to WAV, so that stt can split it.",
    "deadline_exceeded": "Increase --timeout.",
    "cancelled": "Retry.",
    "upstream_unavailable": "",
}
"""What to do, by error type, where the error table's advice is for programmers. Empty: the message says it."""


class UsageError(Exception):
    """Invalid options or arguments; the message says what is valid."""


def explain(error: SttError | OSError, about: str = "") -> str:
    """One line on what went wrong and what to do about it.

    Args:
        about: file name that precedes the line anyway and is left out of it.
    """
    if isinstance(error, OSError):
        reason = error.strerror or str(error)
        return f"{error.filename}: {reason}" if error.filename and str(error.filename) != about else reason
    parts = [_sentence(error.message), ADVICE.get(error.type, error.kind.advice)]
    if error.type in ("internal", "fallback_failed") and error.request_id:
        parts.append(f"Request id: {error.request_id}.")
    if error.fallback_error:
        parts.append(f"Fallback error: {error.fallback_error}.")
    return " ".join(part for part in parts if part)


def _sentence(text: str) -> str:
    text = " ".join(text.split())
    return text if text.endswith((".", "!", "?")) else f"{text}."
