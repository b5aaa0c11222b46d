"""JSON values of settings. Each reader raises EventError, which names the path of a value that is not accepted."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from gateway.http.json_values import is_text, is_whole
from gateway.openai.realtime.messages import EventError
from protos.stt.v1.languages import AUTOMATIC, language_code

_MAX_QUOTED = 40


def object_at(path: str, value: Any, null: Mapping[str, Any]) -> Mapping[str, Any]:
    """An object; `null` in the place of null."""
    if value is None:
        return null
    if not isinstance(value, dict):
        raise EventError(f"Invalid {path}; expected an object or null.", param=path)
    return value


def choice_at(path: str, value: Any, choices: Collection[str]) -> str:
    """One of `choices`."""
    if not isinstance(value, str) or value not in choices:
        raise EventError(f"Invalid {path} '{str(value)[:_MAX_QUOTED]}'; expected {', '.join(choices)}.", param=path)
    return value


def whole_at(path: str, value: Any, low: int, high: int) -> int:
    """A whole number from `low` to `high`."""
    if not is_whole(value) or not low <= value <= high:
        expected = f"a whole number from {low} to {high}" if low < high else str(low)
        raise EventError(f"Invalid {path}; expected {expected}.", param=path)
    return int(value)


def text_at(path: str, value: Any) -> str | None:
    """A string; None for null and an empty one."""
    if value is not None and not is_text(value):
        raise EventError(f"Invalid {path}; expected a string.", param=path)
    return value or None


def texts_at(path: str, value: Any) -> tuple[str, ...]:
    """A list of strings, or one string with commas; without empty ones."""
    if isinstance(value, str):
        value = value.split(",")
    if value is not None and not (isinstance(value, list) and all(map(is_text, value))):
        raise EventError(f"Invalid {path}; expected a list of strings.", param=path)
    return tuple(text.strip() for text in value or () if text.strip())


def language_at(path: str, value: Any) -> str | None:
    """Whisper's code of a language; None: detect it."""
    name = (text_at(path, value) or "").strip()
    if not name or name.lower() == AUTOMATIC:
        return None
    code = language_code(name)
    if code is None:
        quoted = name[:_MAX_QUOTED]
        raise EventError(f"Unknown language '{quoted}'; use an ISO 639-1 code such as 'en'.", param=path)
    return code


def languages_at(path: str, value: Any) -> tuple[str, ...]:
    """Whisper's codes of languages, each once."""
    codes = (language_at(path, name) for name in texts_at(path, value))
    return tuple(dict.fromkeys(code for code in codes if code))
