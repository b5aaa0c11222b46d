"""Parts of `/openapi.json` that FastAPI does not derive: the form, response bodies, headers, errors.

Written by hand where no type has the same shape: the form is parsed as a stream rather than by FastAPI, and the
transcript's JSON is built by `stt_client.results`, whose dataclasses name and scale fields differently (`total` in
seconds, `total_ms`). Choices, error types and codes come from the code. tests/gateway/test_endpoints.py compares the
schema with actual responses, and tests/faults/test_openapi.py runs schemathesis against it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from starlette.responses import JSONResponse, PlainTextResponse

from gateway.rest.form import FORMATS, ROUTINGS, TASKS
from protos.stt.v1.errors import ERRORS, FALLBACK_CODES
from protos.stt.v1.wire import REQUEST_ID_PATTERN
from stt_client.cues import DEFAULT_LAYOUT, LINE_COUNTS, LINE_WIDTHS

Json = dict[str, Any]

VERSION = "1"

DESCRIPTION = """\
Transcribes recordings with a small model. If its confidence is low, a larger model is used; the response says which
model answered, and why.

If the service requires a key, send `Authorization: Bearer KEY`. Every response has `X-Req-Id`: the caller's, if it sent
one of 1 to 64 letters, digits, `.`, `_` or `-`, else a new one. Errors are JSON,
`{"error": {"type", "message", "request_id"}}`, with `X-Error-Type` and `X-Error-Message`.
"""

_MS = {"type": "string", "pattern": r"^\d+\.\d$"}
_FLAG = {"type": "string", "enum": ["true", "false"]}
_TEXT = {"type": "string"}

_REQ_ID: Mapping[str, Json] = {"X-Req-Id": {"description": "Request id, also in the logs.", "schema": _TEXT}}

_TIMES: Mapping[str, Json] = {
    "X-Queue-Wait-ms": {"description": "Time in the queue, milliseconds.", "schema": _MS},
    "X-Primary-Infer-ms": {"description": "Inference of the small model, milliseconds.", "schema": _MS},
    "X-Fallback-Infer-ms": {"description": "Inference of the larger model, milliseconds.", "schema": _MS},
    "X-Total-ms": {"description": "Total time in the service, milliseconds.", "schema": _MS},
}

_ROUTED: Mapping[str, Json] = {
    "X-Fallback-Used": {"description": "Whether the larger model was used.", "schema": _FLAG},
    "X-Conf-Below": {"description": "Whether a confidence was below its threshold.", "schema": _FLAG},
    "X-Lang-Check-Applicable": {"description": "false: the caller set the language.", "schema": _FLAG},
    "X-Final-Model": {"description": "Model that produced the text.", "schema": _TEXT},
    "X-Route-Reason": {
        "description": "none, or comma-separated reasons: low_logprob,few_words.",
        "schema": _TEXT,
    },
}

_FALLBACK_ERROR: Mapping[str, Json] = {
    "X-Fallback-Error": {
        "description": "Only if the larger model was needed and failed.",
        "schema": {"type": "string", "enum": list(FALLBACK_CODES)},
    }
}

_ERROR_HEADERS: Mapping[str, Json] = {
    "X-Error-Type": {"description": "Type of the error.", "schema": {"type": "string", "enum": list(ERRORS)}},
    "X-Error-Message": {"description": "Printable ASCII, at most 256 bytes.", "schema": _TEXT},
}

_ERROR_BODY: Json = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["type", "message", "request_id"],
            "properties": {
                "type": {"type": "string", "enum": list(ERRORS)},
                "message": _TEXT,
                "request_id": _TEXT,
            },
        }
    },
}


def _errors(types: Iterable[str], headers: Mapping[str, Json]) -> dict[int | str, Json]:
    """Responses for error types, grouped by HTTP status."""
    by_code: dict[int | str, list[str]] = {}
    for type_ in types:
        by_code.setdefault(ERRORS[type_].http, []).append(type_)
    return {code: _error(code, found, headers) for code, found in sorted(by_code.items(), key=str)}


def _error(code: int | str, types: list[str], headers: Mapping[str, Json]) -> Json:
    all_headers = {**_REQ_ID, **_ERROR_HEADERS, **headers}
    if any(ERRORS[type_].sends_retry_after for type_ in types):
        all_headers["Retry-After"] = {"description": "Seconds to wait.", "schema": {"type": "integer", "minimum": 1}}
    if code == 401:
        all_headers["WWW-Authenticate"] = {"description": "Bearer", "schema": _TEXT}
    advice = " ".join(f"`{type_}`: {ERRORS[type_].advice}" for type_ in types)
    return {"description": advice, "headers": all_headers, "content": {"application/json": {"schema": _ERROR_BODY}}}


_SECONDS = {"type": "number", "description": "Seconds."}
_PROBABILITY = {"type": "number", "minimum": 0, "maximum": 1}
_MAYBE_PROBABILITY = {"type": ["number", "null"], "minimum": 0, "maximum": 1}


def _object(properties: Json) -> Json:
    return {"type": "object", "properties": properties}


def _list(items: Json) -> Json:
    return {"type": "array", "items": items}


_TRANSCRIPT = _object(
    {
        "request_id": _TEXT,
        "text": _TEXT,
        "language": {"type": "string", "description": "ISO 639-1."},
        "language_probability": {
            **_MAYBE_PROBABILITY,
            "description": "null: the caller set the language.",
        },
        "audio_duration": _SECONDS,
        "segments": _list(
            _object(
                {
                    "start": _SECONDS,
                    "end": _SECONDS,
                    "text": _TEXT,
                    "avg_logprob": {"type": "number", "description": "Natural log, mean over tokens."},
                    "no_speech_prob": _PROBABILITY,
                    "compression_ratio": {
                        "type": "number",
                        "description": "Over 2.4 suggests a repetition loop.",
                    },
                    "model": _TEXT,
                    "words": _list(
                        _object({"start": _SECONDS, "end": _SECONDS, "text": _TEXT, "probability": _PROBABILITY})
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
        "routing": _object(
            {
                "fallback_used": {"type": "boolean"},
                "final_model": _TEXT,
                "confidence_below": {"type": "boolean"},
                "language_check_applicable": {"type": "boolean"},
                "reasons": _list(_TEXT),
                "primary_confidence": _MAYBE_PROBABILITY,
                "fallback_confidence": _MAYBE_PROBABILITY,
                "fallback_error": {"type": "string", "enum": ["", *FALLBACK_CODES]},
            }
        ),
        "timings": _object(
            {
                name: {"type": "number", "description": "Milliseconds."}
                for name in ("queue_wait_ms", "primary_infer_ms", "fallback_infer_ms", "total_ms")
            }
        ),
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

_AT_LEAST_1 = {"type": "number", "minimum": 1}

_REQUEST_HEADERS = [
    ("Authorization", "Bearer KEY, if the service requires one.", _TEXT),
    ("X-Req-Id", f"Request id; replaced unless it matches ^{REQUEST_ID_PATTERN}$.", _TEXT),
    ("X-Timeout-Ms", "Deadline in milliseconds, from when the recording has been received.", _AT_LEAST_1),
]

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
            "headers": {**_REQ_ID, **_TIMES, **_ROUTED, **_FALLBACK_ERROR},
            "content": {
                "application/json": {"schema": _TRANSCRIPT},
                "text/plain": {"schema": _TEXT},
                "application/x-subrip": {"schema": _TEXT},
                "text/vtt": {"schema": _TEXT},
                "text/event-stream": {"schema": _EVENTS},
            },
        },
        # `cancelled` is never sent: the caller has disconnected.
        **_errors((type_ for type_ in ERRORS if type_ != "cancelled"), {**_TIMES, **_FALLBACK_ERROR}),
    },
    "openapi_extra": {
        "requestBody": {"required": True, "content": {"multipart/form-data": {"schema": _FORM}}},
        "parameters": [
            {"name": name, "in": "header", "required": False, "description": description, "schema": schema}
            for name, description, schema in _REQUEST_HEADERS
        ],
    },
}

_HEALTH_BODY = _object({"ok": {"type": "boolean"}, "service": _TEXT, "model": _TEXT, "device": _TEXT})

HEALTH: Json = {
    "summary": "Whether the service is ready",
    "response_class": JSONResponse,
    "responses": {
        code: {
            "description": description,
            "headers": dict(_REQ_ID),
            "content": {"application/json": {"schema": _HEALTH_BODY}},
        }
        for code, description in (
            (200, "Ready."),
            (503, "Starting, stopping or unreachable: ok is false; other fields only if known."),
        )
    },
}

_UPSTREAM = ("deadline_exceeded", "internal", "upstream_unavailable")

SNAPSHOT: Json = {
    "summary": "Counters, latency quantiles and the model's languages as JSON",
    "responses": {200: {"description": "The snapshot.", "headers": dict(_REQ_ID)}, **_errors(_UPSTREAM, {})},
}

METRICS: Json = {
    "summary": "Prometheus metrics",
    "response_class": PlainTextResponse,
    "responses": {
        200: {"description": "Prometheus text exposition format.", "headers": dict(_REQ_ID)},
        **_errors(_UPSTREAM, {}),
    },
}
