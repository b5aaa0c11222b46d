"""The forms of `POST /v1/audio/transcriptions` and `POST /v1/audio/translations`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from gateway.http.fields import ROUTINGS, Fields, invalid, recording_of
from gateway.http.multipart import Form, FormRules
from gateway.openai.errors import FILE
from stt_client.request import PrepareOptions

ResponseFormat = Literal["json", "text", "srt", "vtt", "verbose_json"]

FORMATS: Mapping[str, ResponseFormat] = {
    "json": "json",
    "text": "text",
    "srt": "srt",
    "vtt": "vtt",
    "verbose_json": "verbose_json",
}
STREAMED_FORMATS = ("json", "text")
"""Formats that may be streamed: the events are the same."""

BOOLEANS: Mapping[str, bool] = {"true": True, "false": False}
GRANULARITIES = ("segment", "word")

TEXT_FIELDS = ("prompt", "response_format", "temperature", "routing")
"""Fields of both forms."""
TRANSCRIPTION_FIELDS = (*TEXT_FIELDS, "language", "stream")
LISTS = ("languages", "keywords", "hotwords", "timestamp_granularities")
"""Lists of a transcription: `name[]` with one item each, or `name`, also with several items separated by commas."""

MAX_PARTS = 256
"""Parts of a form. Clients send each keyword as a part, and the service takes 200."""


def _rules(*fields: str) -> FormRules:
    return FormRules(audio=FILE, fields=frozenset(fields), skips_unknown=True, max_parts=MAX_PARTS)


TRANSCRIPTION_RULES = _rules(*TRANSCRIPTION_FIELDS, *LISTS, *(f"{name}[]" for name in LISTS))
TRANSLATION_RULES = _rules(*TEXT_FIELDS)


@dataclass(frozen=True)
class OpenAiForm:
    """A recording, the options for it, and the form of the answer."""

    audio: bytes
    options: PrepareOptions
    response_format: ResponseFormat
    words: bool = False
    """Whether `verbose_json` has words."""
    stream: bool = False
    renamed: Mapping[str, str] = field(default_factory=dict)
    """Field of the form by the option that it sets, where their names differ."""

    @property
    def task(self) -> str:
        """`transcribe` or `translate`."""
        return self.options["task"]

    def field_of(self, path: str) -> str | None:
        """Field of the form for an invalid field of the request message, such as `options.language`; None for none."""
        option = path.rpartition(".")[2]
        return self.renamed.get(option, option) or None


def parse_transcription(form: Form) -> OpenAiForm:
    """Read the fields of a transcription. An empty field has its default.

    Raises:
        Refusal: empty_audio; invalid_argument, which names the field and its valid values.
    """
    fields = Fields(form)
    audio, response_format = _common(form, fields)
    stream = fields.choice("stream", BOOLEANS, False, str.lower)
    if stream and response_format not in STREAMED_FORMATS:
        raise invalid(
            "stream", f"{response_format} can't be streamed; use {' or '.join(STREAMED_FORMATS)}, or no stream."
        )
    words = "word" in _granularities(fields) and response_format == "verbose_json"
    languages = (*fields.listed("languages[]"), *fields.listed("languages"))
    language = fields.text("language").strip()
    only_language = languages[0] if len(languages) == 1 and not language else ""
    keywords = (*fields.repeated("keywords[]"), *fields.listed("keywords"))
    hotwords = (*keywords, *fields.repeated("hotwords[]"), *fields.listed("hotwords"))
    options = PrepareOptions(
        language=language or only_language,
        candidate_languages=() if only_language else languages,
        task="transcribe",
        prompt=fields.text("prompt"),
        hotwords=hotwords,
        word_timestamps=words or response_format in ("srt", "vtt"),
        routing=fields.choice("routing", ROUTINGS, "auto"),
    )
    renamed = {"candidate_languages": "languages"}
    renamed |= {"language": "languages"} if only_language else {}
    renamed |= {"hotwords": "keywords"} if keywords else {}
    return OpenAiForm(audio, options, response_format, words=words, stream=stream, renamed=renamed)


def parse_translation(form: Form) -> OpenAiForm:
    """Read the fields of a translation. Raises Refusal, as `parse_transcription`."""
    fields = Fields(form)
    audio, response_format = _common(form, fields)
    options = PrepareOptions(
        task="translate",
        prompt=fields.text("prompt"),
        word_timestamps=response_format in ("srt", "vtt"),
        routing=fields.choice("routing", ROUTINGS, "auto"),
    )
    return OpenAiForm(audio, options, response_format)


def _common(form: Form, fields: Fields) -> tuple[bytes, ResponseFormat]:
    """Recording and format, once the fields that change nothing are known to be valid."""
    audio = recording_of(form, TRANSCRIPTION_RULES)
    temperature = fields.text("temperature").strip()
    if temperature and not _is_unit(temperature):
        raise invalid("temperature", f"Invalid temperature '{temperature[:40]}'; expected a number from 0 to 1.")
    return audio, fields.choice("response_format", FORMATS, "json")


def _is_unit(text: str) -> bool:
    try:
        return 0 <= float(text) <= 1
    except ValueError:
        return False


def _granularities(fields: Fields) -> tuple[str, ...]:
    name = "timestamp_granularities"
    given = (*fields.listed(f"{name}[]"), *fields.listed(name))
    for item in given:
        if item not in GRANULARITIES:
            raise invalid(name, f"Invalid {name} '{item[:40]}'; expected {', '.join(GRANULARITIES)}.")
    return given
