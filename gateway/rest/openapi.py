"""Parts of `/openapi.json` about the REST endpoints. tests/gateway/test_endpoints.py compares the schema with actual
responses, and tests/faults/test_openapi.py runs schemathesis against it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from starlette.responses import JSONResponse, PlainTextResponse

from gateway.http.fields import ROUTINGS
from gateway.openapi import (
    FALLBACK_ERROR,
    MAYBE_PROBABILITY,
    ON_UPLOADS,
    PROBABILITY,
    REQ_ID,
    ROUTED,
    ROUTING,
    SECONDS,
    TEXT,
    TIMES,
    TIMINGS,
    UPSTREAM,
    Json,
    errors,
    list_of,
    object_of,
    upload_request,
)
from gateway.rest.form import FORMATS, TASKS
from protos.stt.v1.errors import ERRORS
from stt_client.cues import DEFAULT_LAYOUT, LINE_COUNTS, LINE_WIDTHS

_ERROR_BODY: Json = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["type", "message", "request_id"],
            "properties": {
                "type": {"type": "string", "enum": list(ERRORS)},
                "message": TEXT,
                "request_id": TEXT,
            },
        }
    },
}


def _errors(types: Iterable[str], headers: Mapping[str, Json]) -> dict[int | str, Json]:
    return errors(types, _ERROR_BODY, lambda type_: ERRORS[type_].http, headers)


_TRANSCRIPT = object_of(
    {
        "request_id": TEXT,
        "text": TEXT,
        "language": {"type": "string", "description": "ISO 639-1."},
        "language_probability": {
            **MAYBE_PROBABILITY,
            "description": "null: the caller set the language.",
        },
        "audio_duration": SECONDS,
        "segments": list_of(
            object_of(
                {
                    "start": SECONDS,
                    "end": SECONDS,
                    "text": TEXT,
                    "avg_logprob": {"type": "number", "description": "Natural log, mean over tokens."},
                    "no_speech_prob": PROBABILITY,
                    "compression_ratio": {
                        "type": "number",
                        "description": "Over 2.4 suggests a repetition loop.",
                    },
                    "model": TEXT,
                    "words": list_of(
                        object_of({"start": SECONDS, "end": SECONDS, "text": TEXT, "probability": PROBABILITY})
                    ),
                    "channel": {
                        "type": "integer",
                        "minimum": 0,
                        "description": "1 for the first; 0: the channels were mixed.",
                    },
                    "language": {
                        "type": "string",
                        "description": "Where the recording changes its language; empty: that of the transcript.",
                    },
                }
            )
        ),
        "routing": ROUTING,
        "timings": TIMINGS,
        "model": {"type": "string", "description": "Model that produced the text."},
    }
)


def _number(limits: tuple[int, int], default: int, description: str) -> Json:
    low, high = limits
    return {"type": "integer", "minimum": low, "maximum": high, "default": default, "description": description}


_FORM: Json = {
    # An empty field has its default, therefore "" among the choices.
    "type": "object",
    "required": ["audio"],
    "additionalProperties": False,
    "properties": {
        "audio": {
            "type": "string",
            "format": "binary",
            "description": "The recording: WAV, FLAC, MP3, Ogg/Opus, M4A, WebM, or what phones, cameras, telephone "
            "systems and studios record (AMR, 3GP, AIFF, AU, CAF, W64, WMA, GSM, AC-3, MPEG-TS, FLV, AVI).",
        },
        "language": {
            "type": "string",
            "format": "language",
            "description": "Language that the model supports: ISO 639-1 code (en), locale (en-US) or English name "
            "(English), in any case. Empty or auto: detect.",
            "example": "en",
        },
        "candidate_languages": {
            "type": "string",
            "format": "languages",
            "description": "Comma-separated languages, named as in language; detection chooses among these only.",
        },
        "task": {
            "type": "string",
            "enum": [*TASKS, ""],
            "default": "transcribe",
            "description": "translate: English text.",
        },
        "prompt": {
            "type": "string",
            "description": "Text that precedes the recording, to suggest style and vocabulary.",
        },
        "hotwords": {"type": "string", "description": "Comma-separated words to expect."},
        "word_timestamps": {"type": "boolean", "default": False, "description": "true, false, 1 or 0."},
        "separate_channels": {
            "type": "boolean",
            "default": False,
            "description": "Transcribe each channel by itself; segments then name their channel.",
        },
        "routing": {
            "type": "string",
            "enum": [*ROUTINGS, ""],
            "default": "auto",
            "description": "auto: the service's thresholds decide which model is used.",
        },
        "response_format": {"type": "string", "enum": [*FORMATS, ""], "default": "json"},
        "max_line_width": _number(
            LINE_WIDTHS, DEFAULT_LAYOUT.max_line_width, "Columns of a line of subtitles; wide characters take two."
        ),
        "max_line_count": _number(LINE_COUNTS, DEFAULT_LAYOUT.max_line_count, "Lines of a cue of subtitles."),
    },
}

_ABOUT_EVENTS = """\
With `Accept: text/event-stream` the answer is sent while the recording is transcribed, as server-sent events whose
data is JSON: `progress` (`audio_duration` and `audio_settled`, in seconds) every few seconds; `segments`, a list of
segments that are final, in order; and last `result`, the whole transcript, whose segments are those that were sent.
The stream begins once the recording is admitted and decoded; an error before that is an ordinary response, a later one
the last event, `error`, with the body of an error.
"""

_EVENTS: Json = {"type": "string", "description": "Events `progress`, `segments`, `result`, `error`."}

TRANSCRIBE: Json = {
    "summary": "Transcribe one recording",
    "description": _ABOUT_EVENTS,
    "responses": {
        200: {
            "description": "Transcript in the requested format.",
            "headers": {**REQ_ID, **TIMES, **ROUTED, **FALLBACK_ERROR},
            "content": {
                "application/json": {"schema": _TRANSCRIPT},
                "text/plain": {"schema": TEXT},
                "application/x-subrip": {"schema": TEXT},
                "text/vtt": {"schema": TEXT},
                "text/event-stream": {"schema": _EVENTS},
            },
        },
        **_errors(ON_UPLOADS, {**TIMES, **FALLBACK_ERROR}),
    },
    "openapi_extra": upload_request(_FORM),
}

_HEALTH_BODY = object_of({"ok": {"type": "boolean"}, "service": TEXT, "model": TEXT, "device": TEXT})

HEALTH: Json = {
    "summary": "Whether the service is ready",
    "response_class": JSONResponse,
    "responses": {
        code: {
            "description": description,
            "headers": dict(REQ_ID),
            "content": {"application/json": {"schema": _HEALTH_BODY}},
        }
        for code, description in (
            (200, "Ready."),
            (503, "Starting, stopping or unreachable: ok is false; other fields only if known."),
        )
    },
}

SNAPSHOT: Json = {
    "summary": "Counters, latency quantiles and the model's languages as JSON",
    "responses": {200: {"description": "The snapshot.", "headers": dict(REQ_ID)}, **_errors(UPSTREAM, {})},
}

METRICS: Json = {
    "summary": "Prometheus metrics",
    "response_class": PlainTextResponse,
    "responses": {
        200: {"description": "Prometheus text exposition format.", "headers": dict(REQ_ID)},
        **_errors(UPSTREAM, {}),
    },
}
