"""Reading Wyoming events within bounds of size and time.

An event is a line of JSON, `data_length` bytes of further JSON and `payload_length` bytes of audio. The `wyoming`
package's own reader takes any length, and lengths that are no numbers; it is used for the types and for writing.
"""

from __future__ import annotations

import asyncio
import json
from typing import Any

from wyoming.event import Event

from gateway.http.errors import Refusal

MAX_HEADER_BYTES = 64 * 1024
"""Of the line of JSON without its newline, and of the data behind it."""

READER_LIMIT = MAX_HEADER_BYTES - 1
"""`limit` of the `asyncio.StreamReader` to read from. It counts a line without its first byte, which is read before."""

MAX_PAYLOAD_BYTES = 1024 * 1024

EVENT_TIMEOUT_S = 30.0
"""Seconds from the first byte of an event to its last."""


async def read_event(reader: asyncio.StreamReader) -> Event | None:
    """Read the next event; None once the caller has disconnected. Waits without limit for the first byte.

    Raises:
        Refusal: payload_too_large, before the rest is read; invalid_argument: not an event; deadline_exceeded: the
            event did not arrive within `EVENT_TIMEOUT_S`.
    """
    first = await reader.read(1)
    if not first:
        return None
    try:
        return await asyncio.wait_for(_read_rest(first, reader), EVENT_TIMEOUT_S)
    except asyncio.IncompleteReadError:
        return None
    except asyncio.LimitOverrunError:
        raise _too_large("header", MAX_HEADER_BYTES) from None
    except asyncio.TimeoutError:
        raise Refusal("deadline_exceeded", f"The event did not arrive within {EVENT_TIMEOUT_S:g} s.") from None


async def _read_rest(first: bytes, reader: asyncio.StreamReader) -> Event:
    line = first if first == b"\n" else first + await reader.readuntil(b"\n")
    header = _json_object(line)
    type_ = header.get("type")
    if not isinstance(type_, str):
        raise _invalid("The event has no type; expected a text.")
    data_bytes = _length(header, "data_length", MAX_HEADER_BYTES, "header")
    payload_bytes = _length(header, "payload_length", MAX_PAYLOAD_BYTES, "payload")
    data = header.get("data") or {}
    if not isinstance(data, dict):
        raise _invalid("data is not a JSON object.")
    if data_bytes:
        data |= _json_object(await reader.readexactly(data_bytes))
    payload = await reader.readexactly(payload_bytes) if payload_bytes else None
    return Event(type_, data, payload)


def _json_object(raw: bytes) -> dict[str, Any]:
    try:
        found = json.loads(raw)
        if b"\\u" in raw:
            # Escapes can contain half of a surrogate pair, which no later step could encode.
            json.dumps(found, ensure_ascii=False).encode()
    except (ValueError, RecursionError):
        raise _invalid("The event is not valid JSON; expected a line of JSON.") from None
    if not isinstance(found, dict):
        raise _invalid("The event is not a JSON object.")
    return found


def _length(header: dict[str, Any], name: str, limit: int, part: str) -> int:
    value = header.get(name)
    if value is None:
        return 0
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise _invalid(f"Invalid {name}; expected a number of bytes.")
    if value > limit:
        raise _too_large(part, limit)
    return value


def _invalid(message: str) -> Refusal:
    return Refusal("invalid_argument", message)


def _too_large(part: str, limit: int) -> Refusal:
    return Refusal("payload_too_large", f"The event's {part} exceeds the limit of {limit} bytes.")
