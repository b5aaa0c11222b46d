"""Fields of `POST /v1/transcribe`."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal, TypeVar

from gateway.http.errors import Refusal
from gateway.http.multipart import Form
from stt_client.cues import DEFAULT_LAYOUT, LINE_COUNTS, LINE_WIDTHS, SubtitleLayout

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
        "separate_channels",
        "routing",
        "response_format",
        "max_line_width",
        "max_line_count",
    )
)


@dataclass(frozen=True)
class TranscribeForm:
    """A recording and the options for it."""

    audio: bytes
    language: str = ""
    candidate_languages: tuple[str, ...] = ()
    task: Task = "transcribe"
    prompt: str = ""
    hotwords: tuple[str, ...] = ()
    word_timestamps: bool = False
    separate_channels: bool = False
    routing: Routing = "auto"
    response_format: ResponseFormat = "json"
    layout: SubtitleLayout = DEFAULT_LAYOUT
    """Of `srt` and `vtt`."""

    @property
    def wants_subtitles(self) -> bool:
        """Whether the response is subtitles."""
        return self.response_format in ("srt", "vtt")


def parse_form(form: Form) -> TranscribeForm:
    """Read the fields of a form. An empty field has its default.

    Raises:
        Refusal: empty_audio; invalid_argument, which names the field and its valid values.
    """
    if form.audio is None:
        raise Refusal("empty_audio", "The form has no part named 'audio'; put the recording there.")
    if not form.audio:
        raise Refusal("empty_audio", "The part named 'audio' is empty.")
    single = _SingleFields(form)
    return TranscribeForm(
        audio=form.audio,
        language=single.text("language").strip(),
        candidate_languages=_listed(form, "candidate_languages"),
        task=single.choice("task", TASKS, "transcribe"),
        prompt=single.text("prompt"),
        hotwords=_listed(form, "hotwords"),
        word_timestamps=single.choice("word_timestamps", FLAGS, False, str.lower),
        separate_channels=single.choice("separate_channels", FLAGS, False, str.lower),
        routing=single.choice("routing", ROUTINGS, "auto"),
        response_format=single.choice("response_format", FORMATS, "json"),
        layout=SubtitleLayout(
            max_line_width=single.number("max_line_width", LINE_WIDTHS, DEFAULT_LAYOUT.max_line_width),
            max_line_count=single.number("max_line_count", LINE_COUNTS, DEFAULT_LAYOUT.max_line_count),
        ),
    )


class _SingleFields:
    """Fields that may be given at most once."""

    def __init__(self, form: Form) -> None:
        self._form = form

    def text(self, name: str) -> str:
        values = self._form.fields.get(name, [""])
        if len(values) > 1:
            raise Refusal("invalid_argument", f"The field '{name}' is given {len(values)} times; send it once.")
        return values[0]

    def choice(self, name: str, choices: Mapping[str, T], default: T, fold: Callable[[str], str] = str) -> T:
        given = self.text(name).strip()
        if not given:
            return default
        if fold(given) not in choices:
            raise Refusal("invalid_argument", f"Invalid {name} '{given[:40]}'; expected {', '.join(choices)}.")
        return choices[fold(given)]

    def number(self, name: str, limits: tuple[int, int], default: int) -> int:
        given, (low, high) = self.text(name).strip(), limits
        if not given:
            return default
        # At most nine digits: Python refuses to convert very long numbers.
        if not re.fullmatch("[0-9]{1,9}", given) or not low <= int(given) <= high:
            raise Refusal("invalid_argument", f"Invalid {name} '{given[:40]}'; expected a number from {low} to {high}.")
        return int(given)


def _listed(form: Form, name: str) -> tuple[str, ...]:
    """Items of a list, which may be separated by commas, by repeating the field, or both."""
    items = ",".join(form.fields.get(name, ())).split(",")
    return tuple(item.strip() for item in items if item.strip())
