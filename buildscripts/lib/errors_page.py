"""Generator of docs/errors.md from the error table."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping

from protos.stt.v1.errors import ErrorKind, FallbackKind

_NAMES = re.compile(r"\b(?:stt_\w+|[A-Z]{2,}(?:_[A-Z]+)+|X-(?:\.\.\.-)?[\w-]+|Retry-After)|--target|/openapi\.json")
"""Names of keys, metrics and headers, which are set as code."""

_HEAD = """\
# Errors

Written by `buildscripts/errors` from the table in `protos/stt/v1/errors.py`: change that, not this page.

Over gRPC an error has its status, the trailing metadata `x-error-type`, `x-error-message` and `x-req-id`, and
`google.rpc.ErrorInfo` (the type in capitals, domain `stt.v1`). Over REST it has its HTTP code, the headers
`X-Error-Type`, `X-Error-Message` and `X-Req-Id`, and the same as JSON, `{"error": {"type", "message", "request_id"}}`.
Choose by the type; the message is for people. What to do at night, step by step, is in [runbooks.md](runbooks.md).
"""

_TABLE = """
## All of them

| type | gRPC status | HTTP | try again? | after |
|---|---|---|---|---|
"""

_RETRY_NOTES = """
- **no**: the same request fails again.
- **yes, after**: once the wait is over. **elsewhere**: at once with another service of the same kind, as `SttPool`
  does by itself; with the same one once the wait is over.
- The wait is what to go by where the service doesn't say better: in `Retry-After` (REST, whole seconds) or
  `retry-after-ms` (gRPC) of 429 and 503, and in `google.rpc.RetryInfo` of every error that is worth trying again.
- **not by itself**: a gRPC library must not try again on its own, and is told so by the trailer
  `grpc-retry-pushback-ms: -1`. The caller may, after the wait.
- 499 is in logs only: nobody is left to be told.
- A status without `x-error-type` is not ours: a proxy's, or gRPC's own, such as RESOURCE_EXHAUSTED for a message or
  metadata over its limit, and CANCELLED for a call that its caller didn't cancel: it came while the service ended, or
  in a flood, and nobody saw it. Try that one again, elsewhere if you can, as the SDK does. An HTTP code without
  `X-Error-Type` is the ingress's.
"""

_WHAT_TO_DO = """
## What to do

| type | the caller | the operator |
|---|---|---|
"""

_FALLBACK = """
## Why the fallback did not answer

`X-Fallback-Error` (`x-fallback-error`, and `routing.fallback_error` in a response) comes with a `fallback_failed`, and
with the primary's text where `FALLBACK_ON_ERROR=degrade`. It is one of these:

| code | what happened | the operator |
|---|---|---|
"""


def page(errors: Mapping[str, ErrorKind], fallback_codes: Mapping[str, FallbackKind]) -> str:
    """Text of the page, in Markdown."""
    kinds = errors.values()
    return "".join(
        (
            _HEAD,
            _TABLE,
            *_rows((f"`{k.type}`", k.status or "-", str(k.http), _retry(k), _wait(k)) for k in kinds),
            _RETRY_NOTES,
            _WHAT_TO_DO,
            *_rows((f"`{k.type}`", _marked(k.advice), _marked(k.operator)) for k in kinds),
            _FALLBACK,
            *_rows((f"`{k.code}`", _marked(k.meaning), _marked(k.operator)) for k in fallback_codes.values()),
        )
    )


def _rows(rows: Iterable[tuple[str, ...]]) -> Iterator[str]:
    return (f"| {' | '.join(row)} |\n" for row in rows)


def _marked(sentence: str) -> str:
    return _NAMES.sub(r"`\g<0>`", sentence)


def _retry(kind: ErrorKind) -> str:
    said = {"no": "no", "after": "yes, after", "elsewhere": "elsewhere"}[kind.retry]
    return f"{said}; not by itself" if kind.pushed_back else said


def _wait(kind: ErrorKind) -> str:
    return "-" if kind.retry_after_s is None else f"{kind.retry_after_s:g} s"
