"""Events that the caller sends in a Realtime session."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from gateway.http.json_values import is_text, json_object

MAX_EVENT_ID_CHARS = 512
"""Longest `event_id` that an error repeats; OpenAI's own limit."""

INVALID_EVENT = "invalid_event"
"""Code of an error about a message that is no event of this protocol."""

_MAX_QUOTED = 40


class EventError(Exception):
    """A message is not accepted. The session continues.

    Args:
        message: for the caller; may quote its input.
        code: None: `invalid_value`.
        param: path of the field that caused it, such as `session.audio.input.format.rate`.
    """

    def __init__(self, message: str, *, code: str | None = None, param: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.code = code
        self.param = param


@dataclass(frozen=True)
class UpdateSession:
    """`session.update`, or `transcription_session.update` of the older protocol."""

    session: Mapping[str, Any]
    older: bool


@dataclass(frozen=True)
class AppendAudio:
    audio: bytes = field(repr=False)


@dataclass(frozen=True)
class CommitAudio:
    """Ends the item."""


@dataclass(frozen=True)
class ClearAudio:
    """Drops what no item has."""


ClientEvent = UpdateSession | AppendAudio | CommitAudio | ClearAudio

_TYPES = (
    "session.update",
    "transcription_session.update",
    "input_audio_buffer.append",
    "input_audio_buffer.commit",
    "input_audio_buffer.clear",
)


def parse_message(message: str | bytes) -> dict[str, Any]:
    """Parse a message as a JSON object. Raises EventError."""
    if isinstance(message, bytes):
        raise EventError("Binary message; send each event as a JSON text message.", code=INVALID_EVENT)
    try:
        return json_object(message)
    except ValueError as error:
        raise EventError(str(error), code=INVALID_EVENT) from None


def event_id_of(fields: Mapping[str, Any]) -> str | None:
    """The caller's id of an event; None if it has none, or an unusable one."""
    given = fields.get("event_id")
    return given if isinstance(given, str) and len(given) <= MAX_EVENT_ID_CHARS else None


def parse_event(fields: Mapping[str, Any]) -> ClientEvent:
    """Read an event. Unknown fields are skipped. Raises EventError."""
    type_ = fields.get("type")
    if type_ == "input_audio_buffer.append":
        return AppendAudio(_audio(fields.get("audio")))
    if type_ == "input_audio_buffer.commit":
        return CommitAudio()
    if type_ == "input_audio_buffer.clear":
        return ClearAudio()
    if type_ in ("session.update", "transcription_session.update"):
        session = fields.get("session")
        if not isinstance(session, dict):
            raise EventError("Invalid session; expected an object.", param="session")
        return UpdateSession(session, older=type_ == "transcription_session.update")
    quoted = f" '{str(type_)[:_MAX_QUOTED]}'" if is_text(type_) else ""
    raise EventError(f"Unknown event type{quoted}; expected {', '.join(_TYPES)}.", code=INVALID_EVENT, param="type")


def _audio(value: Any) -> bytes:
    if isinstance(value, str):
        try:
            return base64.b64decode(value, validate=True)
        except ValueError:
            pass
    raise EventError("Invalid audio; expected a string of base64.", param="audio")
