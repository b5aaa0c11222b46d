"""Values of the fields of a form."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Literal, TypeVar

from gateway.http.errors import Refusal
from gateway.http.multipart import Form, FormRules

T = TypeVar("T")
Routing = Literal["auto", "primary", "fallback"]

ROUTINGS: Mapping[str, Routing] = {"auto": "auto", "primary": "primary", "fallback": "fallback"}


class Fields:
    """Reads the fields of a form. An empty field has its default.

    All methods raise Refusal, invalid_argument, which names the field and its valid values.
    """

    def __init__(self, form: Form) -> None:
        self._form = form

    def text(self, name: str) -> str:
        """A field that may be given at most once."""
        values = self._form.fields.get(name, [""])
        if len(values) > 1:
            raise invalid(name, f"The field '{name}' is given {len(values)} times; send it once.")
        return values[0]

    def choice(self, name: str, choices: Mapping[str, T], default: T, fold: Callable[[str], str] = str) -> T:
        """The value that belongs to one of several words."""
        given = self.text(name).strip()
        if not given:
            return default
        if fold(given) not in choices:
            raise invalid(name, f"Invalid {name} '{given[:40]}'; expected {', '.join(choices)}.")
        return choices[fold(given)]

    def number(self, name: str, limits: tuple[int, int], default: int) -> int:
        """A whole number within limits, both included."""
        given, (low, high) = self.text(name).strip(), limits
        if not given:
            return default
        # At most nine digits: Python refuses to convert very long numbers.
        if not re.fullmatch("[0-9]{1,9}", given) or not low <= int(given) <= high:
            raise invalid(name, f"Invalid {name} '{given[:40]}'; expected a number from {low} to {high}.")
        return int(given)

    def listed(self, name: str) -> tuple[str, ...]:
        """Items of a list, which may be separated by commas, by repeating the field, or both."""
        return self._items(",".join(self._form.fields.get(name, ())).split(","))

    def repeated(self, name: str) -> tuple[str, ...]:
        """Items of a list of one field each."""
        return self._items(self._form.fields.get(name, ()))

    @staticmethod
    def _items(items: Iterable[str]) -> tuple[str, ...]:
        return tuple(item.strip() for item in items if item.strip())


def recording_of(form: Form, rules: FormRules) -> bytes:
    """The recording of a form. Raises Refusal, empty_audio: there is none, or it is empty."""
    if form.audio is None:
        raise Refusal("empty_audio", f"The form has no part named '{rules.audio}'; put the recording there.")
    if not form.audio:
        raise Refusal("empty_audio", f"The part named '{rules.audio}' is empty.")
    return form.audio


def invalid(name: str, message: str) -> Refusal:
    """Refusal of a field's value."""
    return Refusal("invalid_argument", message, field=name)
