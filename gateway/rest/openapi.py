"""What `/openapi.json` says beyond what FastAPI finds in the code: the form, the headers, the errors."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from starlette.responses import JSONResponse, PlainTextResponse

from gateway.rest.form import FORMATS, ROUTINGS, TASKS
from protos.stt.v1.errors import ERRORS, FALLBACK_CODES
from protos.stt.v1.wire import REQUEST_ID_PATTERN

Json = dict[str, Any]

VERSION = "1"

DESCRIPTION = """\
Transcribes recordings. A small model answers; where it is unsure, a larger one does, and the response says which
and why.

Where the service has keys, send `Authorization: Bearer KEY`. Every response carries `X-Req-Id`: the caller's own, if it
sent one of 1 to 64 letters, digits, `.`, `_` or `-`, else a new one. Errors are JSON,
`{"error": {"type", "message", "request_id"}}`, with `X-Error-Type` and `X-Error-Message`.
"""

_MS = {"type": "string", "pattern": r"^\d+\.\d$"}
_FLAG = {"type": "string", "enum": ["true", "false"]}
_TEXT = {"type": "string"}

_REQ_ID: Mapping[str, Json] = {"X-Req-Id": {"description": "The request's id, as logs have it.", "schema": _TEXT}}

_TIMES: Mapping[str, Json] = {
    "X-Queue-Wait-ms": {"description": "Waiting for a slot, milliseconds.", "schema": _MS},
    "X-Primary-Infer-ms": {"description": "The small model's work, milliseconds.", "schema": _MS},
    "X-Fallback-Infer-ms": {"description": "The larger model's work, milliseconds.", "schema": _MS},
    "X-Total-ms": {"description": "All of it, as the service measured it, milliseconds.", "schema": _MS},
}

_ROUTED: Mapping[str, Json] = {
    "X-Fallback-Used": {"description": "The larger model was asked and answered.", "schema": _FLAG},
    "X-Conf-Below": {"description": "A confidence check fell below its threshold.", "schema": _FLAG},
    "X-Lang-Check-Applicable": {"description": "false: the caller forced the language.", "schema": _FLAG},
    "X-Final-Model": {"description": "The model whose text this is.", "schema": _TEXT},
    "X-Route-Reason": {
        "description": "none, or reasons joined by commas: low_logprob,few_words.",
        "schema": _TEXT,
    },
}

_FALLBACK_ERROR: Mapping[str, Json] = {
    "X-Fallback-Error": {
        "description": "Only if the larger model was wanted and did not answer.",
        "schema": {"type": "string", "enum": list(FALLBACK_CODES)},
    }
}

_TOLD: Mapping[str, Json] = {
    "X-Error-Type": {"description": "What went wrong.", "schema": {"type": "string", "enum": list(ERRORS)}},
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
    """The responses for some rows of the error table, one an HTTP code."""
    by_code: dict[int | str, list[str]] = {}
    for type_ in types:
        by_code.setdefault(ERRORS[type_].http, []).append(type_)
    return {code: _error(code, found, headers) for code, found in sorted(by_code.items(), key=str)}


def _error(code: int | str, types: list[str], headers: Mapping[str, Json]) -> Json:
    told = {**_REQ_ID, **_TOLD, **headers}
    if any(ERRORS[type_].sends_retry_after for type_ in types):
        told["Retry-After"] = {"description": "Seconds to wait.", "schema": {"type": "integer", "minimum": 1}}
    if code == 401:
        told["WWW-Authenticate"] = {"description": "Bearer", "schema": _TEXT}
    advice = " ".join(f"`{type_}`: {ERRORS[type_].advice}" for type_ in types)
    return {"description": advice, "headers": told, "content": {"application/json": {"schema": _ERROR_BODY}}}


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
            "description": "null: the caller forced the language.",
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
        "model": {"type": "string", "description": "The model whose text this is."},
    }
)

_FORM: Json = {
    # An empty field is the same as none.
    "type": "object",
    "required": ["audio"],
    "additionalProperties": False,
    "properties": {
        "audio": {
            "type": "string",
            "format": "binary",
            "description": "The recording: WAV, FLAC, MP3, Ogg/Opus, M4A or WebM.",
        },
        "language": {
            "type": "string",
            "format": "language",
            "description": "ISO 639-1 code such as en, of a language that the model knows. Empty: detected.",
            "example": "en",
        },
        "candidate_languages": {
            "type": "string",
            "format": "languages",
            "description": "Codes separated by commas; detection chooses among these only.",
        },
        "task": {
            "type": "string",
            "enum": [*TASKS, ""],
            "default": "transcribe",
            "description": "translate: the text in English.",
        },
        "prompt": {
            "type": "string",
            "description": "Text that precedes the recording: style and vocabulary.",
        },
        "hotwords": {"type": "string", "description": "Words to expect, separated by commas."},
        "word_timestamps": {"type": "boolean", "default": False, "description": "true, false, 1 or 0."},
        "routing": {
            "type": "string",
            "enum": [*ROUTINGS, ""],
            "default": "auto",
            "description": "auto: the service's thresholds decide which model answers.",
        },
        "response_format": {"type": "string", "enum": [*FORMATS, ""], "default": "json"},
    },
}

_AT_LEAST_1 = {"type": "number", "minimum": 1}

_REQUEST_HEADERS = [
    ("Authorization", "Bearer KEY, where the service has keys.", _TEXT),
    ("X-Req-Id", f"An id of your own; one that does not match ^{REQUEST_ID_PATTERN}$ is replaced.", _TEXT),
    ("X-Timeout-Ms", "Milliseconds to allow for the answer once the recording is in.", _AT_LEAST_1),
]

TRANSCRIBE: Json = {
    "summary": "Transcribe one recording",
    "responses": {
        200: {
            "description": "The transcript, in the format asked for.",
            "headers": {**_REQ_ID, **_TIMES, **_ROUTED, **_FALLBACK_ERROR},
            "content": {
                "application/json": {"schema": _TRANSCRIPT},
                "text/plain": {"schema": _TEXT},
                "application/x-subrip": {"schema": _TEXT},
                "text/vtt": {"schema": _TEXT},
            },
        },
        # The gateway never sends `cancelled`: there is nobody left to read it.
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
    "summary": "Whether the service can take requests",
    "response_class": JSONResponse,
    "responses": {
        code: {
            "description": description,
            "headers": dict(_REQ_ID),
            "content": {"application/json": {"schema": _HEALTH_BODY}},
        }
        for code, description in (
            (200, "It can."),
            (503, "Starting, stopping or out of reach: ok is false, and the rest is there as far as known."),
        )
    },
}

_UPSTREAM = ("deadline_exceeded", "internal", "upstream_unavailable")

SNAPSHOT: Json = {
    "summary": "Counters and latency quantiles as JSON",
    "responses": {200: {"description": "The snapshot.", "headers": dict(_REQ_ID)}, **_errors(_UPSTREAM, {})},
}

METRICS: Json = {
    "summary": "Metrics for Prometheus",
    "response_class": PlainTextResponse,
    "responses": {
        200: {"description": "Exposition format.", "headers": dict(_REQ_ID)},
        **_errors(_UPSTREAM, {}),
    },
}
