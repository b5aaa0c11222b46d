"""JSON that callers send over WebSockets."""

from __future__ import annotations

import json
import math
from typing import Any


def json_object(text: str) -> dict[str, Any]:
    """Parse a JSON object. Raises ValueError with a message for the caller."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        raise ValueError("Text message is not valid JSON.") from None
    if not isinstance(found, dict):
        raise ValueError("Text message is not a JSON object.")
    return found


def is_text(value: Any) -> bool:
    """Whether `value` is a string that UTF-8 can encode. JSON escapes can contain half of a surrogate pair."""
    return isinstance(value, str) and not any("\ud800" <= character <= "\udfff" for character in value)


def is_whole(value: Any) -> bool:
    """Whether `value` is a whole number. 16000.0 is one: JavaScript and others do not tell the two apart."""
    return is_finite(value) and value == int(value)


def is_finite(value: Any) -> bool:
    """Whether `value` is a finite number."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:  # an int of a thousand digits
        return False
