"""Log formats (JSON lines, or text for a terminal) and the request log: one line per finished request.

No line holds a key, an address or a transcript: `CallRecord` has no field for them.
"""

from __future__ import annotations

import logging
import sys
from datetime import datetime, timezone
from typing import Literal, TextIO

from pythonjsonlogger.json import JsonFormatter

from protos.stt.v1.trace_context import add_trace
from stt_server.observability.call_record import CallRecord

LEVELS = ("debug", "info", "warning", "error")
"""Values of `LOG_LEVEL`, most verbose first."""
LogFormat = Literal["json", "text"]

_STANDARD = frozenset(logging.makeLogRecord({}).__dict__) | {
    "message",
    "asctime",
    "taskName",
    "color_message",
}
"""Attributes that are no fields of `extra`. `color_message` is uvicorn's: the message with terminal colours."""

_UNPRINTABLE = {code: f"\\x{code:02x}" for code in (*range(32), *range(127, 160))} | {
    ord("\n"): "\\n",
    ord("\r"): "\\r",
    ord("\t"): "\\t",
}


def configure(format: LogFormat, level: str, stream: TextIO | None = None) -> None:
    """Make the root logger write to `stream` only, replacing an earlier configuration. For entry points.

    Args:
        format: `LOG_FORMAT`.
        level: `LOG_LEVEL`, upper or lower case.
        stream: None: standard error.

    Raises:
        ValueError: unknown level.
    """
    handler = _LossyHandler(sys.stderr if stream is None else stream)
    handler.setFormatter(_json_formatter() if format == "json" else _TextFormatter())
    handler.addFilter(_redact_metadata)
    handler.addFilter(add_trace)
    set_level(level)
    root = logging.getLogger()
    root.handlers[:] = [handler]


def _redact_metadata(record: logging.LogRecord) -> bool:
    """Drop metadata and traceback from gRPC's message about metadata that isn't UTF-8: it may be a mistyped key."""
    if record.name == "grpc._cython.cygrpc" and str(record.msg).startswith("Invalid encoding"):
        record.msg, record.args, record.exc_info = "received metadata that is not UTF-8 (content not logged)", (), None
        record.levelno, record.levelname = logging.WARNING, "WARNING"
    return True


def set_level(level: str) -> None:
    """Set the root logger's level. Raises ValueError for an unknown level."""
    logging.getLogger().setLevel(level.upper())


def log_call(logger: logging.Logger, call: CallRecord) -> None:
    """Log a finished request: WARNING if the service failed (HTTP 5xx), else INFO."""
    level = logging.WARNING if call.http >= 500 else logging.INFO
    logger.log(level, "request finished", extra=_fields(call))


def _fields(call: CallRecord) -> dict[str, object]:
    """Fields of the line, without those whose value is unknown. Durations in milliseconds."""
    fields: dict[str, object | None] = {
        "request_id": call.request_id,
        "endpoint": call.endpoint,
        "method": call.method,
        "key_name": call.key_name,
        "status": call.status,
        "http": call.http,
        "error_type": call.failure,
        "error_message": call.error_message or None,
        "model": call.model,
        "language": call.language,
        "route_reasons": list(call.route_reasons) if call.fallback_result is not None else None,
        "fallback": call.fallback_result,
        "fallback_error": call.fallback_error or None,
        "suppressed": list(call.suppressed) or None,
        "redecoded_s": round(call.redecoded_seconds, 1) or None,
        "queue_wait_ms": _ms(call.queue_wait),
        "primary_infer_ms": _ms(call.primary_infer),
        "fallback_infer_ms": _ms(call.fallback_infer),
        "total_ms": _ms(call.total),
        "audio_seconds": None if call.audio_seconds is None else round(call.audio_seconds, 3),
        "audio_bytes": call.audio_bytes,
    }
    return {name: value for name, value in fields.items() if value is not None}


def _ms(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds * 1000, 1)


def _utc(record: logging.LogRecord) -> str:
    """Time of the record: ISO 8601, UTC, milliseconds."""
    moment = datetime.fromtimestamp(record.created, tz=timezone.utc)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


class _JsonFormatter(JsonFormatter):
    def formatTime(self, record: logging.LogRecord, datefmt: str | None = None) -> str:  # noqa: N802
        return _utc(record)


def _json_formatter() -> logging.Formatter:
    return _JsonFormatter(
        "%(asctime)s %(levelname)s %(name)s %(message)s",
        rename_fields={
            "asctime": "time",
            "levelname": "level",
            "name": "logger",
            "exc_info": "exception",
            "stack_info": "stack",
        },
        reserved_attrs=sorted(_STANDARD),
    )


class _TextFormatter(logging.Formatter):
    """`TIME LEVEL LOGGER: MESSAGE field=value ...`, followed by the traceback if there is one.

    Control characters are escaped, so that callers' input can neither forge lines nor control a terminal.
    """

    def format(self, record: logging.LogRecord) -> str:
        extras = (f" {name}={value}" for name, value in record.__dict__.items() if name not in _STANDARD)
        line = f"{_utc(record)} {record.levelname} {record.name}: {record.getMessage()}{''.join(extras)}"
        line = line.translate(_UNPRINTABLE)
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line


class _LossyHandler(logging.StreamHandler):  # type: ignore[type-arg]  # no subscript before Python 3.11
    """Drops and counts lines that can't be written: a full disk or a closed pipe must not fail a request."""

    dropped = 0

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802
        self.dropped += 1
