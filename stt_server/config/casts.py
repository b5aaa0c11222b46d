"""Casts from the text of a value to what the code works with.

Each carries the sentence that says what it takes, so that an error, the documentation and the check can't disagree. A
cast raises ValueError without the value in its text (it may be a secret): either bare, where `takes` says it all, or
with a hint that goes behind `takes`.
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
    """A function from text to value, and what it takes in words."""

    takes: str
    """Reads after "takes": `a whole number from 1 to 256`."""
    read: Callable[[str], Any]

    def __call__(self, text: str) -> Any:
        """The value. Raises ValueError where `text` isn't what `takes` says."""
        return self.read(text)


def _read_boolean(text: str) -> bool:
    try:
        return _BOOLEANS[text.lower()]
    except KeyError:
        # `from None`: the KeyError holds the value.
        raise ValueError from None


boolean = Cast("true, false, yes, no, on, off, 1 or 0", _read_boolean)


def integer(low: int, high: int) -> Cast:
    """A whole number from `low` to `high`, both included."""

    def read(text: str) -> int:
        if not _INTEGER.fullmatch(text) or not low <= int(text) <= high:
            raise ValueError
        return int(text)

    return Cast(f"a whole number from {low} to {high}", read)


def number(low: float, high: float) -> Cast:
    """A finite number from `low` to `high`, both included; `1e-3` and `-0.5` are read as such."""

    def read(text: str) -> float:
        if not _NUMBER.fullmatch(text):
            raise ValueError
        value = float(text)
        if not math.isfinite(value) or not low <= value <= high:
            raise ValueError
        return value

    return Cast(f"a number from {low:g} to {high:g}", read)


def choice(*words: str) -> Cast:
    """One of `words`, in any case."""

    def read(text: str) -> str:
        if text.lower() not in words:
            raise ValueError
        return text.lower()

    return Cast(f"{', '.join(words[:-1])} or {words[-1]}", read)


def label(longest: int) -> Cast:
    """Text that may stand in a header or a log: printable ASCII, at most `longest` characters."""

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

# Whether the file is there is asked later, and only where the key has an effect.
path = Cast("the path of a PEM file", Path)
folder = Cast("the path of a CTranslate2 model's folder (with model.bin in it)", Path)


def optional(cast: Cast, empty: Any = None, word: str = "") -> Cast:
    """`cast`, or `empty` for an empty value. `word` (if any) means the same as nothing written: `off`, `none`."""

    def read(text: str) -> Any:
        if not text or (word and text.lower() == word):
            return empty
        return cast(text)

    return Cast(f"{cast.takes}, or {word}" if word else cast.takes, read)


def comma_list(read_item: Callable[[str], Any], takes: str) -> Cast:
    """Items between commas, as a tuple; spaces around an item don't count, a comma at the end neither."""

    def read(text: str) -> tuple[Any, ...]:
        if not text:
            return ()
        items = [item.strip() for item in text.removesuffix(",").split(",")]
        if not all(items):
            raise ValueError("there is an empty item between commas")
        return tuple(read_item(item) for item in items)

    return Cast(takes, read)
