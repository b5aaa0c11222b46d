"""Maps errors to what callers receive: gRPC status, trailing metadata and `google.rpc` details."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import grpc
from google.protobuf import any_pb2, duration_pb2
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2
from grpc import StatusCode

from protos.stt.v1 import wire
from protos.stt.v1.errors import ERROR_DOMAIN, ERRORS, ErrorKind, header_safe
from stt_server.errors import Overloaded, SttError
from stt_server.rpc.call_state import CallState, trailing_metadata

log = logging.getLogger(__name__)

Context = grpc.aio.ServicerContext[Any, Any]

MAX_STATUS_MESSAGE_CHARS = 1024


def note_error(call: CallState, error: SttError) -> None:
    """Record an error in the call's state, and log the cause of a server-side error."""
    kind = ERRORS[error.type]
    call.fail(StatusCode[kind.status], kind, error.message)
    call.refused = error.reason if isinstance(error, Overloaded) else None
    cause = error.__cause__
    if kind.http >= 500 and cause is not None:
        log.warning("request failed: %s", kind.type, exc_info=cause, extra={"request_id": call.request_id})


async def abort(call: CallState, context: Context, error: SttError, now: float) -> None:
    """End a call with a noted error. Always raises.

    Args:
        now: monotonic seconds.
    """
    kind = ERRORS[error.type]
    entries = (*trailing_metadata(call, now), *error_metadata(kind, error.message, error.retry_after_s, error.field))
    # gRPC passes CR and LF on, and some clients fail on them.
    message = " ".join(error.message.split())[:MAX_STATUS_MESSAGE_CHARS]
    try:
        await context.abort(call.status, message, entries)
    except grpc.aio.InternalError:
        raise asyncio.CancelledError from None  # the caller disconnected meanwhile


def error_metadata(
    kind: ErrorKind, message: str, retry_after_s: float | None, field: str = ""
) -> list[tuple[str, str | bytes]]:
    """Trailing metadata of an error: type, message, when to retry, and the same as `google.rpc` details.

    Args:
        retry_after_s: None: the kind's default.
        field: path of the invalid field in the request message; empty: no single one.
    """
    wait = retry_after_s if retry_after_s is not None else kind.retry_after_s
    entries: list[tuple[str, str | bytes]] = [
        (wire.X_ERROR_TYPE, kind.type),
        (wire.X_ERROR_MESSAGE, header_safe(message)),
        (wire.GRPC_STATUS_DETAILS, _details(kind, message, wait, field)),
    ]
    if wait is not None and kind.sends_retry_after:
        entries.append((wire.RETRY_AFTER_MS, str(max(1, round(wait * 1000)))))
    if kind.pushed_back:
        entries.append((wire.GRPC_RETRY_PUSHBACK, "-1"))
    return entries


def _details(kind: ErrorKind, message: str, wait: float | None, field: str) -> bytes:
    details: list[Message] = [error_details_pb2.ErrorInfo(reason=kind.type.upper(), domain=ERROR_DOMAIN)]
    if wait is not None:
        delay = duration_pb2.Duration()
        delay.FromMilliseconds(round(wait * 1000))
        details.append(error_details_pb2.RetryInfo(retry_delay=delay))
    if field:
        violation = error_details_pb2.BadRequest.FieldViolation(field=field, description=header_safe(message))
        details.append(error_details_pb2.BadRequest(field_violations=[violation]))
    status = status_pb2.Status(code=StatusCode[kind.status].value[0], message=header_safe(message))
    for detail in details:
        packed = any_pb2.Any()
        packed.Pack(detail)
        status.details.append(packed)
    return bytes(status.SerializeToString())
