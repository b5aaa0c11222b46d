"""Items of a Realtime session: stretches of speech, each with one transcript, and the events about them."""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping, Sequence
from typing import Any

from starlette.websockets import WebSocket

from gateway.openai.answers import languages_of
from gateway.openai.errors import error_body
from stt_client.recordings.merging import PartTranscript, join_text, merge
from stt_client.results import Routing, Transcript

TRANSCRIPTION = "conversation.item.input_audio_transcription"

NOTHING_ROUTED = Routing(fallback_used=False, final_model="", confidence_below=False, language_check_applicable=False)
"""Routing of an item in which nothing was said: no model was asked."""


def new_id(prefix: str) -> str:
    """Random id, such as `item_5e0c...`."""
    return f"{prefix}_{secrets.token_hex(10)}"


class Item:
    """An item and its text so far: that of one or more utterances."""

    def __init__(self) -> None:
        self.id = new_id("item")
        self.committed = False
        self._sent = ""
        """Text of all deltas."""
        self._sent_of_utterance = ""
        """Text of the current utterance that deltas have."""
        self._parts: list[PartTranscript] = []

    def grow(self, stable: str) -> str:
        """The delta for the current utterance's text; empty if that has not grown, or begins otherwise than before."""
        stable = stable.strip()
        if not stable.startswith(self._sent_of_utterance) or stable == self._sent_of_utterance:
            return ""
        rest = stable[len(self._sent_of_utterance) :]
        if not self._sent_of_utterance:
            # With the space between two utterances, in languages that have it.
            rest = join_text((self._sent, stable))[len(self._sent) :]
        self._sent += rest
        self._sent_of_utterance = stable
        return rest

    def finish_utterance(self, transcript: Transcript) -> str:
        """Take an utterance's final. Returns the delta for what it adds; empty if it contradicts earlier deltas."""
        delta = self.grow(transcript.text)
        self._sent_of_utterance = ""
        seconds = transcript.audio_duration
        self._parts.append(PartTranscript(self._seconds, seconds, transcript))
        return delta

    @property
    def _seconds(self) -> float:
        return sum(part.seconds for part in self._parts)

    @property
    def has_text(self) -> bool:
        """Whether a final has text."""
        return any(part.transcript.text.strip() for part in self._parts)

    def result(self, seconds: float | None) -> dict[str, Any]:
        """Fields of the event `completed`.

        Args:
            seconds: of the item's audio; None: of its utterances.
        """
        spoken = [part for part in self._parts if part.transcript.text.strip()] or self._parts
        transcript = _merged(spoken)
        text = transcript.text.strip() if transcript else ""
        used = self._seconds if seconds is None else seconds
        return {
            "transcript": text,
            "languages": languages_of(transcript) if transcript and text else [],
            "usage": {"type": "duration", "seconds": round(used, 3)},
            "routing": (transcript.routing if transcript else NOTHING_ROUTED).as_dict(),
        }


def _merged(parts: Sequence[PartTranscript]) -> Transcript | None:
    if len(parts) < 2:
        return parts[0].transcript if parts else None
    return merge(parts, request_id="", total_s=0)


class Conversation:
    """Sends the events of a session, each with an id of its own, and links its items."""

    def __init__(self, socket: WebSocket) -> None:
        self._socket = socket
        self._last: str | None = None
        self.committed = 0
        """Number of items."""
        self.heard_until = 0.0
        """End of the audio that committed items cover, in seconds of the session."""

    async def send(self, type_: str, **fields: Any) -> None:
        """Send an event."""
        await self._socket.send_text(event_text(type_, **fields))

    async def speech_started(self, item: Item, seconds: float) -> None:
        """Args: seconds: of the session's audio."""
        await self.send("input_audio_buffer.speech_started", item_id=item.id, audio_start_ms=_milliseconds(seconds))

    async def speech_stopped(self, item: Item, seconds: float) -> None:
        """Args: seconds: of the session's audio."""
        await self.send("input_audio_buffer.speech_stopped", item_id=item.id, audio_end_ms=_milliseconds(seconds))

    async def commit(self, item: Item) -> None:
        """End an item: nothing that is said later belongs to it."""
        previous, self._last = self._last, item.id
        item.committed = True
        self.committed += 1
        described = {
            "id": item.id,
            "object": "realtime.item",
            "type": "message",
            "role": "user",
            "status": "completed",
            "content": [{"type": "input_audio", "transcript": None}],
        }
        await self.send("input_audio_buffer.committed", item_id=item.id, previous_item_id=previous)
        for type_ in ("conversation.item.added", "conversation.item.done"):
            await self.send(type_, item=described, previous_item_id=previous)

    async def delta(self, item: Item, text: str) -> None:
        """Send a piece of an item's text, unless it is empty."""
        if text:
            await self._send_about(item, "delta", delta=text)

    async def complete(self, item: Item, seconds: float | None = None) -> None:
        """Send an item's transcript. `seconds`: see `Item.result`."""
        await self._send_about(item, "completed", **item.result(seconds))

    async def fail(self, item: Item, error: Mapping[str, Any]) -> None:
        """Send the error instead of an item's transcript."""
        await self._send_about(item, "failed", error=error)

    async def _send_about(self, item: Item, what: str, **fields: Any) -> None:
        await self.send(f"{TRANSCRIPTION}.{what}", item_id=item.id, content_index=0, **fields)


def event_text(type_: str, **fields: Any) -> str:
    """JSON of an event with a new id."""
    return json.dumps({"type": type_, "event_id": new_id("event"), **fields})


def error_fields(
    type_: str, message: str, *, code: str | None = None, param: str | None = None
) -> dict[str, str | None]:
    """JSON of an error within an event.

    Args:
        type_: key of `protos.stt.v1.errors.ERRORS`.
        code: instead of the type's.
    """
    error = error_body(type_, message, "", param=param, code=code)["error"]
    return {name: error[name] for name in ("type", "code", "message", "param")}


def _milliseconds(seconds: float) -> int:
    return round(seconds * 1000)
