"""What to tell a person whose call failed: what happened, and what to do."""

from __future__ import annotations

from stt_client.errors import SttError

# The table's advice speaks to whoever writes a client; these speak of this command's own options.
ADVICE = {
    "unauthenticated": "Give a key that the service knows by --api-key or $STT_API_KEY.",
    "rate_limited": "Wait a moment, or use fewer --jobs.",
    "overloaded": "Use fewer --jobs, add a --server, or try again in a moment.",
    "deadline_exceeded": "Allow more by --timeout, or split the recording.",
    "cancelled": "Try again.",
    # Its message says where to look.
    "upstream_unavailable": "",
}


def explain(error: SttError | OSError, about: str = "") -> str:
    """One line on what went wrong and what to do about it.

    Args:
        about: what the line starts with anyway, such as a file's name, and so need not say again.
    """
    if isinstance(error, OSError):
        reason = error.strerror or str(error)
        return f"{error.filename}: {reason}" if error.filename and str(error.filename) != about else reason
    parts = [_sentence(error.message), ADVICE.get(error.type, error.kind.advice)]
    if error.type in ("internal", "fallback_failed") and error.request_id:
        parts.append(f"Request id: {error.request_id}.")
    if error.fallback_error:
        parts.append(f"The fallback: {error.fallback_error}.")
    return " ".join(part for part in parts if part)


def _sentence(text: str) -> str:
    text = " ".join(text.split())
    return text if text.endswith((".", "!", "?")) else f"{text}."
