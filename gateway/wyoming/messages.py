"""What events ask for, and the description of the service."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from wyoming.event import Event
from wyoming.info import AsrModel, AsrProgram, Attribution, Info

from gateway.http.errors import Refusal
from protos.stt.v1.limits import MAX_HOTWORD_CHARACTERS, MAX_HOTWORDS
from stt_client import AudioFormat
from stt_client.results import Status

SAMPLE_BYTES = 2
RATES_HZ = (8000, 48_000)
MAX_CHANNELS = 8

PROGRAM_NAME = "stt-pair"
_WHISPER = Attribution("OpenAI", "https://github.com/openai/whisper")
_PROGRAM = Attribution(PROGRAM_NAME, "https://github.com/openai/whisper")


@dataclass(frozen=True)
class SpeechRequest:
    """Options of the next transcript, from `transcribe`."""

    language: str = ""
    """Empty: detected."""
    hotwords: tuple[str, ...] = ()


def speech_request(event: Event) -> SpeechRequest:
    """Options in a `transcribe` event. The model's name, the context and the VAD's sensitivity change nothing.

    Names and terms are hints, names first: what exceeds the limit on hotwords is left out.

    Raises:
        Refusal: invalid_argument.
    """
    language = event.data.get("language") or ""
    if not isinstance(language, str):
        raise Refusal("invalid_argument", "transcribe: invalid language; expected a text.")
    words = (*_texts(event, "transcript_names"), *_texts(event, "transcript_terms"))
    return SpeechRequest(language, tuple(dict.fromkeys(words))[:MAX_HOTWORDS])


def _texts(event: Event, name: str) -> Iterator[str]:
    values = event.data.get(name) or []
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        raise Refusal("invalid_argument", f"transcribe: invalid {name}; expected a list of texts.")
    texts = (value.strip() for value in values)
    return (text for text in texts if 0 < len(text) <= MAX_HOTWORD_CHARACTERS)


def audio_format(event: Event) -> AudioFormat:
    """Format in an `audio-start` or `audio-chunk` event.

    Raises:
        Refusal: invalid_argument: missing or out of range.
    """
    _whole(event, "width", SAMPLE_BYTES, SAMPLE_BYTES)
    rate = _whole(event, "rate", *RATES_HZ)
    return AudioFormat("linear16", rate, _whole(event, "channels", 1, MAX_CHANNELS))


def _whole(event: Event, name: str, low: int, high: int) -> int:
    value: Any = event.data.get(name)
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        expected = f"{low}" if low == high else f"a whole number from {low} to {high}"
        raise Refusal("invalid_argument", f"{event.type}: invalid {name}; expected {expected}.")
    return value


def info_of(status: Status) -> Info:
    """The service as one program with one model.

    Raises:
        Refusal: not_ready: the model is loading, and its languages are not known yet. Home Assistant asks only once.
    """
    if not status.device:
        raise Refusal("not_ready", "The model is loading; retry later.")
    model = AsrModel(
        name=status.model,
        attribution=_WHISPER,
        installed=True,
        description=f"{status.model}, {status.service}",
        version=None,
        languages=list(status.snapshot.get("languages", ())),
    )
    program = AsrProgram(
        name=PROGRAM_NAME,
        attribution=_PROGRAM,
        installed=True,
        description="Speech to text",
        version=None,
        models=[model],
        supports_transcript_streaming=True,
    )
    return Info(asr=[program])
