"""The fields of `POST /v1/transcribe`: what they are called, what they take, and what they mean."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal, TypeVar

from gateway.http.errors import Refusal
from gateway.http.multipart import Form

T = TypeVar("T")
Task = Literal["transcribe", "translate"]
Routing = Literal["auto", "primary", "fallback"]
ResponseFormat = Literal["json", "text", "srt", "vtt"]

TASKS: Mapping[str, Task] = {"transcribe": "transcribe", "translate": "translate"}
ROUTINGS: Mapping[str, Routing] = {"auto": "auto", "primary": "primary", "fallback": "fallback"}
FORMATS: Mapping[str, ResponseFormat] = {"json": "json", "text": "text", "srt": "srt", "vtt": "vtt"}
FLAGS: Mapping[str, bool] = {
    **dict.fromkeys(("true", "1", "yes", "on"), True),
    **dict.fromkeys(("false", "0", "no", "off"), False),
}

FIELDS = frozenset(
    (
        "language",
        "candidate_languages",
        "task",
        "prompt",
        "hotwords",
        "word_timestamps",
        "routing",
        "response_format",
    )
)


@dataclass(frozen=True)
class Order:
    """What a caller asks for."""

    audio: bytes
    language: str = ""
    candidate_languages: tuple[str, ...] = ()
    task: Task = "transcribe"
    prompt: str = ""
    hotwords: tuple[str, ...] = ()
    word_timestamps: bool = False
    routing: Routing = "auto"
    response_format: ResponseFormat = "json"


def order_of(form: Form) -> Order:
    """The order that a form holds. An empty field means the same as none.

    Raises:
        Refusal: empty_audio, or invalid_argument that names the field and what it takes.
    """
    if form.audio is None:
        raise Refusal("empty_audio", "The form has no part named 'audio'.")
    if not form.audio:
        raise Refusal("empty_audio", "The part named 'audio' is empty.")
    single = _Single(form)
    return Order(
        audio=form.audio,
        language=single.text("language").strip(),
        candidate_languages=_listed(form, "candidate_languages"),
        task=single.choice("task", TASKS, "transcribe"),
        prompt=single.text("prompt"),
        hotwords=_listed(form, "hotwords"),
        word_timestamps=single.choice("word_timestamps", FLAGS, False, str.lower),
        routing=single.choice("routing", ROUTINGS, "auto"),
        response_format=single.choice("response_format", FORMATS, "json"),
    )


class _Single:
    """Fields that may be given once."""

    def __init__(self, form: Form) -> None:
        self._form = form

    def text(self, name: str) -> str:
        values = self._form.fields.get(name, [""])
        if len(values) > 1:
            raise Refusal("invalid_argument", f"The field '{name}' is given {len(values)} times; once will do.")
        return values[0]

    def choice(self, name: str, choices: Mapping[str, T], default: T, fold: Callable[[str], str] = str) -> T:
        given = self.text(name).strip()
        if not given:
            return default
        if fold(given) not in choices:
            takes = ", ".join(choices)
            raise Refusal("invalid_argument", f"Unknown {name} '{given[:40]}'; it takes {takes}.")
        return choices[fold(given)]


def _listed(form: Form, name: str) -> tuple[str, ...]:
    """A list: separated by commas, by repeating the field, or both."""
    items = ",".join(form.fields.get(name, ())).split(",")
    return tuple(item.strip() for item in items if item.strip())
