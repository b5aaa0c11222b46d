"""Parts of `/openapi.json` about OpenAI's audio API."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from gateway.http.fields import ROUTINGS
from gateway.openai.errors import OPENAI_ERRORS
from gateway.openai.form import BOOLEANS, FORMATS, GRANULARITIES, STREAMED_FORMATS
from gateway.openapi import (
    FALLBACK_ERROR,
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

_REQUEST_ID: Mapping[str, Json] = {**REQ_ID, "x-request-id": {"description": "The same.", "schema": TEXT}}

_SHOULD_RETRY: Mapping[str, Json] = {
    "x-should-retry": {
        "description": "Whether a library may retry by itself.",
        "schema": {"type": "string", "enum": list(BOOLEANS)},
    }
}

_ERROR_BODY: Json = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["message", "type", "param", "code", "request_id"],
            "properties": {
                "message": TEXT,
                "type": {"type": "string", "enum": sorted({row.type for row in OPENAI_ERRORS.values()})},
                "param": {"type": ["string", "null"], "description": "Field of the form that caused the error."},
                "code": TEXT,
                "request_id": TEXT,
            },
        }
    },
}


def _errors(types: Iterable[str], headers: Mapping[str, Json]) -> dict[int | str, Json]:
    all_headers = {**_REQUEST_ID, **_SHOULD_RETRY, **headers}
    return errors(types, _ERROR_BODY, lambda type_: OPENAI_ERRORS[type_].http, all_headers)


def _choice(choices: Iterable[str], default: str, description: str) -> Json:
    # An empty field has its default, therefore "" among the choices.
    return {"type": "string", "enum": [*choices, ""], "default": default, "description": description}


_COMMON: Json = {
    "file": {"type": "string", "format": "binary", "description": "The recording; its content decides on its type."},
    "model": {"type": "string", "description": "Any name: the pair of models routes as it is configured."},
    "prompt": {"type": "string", "description": "Text that precedes the recording: style and vocabulary."},
    "response_format": _choice(FORMATS, "json", "Format of the response."),
    "temperature": {"type": "string", "pattern": r"^(0(\.\d{1,9})?|1)?$", "description": "0 to 1; changes nothing."},
    "routing": _choice(ROUTINGS, "auto", "auto: the service's thresholds decide which model is used."),
}

_TRANSCRIPTION: Json = {
    **_COMMON,
    "language": {
        "type": "string",
        "format": "language",
        "description": "Code (en), locale (en-US) or English name (English), in any case; auto: detect.",
    },
    "languages": {
        "type": "string",
        "format": "languages",
        "description": "Comma-separated, or languages[] repeated: detection chooses among these. One alone: language.",
    },
    "keywords": {"type": "string", "description": "Comma-separated words to expect, or keywords[] repeated."},
    "hotwords": {"type": "string", "description": "As keywords."},
    "timestamp_granularities": _choice(
        GRANULARITIES, "segment", "word: verbose_json has words, too. Comma-separated, or name[] repeated."
    ),
    "stream": _choice(BOOLEANS, "false", "true, with json or text: the text as events, while it is transcribed."),
}


_STREAMED: Json = {
    "anyOf": [
        {"properties": {"stream": {"enum": ["false", ""]}}},
        {"properties": {"response_format": {"enum": [*STREAMED_FORMATS, ""]}}},
    ]
}
"""Which formats may be streamed."""


def _form(properties: Json) -> Json:
    more = _STREAMED if "stream" in properties else {}
    return {"type": "object", "required": ["file"], "properties": properties, **more}


_LANGUAGES = list_of(object_of({"code": TEXT}))
_USAGE = object_of({"type": {"type": "string", "enum": ["duration"]}, "seconds": SECONDS})
_INTEGER: Json = {"type": "integer"}

_SEGMENT = object_of(
    {
        "id": _INTEGER,
        "seek": {"type": "integer", "description": "Always 0."},
        "start": SECONDS,
        "end": SECONDS,
        "text": TEXT,
        "tokens": {**list_of(_INTEGER), "description": "Always empty."},
        "temperature": {"type": "number", "description": "Always 0."},
        "avg_logprob": {"type": "number", "description": "Natural log, mean over tokens."},
        "compression_ratio": {"type": "number", "description": "Over 2.4 suggests a repetition loop."},
        "no_speech_prob": PROBABILITY,
        "model": {"type": "string", "description": "Model that produced the text."},
    }
)

_WORD = object_of({"word": TEXT, "start": SECONDS, "end": SECONDS, "probability": PROBABILITY})

_JSON = object_of(
    {
        "text": TEXT,
        "languages": _LANGUAGES,
        "usage": _USAGE,
        "task": {
            "type": "string",
            "enum": ["transcribe", "translate"],
            "description": "This and all below: verbose_json.",
        },
        "language": {"type": "string", "description": "English name of the language, in lower case."},
        "duration": SECONDS,
        "segments": list_of(_SEGMENT),
        "words": {**list_of(_WORD), "description": "With timestamp_granularities=word."},
        "routing": ROUTING,
        "timings": TIMINGS,
    }
)

_STREAM = """\
With `stream=true` the answer is server-sent events: `transcript.text.delta` as segments are settled, whose `delta`s put
together are the text; `transcript.text.done` with the whole `text`; and `data: [DONE]`. The stream begins once the
recording is admitted and decoded; an error before that is an ordinary response, a later one the last event.
"""

_EVENT: Json = object_of({"data": {"type": "string", "description": "JSON with `type`, or `[DONE]`."}})


def _upload(summary: str, description: str, fields: Json, content: Json) -> Json:
    return {
        "summary": summary,
        "description": description,
        "tags": ["OpenAI"],
        "responses": {
            200: {
                "description": "Transcript in the requested format.",
                "headers": {**_REQUEST_ID, **TIMES, **ROUTED, **FALLBACK_ERROR},
                "content": {
                    "application/json": {"schema": _JSON},
                    "text/plain": {"schema": TEXT},
                    "application/x-subrip": {"schema": TEXT},
                    "text/vtt": {"schema": TEXT},
                    **content,
                },
            },
            **_errors(ON_UPLOADS, {**TIMES, **FALLBACK_ERROR}),
        },
        "openapi_extra": upload_request(_form(fields)),
    }


TRANSCRIPTIONS = _upload(
    "Transcribe a recording, as OpenAI's API", _STREAM, _TRANSCRIPTION, {"text/event-stream": {"schema": _EVENT}}
)
TRANSLATIONS = _upload("Translate a recording to English, as OpenAI's API", "", _COMMON, {})

_MODEL = object_of({"id": TEXT, "object": {"type": "string", "enum": ["model"]}, "created": _INTEGER, "owned_by": TEXT})
_KEYED = ("unauthenticated", *UPSTREAM)


def _get(summary: str, schema: Json, more: Mapping[int | str, Json]) -> Json:
    success = {
        "description": "Models.",
        "headers": dict(_REQUEST_ID),
        "content": {"application/json": {"schema": schema}},
    }
    return {"summary": summary, "tags": ["OpenAI"], "responses": {200: success, **_errors(_KEYED, {}), **more}}


_NOT_FOUND: Json = {
    "description": "`model_not_found`",
    "headers": {**_REQUEST_ID, **_SHOULD_RETRY},
    "content": {"application/json": {"schema": _ERROR_BODY}},
}

MODELS = _get(
    "List the models", object_of({"object": {"type": "string", "enum": ["list"]}, "data": list_of(_MODEL)}), {}
)
MODEL = _get("A model by its id", _MODEL, {404: _NOT_FOUND})
