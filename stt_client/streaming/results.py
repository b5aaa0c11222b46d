"""Events of a live stream: plain dataclasses, times in seconds from the start of the stream.

`as_dict` gives the JSON that `GET /v1/stream` sends: the names of speech.proto, times in seconds.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from stt_client.results import Transcript


@dataclass(frozen=True)
class SpeechEvent:
    """Start or end of speech."""

    type: Literal["started", "ended"]
    offset: float
    """Seconds from the start of the stream."""
    audio_processed: float
    """Seconds of the stream that the service had processed when it sent this."""

    def as_dict(self) -> dict[str, Any]:
        """Return the JSON of this event."""
        event = {"type": self.type.upper(), "offset": self.offset}
        return {"speech_event": event, "audio_processed": self.audio_processed}


@dataclass(frozen=True)
class Interim:
    """Hypothesis for an unfinished utterance."""

    utterance: int
    """Counts from 0."""
    stable_text: str
    """Only ever grows within an utterance."""
    unstable_text: str
    """May still change. Append it to `stable_text` as it is: it includes the space between them, if any."""
    language: str
    """ISO 639-1 code."""
    audio_processed: float
    """See `SpeechEvent`."""

    def as_dict(self) -> dict[str, Any]:
        """Return the JSON of this event."""
        event = {
            "utterance": self.utterance,
            "stable_text": self.stable_text,
            "unstable_text": self.unstable_text,
            "language": self.language,
        }
        return {"interim": event, "audio_processed": self.audio_processed}


@dataclass(frozen=True)
class Final:
    """Transcript of a finished utterance. Comes once and never changes."""

    utterance: int
    """Counts from 0."""
    result: Transcript
    audio_processed: float
    """See `SpeechEvent`."""

    def as_dict(self) -> dict[str, Any]:
        """Return the JSON of this event."""
        event = {"utterance": self.utterance, "result": self.result.as_dict()}
        return {"final": event, "audio_processed": self.audio_processed}


StreamEvent = SpeechEvent | Interim | Final


@dataclass(frozen=True)
class Flush:
    """Marker between chunks of audio that ends the current utterance now."""


FLUSH = Flush()
