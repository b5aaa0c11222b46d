"""Settings of a Realtime session, and updates of them in both generations of the protocol.

    newer  {"type": "transcription", "audio": {"input": {"format", "transcription", "turn_detection", ...}}}
    older  {"input_audio_format", "input_audio_transcription", "turn_detection", ...}

What an update does not name stays, null restores the default, and fields without a meaning here are skipped.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from gateway.http.json_values import is_text
from gateway.openai.realtime.messages import EventError
from gateway.openai.realtime.values import choice_at, language_at, languages_at, object_at, text_at, texts_at, whole_at
from protos.stt.v1.limits import MAX_HOTWORD_CHARACTERS, MAX_HOTWORDS, MAX_PROMPT_CHARACTERS
from stt_client import AudioFormat
from stt_client.streaming.options import ConfigOptions

TRANSCRIPTION_PATH = "session.audio.input.transcription"

RATES = (8000, 48000)
"""Accepted sample rates of PCM, in hertz."""
TELEPHONE_RATE = 8000
"""Sample rate of G.711, in hertz."""
DEFAULT_FORMAT = AudioFormat("linear16", 24000)

SILENCES_MS = (100, 5000)
"""Accepted silences that end a turn, in milliseconds."""
SERVER_VAD_MS = 500
SEMANTIC_VAD_MS = 800
"""Silence that ends a turn with `semantic_vad`, whose users expect that pauses within a sentence end nothing."""
MANUAL_SILENCE_MS = SILENCES_MS[1]
"""Without turn detection a pause ends no item; the utterances that an item consists of should be long."""

Encoding = Literal["linear16", "mulaw", "alaw"]

_ENCODINGS: Mapping[str, Encoding] = {
    "audio/pcm": "linear16",
    "audio/pcmu": "mulaw",
    "audio/pcma": "alaw",
    "pcm16": "linear16",
    "g711_ulaw": "mulaw",
    "g711_alaw": "alaw",
}
_TYPES: Mapping[str, str] = {"linear16": "audio/pcm", "mulaw": "audio/pcmu", "alaw": "audio/pcma"}
_TURN_DETECTIONS = ("server_vad", "semantic_vad")
_OLDER_TYPES: Mapping[str, str] = {"linear16": "pcm16", "mulaw": "g711_ulaw", "alaw": "g711_alaw"}


@dataclass(frozen=True)
class Transcription:
    """How to transcribe. The defaults: detect the language, expect no particular words."""

    model: str | None = None
    """Repeated to the caller only: the service chooses the model."""
    language: str | None = None
    """Whisper's code."""
    languages: tuple[str, ...] = ()
    """Codes of the languages to detect among."""
    keywords: tuple[str, ...] = ()
    prompt: str | None = None


@dataclass(frozen=True)
class SessionSettings:
    """What is in force for the audio that follows."""

    format: AudioFormat = DEFAULT_FORMAT
    transcription: Transcription | None = None
    turn_silence_ms: int | None = SERVER_VAD_MS
    """Silence that ends a turn; None: the caller commits each item."""

    @property
    def manual(self) -> bool:
        """Whether the caller commits each item."""
        return self.turn_silence_ms is None

    @property
    def bytes_per_second(self) -> int:
        return self.format.sample_rate * self.sample_bytes

    @property
    def sample_bytes(self) -> int:
        return 2 if self.format.encoding == "linear16" else 1

    def stream_options(self) -> ConfigOptions:
        """Arguments of `SttClient.stream`."""
        given = self.transcription or Transcription()
        only = given.languages[0] if len(given.languages) == 1 else None
        return ConfigOptions(
            endpoint_silence=(self.turn_silence_ms or MANUAL_SILENCE_MS) / 1000,
            language=given.language or only,
            candidate_languages=() if given.language or only else given.languages,
            hotwords=given.keywords,
            prompt=given.prompt or "",
        )

    def same_call(self, other: SessionSettings) -> bool:
        """Whether a call with `other` settings would be the same."""
        mine = (self.format, self.manual, self.stream_options())
        return mine == (other.format, other.manual, other.stream_options())

    def as_dict(self) -> dict[str, Any]:
        """JSON of `audio.input`."""
        format_: dict[str, Any] = {"type": _TYPES[self.format.encoding]}
        if self.format.encoding == "linear16":
            format_["rate"] = self.format.sample_rate
        return {
            "format": format_,
            "transcription": self._transcription(),
            "noise_reduction": None,
            "turn_detection": self._turn_detection(),
        }

    def as_older_dict(self) -> dict[str, Any]:
        """JSON of the same in the fields of the older protocol."""
        return {
            "input_audio_format": _OLDER_TYPES[self.format.encoding],
            "input_audio_transcription": self._transcription(),
            "input_audio_noise_reduction": None,
            "turn_detection": self._turn_detection(),
        }

    def _transcription(self) -> dict[str, Any] | None:
        if self.transcription is None:
            return None
        lists = {"languages": list(self.transcription.languages), "keywords": list(self.transcription.keywords)}
        return {**vars(self.transcription), **lists}

    def _turn_detection(self) -> dict[str, Any] | None:
        return None if self.manual else {"type": "server_vad", "silence_duration_ms": self.turn_silence_ms}


