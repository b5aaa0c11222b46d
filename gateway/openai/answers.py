"""Transcripts in the formats of OpenAI's API, whole and as server-sent events.

Its types are those of the official clients: `openai.types.audio`, and `openai/resources/audio` in Node.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from starlette.responses import JSONResponse, PlainTextResponse, Response

from gateway.http.event_stream import COMMENT
from gateway.http.headers import trailer_headers
from gateway.openai.errors import error_body
from gateway.openai.form import OpenAiForm
from gateway.settled_text import SettledText
from gateway.transcription import subtitles
from protos.stt.v1.languages import english_name
from stt_client.results import Progress, Segment, SettledSegments, TranscribeEvent, Transcript
from stt_client.subtitles import DEFAULT_LAYOUT

Json = dict[str, Any]


async def transcript_response(transcript: Transcript, form: OpenAiForm) -> Response:
    """Response with a transcript in the format of the form."""
    if form.response_format in ("srt", "vtt"):
        return await subtitles(transcript, form.response_format, DEFAULT_LAYOUT)
    headers = trailer_headers(transcript.metadata)
    if form.response_format == "text":
        return PlainTextResponse(transcript.text.strip(), headers=headers)
    if form.response_format == "verbose_json":
        return JSONResponse(verbose_json(transcript, form), headers=headers)
    return JSONResponse(plain_json(transcript, form), headers=headers)


def plain_json(transcript: Transcript, form: OpenAiForm) -> Json:
    """The format `json`, without fields of our own: some readers refuse those."""
    text = {"text": transcript.text.strip()}
    if form.task == "translate":
        return text
    return {**text, "languages": languages_of(transcript), "usage": _usage(transcript)}


def verbose_json(transcript: Transcript, form: OpenAiForm) -> Json:
    """The format `verbose_json`: OpenAI's fields, then `languages`, `routing` and `timings`."""
    language = "english" if form.task == "translate" else english_name(transcript.language).lower()
    body: Json = {
        "task": form.task,
        "language": language,
        "duration": transcript.audio_duration,
        "text": transcript.text.strip(),
        "segments": [_segment(number, segment) for number, segment in enumerate(transcript.segments)],
    }
    if form.words:
        body["words"] = [
            {"word": word.text.strip(), "start": word.start, "end": word.end, "probability": word.probability}
            for segment in transcript.segments
            for word in segment.words
        ]
    return {
        **body,
        "usage": _usage(transcript),
        "languages": languages_of(transcript),
        "routing": transcript.routing.as_dict(),
        "timings": transcript.timings.as_dict(),
    }


def _segment(number: int, segment: Segment) -> Json:
    return {
        "id": number,
        # Readers need `seek`, `tokens` and `temperature`, which the service does not have.
        "seek": 0,
        "start": segment.start,
        "end": segment.end,
        "text": segment.text.strip(),
        "tokens": [],
        "temperature": 0.0,
        "avg_logprob": segment.avg_logprob,
        "compression_ratio": segment.compression_ratio,
        "no_speech_prob": segment.no_speech_prob,
        "model": segment.model,
    }


def languages_of(transcript: Transcript) -> list[Json]:
    """The language of most of the speech first, then others in the order of the segments."""
    codes = (transcript.language, *(segment.language for segment in transcript.segments))
    return [{"code": code} for code in dict.fromkeys(filter(None, codes))]


def _usage(transcript: Transcript) -> Json:
    return {"type": "duration", "seconds": transcript.audio_duration}


class TextEvents:
    """Events of one stream, `transcript.text.delta` and `.done`; see `gateway.http.event_stream.EventFormat`.

    The deltas put together are the text of `.done`, exactly: some callers read nothing else.
    """

    def __init__(self) -> None:
        self._text = SettledText()

    def event(self, event: TranscribeEvent) -> str:
        """Lines of an event."""
        if isinstance(event, Progress):
            return COMMENT
        if isinstance(event, SettledSegments):
            # A delta for each: chunks of a recording that are recognized in one batch are settled together.
            return "".join(_delta(self._text.add(segment)) for segment in event.segments) or COMMENT
        return self._done(event)

    def error(self, type_: str, message: str, request_id: str) -> str:
        """Lines of the error that ends the stream."""
        return _data(error_body(type_, message, request_id))

    def _done(self, transcript: Transcript) -> str:
        delta, text = self._text.finish(transcript.text.strip())
        done = {
            "type": "transcript.text.done",
            "text": text,
            "languages": languages_of(transcript),
            "routing": transcript.routing.as_dict(),
        }
        return f"{_delta(delta)}{_data(done)}data: [DONE]\n\n"


def _delta(delta: str) -> str:
    """Lines of a delta; empty if there is nothing to add."""
    return _data({"type": "transcript.text.delta", "delta": delta}) if delta else ""


def _data(data: Mapping[str, Any]) -> str:
    # Other characters than ASCII are escaped: some readers split lines at U+2028, too.
    return f"data: {json.dumps(data)}\n\n"
