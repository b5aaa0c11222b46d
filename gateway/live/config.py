"""Text messages of `GET /v1/stream`: the config, which comes first, and the commands `flush` and `end`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, cast

from gateway.http.caller import MAX_KEY_CHARS
from gateway.http.errors import Refusal
from gateway.http.fields import ROUTINGS
from gateway.http.json_values import is_finite, is_text, is_whole, json_object
from gateway.rest.form import TASKS
from stt_client import AudioFormat

MAX_TEXT_CHARS = 64 * 1024
"""Characters of one text message, far more than a config with a long prompt has."""

ENCODINGS = ("linear16", "mulaw", "alaw")

_MAX_QUOTED = 40

Reader = Callable[[str, Any], Any]
"""Validates a field, given its name and value. Raises Refusal."""


@dataclass(frozen=True)
class LiveConfig:
    """Config of a stream."""

    api_key: str | None
    """None: use the Authorization header, if there is one."""
    encoding: AudioFormat
    interim_results: bool
    options: Mapping[str, Any]
    """Further keyword arguments of `SttClient.stream`."""


def parse_config(text: str) -> LiveConfig:
    """Parse the first message. A null field has its default.

    Raises:
        Refusal: invalid_argument, which names the field and its valid values; unauthenticated.
    """
    given = {name: value for name, value in _object(text).items() if value is not None}
    if unknown := [name for name in given if name not in FIELDS]:
        raise _invalid(f"Unknown field '{unknown[0][:_MAX_QUOTED]}'; known fields: {', '.join(FIELDS)}.")
    values = {name: FIELDS[name](name, value) for name, value in given.items()}
    for name, expected in (("encoding", ", ".join(ENCODINGS)), ("sample_rate_hertz", "samples per second")):
        if name not in values:
            raise _invalid(f"Required field {name} is missing; expected {expected}.")
    encoding = AudioFormat(values.pop("encoding"), values.pop("sample_rate_hertz"), values.pop("channel_count", 0) or 1)
    return LiveConfig(
        api_key=values.pop("api_key", None) or None,
        encoding=encoding,
        interim_results=values.pop("interim_results", True),
        options=values,
    )


def parse_command(text: str) -> Literal["flush", "end"]:
    """Parse a text message after the config.

    Raises:
        Refusal: invalid_argument: the message is not a command.
    """
    given = _object(text)
    if len(given) == 1:
        if given.get("flush") == {}:
            return "flush"
        if given.get("end") == {}:
            return "end"
    raise _invalid('Unknown command; expected {"flush": {}} or {"end": {}}. Send audio in binary messages.')


def _object(text: str) -> dict[str, Any]:
    if len(text) > MAX_TEXT_CHARS:
        raise _invalid(f"Text message exceeds the limit of {MAX_TEXT_CHARS} characters.")
    try:
        return json_object(text)
    except ValueError as error:
        raise _invalid(str(error)) from None


def _invalid(message: str) -> Refusal:
    return Refusal("invalid_argument", message)


def _text(name: str, value: Any) -> str:
    if not is_text(value):
        raise _invalid(f"Invalid {name}; expected a string.")
    return cast(str, value)


def _key(name: str, value: Any) -> str:
    key = _text(name, value).strip()
    if len(key) > MAX_KEY_CHARS or not (key.isascii() and key.isprintable()):
        raise Refusal("unauthenticated", "api_key is unusable; expected printable ASCII.")
    return key


def _flag(name: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise _invalid(f"Invalid {name}; expected true or false.")
    return value


def _whole(name: str, value: Any) -> int:
    if not is_whole(value) or not 0 <= value < 2**31:
        raise _invalid(f"Invalid {name}; expected a whole number.")
    return int(value)


def _seconds(name: str, value: Any) -> float:
    if not is_finite(value):
        raise _invalid(f"Invalid {name}; expected a number of seconds.")
    return float(value)


def _texts(name: str, value: Any) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(map(is_text, value)):
        raise _invalid(f"Invalid {name}; expected a list of strings.")
    return tuple(value)


def _one_of(*choices: str) -> Reader:
    def read(name: str, value: Any) -> str:
        if value not in choices:
            raise _invalid(f"Invalid {name} '{str(value)[:_MAX_QUOTED]}'; expected {', '.join(choices)}.")
        return cast(str, value)

    return read


FIELDS: Mapping[str, Reader] = {
    "api_key": _key,
    "encoding": _one_of(*ENCODINGS),
    "sample_rate_hertz": _whole,
    "channel_count": _whole,
    "interim_results": _flag,
    "endpoint_silence": _seconds,
    "single_utterance": _flag,
    "language": _text,
    "candidate_languages": _texts,
    "task": _one_of(*TASKS),
    "prompt": _text,
    "hotwords": _texts,
    "word_timestamps": _flag,
    "routing": _one_of(*ROUTINGS),
}
"""Fields of the config and their readers. The service validates ranges and languages."""