@dataclass(frozen=True)
class SettingsUpdate:
    """Result of an update."""

    settings: SessionSettings
    languages: Sequence[tuple[str, str]] = field(default_factory=list)
    """(path, code) of each language that it names: whether the model knows them is not checked here."""


def update(current: SessionSettings, session: Mapping[str, Any]) -> SettingsUpdate:
    """Apply the `session` of an update.

    Raises:
        EventError: a value is not accepted; nothing changes.
    """
    if session.get("type") not in (None, "transcription"):
        raise EventError("Invalid session.type; expected 'transcription'.", param="session.type")
    found = current
    languages: list[tuple[str, str]] = []
    for path, name, value in _given(session):
        if name == "transcription" and value is not None:
            chosen = _transcription(path, value, current.transcription or Transcription(), languages)
            found = replace(found, transcription=chosen)
        elif name == "transcription":
            found = replace(found, transcription=None)
        elif name == "format":
            found = replace(found, format=_format(path, value, current.format))
        else:
            found = replace(found, turn_silence_ms=_turn_silence_ms(path, value, current))
    return SettingsUpdate(found, languages)


_OLDER_NAMES = {
    "input_audio_format": "format",
    "input_audio_transcription": "transcription",
    "turn_detection": "turn_detection",
}


def _given(session: Mapping[str, Any]) -> Iterator[tuple[str, str, Any]]:
    """Path, newer name and value of each setting that an update names."""
    for older, name in _OLDER_NAMES.items():
        if older in session:
            yield f"session.{older}", name, session[older]
    if "audio" not in session:
        return
    audio = object_at("session.audio", session["audio"], {"input": None})
    if "input" not in audio:
        return
    given = object_at("session.audio.input", audio["input"], dict.fromkeys(_OLDER_NAMES.values()))
    for name in _OLDER_NAMES.values():
        if name in given:
            yield f"session.audio.input.{name}", name, given[name]


def _format(path: str, value: Any, current: AudioFormat) -> AudioFormat:
    if value is None:
        return DEFAULT_FORMAT
    type_path = path if isinstance(value, str) else f"{path}.type"
    given = {"type": value} if isinstance(value, str) else object_at(path, value, {})
    type_ = given.get("type", _TYPES[current.encoding])
    encoding = _ENCODINGS[choice_at(type_path, "audio/pcm" if type_ is None else type_, _ENCODINGS)]
    low, high = RATES if encoding == "linear16" else (TELEPHONE_RATE, TELEPHONE_RATE)
    rate = given.get("rate")
    if rate is None:
        kept = current.sample_rate if "rate" not in given and encoding == current.encoding else None
        return AudioFormat(encoding, kept or (DEFAULT_FORMAT.sample_rate if encoding == "linear16" else TELEPHONE_RATE))
    return AudioFormat(encoding, whole_at(f"{path}.rate", rate, low, high))


def _turn_silence_ms(path: str, value: Any, current: SessionSettings) -> int | None:
    if value is None:
        return None
    given = object_at(path, value, {})
    type_ = given.get("type")
    if choice_at(f"{path}.type", "server_vad" if type_ is None else type_, _TURN_DETECTIONS) == "semantic_vad":
        return SEMANTIC_VAD_MS
    if "silence_duration_ms" not in given:
        return SERVER_VAD_MS if current.turn_silence_ms is None else current.turn_silence_ms
    silence = given["silence_duration_ms"]
    return SERVER_VAD_MS if silence is None else whole_at(f"{path}.silence_duration_ms", silence, *SILENCES_MS)


def _transcription(path: str, value: Any, current: Transcription, languages: list[tuple[str, str]]) -> Transcription:
    given = object_at(path, value, {})
    changes: dict[str, Any] = {}
    for name, reader in _READERS.items():
        if name in given:
            changes[name] = reader(f"{path}.{name}", given[name])
    if changes.get("language"):
        languages.append((f"{path}.language", changes["language"]))
    languages += [(f"{path}.languages", code) for code in changes.get("languages", ())]
    return replace(current, **changes)


def _model(path: str, value: Any) -> str | None:
    return value if is_text(value) else None


def _keywords(path: str, value: Any) -> tuple[str, ...]:
    keywords = texts_at(path, value)
    if len(keywords) > MAX_HOTWORDS or any(len(keyword) > MAX_HOTWORD_CHARACTERS for keyword in keywords):
        limits = f"at most {MAX_HOTWORDS} of {MAX_HOTWORD_CHARACTERS} characters"
        raise EventError(f"Invalid {path}; expected {limits}.", param=path)
    return keywords


def _prompt(path: str, value: Any) -> str | None:
    prompt = text_at(path, value)
    if prompt and len(prompt) > MAX_PROMPT_CHARACTERS:
        raise EventError(f"Invalid {path}; expected at most {MAX_PROMPT_CHARACTERS} characters.", param=path)
    return prompt


_READERS: Mapping[str, Callable[[str, Any], Any]] = {
    "model": _model,
    "language": language_at,
    "languages": languages_at,
    "keywords": _keywords,
    "prompt": _prompt,
}
"""Fields of `Transcription`."""
