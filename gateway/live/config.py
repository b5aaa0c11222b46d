"""The text messages of `GET /v1/stream`: the config that comes first, and the two commands that may follow."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, cast

from gateway.http.errors import Refusal
from gateway.http.headers import MAX_KEY_CHARS
from gateway.rest.form import ROUTINGS, TASKS
from stt_client import AudioFormat

MAX_TEXT_CHARS = 64 * 1024
"""A config with the longest prompt that makes sense is far below."""

ENCODINGS = ("linear16", "mulaw")

_MAX_QUOTED = 40

Read = Callable[[str, Any], Any]


@dataclass(frozen=True)
class LiveConfig:
    """What the first message asks for."""

    api_key: str | None
    """None: as the Authorization header says, if there is one."""
    encoding: AudioFormat
    interim_results: bool
    options: Mapping[str, Any]
    """Further keyword arguments of `SttClient.stream`."""


def config_of(text: str) -> LiveConfig:
    """The config in the first message. A field that is null is one left out.

    Raises:
        Refusal: invalid_argument that names the field and what it takes.
    """
    given = {name: value for name, value in _object(text).items() if value is not None}
    if unknown := [name for name in given if name not in FIELDS]:
        raise _refused(f"Unknown field '{unknown[0][:_MAX_QUOTED]}'; the config takes {', '.join(FIELDS)}.")
    values = {name: FIELDS[name](name, value) for name, value in given.items()}
    for name, takes in (("encoding", " or ".join(ENCODINGS)), ("sample_rate_hertz", "samples a second")):
        if name not in values:
            raise _refused(f"The config needs {name}: {takes}.")
    encoding = AudioFormat(values.pop("encoding"), values.pop("sample_rate_hertz"), values.pop("channel_count", 0) or 1)
    return LiveConfig(
        api_key=values.pop("api_key", None) or None,
        encoding=encoding,
        interim_results=values.pop("interim_results", True),
        options=values,
    )


def command_of(text: str) -> Literal["flush", "end"]:
    """The command in a later message.

    Raises:
        Refusal: invalid_argument: it is none.
    """
    given = _object(text)
    if len(given) == 1:
        if given.get("flush") == {}:
            return "flush"
        if given.get("end") == {}:
            return "end"
    raise _refused('After the config, text is {"flush": {}} or {"end": {}}; audio goes in binary messages.')


def _object(text: str) -> dict[str, Any]:
    if len(text) > MAX_TEXT_CHARS:
        raise _refused(f"A text message takes at most {MAX_TEXT_CHARS} characters.")
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        raise _refused("A text message is to be JSON.") from None
    if not isinstance(found, dict):
        raise _refused("A text message is to be a JSON object.")
    return found


def _refused(message: str) -> Refusal:
    return Refusal("invalid_argument", message)


def _text(name: str, value: Any) -> str:
    if not _is_text(value):
        raise _refused(f"{name} takes a text.")
    return cast(str, value)


def _is_text(value: Any) -> bool:
    """A string that UTF-8 can hold: JSON can write half of a surrogate pair."""
    return isinstance(value, str) and not any("\ud800" <= character <= "\udfff" for character in value)


def _key(name: str, value: Any) -> str:
    key = _text(name, value).strip()
    if len(key) > MAX_KEY_CHARS or not (key.isascii() and key.isprintable()):
        raise Refusal("unauthenticated", "api_key holds no usable key.")
    return key


def _flag(name: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise _refused(f"{name} takes true or false.")
    return value


def _whole(name: str, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 2**31:
        raise _refused(f"{name} takes a whole number.")
    return value


def _seconds(name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not _finite(value):
        raise _refused(f"{name} takes a number of seconds.")
    return float(value)


def _finite(value: float) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:  # an int of a thousand digits
        return False


def _texts(name: str, value: Any) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(map(_is_text, value)):
        raise _refused(f"{name} takes a list of texts.")
    return tuple(value)


def _one_of(*choices: str) -> Read:
    def read(name: str, value: Any) -> str:
        if value not in choices:
            raise _refused(f"Unknown {name} '{str(value)[:_MAX_QUOTED]}'; it takes {', '.join(choices)}.")
        return cast(str, value)

    return read


FIELDS: Mapping[str, Read] = {
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
"""The fields of the config, and what reads each. Ranges and languages are the service's to judge."""
