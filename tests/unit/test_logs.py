from __future__ import annotations

import io
import json
import logging
import re
from collections.abc import Iterator
from dataclasses import fields
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from stt_server.observability.call_record import CallRecord
from stt_server.observability.instruments import Observer
from stt_server.observability.logs import configure, log_call
from stt_server.observability.metrics import Metrics
from stt_server.observability.snapshot import Snapshot
from tests.support.call_records import a_call, refused

logger = logging.getLogger("stt.requests")


@pytest.fixture(autouse=True)
def _root_logger_is_restored() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


@pytest.fixture
def stream() -> io.StringIO:
    return io.StringIO()


def lines(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_metadata_in_messages_of_grpc_is_not_logged(stream: io.StringIO) -> None:
    configure("json", "info", stream)
    try:
        b"Bearer KEY\xff".decode()
    except UnicodeDecodeError:
        logging.getLogger("grpc._cython.cygrpc").exception("Invalid encoding on %s", b"Bearer KEY\xff")
    (line,) = lines(stream)
    assert (line["level"], line["message"]) == ("WARNING", "received metadata that is not UTF-8 (content not logged)")
    assert "KEY" not in stream.getvalue() and "Traceback" not in stream.getvalue()


def test_a_request_is_logged_as_one_line(stream: io.StringIO) -> None:
    configure("json", "info", stream)
    call = a_call(
        fallback_result="used", route_reasons=("low_logprob", "few_words"), fallback_infer=1.23456, total=1.75
    )
    log_call(logger, call)
    (line,) = lines(stream)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", line.pop("time"))
    assert line == {
        "level": "INFO",
        "logger": "stt.requests",
        "message": "request finished",
        "request_id": "req-1",
        "endpoint": "/v1/transcribe",
        "method": "/stt.v1.SpeechToText/Transcribe",
        "key_name": "web",
        "status": "OK",
        "http": 200,
        "model": "whisper-base-ct2",
        "language": "en",
        "route_reasons": ["low_logprob", "few_words"],
        "fallback": "used",
        "queue_wait_ms": 10.0,
        "primary_infer_ms": 400.0,
        "fallback_infer_ms": 1234.6,
        "total_ms": 1750.0,
        "audio_seconds": 4.0,
        "audio_bytes": 128044,
    }


@pytest.mark.parametrize(
    ("error_type", "status", "http", "level"),
    [
        ("internal", "INTERNAL", 500, "WARNING"),
        ("fallback_failed", "UNAVAILABLE", 502, "WARNING"),
        ("overloaded", "UNAVAILABLE", 503, "WARNING"),
        ("unauthenticated", "UNAUTHENTICATED", 401, "INFO"),
        ("cancelled", "CANCELLED", 499, "INFO"),
    ],
)
def test_only_failures_of_the_service_are_warnings(
    stream: io.StringIO, error_type: str, status: str, http: int, level: str
) -> None:
    configure("json", "info", stream)
    log_call(logger, refused(error_type, status, http, error_message="Sent to the caller.", fallback_error="x"))
    (line,) = lines(stream)
    assert line["level"] == level
    assert (line["error_type"], line["status"], line["http"]) == (error_type, status, http)
    assert (line["error_message"], line["fallback_error"]) == ("Sent to the caller.", "x")
    assert not {"model", "primary_infer_ms", "route_reasons", "fallback"} & set(line)


def test_a_call_record_has_no_field_for_confidential_data() -> None:
    # Add a new field here only if a log may show it.
    assert {field.name for field in fields(CallRecord)} == {
        *("endpoint", "method", "request_id", "key_name", "status", "http", "error_type", "refused", "error_message"),
        *("model", "route_reasons", "fallback_result", "fallback_error", "suppressed", "redecoded_seconds", "language"),
        *("queue_wait", "primary_infer", "fallback_infer", "total", "audio_seconds", "audio_bytes", "span", "steps"),
    }


def test_a_traceback_is_one_field_of_one_line(stream: io.StringIO) -> None:
    configure("json", "info", stream)
    try:
        raise ValueError("first\nsecond")
    except ValueError:
        logger.exception("it failed", extra={"request_id": "req-9"})
    (line,) = lines(stream)
    assert line["request_id"] == "req-9"
    assert line["exception"].startswith("Traceback")
    assert line["exception"].endswith("ValueError: first\nsecond")


def test_json_lines_cannot_be_forged(stream: io.StringIO) -> None:
    configure("json", "info", stream)
    logger.info('a\n{"level": "ERROR"}\u2028\ud800', extra={"x": "b\r\nc"})
    (line,) = lines(stream)
    assert line["x"] == "b\r\nc"
    assert stream.getvalue().isascii()


def test_text_lines_cannot_be_forged(stream: io.StringIO) -> None:
    configure("text", "info", stream)
    logger.info("a\n2026-01-01 forged \x1b[2J", extra={"x": "b\r\nc"})
    (line,) = stream.getvalue().splitlines()
    assert line.endswith(r" INFO stt.requests: a\n2026-01-01 forged \x1b[2J x=b\r\nc")


def test_text_shows_the_fields_of_a_request_and_tracebacks(stream: io.StringIO) -> None:
    configure("text", "info", stream)
    log_call(logger, a_call())
    logger.error("broke", exc_info=ValueError("why"))
    first, second, third = stream.getvalue().splitlines()
    assert "request_id=req-1" in first
    assert "total_ms=500.0" in first
    assert second.endswith("ERROR stt.requests: broke")
    assert third == "ValueError: why"


def test_the_last_configuration_of_level_and_stream_counts(stream: io.StringIO) -> None:
    configure("text", "debug", io.StringIO())
    configure("json", "WARNING", stream)
    logger.info("unseen")
    logger.warning("seen")
    assert [line["message"] for line in lines(stream)] == ["seen"]
    with pytest.raises(ValueError, match="LOUD"):
        configure("json", "loud", stream)


class BrokenPipe(io.StringIO):
    def write(self, text: str) -> int:
        raise BrokenPipeError


@pytest.mark.parametrize("state", ["closed", "broken"])
def test_an_unwritable_log_fails_no_request(state: str, capsys: pytest.CaptureFixture[str]) -> None:
    log = BrokenPipe() if state == "broken" else io.StringIO()
    if state == "closed":
        log.close()
    configure("json", "info", log)
    metrics, snapshot = Metrics(CollectorRegistry()), Snapshot("c", "m", "primary")
    Observer(metrics, snapshot, logger).finished(a_call())
    assert snapshot.as_dict(0, 0, None)["requests"]["total"] == 1
    assert 'stt_requests_total{endpoint="/v1/transcribe"} 1.0' in metrics.exposition()[0]
    assert capsys.readouterr().err == ""


def test_the_observer_records_each_call_once_everywhere(stream: io.StringIO) -> None:
    configure("json", "info", stream)
    metrics, snapshot = Metrics(CollectorRegistry()), Snapshot("c", "m", "primary")
    observer = Observer(metrics, snapshot, logger)
    observer.finished(a_call(fallback_result="failed", fallback_error="unavailable"))
    observer.finished(refused("empty_audio", "INVALID_ARGUMENT", 400, request_id="req-2"))
    assert [line["request_id"] for line in lines(stream)] == ["req-1", "req-2"]
    shown = snapshot.as_dict(0, 0, None)
    assert (shown["requests"], shown["fallback"]["failed"]) == ({"total": 2, "errors": {"empty_audio": 1}}, 1)
    text = metrics.exposition()[0]
    assert 'stt_requests_total{endpoint="/v1/transcribe"} 2.0' in text
    assert 'stt_fallback_total{result="failed"} 1.0' in text
    assert 'stt_requests_exceptions_total{endpoint="/v1/transcribe",type="empty_audio"} 1.0' in text
