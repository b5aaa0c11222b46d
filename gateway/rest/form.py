"""Fields of `POST /v1/transcribe`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from gateway.http.fields import ROUTINGS, Fields, Routing, recording_of
from gateway.http.multipart import Form, FormRules
from stt_client.cues import DEFAULT_LAYOUT, LINE_COUNTS, LINE_WIDTHS, SubtitleLayout

Task = Literal["transcribe", "translate"]
ResponseFormat = Literal["json", "text", "srt", "vtt"]

TASKS: Mapping[str, Task] = {"transcribe": "transcribe", "translate": "translate"}
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
"""Names of all fields besides the recording."""

RULES = FormRules(audio="audio", fields=FIELDS)


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
    audio, fields = recording_of(form, RULES), Fields(form)
    return TranscribeForm(
        audio=audio,
        language=fields.text("language").strip(),
        candidate_languages=fields.listed("candidate_languages"),
        task=fields.choice("task", TASKS, "transcribe"),
        prompt=fields.text("prompt"),
        hotwords=fields.listed("hotwords"),
        word_timestamps=fields.choice("word_timestamps", FLAGS, False, str.lower),
        separate_channels=fields.choice("separate_channels", FLAGS, False, str.lower),
        routing=fields.choice("routing", ROUTINGS, "auto"),
        response_format=fields.choice("response_format", FORMATS, "json"),
        layout=SubtitleLayout(
            max_line_width=fields.number("max_line_width", LINE_WIDTHS, DEFAULT_LAYOUT.max_line_width),
            max_line_count=fields.number("max_line_count", LINE_COUNTS, DEFAULT_LAYOUT.max_line_count),
        ),
    )
