"""Records of finished calls for tests of logs and metrics."""

from __future__ import annotations

from typing import Any

from stt_server.observability.call_record import TRANSCRIBE, CallRecord

ORDINARY: dict[str, Any] = {
    "endpoint": TRANSCRIBE,
    "method": "/stt.v1.SpeechToText/Transcribe",
    "request_id": "req-1",
    "key_name": "web",
    "status": "OK",
    "http": 200,
    "total": 0.5,
    "model": "whisper-base-ct2",
    "route_reasons": (),
    "fallback_result": "skipped",
    "queue_wait": 0.01,
    "primary_infer": 0.4,
    "audio_seconds": 4.0,
    "audio_bytes": 128_044,
    "language": "en",
}


def a_call(**differences: Any) -> CallRecord:
    """A successful call with some fields replaced."""
    return CallRecord(**{**ORDINARY, **differences})


def refused(error_type: str, status: str, http: int, **differences: Any) -> CallRecord:
    """A call that failed before routing."""
    unknown = dict.fromkeys(("fallback_result", "queue_wait", "primary_infer", "audio_seconds", "model", "language"))
    return a_call(**{**unknown, "error_type": error_type, "status": status, "http": http, **differences})
