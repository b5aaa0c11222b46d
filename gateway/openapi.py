"""Parts of `/openapi.json` that all APIs of the gateway share: headers, errors, simple schemas.

Written by hand where FastAPI cannot derive them: forms are parsed as streams, and bodies are built from dataclasses
whose fields have other names and units. Choices, error types and codes come from the code.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from protos.stt.v1.errors import ERRORS, FALLBACK_CODES
from protos.stt.v1.wire import REQUEST_ID_PATTERN

Json = dict[str, Any]

VERSION = "1"

DESCRIPTION = """\
Transcribes recordings with a small model. If its confidence is low, a larger model is used; the response says which
model answered, and why.

If the service requires a key, send `Authorization: Bearer KEY`. Every response has `X-Req-Id`: the caller's, if it sent
one of 1 to 64 letters, digits, `.`, `_` or `-`, else a new one. Errors are JSON,
`{"error": {"type", "message", "request_id"}}`, with `X-Error-Type` and `X-Error-Message`.

`/v1/audio` and `/v1/models` are OpenAI's API, with its errors: `{"error": {"message", "type", "param", "code",
"request_id"}}`.
"""

TEXT: Json = {"type": "string"}
SECONDS: Json = {"type": "number", "description": "Seconds."}
PROBABILITY: Json = {"type": "number", "minimum": 0, "maximum": 1}
MAYBE_PROBABILITY: Json = {"type": ["number", "null"], "minimum": 0, "maximum": 1}

_MS = {"type": "string", "pattern": r"^\d+\.\d$"}
_FLAG = {"type": "string", "enum": ["true", "false"]}

REQ_ID: Mapping[str, Json] = {"X-Req-Id": {"description": "Request id, also in the logs.", "schema": TEXT}}

TIMES: Mapping[str, Json] = {
    "X-Queue-Wait-ms": {"description": "Time in the queue, milliseconds.", "schema": _MS},
    "X-Primary-Infer-ms": {"description": "Inference of the small model, milliseconds.", "schema": _MS},
    "X-Fallback-Infer-ms": {"description": "Inference of the larger model, milliseconds.", "schema": _MS},
    "X-Total-ms": {"description": "Total time in the service, milliseconds.", "schema": _MS},
}

ROUTED: Mapping[str, Json] = {
    "X-Fallback-Used": {"description": "Whether the larger model was used.", "schema": _FLAG},
    "X-Conf-Below": {"description": "Whether a confidence was below its threshold.", "schema": _FLAG},
    "X-Lang-Check-Applicable": {"description": "false: the caller set the language.", "schema": _FLAG},
    "X-Final-Model": {"description": "Model that produced the text.", "schema": TEXT},
    "X-Route-Reason": {
        "description": "none, or comma-separated reasons: low_logprob,few_words.",
        "schema": TEXT,
    },
}

FALLBACK_ERROR: Mapping[str, Json] = {
    "X-Fallback-Error": {
        "description": "Only if the larger model was needed and failed.",
        "schema": {"type": "string", "enum": list(FALLBACK_CODES)},
    }
}

_ERROR_HEADERS: Mapping[str, Json] = {
    "X-Error-Type": {"description": "Type of the error.", "schema": {"type": "string", "enum": list(ERRORS)}},
    "X-Error-Message": {"description": "Printable ASCII, at most 256 bytes.", "schema": TEXT},
}


def object_of(properties: Json) -> Json:
    """Schema of an object."""
    return {"type": "object", "properties": properties}


def list_of(items: Json) -> Json:
    """Schema of a list."""
    return {"type": "array", "items": items}


ROUTING = object_of(
    {
        "fallback_used": {"type": "boolean"},
        "final_model": TEXT,
        "confidence_below": {"type": "boolean"},
        "language_check_applicable": {"type": "boolean"},
        "reasons": list_of(TEXT),
        "primary_confidence": MAYBE_PROBABILITY,
        "fallback_confidence": MAYBE_PROBABILITY,
        "fallback_error": {"type": "string", "enum": ["", *FALLBACK_CODES]},
    }
)
"""Schema of the routing decision."""

TIMINGS = object_of(
    {
        name: {"type": "number", "description": "Milliseconds."}
        for name in ("queue_wait_ms", "primary_infer_ms", "fallback_infer_ms", "total_ms")
    }
)
"""Schema of the durations of the steps."""

_REQUEST_HEADERS = [
    ("Authorization", "Bearer KEY, if the service requires one.", TEXT),
    ("X-Req-Id", f"Request id; replaced unless it matches ^{REQUEST_ID_PATTERN}$.", TEXT),
    (
        "X-Timeout-Ms",
        "Deadline in milliseconds, from when the recording has been received.",
        {"type": "number", "minimum": 1},
    ),
]

ON_UPLOADS = tuple(type_ for type_ in ERRORS if type_ != "cancelled")
"""Error types of a transcription. `cancelled` is never sent: the caller has disconnected."""
UPSTREAM = ("deadline_exceeded", "internal", "upstream_unavailable")
"""Error types of calls that need no key."""


def errors(
    types: Iterable[str], body: Json, status: Callable[[str], int], headers: Mapping[str, Json]
) -> dict[int | str, Json]:
    """Responses for error types, grouped by HTTP status.

    Args:
        body: schema.
        status: HTTP status of a type.
        headers: besides those of every error.
    """
    by_code: dict[int | str, list[str]] = {}
    for type_ in types:
        by_code.setdefault(status(type_), []).append(type_)
    return {code: _error(code, found, body, headers) for code, found in sorted(by_code.items(), key=str)}


def _error(code: int | str, types: list[str], body: Json, headers: Mapping[str, Json]) -> Json:
    all_headers = {**REQ_ID, **_ERROR_HEADERS, **headers}
    if any(ERRORS[type_].sends_retry_after for type_ in types):
        all_headers["Retry-After"] = {"description": "Seconds to wait.", "schema": {"type": "integer", "minimum": 1}}
    if code == 401:
        all_headers["WWW-Authenticate"] = {"description": "Bearer", "schema": TEXT}
    advice = " ".join(f"`{type_}`: {ERRORS[type_].advice}" for type_ in types)
    return {"description": advice, "headers": all_headers, "content": {"application/json": {"schema": body}}}


def upload_request(form: Json) -> Json:
    """The `openapi_extra` of a path that takes a form with a recording."""
    return {
        "requestBody": {"required": True, "content": {"multipart/form-data": {"schema": form}}},
        "parameters": [
            {"name": name, "in": "header", "required": False, "description": description, "schema": schema}
            for name, description, schema in _REQUEST_HEADERS
        ],
    }
