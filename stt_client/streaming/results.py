"""What a live stream yields: plain dataclasses, times in seconds from the start of the stream."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from stt_client.results import Transcript


@dataclass(frozen=True)
class SpeechEvent:
    """Speech began, or it ended."""

    type: Literal["started", "ended"]
    offset: float
    """When, in seconds from the start of the stream."""
    audio_processed: float
    """Seconds of the stream that the service had heard when it sent this."""


@dataclass(frozen=True)
class Interim:
    """What an utterance seems to say so far."""

    utterance: int
    """Counts from 0."""
    stable_text: str
    """Only ever grows within an utterance."""
    unstable_text: str
    """May still change; follows the stable text as it stands, with the space between them, if any, in it."""
    language: str
    audio_processed: float


@dataclass(frozen=True)
class Final:
    """What an utterance says. It comes once and never changes."""

    utterance: int
    """Counts from 0."""
    result: Transcript
    audio_processed: float


StreamEvent = SpeechEvent | Interim | Final


@dataclass(frozen=True)
class Flush:
    """Stands between chunks of audio: ends the current utterance now."""


FLUSH = Flush()
