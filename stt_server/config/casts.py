"""Casts from the text of a value to a typed value.

Each cast describes what it expects; error messages and documentation use that description. A cast raises ValueError,
bare or with a hint for the error message. The hint never contains the value, which may be a secret.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_INTEGER = re.compile(r"[+-]?[0-9]{1,18}")
_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]{1,4})?")
_PRINTABLE = re.compile(r"[ -~]+")
_TOKEN = re.compile(r"[!-~]+")
_BOOLEANS = {
    **dict.fromkeys(("true", "yes", "on", "1"), True),
    **dict.fromkeys(("false", "no", "off", "0"), False),
}


@dataclass(frozen=True)
class Cast:
    """Function from text to value, with a description of what it expects."""

    expected: str
    """Continues "expected ...": `a whole number from 1 to 256`."""
    read: Callable[[str], Any]

    def __call__(self, text: str) -> Any:
        """Cast `text`. Raises ValueError if it isn't as expected."""
        return self.read(text)


def _read_boolean(text: str) -> bool:
    try:
        return _BOOLEANS[text.lower()]
    except KeyError:
        # `from None`: the KeyError contains the value.
        raise ValueError from None


boolean = Cast("true, false, yes, no, on, off, 1 or 0", _read_boolean)


def integer(low: int, high: int) -> Cast:
    """Integer from `low` to `high`, inclusive."""

    def read(text: str) -> int:
        if not _INTEGER.fullmatch(text) or not low <= int(text) <= high:
            raise ValueError
        return int(text)

    return Cast(f"a whole number from {low} to {high}", read)


def number(low: float, high: float) -> Cast:
    """Finite number from `low` to `high`, inclusive, such as `-0.5` or `1e-3`."""

    def read(text: str) -> float:
        if not _NUMBER.fullmatch(text):
            raise ValueError
        value = float(text)
        if not math.isfinite(value) or not low <= value <= high:
            raise ValueError
        return value

    return Cast(f"a number from {low:g} to {high:g}", read)


def choice(*words: str) -> Cast:
    """One of `words`, case-insensitive."""

    def read(text: str) -> str:
        if text.lower() not in words:
            raise ValueError
        return text.lower()

    return Cast(f"{', '.join(words[:-1])} or {words[-1]}", read)


def label(longest: int) -> Cast:
    """Printable ASCII text for headers and logs, at most `longest` characters."""

    def read(text: str) -> str:
        if len(text) > longest or not _PRINTABLE.fullmatch(text):
            raise ValueError
        return text

    return Cast(f"at most {longest} printable ASCII characters", read)


def _read_secret(text: str) -> str:
    if not _TOKEN.fullmatch(text):
        raise ValueError
    return text


secret = Cast("printable ASCII without spaces", _read_secret)

# Existence is checked later, and only if the key has an effect.
path = Cast("the path of a PEM file", Path)
folder = Cast("the path of a CTranslate2 model's folder (with model.bin in it)", Path)


def optional(cast: Cast, empty: Any = None, word: str = "") -> Cast:
    """Allow an empty value, read as `empty`; so is `word`, such as `off` or `none`."""

    def read(text: str) -> Any:
        if not text or (word and text.lower() == word):
            return empty
        return cast(text)

    return Cast(f"{cast.expected}, or {word}" if word else cast.expected, read)


def comma_list(read_item: Callable[[str], Any], expected: str) -> Cast:
    """Comma-separated items as a tuple. Spaces around items and a trailing comma are ignored."""

    def read(text: str) -> tuple[Any, ...]:
        if not text:
            return ()
        items = [item.strip() for item in text.removesuffix(",").split(",")]
        if not all(items):
            raise ValueError("empty item between commas")
        return tuple(read_item(item) for item in items)

    return Cast(expected, read)
